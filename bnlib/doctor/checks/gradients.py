"""Checks of lost signals and gradients: channels without a gradient, tiny variances, and exploding gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import eps, gamma
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import MISMATCH, distance_to_data

_FEWEST_LAYERS = 10
"""Fewer layers show no exponential growth."""

_SLOWEST_GROWTH = 1.19
"""A chain of linear layers, BN and ReLU multiplies the gradient norm by 1.21 per layer, see ``gradient_explosion``."""


def zero_gamma(measurements: Measurements) -> Iterator[Finding]:
    """Find channels whose gamma is 0 and gets no gradient, so it stays 0.

    A gradient of exactly 0 distinguishes them from a residual branch that starts at gamma = 0 on purpose. PyTorch
    defines relu'(0) = 0, so even gamma itself gets no gradient where a ReLU follows gamma = beta = 0.
    """
    for name, dead in measurements.dead_channels.items():
        zero, channels = int((gamma(measurements.norm_layers[name]) == 0).sum()), len(dead)
        # Pruning or strong weight decay leaves a few zeros. If other channels with gamma = 0 do get a gradient, these
        # may lack one only because the next ReLU is off on this batch.
        if dead.sum() < zero or zero < 0.1 * channels:
            continue
        text = (
            f"Gamma is 0 in {zero} of {channels} channels, and its gradient there is exactly 0, so these channels "
            "never learn."
        )
        yield make_finding("zero-gamma", name, "error" if zero == channels else "warning", text)
    for name in measurements.layers_that_end_the_signal:
        if name not in measurements.dead_channels or not measurements.dead_channels[name].all():
            text = (
                "Gamma is 0 in all channels, so the output of this layer is beta for any input, and the network after "
                "it is constant. Gamma gets a gradient, so training can change this, but the layers below get none."
            )
            yield make_finding("zero-gamma", name, "warning" if measurements.will_be_trained else "error", text)


def variance_below_eps(measurements: Measurements) -> Iterator[Finding]:
    """Find layers in which the variance of most channels is below eps, so they do not normalise.

    At a variance of eps the output has a variance of 1/2 gamma^2, and at a tenth of eps, 1/11 gamma^2. From a tenth on
    it is a note, because some networks with an eps of 0.001 begin with such variances behind depthwise convolutions.
    Single channels with a tiny variance are common: constant pixels and dead units.
    """
    for name, data in measurements.statistics.items():
        layer = measurements.norm_layers[name]
        variance = data.total_variance[data.total_variance.isfinite()]
        small = int((variance < eps(layer)).sum())
        if _is_expected_at_inference(measurements, name) or name in measurements.layers_after_dead_layer:
            continue
        if 2 * small > len(variance) and data.count > 1:
            constant, median = int((variance == 0).sum()), float(variance.median())
            text = (
                f"The variance of the layer's input is below eps = {eps(layer):g} in {small} of {len(variance)} "
                f"channels, and 0 in {constant} of these. The median variance is {median:.2g}."
                f"{_cause_below(measurements, name, median)}"
            )
            yield make_finding("variance-below-eps", name, "warning" if median < 0.1 * eps(layer) else "note", text)


def _cause_below(measurements: Measurements, name: str, variance: float) -> str:
    """Return what makes the variance small, if it is the norm layer below: a small gamma, or units that are all off.

    With gamma near 1, the variance would be larger by the mean square of gamma.
    """
    order = list(measurements.passes_by_batch[0].calls)
    below = order[order.index(name) - 1] if name in order[1:] else None
    weight = None if below is None else gamma(measurements.norm_layers[below])
    if weight is None:
        return ""
    largest = float(weight.detach().abs().max())
    mean_square = float(weight.detach().square().mean())
    decides = largest < 0.1 and variance > eps(measurements.norm_layers[name]) * mean_square
    if decides or largest < 3 * eps(measurements.norm_layers[below]) ** 0.5:
        return (
            f" In the norm layer below, {below}, gamma is at most {largest:.2g}: it started small, or weight decay "
            "made it small."
        )
    if measurements.backward_pass is None or weight.grad is None:
        return ""
    # A ReLU passes no gradient at all; a smooth activation is as good as constant where all values are negative.
    beta = getattr(measurements.norm_layers[below], "bias", None)
    off = weight.grad == 0 if beta is None else (weight.grad == 0) | (beta < -5 * weight.abs())
    if 2 * int(off.sum()) > len(weight):
        return (
            f" In the norm layer below, {below}, {int(off.sum())} of {len(weight)} channels are negative for nearly "
            "all samples, so the activation after it is off and passes almost no gradient."
        )
    return ""


def gradient_explosion(measurements: Measurements) -> Iterator[Finding]:
    """Find gradients that grow exponentially from the last layer to the first.

    At initialisation each block of a linear layer, BN and ReLU multiplies the gradient norm by sqrt(pi / (pi - 1)) =
    1.21 or more. Networks train up to about 40 such layers, where the gradient has grown by a factor of 2000. With skip
    connections the gradient grows more slowly, and networks train at a larger total: LeViT by 1.16 per layer, and by
    10,000 over 63 layers. So slower growth counts only from a factor of a million on.

    Source: Yang et al. 2019 (https://arxiv.org/abs/1902.08129).
    """
    if measurements.inference:
        return
    # With one value per channel there is no gradient. Where a dead layer gives a norm layer a constant, the norm layer
    # multiplies the gradient by 1 / sqrt(eps). Those are other findings.
    if measurements.layers_after_dead_layer:
        return
    calls = measurements.passes_by_batch[0].calls
    if len(calls) < _FEWEST_LAYERS or any(call.count < 2 for each in calls.values() for call in each):
        return
    backward = measurements.backward_pass
    if backward is None:
        return
    names = [name for name in calls if backward.gradients.get(name, 0.0) != 0]
    norms = np.array([backward.gradients[name] for name in names])
    if len(norms) < _FEWEST_LAYERS:
        return
    if not np.isfinite(norms).all():
        text = "The gradient at the output of this layer is nan or infinite."
        yield make_finding("gradient-explosion", names[int(np.argmin(np.isfinite(norms)))], "error", text)
        return
    # A line is fitted to all logarithms, because the norms of single layers depend on their width.
    growth = math.exp(-np.polyfit(np.arange(len(norms)), np.log(norms), 1)[0])
    total_growth = growth ** (len(norms) - 1)
    if total_growth > (2e3 if growth > _SLOWEST_GROWTH else 1e6):
        text = (
            f"From each norm layer to the one before it, the gradient norm grows by a factor of {growth:.2f}: over "
            f"{len(norms)} layers, from {norms[-1]:.2g} at the last to {norms[0]:.2g} at the first."
        )
        yield make_finding("gradient-explosion", names[0], "error" if total_growth > 1e6 else "warning", text)


def _is_expected_at_inference(measurements: Measurements, name: str) -> bool:
    """Return whether predictions see the variance that training saw, so that nothing is lost."""
    has_statistics = measurements.norm_layers[name].running_mean is not None
    return measurements.inference and has_statistics and distance_to_data(measurements, name).value <= MISMATCH
