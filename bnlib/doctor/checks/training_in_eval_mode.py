"""Checks of whether the weights were trained while norm layers were in eval mode, with fixed running statistics."""

from __future__ import annotations

from collections.abc import Iterator

from bnlib.doctor.checks.batch_composition import batches_not_representative
from bnlib.doctor.checks.outliers import variance_of_single_batches
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import CORRECTED_IN_TRAIN_MODE, NORM_TYPES, batches_tracked
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import (
    distance_to_data,
    has_initial_values,
    layers_with_running_statistics_in_use,
)

_UNUSUAL = 0.3
"""The largest ``Distance.value`` in networks that were trained in train mode, at a learning rate of 0.1."""

_ENOUGH = 64
"""From so many values per channel on, recomputed statistics are good enough to compare losses."""


def trained_in_eval_mode(measurements: Measurements) -> Iterator[Finding]:
    """Find layers to whose fixed running statistics the weights are adapted, although these are not those of the data.

    That is so if training ran in eval mode: from its beginning, then the statistics have their initial values, or from
    the first validation on, then they are those of that time. The network has learned with these values, so the loss
    rises if they are replaced by those of the data. Statistics that are merely wrong raise the loss themselves.
    """
    names = layers_trained_in_eval_mode(measurements)
    initial = [name for name in names if has_initial_values(measurements.norm_layers[name])]
    losses = (
        f"In eval mode, the loss is {measurements.eval_score}, and {measurements.eval_recomputed_score} with "
        "statistics recomputed from these batches."
        if names
        else ""
    )
    for name in names:
        if name in initial:
            text = (
                "The running statistics still have their initial values, mean 0 and variance 1, after 0 batches, but "
                f"the weights were trained. {losses} So training ran in eval mode, in which this layer only multiplies "
                "by gamma and adds beta."
            )
        else:
            count = batches_tracked(measurements.norm_layers[name])
            text = (
                f"The running statistics differ from those of the data: {distance_to_data(measurements, name)}. But "
                f"the weights are adapted to them. {losses} So training went on in eval mode after {count} batches in "
                "train mode. If you froze this layer on purpose, ignore this finding."
            )
        yield make_finding("trained-in-eval-mode", name, "warning", text)


def layers_trained_in_eval_mode(measurements: Measurements) -> list[str]:
    """Return the names of the layers whose fixed running statistics the weights are adapted to."""
    layers = measurements.norm_layers
    known = [name for name in measurements.statistics if isinstance(layers[name], NORM_TYPES)]
    known = [name for name in known if layers[name].running_mean is not None]
    if not known or measurements.train_score is None:
        return []
    if all(has_initial_values(layers[name]) and not batches_tracked(layers[name]) for name in known):
        return known if _trained_with_initial_values(measurements) else []
    if measurements.inference or measurements.by_domain or not measurements.recomputed_worse_than_eval:
        return []
    if not _eval_loss_below(0.5, measurements):
        return []
    in_use = layers_with_running_statistics_in_use(measurements)
    corrected = any(isinstance(layers[name], CORRECTED_IN_TRAIN_MODE) for name in known)
    if corrected or measurements.layers_after_dead_layer or any(batches_not_representative(measurements)):
        return []
    # An outlier moves the recomputed statistics, which are worse for that reason.
    if measurements.findings(variance_of_single_batches):
        return []
    trained = [name for name in known if name in in_use and _is_trained(measurements, name)]
    distances = {name: distance_to_data(measurements, name).value for name in trained}
    few = any(measurements.statistics[name].count < _ENOUGH for name in trained)
    largest = max(distances.values(), default=0.0)
    if few or largest < _UNUSUAL:
        return []
    return [name for name, each in distances.items() if each > largest / 2]


def _is_trained(measurements: Measurements, name: str) -> bool:
    """Return whether gamma and beta are trained: a layer with frozen parameters has fixed statistics on purpose."""
    parameters = list(measurements.norm_layers[name].parameters(recurse=False))
    return not parameters or any(each in measurements.instrumented.trainable for each in parameters)


def _trained_with_initial_values(measurements: Measurements) -> bool:
    """Return whether eval mode has learned something, and the statistics of the batch are not better."""
    worse = measurements.eval_worse_than_train or measurements.eval_worse_than_recomputed
    return _eval_loss_below(0.9, measurements) and not worse


def _eval_loss_below(share: float, measurements: Measurements) -> bool:
    """Return whether the loss in eval mode is below a share of that of a constant output: something was learned."""
    return float(measurements.eval_score.losses.mean()) < share * measurements.constant_output_loss
