"""Checks of the model as a whole: the loss in eval mode, whatever the distance of each layer's statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bnlib.doctor.batch_passes import Statistics
from bnlib.doctor.checks.batch_composition import batches_not_representative, few_of_the_classes
from bnlib.doctor.checks.impossible_statistics import (
    layers_share_statistics,
    negative_variance,
    statistics_of_constant_batches,
)
from bnlib.doctor.checks.layer_settings import statistics_not_tracked
from bnlib.doctor.checks.shared_statistics import domain_statistics_differ, layer_shared_by_different_inputs
from bnlib.doctor.dropout_in_front import REMEDY, loss_with_dropout_statistics
from bnlib.doctor.losses import main_output
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import eps, running_statistics
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import (
    distance_to_data,
    initial_weight,
    is_untrained,
    layers_with_running_statistics_in_use,
    statistics_are_young,
    without_initial_values,
)
from bnlib.doctor.stored_conventions import convention_of_another_framework
from bnlib.norm import FullNorm

_LISTED_LAYERS = 8
_ABOUT_RUNNING_STATISTICS = ("eval-mode-distorted", "running-statistics-mismatch", "running-statistics-never-updated")
_CHANGED_OUTPUTS = 0.5
"""Without a loss: outputs that change by this share of their standard deviation have changed clearly."""


def running_statistics_raise_loss(measurements: Measurements) -> Iterator[Finding]:
    """Find models whose loss with running statistics is clearly worse than with precise ones.

    Small errors of many layers add up, so the distance of each layer says little. Without a loss, the outputs are
    compared.
    """
    names = layers_with_running_statistics_in_use(measurements)
    if not names or _has_another_cause(measurements, names):
        return
    # Initial values in all layers of a model that is about to be trained are reported for the layers.
    if measurements.will_be_trained and is_untrained(measurements):
        return
    known = measurements.has_loss
    text, shares = _raised_loss(measurements, names) if known else (_changed_outputs(measurements), {})
    if text:
        severity = "error" if known else "warning"
        # FullNorm trains with these same statistics, so eval mode is no worse than training.
        follows = all(isinstance(measurements.norm_layers[name], FullNorm) for name in names)
        if _initial_values_are_the_cause(measurements, names):
            text += " The cause is the initial values in the running statistics, which average too few batches so far."
            severity = "note" if measurements.will_be_trained or follows else severity
        values = {"share_of_gap": shares} if shares else {}
        other = convention_of_another_framework(measurements, names)
        if other is not None:
            text += (
                f" The numbers in running_var agree with these batches if they are {other.stored}. So the statistics "
                "are those of this model, in the convention of another framework."
            )
            yield replace(make_finding("eval-mode-distorted", "", severity, text, values), remedy=other.remedy)
            return
        behind_dropout = loss_with_dropout_statistics(measurements) if known else None
        if behind_dropout is None:
            yield make_finding("eval-mode-distorted", "", severity, text, values)
            return
        text += (
            f" With statistics computed while dropout is on, the loss is {behind_dropout}. So the cause is dropout in "
            "front of these layers, which raises the variance of their inputs in train mode only."
        )
        severity = "note" if severity == "note" else "warning"
        yield replace(make_finding("eval-mode-distorted", "", severity, text, values), remedy=REMEDY)


def _initial_values_are_the_cause(measurements: Measurements, names: list[str]) -> bool:
    """Return whether all layers average too few batches, or are right without the share of their initial values."""
    layers = {name: measurements.norm_layers[name] for name in names}
    if all(map(statistics_are_young, layers.values())):
        return True
    shares = {name: initial_weight(layer) for name, layer in layers.items()}
    without = {name: without_initial_values(layers[name], share) for name, share in shares.items() if share > 0}
    if all(_hardly_differ(layers[name], each) for name, each in without.items()):
        return False
    if not measurements.has_loss:
        return _decided_output_change(measurements, without) <= _CHANGED_OUTPUTS
    cured = measurements.score_with_statistics(without)
    return not measurements.clearly_worse(cured, measurements.eval_recomputed_score)


def _hardly_differ(layer: nn.Module, statistics: tuple[Tensor, Tensor]) -> bool:
    """Return whether statistics are so near to a layer's running ones that they change no output noticeably.

    In each channel, the means differ by less than a twentieth of the standard deviation, and so do these.
    """
    (mean, variance), (other_mean, other_variance) = running_statistics(layer), statistics
    variance, other_variance = variance + eps(layer), other_variance + eps(layer)
    means = (mean - other_mean).abs() / torch.minimum(variance, other_variance).sqrt()
    return bool((means < 0.05).all() and ((variance / other_variance).log().abs() < 0.1).all())


def _has_another_cause(measurements: Measurements, names: list[str]) -> bool:
    """Return whether another finding, which has its own remedy, raises the loss in eval mode."""
    found = map(running_statistics, (measurements.norm_layers[name] for name in names))
    if not all(value.isfinite().all() for statistics in found for value in statistics):
        return True
    if measurements.layers_after_dead_layer:
        return True
    others = (
        negative_variance,
        statistics_of_constant_batches,
        layers_share_statistics,
        statistics_not_tracked,
        batches_not_representative,
        domain_statistics_differ,
        layer_shared_by_different_inputs,
    )
    return any(finding.severity != "note" for check in others for finding in measurements.findings(check))


def losses_differ_without_a_cause(measurements: Measurements, findings: list[Finding]) -> Iterator[Finding]:
    """Find a gap between the losses in train mode and in eval mode that no other finding explains."""
    causes = [each for each in findings if each.severity != "note" and each.code not in _ABOUT_RUNNING_STATISTICS]
    if not measurements.has_loss or measurements.modes_agree or causes:
        return
    train, evaluated = measurements.train_score, measurements.eval_score
    recomputed = measurements.eval_recomputed_score
    # Running statistics explain what recomputed ones cure.
    unexplained = recomputed if any(each.code == "eval-mode-distorted" for each in findings) else evaluated
    losses = (
        f"The loss is {train} in train mode, {evaluated} in eval mode, and {recomputed} in eval mode with statistics "
        "recomputed from these batches."
    )
    if measurements.clearly_worse(unexplained, train):
        yield make_finding("eval-worse-than-train", "", "note" if measurements.inference else "warning", losses)
    elif not findings and not measurements.inference and measurements.clearly_worse(train, evaluated):
        yield make_finding("loss-higher-in-train-mode", "", "note", losses)


def _raised_loss(measurements: Measurements, names: list[str]) -> tuple[str, dict[str, float]]:
    """Return the evidence, empty if the loss is not raised, and the share of each layer that has one."""
    if not measurements.eval_worse_than_recomputed:
        return "", {}
    evaluated, precise = measurements.eval_score, measurements.eval_recomputed_score
    gaps = (evaluated.losses - precise.losses).nan_to_num(nan=torch.inf)
    worst = int(gaps.argmax())
    shares = _shares(
        lambda count: measurements.loss_with_precise_statistics(names[:count], measurements.compared[worst]),
        {0: float(evaluated.losses[worst]), len(names): float(precise.losses[worst])},
        _most_distant(measurements, names),
    )
    listed = sorted(((share, name) for share, name in zip(shares, names, strict=True)), reverse=True)
    listed = [f"{name or 'the model itself'} ({share:.0%})" for share, name in listed if abs(share) >= 0.05][
        :_LISTED_LAYERS
    ]
    text = (
        f"In eval mode, the loss is {evaluated} with the running statistics of the model, and {precise} with "
        "statistics recomputed from these batches."
    )
    if listed:
        text += (
            " Given precise statistics one after the other, from the first layer to the last, these layers account for "
            f"the difference: {', '.join(listed)}."
        )
    text += few_of_the_classes(measurements)
    if measurements.recomputed_worse_than_train:
        text += f" The loss in train mode is still lower, {measurements.train_score}."
    return text, {name: share for name, share in zip(names, shares, strict=True) if share}


def _most_distant(measurements: Measurements, names: list[str]) -> int:
    """Return the number of the layer whose running statistics are farthest from the statistics of the data."""
    distances = [distance_to_data(measurements, name).value for name in names]
    return max(range(len(names)), key=lambda number: distances[number])


def _shares(loss: Callable[[int], float], known: dict[int, float], suspect: int) -> list[float]:
    """Return the share of each layer in the fall of the loss from no layer with precise statistics to all of them.

    Only ranges of layers over which the loss changes by a twentieth of the whole are looked into.

    Arguments:
        loss: takes the number of first layers with precise statistics.
        known: the loss for no layer and for all of them.
        suspect: the number of the layer that is asked first.
    """
    known, count = dict(known), max(known)

    def ask(number: int) -> float:
        if number not in known:
            known[number] = loss(number)
        return known[number]

    whole = known[0] - known[count]
    shares = [0.0] * count
    if not abs(whole) > 0 or whole in (float("inf"), float("-inf")):
        return shares
    ranges = [(0, suspect), (suspect, suspect + 1), (suspect + 1, count)]
    while ranges:
        low, high = ranges.pop()
        if low == high:
            continue
        share = (ask(low) - ask(high)) / whole
        if high - low == 1:
            shares[low] = share
        elif abs(share) >= 0.05:
            middle = (low + high) // 2
            ranges += [(low, middle), (middle, high)]
    return shares


def _changed_outputs(measurements: Measurements) -> str:
    change = _decided_output_change(measurements, {})
    # Not "change > limit": the change may be nan.
    if change <= _CHANGED_OUTPUTS:
        return ""
    return (
        f"In eval mode, the outputs with the running statistics of the model differ by {change:.0%} of their standard "
        "deviation from those with statistics recomputed from these batches."
    )


def _decided_output_change(measurements: Measurements, statistics: Statistics) -> float:
    """Return ``_output_change`` of two batches if it is far from the limit, and of four batches if not."""
    change = _output_change(measurements, statistics, measurements.few[::2])
    # Not "change is between": it may be nan.
    if change < 0.5 * _CHANGED_OUTPUTS or change > 1.5 * _CHANGED_OUTPUTS:
        return change
    return _output_change(measurements, statistics, measurements.few)


def _output_change(measurements: Measurements, statistics: Statistics, numbers: Sequence[int]) -> float:
    """Return how far outputs are from those with precise statistics, in standard deviations of these.

    Arguments:
        measurements: of the model.
        statistics: mean and variance by the name of the layer, in place of the running ones.
        numbers: of the batches.
    """
    changes, outputs = [], []
    pairs = measurements.outputs_with_and_without_precise_statistics(numbers)
    for number, (running, recomputed) in zip(numbers, pairs, strict=True):
        other = measurements.pass_with_statistics(number, statistics).outputs if statistics else running
        some, precise = main_output(other), main_output(recomputed)
        if (
            not isinstance(some, Tensor)
            or not some.is_floating_point()
            or some.numel() < 2
            or some.shape != precise.shape
        ):
            measurements.skipped["outputs in eval mode with precise statistics"] = "they cannot be compared"
            return 0.0
        changes.append(float((some.double() - precise.double()).square().mean()))
        outputs.append(precise.double())
    if all(len(each) == 1 for each in outputs):  # which alone have no deviation
        alike = len({each.shape for each in outputs}) == 1 and len(outputs) > 1
        if not alike:
            measurements.skipped["outputs in eval mode with precise statistics"] = "each batch is a single sample"
            return 0.0
        outputs = [torch.cat(outputs)]
    deviations = [float(each.var(0, correction=0).mean()) for each in outputs]
    return (sum(changes) / len(changes) / max(sum(deviations) / len(deviations), 1e-30)) ** 0.5
