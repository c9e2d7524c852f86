"""Whose running statistics a layer has, if they are not those of its inputs: what the numbers themselves tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from bnlib.doctor.layer_statistics import MISMATCH, distance
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import eps, gamma, running_statistics
from bnlib.doctor.structures import tensors

_MATCH = 0.2
"""The largest ``Distance.value`` of statistics that are those of the data."""

_FEWEST_CHANNELS = 8
"""With fewer channels, any numbers in the right order are near to others."""


@dataclass(frozen=True)
class Origin:
    """Where statistics come from: ``text`` is a sentence, and ``remedy`` says what to do."""

    text: str
    remedy: str


def origin_of_statistics(measurements: Measurements, name: str) -> Origin | None:
    """Return where a layer's running statistics come from, if they are far from its data; None if that is unknown."""
    return next((found for found in (look(measurements, name) for look in _LOOKS) if found is not None), None)


def _normalised_before(measurements: Measurements, name: str) -> Origin | None:
    """The input has mean beta and variance gamma^2: the layer was folded into the one below, and still runs."""
    layer = measurements.norm_layers[name]
    weight, bias = gamma(layer), getattr(layer, "bias", None)
    if weight is None or not isinstance(bias, Tensor):
        return None
    mean, variance = bias.detach().cpu().double(), weight.detach().cpu().double().square()
    # Standardised inputs of a model have mean 0 and variance 1, too.
    trained = bool(((mean.abs() > 0.05) | ((variance - 1).abs() > 0.1)).double().mean() > 0.5)
    if not trained or distance(layer, mean, variance, measurements.statistics[name]).value > _MATCH:
        return None
    return Origin(
        " The input of this layer has its beta as mean and its gamma as standard deviation already: the layer was "
        "folded (fused) into the one below, and normalises once more.",
        "Replace the norm layers that were folded by nn.Identity(), or load the weights from before they were folded.",
    )


def _of_another_layer(measurements: Measurements, name: str) -> Origin | None:
    """Another layer has the running statistics of this one's data, as after a wrong mapping of names."""
    layer, data = measurements.norm_layers[name], measurements.statistics[name]
    near = []
    for other, module in measurements.norm_layers.items():
        found = running_statistics(module)
        if other != name and found is not None and len(found[0]) == len(data.mean) >= _FEWEST_CHANNELS:
            near.append((distance(layer, *found, data).value, other))
    if not near or min(near)[0] > _MATCH:
        return None
    return Origin(
        f" The running statistics of layer {min(near)[1]} agree with the inputs of this layer. So the buffers of the "
        "two were exchanged, for example by a wrong mapping of names.",
        "Load each layer's buffers, and its weights, by their own names.",
    )


def _in_another_order(measurements: Measurements, name: str) -> Origin | None:
    """The running statistics agree with the data if the channels are put in another order."""
    layer, data = measurements.norm_layers[name], measurements.statistics[name]
    mean, variance = running_statistics(layer)
    if len(mean) < _FEWEST_CHANNELS:
        return None
    # The order of the means alone would bring any means near, so the variances decide, and most must agree.
    order = mean.argsort()[data.mean.argsort().argsort()]
    ratio = ((variance[order] + eps(layer)) / (data.total_variance + eps(layer))).log().abs()
    plain = ((variance + eps(layer)) / (data.total_variance + eps(layer))).log().abs()
    agree = float((ratio < 0.25).double().mean())
    if distance(layer, mean[order], variance[order], data).value > _MATCH or agree < 0.8:
        return None
    if not float((plain < 0.25).double().mean()) < 0.7 * agree:
        return None
    return Origin(
        " In another order of the channels, they agree with the data. So the channels of the weights were permuted, "
        "pruned or regrouped, and those of the buffers were not, or the other way round.",
        "Apply the same order to running_mean and running_var as to weight, bias and the layer below, or recompute the "
        "statistics: torch.optim.swa_utils.update_bn(batches, model).",
    )


def _of_other_inputs_or_weights(measurements: Measurements, name: str) -> Origin | None:
    """Tell other inputs from other weights by the first layer of a convolutional network.

    Behind a convolution, other means of the inputs change the means of the outputs by as many numbers as there are
    input channels, and so within a space of few dimensions. Other weights leave it. In five networks, the part outside
    was 88 to 100 % of the change for weights nearby, 90 % or more of the running means for independent weights, and for
    other patterns in space at most 48 % of both. For averages over several models and data, as of federated clients,
    the share may be any.
    """
    data = measurements.statistics[name]
    layer = measurements.norm_layers[name]
    if next(iter(measurements.passes_by_batch[0].calls)) != name:
        return None
    below = _convolution_below(measurements, name)
    gap = running_statistics(layer)[0] - data.mean
    deviations = (gap.abs() / (data.total_variance + eps(layer)).sqrt()).nanmedian()
    if below is None or len(gap) < 4 * below.in_channels or not float(deviations) > MISMATCH / 2:
        return None
    effect = below.weight.detach().flatten(2).sum(2).cpu().double()
    shift = torch.linalg.lstsq(effect, gap[:, None], driver="gelsd").solution
    outside = float((gap - (effect @ shift)[:, 0]).norm())
    stored = running_statistics(layer)[0]
    stored = stored if below.bias is None else stored - below.bias.detach().cpu().double()
    left = outside / float(gap.norm())
    if outside > 0.7 * min(float(gap.norm()), float(stored.norm())):
        return Origin(
            f" No other mean of the inputs explains {left:.0%} of the difference of the means, so these statistics "
            "belong to other weights: to another checkpoint, to weights before an average or a merge, or to another "
            "client of a federated training.",
            "",
        )
    if left < 0.2:
        numbers = ", ".join(f"{value:.2g}" for value in shift[:4, 0].tolist())
        return Origin(
            " Inputs with another mean explain the difference of the means: the inputs behind these statistics are "
            f"larger by {numbers}{', ...' * (len(shift) > 4)} in each input channel. So compare the preprocessing.",
            "",
        )
    return None


def _convolution_below(measurements: Measurements, name: str) -> _ConvNd | None:
    """Return the convolution of the model's input whose outputs are the inputs of a layer, found by their means."""
    input = next(tensors(measurements.batches[0].inputs), None)
    seen = measurements.passes_by_batch[0].calls[name][0]
    for module in measurements.instrumented.model.modules():
        if not _takes(module, input) or module.out_channels != len(seen.mean):
            continue
        with torch.no_grad():
            output = module(input)
        mean = output.transpose(0, 1).flatten(1).mean(1)
        if torch.allclose(mean, seen.mean.to(mean), rtol=1e-3, atol=1e-4 * float(seen.variance.max()) ** 0.5):
            return module
    return None


def _takes(module: nn.Module, input: object) -> bool:
    if not isinstance(module, _ConvNd) or module.transposed or module.groups > 1 or not isinstance(input, Tensor):
        return False
    return (
        input.dim() == module.weight.dim()
        and input.size(1) == module.in_channels
        and input.dtype == module.weight.dtype
    )


_LOOKS: tuple[Callable[[Measurements, str], Origin | None], ...] = (
    _normalised_before,
    _of_another_layer,
    _in_another_order,
    _of_other_inputs_or_weights,
)
