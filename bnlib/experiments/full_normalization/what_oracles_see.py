"""Measure which samples a normalisation layer uses, and with which weight, in its forward and its backward pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnlib import BatchNorm, FullNorm
from bnlib.reference import ORACLES

BATCHES, SIZE, CHANNELS, ALPHA = 5, 3, 2, 0.3
"""Number of batches, samples in each, channels of the layer, and weight of the newest batch."""
LAYERS = ("batch norm", *ORACLES)


class SampleWeights(NamedTuple):
    """Weights of all samples of channel 0 in two means, each of shape (``BATCHES``, ``SIZE``); the last row is newest.

    Attributes:
        forward: in the mean that is subtracted from the inputs.
        backward: in what the layer takes for E[g] in the gradient of the first sample of the newest batch.
    """

    forward: np.ndarray
    backward: np.ndarray


def sample_weights(name: str) -> SampleWeights:
    """Measure the weights of one of ``LAYERS``: set a single input, or a single gradient, to 1 and the others to 0.

    Example:
        >>> from bnlib.experiments.full_normalization.what_oracles_see import sample_weights
        >>> sample_weights("leave_one_out").backward[-1].round(2).tolist()
        [0.0, 0.5, 0.5]
    """
    impulses = torch.eye(BATCHES * SIZE, dtype=torch.float64).view(-1, BATCHES, SIZE)
    forward = [_mean_of_inputs(name, each) for each in impulses]
    backward = [each[-1, 0].item() - _gradient_of_first_sample(name, each) for each in impulses]
    shape = (BATCHES, SIZE)
    return SampleWeights(np.reshape(forward, shape), np.reshape(backward, shape).round(9) + 0.0)


def _layer(name: str) -> BatchNorm | FullNorm:
    if name == "batch norm":
        return BatchNorm(CHANNELS, momentum=1.0, affine=False, dtype=torch.float64)
    return FullNorm(CHANNELS, alpha=ALPHA, oracle=name, affine=False, dtype=torch.float64)


def _columns(values: Tensor) -> Tensor:
    """Return inputs of all channels, (b, channels), of which channel 0 has these values."""
    return torch.cat((values[:, None], torch.zeros(len(values), CHANNELS - 1, dtype=values.dtype)), 1)


def _mean_of_inputs(name: str, inputs: Tensor) -> float:
    """Return the mean that is subtracted in the last of several batches, (batches, b)."""
    layer = _layer(name)
    for batch in inputs:
        layer(_columns(batch))
    return layer.running_mean[0].item()


def _gradient_of_first_sample(name: str, gradients: Tensor) -> float:
    r"""Return $\sigma\,b\,\partial L/\partial x$ of the first sample of the last batch, given $g$ of all batches.

    This sample lies at the mean, so its normalised value is 0, and the result is $g$ minus what stands for E[g].
    """
    layer = _layer(name)
    others, newest = torch.linspace(-1, 1.5, SIZE, dtype=torch.float64), ALPHA if name != "batch norm" else 1.0
    for number, g in enumerate(gradients):
        batch = others.clone()
        if number == BATCHES - 1:
            old = (1 - newest) * layer.running_mean[0].item() if newest < 1 else 0.0
            batch[0] = (old + newest * batch[1:].sum() / SIZE) / (1 - newest / SIZE)
        x = _columns(batch).requires_grad_()
        layer(x).backward(_columns(g) / SIZE)
    variance = batch.var(correction=0) + layer.eps if newest == 1 else layer.running_var[0]
    return (x.grad[0, 0] * variance.sqrt() * SIZE).item()
