"""Checks of running statistics against the statistics of the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.doctor.checks.batch_composition import few_of_the_classes
from bnlib.doctor.checks.training_in_eval_mode import layers_trained_in_eval_mode
from bnlib.doctor.layer_statistics import distance as layer_distance
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.misplaced_statistics import origin_of_statistics
from bnlib.doctor.norm_layers import batches_tracked, has_known_forward, running_statistics
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import (
    MISMATCH,
    distance_to_data,
    has_initial_values,
    initial_weight,
    is_untrained,
    layers_with_running_statistics_in_use,
    statistics_are_young,
)
from bnlib.norm import FullNorm

_FROZEN_MISMATCH = 3.0
"""From this ``Distance.value`` on: means three standard deviations apart, or deviations different by a factor of 8."""


def never_updated(measurements: Measurements) -> Iterator[Finding]:
    """Find running statistics that are still mean 0 and variance 1.

    Before training these values are right, so this is only a note if the model will be trained and eval mode loses
    nothing.
    """
    adapted = layers_trained_in_eval_mode(measurements)
    for name, layer in measurements.norm_layers.items():
        if not has_initial_values(layer) or name not in measurements.statistics or name in adapted:
            continue
        text = (
            f"The running statistics still have their initial values, mean 0 and variance 1, after "
            f"{batches_tracked(layer) or 0} batches. Compared with the data, {distance_to_data(measurements, name)}."
            f"{_eval_losses(measurements)}"
        )
        if not has_known_forward(layer) and name not in measurements.instrumented.updating:
            text += f" A pass in train mode does not change them: the forward of {type(layer).__name__} has to."
        fixed = not has_known_forward(layer) and name in measurements.instrumented.fixed
        untrained = measurements.will_be_trained and is_untrained(measurements)
        harmless = fixed or untrained or (measurements.will_be_trained and not measurements.eval_worse_than_recomputed)
        yield make_finding("running-statistics-never-updated", name, "note" if harmless else "error", text)


def mismatch(measurements: Measurements) -> Iterator[Finding]:
    """Find running statistics that differ from the statistics of the data.

    Each layer is compared with the layers below normalising by the batch, and with them normalising by their running
    statistics. One match is enough, so that one wrong layer is not reported as many. If there are targets, the finding
    is an error only if recomputed statistics lower the loss.

    In networks that were trained for 40 steps with a momentum and a learning rate of 0.1, the distance was at most 0.3.
    """
    adapted = layers_trained_in_eval_mode(measurements)
    for name in layers_with_running_statistics_in_use(measurements):
        layer = measurements.norm_layers[name]
        if name in adapted:
            continue
        distance = distance_to_data(measurements, name)
        if has_initial_values(layer) or not distance.value > MISMATCH or name in measurements.layers_after_dead_layer:
            continue
        text = f"The running statistics differ from those of the data: {distance}."
        severity = "note"
        if not measurements.has_loss:
            severity = "warning"
        elif measurements.eval_worse_than_recomputed:
            severity = "error"
        count, initial = batches_tracked(layer), initial_weight(layer)
        # Where the variance is small, even a small weight of the initial variance 1 is too much.
        explained = initial > 0 and distance_to_data(measurements, name, initial).value <= MISMATCH
        if statistics_are_young(layer) or explained:
            text += (
                f" They average too few batches: {count}, so their initial values still have a weight of {initial:.1%}."
            )
            # FullNorm trains with these same statistics, so eval mode is no worse than training.
            severity = severity if not measurements.will_be_trained and not isinstance(layer, FullNorm) else "note"
            origin = None
        else:
            origin = origin_of_statistics(measurements, name)
            text += origin.text if origin else few_of_the_classes(measurements)
        if count and isinstance(layer, _BatchNorm) and layer.momentum is None:
            text += f" With momentum=None they average all {count} batches alike, also those of old weights."
        found = make_finding("running-statistics-mismatch", name, severity, text + _eval_losses(measurements))
        yield replace(found, remedy=origin.remedy) if origin and origin.remedy else found


def frozen_statistics_are_far(measurements: Measurements) -> Iterator[Finding]:
    """Find layers in eval mode in a model that is trained, whose inputs are far from their statistics.

    Training sees the same statistics as eval mode, so no loss tells of it, but the layers hand on activations that are
    several times too large or too small. A new domain moves the statistics by about one standard deviation; inputs
    without the preprocessing of the old training by far more. The first such layer is the cause, so only it is named.
    """
    if not measurements.will_be_trained:
        return
    statistics = measurements.statistics  # the passes for them find layers that training uses as fixed
    for name in measurements.passes_by_batch[0].calls:
        layer = measurements.norm_layers[name]
        found = running_statistics(layer)
        if name not in measurements.instrumented.fixed or found is None or has_initial_values(layer):
            continue
        apart = layer_distance(layer, *found, statistics[name])
        if apart.value > _FROZEN_MISMATCH:
            text = (
                f"This layer is frozen with running statistics that are far from its inputs: {apart}. So the "
                "activations after it are not those that the layers behind it were trained on."
            )
            yield make_finding("frozen-statistics-mismatch", name, "warning", text)
        return


def _eval_losses(measurements: Measurements) -> str:
    if not measurements.has_loss:
        return ""
    return (
        f" In eval mode, the loss is {measurements.eval_score}, and {measurements.eval_recomputed_score} with "
        "statistics recomputed from these batches."
    )
