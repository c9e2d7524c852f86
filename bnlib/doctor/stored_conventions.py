"""Whether running statistics are right, but stored as another framework stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from bnlib.doctor.batch_passes import Statistics
from bnlib.doctor.layer_statistics import distance, running_variance_target
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import eps, running_statistics

_MATCH = 0.3
"""The largest ``Distance.value`` of running statistics that are right, see ``training_in_eval_mode``."""

Reading = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Takes a stored mean and variance and eps, and returns the mean and the variance that are meant."""


@dataclass(frozen=True)
class Convention:
    """What the stored numbers are, if they are not a mean and a variance.

    Attributes:
        stored: what they are, as the end of a sentence.
        remedy: what to do.
        statistics: the mean and the variance that are meant, by the name of the layer.
    """

    stored: str
    remedy: str
    statistics: Statistics


def convention_of_another_framework(measurements: Measurements, names: Sequence[str]) -> Convention | None:
    """Return how the running statistics are to be read so that they agree with the data; None if they are not.

    Frameworks store a variance, a standard deviation or an inverse of one of these; Caffe stores sums, which are to be
    divided by a factor that all layers share. A reading counts if it brings half of the layers to the statistics of the
    data, and all of them nearer, and if the loss is then no worse than with recomputed statistics.

    Arguments:
        measurements: of the model.
        names: the layers with running statistics in use.
    """
    plain = _distances(measurements, {name: running_statistics(measurements.norm_layers[name]) for name in names})
    for stored, remedy, statistics in _readings(measurements, names):
        found = _distances(measurements, statistics)
        middle = sorted(found)[len(found) // 2]
        # Not "distance > limit": it may be nan.
        if not (middle <= _MATCH and 4 * middle <= sorted(plain)[len(plain) // 2]):
            continue
        if not all(new <= max(old, _MATCH) for new, old in zip(found, plain, strict=True)):
            continue
        if measurements.has_loss:
            score = measurements.score_with_statistics(statistics)
            if measurements.clearly_worse(score, measurements.eval_recomputed_score):
                continue
        return Convention(stored, remedy, statistics)
    return None


def _readings(measurements: Measurements, names: Sequence[str]) -> Iterator[tuple[str, str, Statistics]]:
    for stored, remedy, read in _READINGS:
        yield stored, remedy, {name: _read(measurements, name, read) for name in names}
    ratios = []
    for name in names:
        target = running_variance_target(measurements.statistics[name], measurements.norm_layers[name])
        ratios.append(float((running_statistics(measurements.norm_layers[name])[1] / target).nanmedian()))
    factor = sorted(ratios)[len(ratios) // 2]
    # Caffe's factor is near 1000 after a long training.
    if factor > 10:
        remedy = (
            f"Divide running_mean and running_var by the factor that the other framework stores with them, here about "
            f"{factor:.0f}: in Caffe, the third blob of the layer."
        )
        statistics = {name: _read(measurements, name, lambda m, v, _: (m / factor, v / factor)) for name in names}
        yield f"sums, {factor:.0f} times as large as the mean and the variance", remedy, statistics


def _read(measurements: Measurements, name: str, read: Reading) -> tuple[Tensor, Tensor]:
    layer = measurements.norm_layers[name]
    mean, variance = read(*running_statistics(layer), eps(layer))
    return mean, variance.clamp(min=0)


def _distances(measurements: Measurements, statistics: Statistics) -> list[float]:
    layers = measurements.norm_layers
    return [distance(layers[name], *each, measurements.statistics[name]).value for name, each in statistics.items()]


_READINGS: tuple[tuple[str, str, Reading], ...] = (
    (
        "standard deviations, not variances",
        "Square running_var when you load it, and subtract eps if the other framework added it first.",
        lambda mean, stored, eps: (mean, stored.square()),
    ),
    (
        "inverse standard deviations, not variances",
        "Set running_var to 1 / running_var ** 2 - eps when you load it.",
        lambda mean, stored, eps: (mean, stored**-2 - eps),
    ),
    (
        "inverse variances, not variances",
        "Set running_var to 1 / running_var - eps when you load it.",
        lambda mean, stored, eps: (mean, 1 / stored - eps),
    ),
)
"""What is stored, what to do, and the reading."""
