r"""Divide the error of a running average of a layer's mean into its lag and its noise, by the weight alpha.

Along the trajectory of one training the weights are known at each step, and so are the mean and the variance of a
channel over all data. A running average of batch means is then $\sum_jc_j\bar x_j$ with $c_j=\alpha(1-\alpha)^j$ for
the batch j steps ago. If other batches had been drawn, its expectation would be $\sum_jc_j\mu_j$ and its variance
$\sum_jc_j^2v_j/b$. The lag is the difference of the expectation and $\mu_0$.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from bnlib import FullNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled

SIZES, STEPS, EVERY, LEARNING_RATE = (64, 50, 10), 2000, 20, 0.03
BATCH_SIZES = (1, 16)
ALPHAS = np.array([0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])


def trajectory(batch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train on digits, and return mean and variance over all data of each channel before each step, (steps, C)."""
    data = datasets.load("digits")
    network, x = mlp(SIZES, FullNorm, seed=seed), data.train_x.flatten(1)
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    first = next(each for each in network if isinstance(each, torch.nn.Linear))
    centre, spread = x.double().mean(0), x.double().T.cov(correction=0)
    means, variances = [], []
    for index in itertools.islice(shuffled(data.train_y, batch_size, seed), STEPS):
        with torch.no_grad():  # the layer is linear, so the moments of its outputs follow from those of its inputs
            weight, bias = first.weight.double(), first.bias.double()
            means.append(weight @ centre + bias)
            variances.append(((weight @ spread) * weight).sum(1))
        optimiser.zero_grad()
        F.cross_entropy(network(x[index]), data.train_y[index]).backward()
        optimiser.step()
    return torch.stack(means).numpy(), torch.stack(variances).numpy()


def squared_errors(
    means: np.ndarray, variances: np.ndarray, batch_size: int, alphas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return squared lag and noise of running averages with the weights ``alphas``, in units of the variance.

    Both are means over channels and over steps of the second half. The averages start from the exact mean.
    """
    lag, noise, alpha = [], [], alphas[:, None]
    average, spread = means[:1], 0.0
    for step, (mean, variance) in enumerate(zip(means, variances, strict=True)):
        average = (1 - alpha) * average + alpha * mean
        spread = (1 - alpha) ** 2 * spread + alpha**2 * variance / batch_size
        if step >= len(means) // 2 and step % EVERY == 0:
            lag.append((np.square(average - mean) / variance).mean(1))
            noise.append((spread / variance).mean(1))
    return np.mean(lag, 0), np.mean(noise, 0)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return both batch sizes, with five seeds each."""
    return {(batch_size,): range(5) for batch_size in BATCH_SIZES}


def measure(batch_size: int, *, seed: int, device: str) -> dict[str, np.ndarray]:
    """Return the squared ``lag`` and ``noise`` at each of ``ALPHAS`` along one training on the CPU."""
    lag, noise = squared_errors(*trajectory(batch_size, seed), batch_size, ALPHAS)
    return {"lag": lag, "noise": noise}


EXPERIMENT = Measurement(
    name="full_normalization.lag_and_noise",
    question="How do lag and noise of a running average change with the weight of the newest batch?",
    source="chapter 5; the two terms of Lemma 1 of Lian and Liu 2019",
    axes=("batch_size",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[int, dict[str, np.ndarray]]:
    """Load the committed squared lag, noise and their sum by batch size, each of shape (seeds, alphas)."""
    found = {batch_size: values for (batch_size,), values in EXPERIMENT.load("quick").items()}
    return {size: values | {"sum": values["lag"] + values["noise"]} for size, values in found.items()}


def best_alpha(batch_size: int) -> float:
    """Return the weight with the least median of the sum."""
    return float(ALPHAS[np.median(load()[batch_size]["sum"], 0).argmin()])
