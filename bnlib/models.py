"""The networks of the experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn


def mlp(
    sizes: Sequence[int],
    norm: Callable[[int], nn.Module] | None = None,
    *,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a fully connected ReLU network: linear, norm, ReLU for each hidden layer, then linear.

    The linear layers of two networks built from the same ``sizes`` and ``seed`` start from the same numbers
    whether or not there is a ``norm``, so that a comparison starts from the same place.

    Arguments:
        sizes: widths from the input to the output, at least two, e.g. ``(64, 100, 100, 10)``.
        norm: called with the width of each hidden layer, e.g. ``bnlib.BatchNorm``; None for no normalisation.
        seed: seed of the initialisation; the global generator is left as it was.

    Shape:
        (N, \*) with ``sizes[0]`` values a sample, to (N, ``sizes[-1]``).

    Raises:
        ValueError: fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes must name at least an input and an output width, got {tuple(sizes)}")
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for fan_in, fan_out in pairwise(sizes[:-1]):
            layers.append(nn.Linear(fan_in, fan_out))
            if norm is not None:
                layers.append(norm(fan_out))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(sizes[-2], sizes[-1]))
    return nn.Sequential(*layers)
