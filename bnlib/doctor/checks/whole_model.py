"""Checks of the model as a whole: the loss in eval mode, whatever the distance of each layer's statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bnlib.doctor.checks.batch_composition import batches_not_representative
from bnlib.doctor.checks.shared_statistics import domain_statistics_differ
from bnlib.doctor.losses import main_output
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import is_untrained, layers_with_running_statistics_in_use, statistics_are_young
from bnlib.norm import FullNorm

_LISTED_LAYERS = 8
_CHANGED_OUTPUTS = 0.5
"""Without a loss: outputs that change by this share of their standard deviation have changed clearly."""


def running_statistics_raise_loss(measurements: Measurements) -> Iterator[Finding]:
    """Find models whose loss with running statistics is clearly worse than with precise ones.

    Small errors of many layers add up, so the distance of each layer says little. Without a loss, the outputs are
    compared. Batches of one kind and domains are other findings, which name the losses.
    """
    names = layers_with_running_statistics_in_use(measurements)
    if not names or any(batches_not_representative(measurements)) or any(domain_statistics_differ(measurements)):
        return
    if measurements.eval_score is None:
        text, severity = _changed_outputs(measurements), "warning"
    else:
        text, severity = _raised_loss(measurements, names), "error"
    if text:
        learning = [measurements.norm_layers[name] for name in names]
        # FullNorm trains with these same statistics, so eval mode is no worse than training.
        follows = measurements.will_be_trained or all(isinstance(layer, FullNorm) for layer in learning)
        if follows and all(map(statistics_are_young, learning)):
            text, severity = f"{text} They average too few batches so far, which more training will cure.", "note"
        elif measurements.will_be_trained and is_untrained(measurements):
            text, severity = f"{text} The model has not been trained.", "note"
        yield make_finding("eval-mode-distorted", "", severity, text)


def losses_differ_without_a_cause(measurements: Measurements, findings: list[Finding]) -> Iterator[Finding]:
    """Find a gap between the losses in train mode and in eval mode that no other finding explains."""
    if measurements.eval_score is None or any(each.severity != "note" for each in findings):
        return
    train, evaluated = measurements.train_score, measurements.eval_score
    losses = f"The loss is {train} in train mode, {evaluated} in eval mode, and {measurements.eval_recomputed_score} "
    losses += "in eval mode with statistics recomputed from these batches."
    if measurements.clearly_worse(evaluated, train) and not any(
        each.code == "eval-mode-distorted" for each in findings
    ):
        yield make_finding("eval-worse-than-train", "", "note" if measurements.inference else "warning", losses)
    elif not findings and not measurements.inference and measurements.clearly_worse(train, evaluated):
        yield make_finding("loss-higher-in-train-mode", "", "note", losses)


def _raised_loss(measurements: Measurements, names: list[str]) -> str:
    evaluated, precise = measurements.eval_score, measurements.eval_recomputed_score
    if not measurements.clearly_worse(evaluated, precise):
        return ""
    number = int((evaluated.losses - precise.losses).nan_to_num(nan=torch.inf).argmax())
    shares = _shares(lambda count: measurements.loss_with_precise_statistics(names[:count], number), len(names))
    listed = sorted(((share, name) for share, name in zip(shares, names, strict=True)), reverse=True)
    listed = [f"{name or 'the model itself'} {share:.0%}" for share, name in listed if share >= 0.05][:_LISTED_LAYERS]
    text = (
        f"In eval mode, the loss is {evaluated} with the running statistics of the model, and {precise} with "
        "statistics recomputed from these batches."
    )
    if listed:
        text += (
            " Given precise statistics one after the other, from the first layer to the last, these layers account for "
            f"the difference: {', '.join(listed)}."
        )
    return text


def _shares(loss: Callable[[int], float], count: int) -> list[float]:
    """Return the share of each layer in the fall of the loss from no layer with precise statistics to all of them.

    Only ranges of layers over which the loss changes by a twentieth of the whole are looked into.

    Arguments:
        loss: takes the number of first layers with precise statistics.
        count: number of layers.
    """
    known = {0: loss(0), count: loss(count)}
    whole = known[0] - known[count]
    shares = [0.0] * count
    if not abs(whole) > 0 or whole in (float("inf"), float("-inf")):
        return shares
    ranges = [(0, count)]
    while ranges:
        low, high = ranges.pop()
        share = (known[low] - known[high]) / whole
        if high - low == 1:
            shares[low] = share
        elif abs(share) >= 0.05:
            middle = (low + high) // 2
            known[middle] = loss(middle)
            ranges += [(low, middle), (middle, high)]
    return shares


def _changed_outputs(measurements: Measurements) -> str:
    changes, deviations = [], []
    for batch, run in zip(measurements.batches, measurements.passes_in_eval, strict=True):
        outputs = main_output(run.outputs)
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or outputs.numel() < 2:
            measurements.skipped["outputs in eval mode with precise statistics"] = "the outputs are no numbers"
            return ""
        precise = main_output(measurements.pass_with_statistics(batch, measurements.precise_statistics).outputs)
        if precise.shape != outputs.shape:
            return ""
        changes.append(float((outputs.double() - precise.double()).square().mean()))
        deviations.append(float(precise.double().var(0, correction=0).mean()))
    change = (sum(changes) / max(sum(deviations), 1e-30)) ** 0.5
    # Not "change < limit": the change may be nan.
    if change <= _CHANGED_OUTPUTS:
        return ""
    return (
        f"In eval mode, the outputs with the running statistics of the model differ by {change:.0%} of their standard "
        "deviation from those with statistics recomputed from these batches."
    )
