"""The measured numbers that go with a finding, for machines and for the pictures of a report.

They are taken from what the checks have measured already, so they cost no further pass of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bnlib.doctor.layer_statistics import PooledStatistics, running_variance_target
from bnlib.doctor.losses import Score, main_targets
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import eps, running_statistics
from bnlib.doctor.report import Finding
from bnlib.doctor.running_averages import distance

QUANTILES = 21
"""Number of quantiles over the channels of a layer: the smallest value, 5 %, 10 %, ..., 95 %, and the largest."""

VALUE_NAMES = (
    "losses",
    "share_of_gap",
    "channels",
    "mean_difference",
    "deviation_ratio",
    "variance",
    "eps",
    "gradient_norms",
    "labels_by_batch",
)
"""The names of the values that findings have; ``chapters/reference/doctor.md`` describes them."""


def with_values(finding: Finding, measurements: Measurements) -> Finding:
    """Return a finding with the values that belong to its code, besides those that its check gave it."""
    values: dict[str, Any] = {}
    for take in _VALUES_OF.get(finding.code, ()):
        values |= take(measurements, finding.layer)
    return replace(finding, values={**values, **finding.values}) if values else finding


def quantiles(values: Tensor) -> list[float]:
    """Return 21 quantiles of the values of all channels, shape (C,); nan is left out, and an infinity stays one.

    Example:
        >>> quantiles(torch.arange(101.0))[:4]
        [0.0, 5.0, 10.0, 15.0]
    """
    ordered = values[~values.isnan()].double().sort().values
    if not len(ordered):
        return [math.nan] * QUANTILES
    # An interpolation between two infinities would be nan.
    places = torch.linspace(0, len(ordered) - 1, QUANTILES, dtype=torch.double)
    low, high = ordered[places.floor().long()], ordered[places.ceil().long()]
    between = torch.where(low == high, low, low + (high - low) * (places - places.floor()))
    return [_short(each) for each in between.tolist()]


def _losses(measurements: Measurements, layer: str) -> dict[str, Any]:
    reshuffled = vars(measurements).get("reshuffled")  # a property that was asked for, or not
    scores = {
        "train": measurements.known_score("train"),
        "train_reshuffled": None if reshuffled is None else reshuffled.known_score("train"),
        "eval_recomputed": measurements.known_score("recomputed"),
        "eval": measurements.known_score("eval"),
    }
    known = {mode: _score(score) for mode, score in scores.items() if score is not None}
    return {"losses": known} if len(known) > 1 else {}


def _score(score: Score) -> dict[str, float | None]:
    losses = score.losses
    error = float(losses.std() / len(losses) ** 0.5) if len(losses) > 1 else None
    return {
        "mean": _short(float(losses.mean())),
        "standard_error": None if error is None else _short(error),
        "error_rate": None if score.error is None else _short(score.error),
    }


def _running_against_data(measurements: Measurements, name: str) -> dict[str, Any]:
    layer = measurements.norm_layers[name]
    running = running_statistics(layer)
    if running is None or name not in measurements.statistics:
        return {}
    mean, variance = running
    data = _nearer(measurements, name, mean, variance)
    target = running_variance_target(data, layer) + eps(layer)
    return {
        "channels": len(mean),
        "mean_difference": quantiles((mean - data.mean) / (data.total_variance + eps(layer)).sqrt()),
        "deviation_ratio": quantiles(((variance + eps(layer)) / target).sqrt()),
    }


def _nearer(measurements: Measurements, name: str, mean: Tensor, variance: Tensor) -> PooledStatistics:
    """Return the statistics of the data that ``distance_to_data`` compares with: those that are nearer."""
    both = [measurements.statistics[name]]
    in_eval = vars(measurements).get("statistics_in_eval", {})
    both += [in_eval[name]] if name in in_eval else []
    return min(both, key=lambda data: distance(measurements.norm_layers[name], mean, variance, data).value)


def _variance(measurements: Measurements, name: str) -> dict[str, Any]:
    variance = measurements.statistics[name].total_variance
    return {
        "channels": len(variance),
        "variance": quantiles(variance),
        "eps": _short(float(eps(measurements.norm_layers[name]))),
    }


def _gradient_norms(measurements: Measurements, name: str) -> dict[str, Any]:
    gradients = measurements.backward_pass.gradients
    names = [each for each in measurements.passes_by_batch[0].calls if each in gradients]
    return {"gradient_norms": {each: _short(float(gradients[each])) for each in names}}


def _labels(measurements: Measurements, name: str) -> dict[str, Any]:
    labels = [main_targets(batch.targets) for batch in measurements.batches]
    if not all(isinstance(each, Tensor) and each.dim() == 1 and not each.is_floating_point() for each in labels):
        return {}
    return {"labels_by_batch": [[int(label) for label in each.tolist()] for each in labels]}


def _short(value: float) -> float:
    """Return a number with six significant digits."""
    return float(f"{value:.6g}")


_Take = Callable[[Measurements, str], dict[str, Any]]
_VALUES_OF: Mapping[str, tuple[_Take, ...]] = {
    "eval-mode-distorted": (_losses,),
    "running-statistics-mismatch": (_running_against_data,),
    "running-statistics-never-updated": (_running_against_data,),
    "frozen-layer-updates-statistics": (_running_against_data,),
    "batches-not-representative": (_labels, _losses),
    "batch-composition-memorised": (_losses,),
    "relies-on-batch-statistics": (_losses,),
    "eval-worse-than-train": (_losses,),
    "loss-higher-in-train-mode": (_losses,),
    "shared-layer": (_losses,),
    "variance-below-eps": (_variance,),
    "gradient-explosion": (_gradient_norms,),
}
"""For each code, the functions that take its values from the measurements of a layer."""
