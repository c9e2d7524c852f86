"""How often ``bnlib.diagnose`` runs the model: a check that needs more passes has to say so here."""

import pytest
import torch
from doctor_examples import batches, displaced, trained

from bnlib import samplers
from bnlib.doctor import diagnose
from bnlib.doctor.loss_gaps import gaps_are_clear


def passes(model, few, **options):
    """Return the number of forward passes and of backward passes: the hooks are copied together with the model."""
    found = {"forward": 0, "backward": 0}

    def count(kind):
        found[kind] += 1

    def after(module, inputs, outputs):
        count("forward")
        if outputs.requires_grad:
            outputs.register_hook(lambda gradient: count("backward"))

    hook = model.register_forward_hook(after)
    report = diagnose(model, few, **options)
    hook.remove()
    return found["forward"], found["backward"], report.codes


def without_targets(few):
    return [x for x, _ in few]


def with_dead_layer():
    model = trained("mlp")
    with torch.no_grad():
        model.get_submodule("5").weight.zero_()
        model.get_submodule("5").bias.zero_()
    return model


# Twelve passes in train mode; then some in eval mode, as many with precise statistics, and two with mixed batches.
CASES = {
    "healthy": (lambda: trained("mlp"), batches, (12 + 2 + 2 + 2, 0), []),
    "at inference": (lambda: trained("mlp").eval(), batches, (12 + 2 + 2 + 2, 0), []),
    # Two losses show which layer is the cause.
    "displaced": (
        lambda: displaced("mlp", "2"),
        batches,
        (12 + 2 + 2 + 2 + 2, 0),
        ["eval-mode-distorted", "running-statistics-mismatch"],
    ),
    "no targets": (
        lambda: displaced("mlp", "2"),
        lambda: without_targets(batches()),
        (12 + 2 + 2 + 2, 0),
        ["eval-mode-distorted", "running-statistics-mismatch"],
    ),
    # A pass forward and backward finds that gamma has no gradient.
    "gamma of 0": (with_dead_layer, batches, (12 + 2 + 2 + 2 + 1, 1), ["zero-gamma"]),
    # All batches, as they are and after the samples are shuffled.
    "sorted": (
        lambda: trained("mlp"),
        lambda: batches(sampler=samplers.single_label),
        (4 * 12 + 2, 0),
        ["batches-not-representative"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_more_passes_than_needed(case):
    make, few, most, codes = CASES[case]
    forward, backward, found = passes(make(), few(), inference=case == "at inference")
    assert found == codes
    assert forward <= most[0] and backward <= most[1], (forward, backward)


def test_a_few_gaps_are_clear_only_far_from_the_limit():
    flat, spread = torch.zeros(4, dtype=torch.double), torch.tensor([-1.0, 0.0, 0.0, 1.0], dtype=torch.double)
    assert gaps_are_clear(flat, flat + 1, flat, 0.2) and gaps_are_clear(flat, flat + 0.1, flat, 0.2)
    # The gaps vary too much, eval mode is better than train mode, and recomputed statistics are worse.
    assert not gaps_are_clear(flat, flat + 1 + spread, flat, 0.2)
    assert not gaps_are_clear(flat, flat + 0.1 + 0.2 * spread, flat, 0.2)
    assert not gaps_are_clear(flat + 1, flat, flat, 0.2) and not gaps_are_clear(flat, flat + 2, flat + 1, 0.2)
    assert not gaps_are_clear(flat, flat * torch.nan, flat, 0.2)


def test_two_gaps_are_clear_only_if_both_are_far_from_the_limit():
    flat = torch.zeros(2, dtype=torch.double)

    def clear(*in_eval, recomputed=flat):
        return gaps_are_clear(flat, torch.tensor(in_eval, dtype=torch.double), recomputed, 0.2)

    assert clear(0.4, 0.5) and clear(0.05, 0.09) and clear(0.0, 0.0)
    # One of them is near the limit, they differ, or eval mode is better than train mode.
    assert not clear(0.4, 0.25) and not clear(0.05, 0.15) and not clear(0.4, 1.0) and not clear(-0.4, -0.5)
    assert not clear(0.4, torch.nan) and not clear(0.8, 0.8, recomputed=flat + 0.4)
