"""Measure how the inputs of the activation functions shift during training: without normalisation, BN and noisy BN.

The network is the deeper one of ``noisy_batch_norm``, with He initialisation, so that all three variants learn from
the first step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from torch import nn

from bnlib import BatchNorm, NoisyBatchNorm, datasets
from bnlib.models import mlp
from bnlib.probes import ChannelStatistics, activation_statistics, statistics_distance
from bnlib.training import iterate

SIZES = (64, *[100] * 8, 10)
NETWORKS = {"without normalisation": None, "batch norm": BatchNorm, "noisy BN": NoisyBatchNorm}
LAYERS = (1, 2, 4, 6, 8)
BATCH_SIZE, IMAGES = 64, 200
"""Images per step, and images on which the statistics are measured."""


@dataclass
class ActivationHistory:
    """Snapshots of the inputs of the activation functions of one network, always for the same images, in train mode.

    Attributes:
        steps: training steps before each snapshot.
        statistics: for each of ``LAYERS``, those of its 100 units, one entry per snapshot.
    """

    steps: list[int] = field(default_factory=list)
    statistics: dict[int, list[ChannelStatistics]] = field(default_factory=lambda: {layer: [] for layer in LAYERS})

    def mean_shift(self, layer: int, first: int = 0, last: int = -1) -> float:
        """Return the distance (2.1) of the means of two snapshots in standard deviations, the median over units."""
        snapshots = self.statistics[layer]
        return statistics_distance(snapshots[first], snapshots[last]).mean.nanmedian().item()


def train(network: str, lr: float, *, steps: int, interval: int, seed: int = 0) -> Iterator[ActivationHistory]:
    """Train one of ``NETWORKS`` on digits and yield the history so far, about ten times."""
    model, data = mlp(SIZES, NETWORKS[network], init=nn.init.kaiming_normal_, seed=seed), datasets.load("digits")
    history = ActivationHistory()
    names = [_inputs_of_activations(model)[layer - 1] for layer in LAYERS]

    def take_snapshot(step: int, model: nn.Module, index=None) -> bool:
        if step % interval == 0:
            history.steps.append(step)
            found = activation_statistics(model, data.train_x[:IMAGES], names, num_quantiles=1)
            for layer, name in zip(LAYERS, names, strict=True):
                history.statistics[layer].append(found[name])
        return step >= steps

    take_snapshot(0, model)
    epochs = math.ceil(steps / (len(data.train_x) // BATCH_SIZE))
    for _ in iterate(
        model, data, batch_size=BATCH_SIZE, lr=lr, epochs=epochs, checkpoints=10, seed=seed, callbacks=[take_snapshot]
    ):
        yield history


@cache
def history_of(network: str, lr: float, steps: int, interval: int, seed: int = 0) -> ActivationHistory:
    """Train one of ``NETWORKS`` and return the complete history."""
    *_, history = train(network, lr, steps=steps, interval=interval, seed=seed)
    return history


def values_around_a_step(network: str, *, lr: float = 0.1, layer: int = 8, seed: int = 0) -> np.ndarray:
    """Return what enters one activation function before and after the first step of training.

    The unit is the one whose shift (2.1) is the median of its layer.

    Returns:
        the values for the same images in train mode, from the lowest to the highest, shape (2, ``IMAGES``).
    """
    model, data = mlp(SIZES, NETWORKS[network], init=nn.init.kaiming_normal_, seed=seed), datasets.load("digits")
    name, found = _inputs_of_activations(model)[layer - 1], []

    def take_snapshot(step: int, model: nn.Module, index=None) -> bool:
        # As many quantiles as images: all values, in order.
        found.append(activation_statistics(model, data.train_x[:IMAGES], [name], num_quantiles=IMAGES)[name])
        return step >= 1

    take_snapshot(0, model)
    list(iterate(model, data, batch_size=BATCH_SIZE, lr=lr, epochs=1, seed=seed, callbacks=[take_snapshot]))
    unit = int(statistics_distance(*found).mean.argsort()[found[0].mean.numel() // 2])
    return np.array([each.quantiles[:, unit].numpy() for each in found])


def _inputs_of_activations(model: nn.Module) -> list[str]:
    """Return the names of the layers in front of the ReLUs."""
    layers = list(model.named_children())
    return [name for (name, _), (_, after) in itertools.pairwise(layers) if isinstance(after, nn.ReLU)]


def mean_shifts(network: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Measure how far the means move in the first 20 steps at a learning rate of 0.1, in standard deviations.

    Returns:
        the shift in one step, as the median over the 20 steps, and the shift from the first snapshot to the last;
        one value for each of ``LAYERS``.
    """
    history = history_of(network, 0.1, steps=20, interval=1, seed=seed)
    one_step = [np.median([history.mean_shift(layer, k, k + 1) for k in range(20)]) for layer in LAYERS]
    return np.array(one_step), np.array([history.mean_shift(layer, 0, 20) for layer in LAYERS])


def mean_shifts_by_network(seeds: Sequence[int]) -> dict[str, dict[str, np.ndarray]]:
    """Return ``mean_shifts`` by network and by number of steps, shape (seeds, layers)."""
    return {
        network: dict(
            zip(("one step", "20 steps"), np.stack([mean_shifts(network, seed) for seed in seeds], 1), strict=True)
        )
        for network in NETWORKS
    }
