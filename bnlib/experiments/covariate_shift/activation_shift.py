"""How what goes into the activations of a network moves while it trains: without BN, with it, with noise behind.

The network is the deeper one of ``noise_behind_bn``, with He's weights, so that all three learn from the first step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3)
BATCH_SIZE, STEPS, EVERY, PICTURES = 64, 100, 4, 200
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass
class Path:
    """Snapshots of the distributions at the activations of one network, over the same pictures in train mode.

    Attributes:
        steps: steps made before each snapshot.
        moments: of the 100 units of each of ``LAYERS``, one entry a snapshot.
    """

    steps: list[int] = field(default_factory=list)
    moments: dict[int, list[ChannelStatistics]] = field(default_factory=lambda: {layer: [] for layer in LAYERS})

    def quantiles(self, layer: int, unit: int = 0) -> np.ndarray:
        """Of one unit, at ``LEVELS``; shape (5, snapshots)."""
        return np.array([each.quantiles[:, unit].numpy() for each in self.moments[layer]]).T

    def moved(self, layer: int, first: int = 0, last: int = -1) -> float:
        """Distance of the means of two snapshots in standard deviations, the median over units."""
        return statistics_distance(self.moments[layer][first], self.moments[layer][last]).mean.nanmedian().item()


def follow(network: str, lr: float, *, steps: int = STEPS, every: int = EVERY, seed: int = 0) -> Iterator[Path]:
    """Train one of ``NETWORKS`` on digits and yield the path so far, about ten times."""
    model, data, path = (
        mlp(SIZES, NETWORKS[network], init=nn.init.kaiming_normal_, seed=seed),
        datasets.load("digits"),
        Path(),
    )
    inputs = [name for (name, _), (_, after) in zip(model.named_children(), [*model.named_children()][1:], strict=False)
             if isinstance(after, nn.ReLU)]  # fmt: skip
    names = [inputs[layer - 1] for layer in LAYERS]

    def look(step: int, model: nn.Module, index=None) -> bool:
        if step % every == 0:
            path.steps.append(step)
            found = activation_statistics(model, data.train_x[:PICTURES], names, num_quantiles=len(LEVELS))
            for layer, name in zip(LAYERS, names, strict=True):
                path.moments[layer].append(found[name])
        return step >= steps

    look(0, model)
    epochs = math.ceil(steps / (len(data.train_x) // BATCH_SIZE))
    for _ in iterate(model, data, batch_size=BATCH_SIZE, lr=lr, epochs=epochs, points=10, seed=seed, callbacks=[look]):
        yield path


@cache
def whole(network: str, lr: float, steps: int = STEPS, every: int = EVERY, seed: int = 0) -> Path:
    """The path of a whole run."""
    *_, path = follow(network, lr, steps=steps, every=every, seed=seed)
    return path


def lookup(layer: int, lr: float) -> dict[str, Path]:
    """The paths of all networks, trained here and now."""
    return {network: whole(network, lr) for network in NETWORKS}
