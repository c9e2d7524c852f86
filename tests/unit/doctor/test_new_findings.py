"""What the findings about order, counters, averaged weights and nan say, and where they must stay silent."""

import pytest
import torch
from doctor_examples import batches, digits, findings, not_notes, settle, train
from planted_networks import Checkpointed, few, middle, norms, replace, trained
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bnlib.doctor import diagnose

NAME = "residual"


class Cropped(Dataset):
    """Digits that each pass shifts and brightens anew, as random crops do."""

    def __len__(self):
        return 256

    def __getitem__(self, index):
        shift, light = torch.randint(2, ()).item(), 0.9 + 0.2 * torch.rand(())
        return digits().train_x[index].roll(shift, -1) * light, int(digits().train_y[index])


class Passes:
    """A loader of one's own; its order may be drawn from a generator that begins anew in each pass."""

    def __init__(self, seed):
        self.seed = seed

    def __iter__(self):
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        order = torch.randperm(256, generator=generator)
        yield from zip(digits().train_x[order].split(32), digits().train_y[order].split(32), strict=True)


def plain(shuffle):
    return DataLoader(TensorDataset(digits().train_x[:256], digits().train_y[:256]), 32, shuffle=shuffle)


LOADERS = {
    "plain": (plain(False), True),
    "shuffled": (plain(True), False),
    "shuffled by a generator of its own": (
        DataLoader(
            TensorDataset(digits().train_x[:256], digits().train_y[:256]),
            32,
            shuffle=True,
            generator=torch.Generator().manual_seed(0),
        ),
        False,
    ),
    "changed samples": (DataLoader(Cropped(), 32), True),
    "changed and shuffled samples": (DataLoader(Cropped(), 32, shuffle=True), False),
    "the same seed in each pass": (Passes(0), True),
    "another seed in each pass": (Passes(None), False),
    "an iterator": (iter(Passes(0)), False),
    "a list": (list(Passes(0)), False),
}


@pytest.mark.parametrize(("loader", "found"), LOADERS.values(), ids=LOADERS)
def test_two_passes_tell_whether_a_loader_shuffles(loader, found):
    codes = diagnose(trained(NAME), loader).codes
    assert ("batches-never-reshuffled" in codes) == found


def test_the_order_of_a_loader_is_no_matter_without_training():
    for options in ({}, {"inference": True}):
        assert not diagnose(trained(NAME).eval(), plain(False), **options)


def test_a_second_pass_that_fails_is_said():
    class Once:
        passes = 0

        def __iter__(self):
            self.passes += 1
            if self.passes > 1:
                raise OSError("the stream is over")
            return iter(few())

    report = diagnose(trained(NAME), Once())
    assert not report and "whether the loader shuffles, because a second pass over it failed" in report.remarks[0]


def test_an_average_with_statistics_of_its_own_is_healthy():
    for recomputed in (False, True):
        model = trained(NAME)
        average = AveragedModel(model)
        for start in range(0, 30, 10):
            average.update_parameters(train(model, batches(count=30)[start:], 10, lr=0.05))
        if recomputed:
            update_bn([x for x, _ in batches(count=30)], average)
        assert not findings(average.eval(), few())


def test_checkpointing_with_a_large_momentum_is_a_warning():
    model = trained(NAME)
    place = middle(model)
    replace(model, place, Checkpointed(model.get_submodule(place), False))
    model.get_submodule(f"{place}.module").momentum = 0.3
    (found,) = diagnose(model, few()).by_code("gradient-checkpointing")
    assert found.severity == "warning" and "momentum 0.51 in place of 0.3" in found.evidence


def test_checkpointed_layers_are_all_named_and_explain_their_counters():
    model = trained(NAME)
    model.block = Checkpointed(model.block, True)
    for layer in norms(model).values():
        layer.num_batches_tracked.zero_()
    train(model, batches(count=20), 20)
    report = diagnose(model, few())
    assert [each.layer for each in report.by_code("gradient-checkpointing")] == ["block.module.1", "block.module.4"]
    assert not report.by_code("counters-differ")
    # Without counters that differ, only the name of the switch tells that a pass in train mode is needed.
    for layer in norms(model).values():
        layer.num_batches_tracked.fill_(40)
    assert "gradient-checkpointing" not in diagnose(model, few()).codes
    model.block.use_checkpoint = True
    assert "gradient-checkpointing" in diagnose(model, few()).codes


def test_counters_of_an_unfinished_epoch_do_not_differ():
    model = trained(NAME)
    model.get_submodule(middle(model)).num_batches_tracked.sub_(1)
    assert not diagnose(model, few())


def test_a_frozen_layer_may_have_another_counter():
    model = trained(NAME)
    layer = model.get_submodule(middle(model)).eval()
    layer.num_batches_tracked.fill_(7000)
    assert not diagnose(model, few()).by_code("counters-differ")


def test_frozen_statistics_are_not_taken_for_training_in_eval_mode():
    """A network is fine-tuned on other inputs, with its norm layers frozen."""
    model, some = trained(NAME), batches(count=40, change=lambda x, y: (1.5 * x + 0.3, y))
    for layer in norms(model).values():
        layer.eval().requires_grad_(False)
    optimiser = torch.optim.Adam(model.parameters(), 0.003)
    for x, y in some * 3:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    for mode in (model, model.eval()):
        assert "trained-in-eval-mode" not in diagnose(mode, some[:8]).codes


def test_an_overflowing_variance_is_told_from_nan():
    model = trained(NAME)
    model.get_submodule(middle(model)).running_var.fill_(torch.inf)
    (found,) = diagnose(model, few()).by_code("non-finite-values")
    assert "running_var in 8 of 8 channels" in found.evidence and "output is beta" in found.evidence
    assert "The 1 norm layer before it stayed finite" in found.evidence and "GradScaler" in found.evidence


def test_diverged_weights_are_not_said_to_be_a_skipped_step():
    model = trained(NAME)
    layer = model.get_submodule(middle(model))
    layer.running_var.fill_(torch.nan)
    nn.init.constant_(layer.weight, torch.nan)
    found = diagnose(model, few()).by_code("non-finite-values")[0]
    assert found.layer == middle(model) and "GradScaler" not in found.evidence


@pytest.mark.parametrize("name", ["fully connected", "residual", "depthwise"])
def test_predictions_need_no_momentum_and_may_have_small_variances(name):
    model = trained(name).eval()
    for layer in norms(model).values():
        layer.momentum = 0.0
    assert not diagnose(model, few(), inference=True)
    assert not diagnose(model, few())
    assert {code for code, _ in not_notes(diagnose(model.train(), few()))} == {"unusual-momentum"}

    def faint(x, y):
        return 0.003 * x, y

    model = settle(trained(name), few(change=faint) * 16)
    assert not diagnose(model.eval(), few(change=faint), inference=True).by_code("variance-below-eps")
