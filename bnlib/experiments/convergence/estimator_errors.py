r"""Measure how well running estimates follow the mean and the variance of a layer's inputs during training.

The estimates do not influence the training. The three estimators are those of ``bnlib.mcsgd``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import FullNorm, datasets, samplers
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.mcsgd import ESTIMATORS
from bnlib.models import mlp

BATCH_SIZES, LEARNING_RATES = (1, 4, 16), (0.02, 0.2)
ALPHAS = (0.3, 0.1, 0.03, 0.01, 0.003)
SIZES, LAYERS = (64, 50, 50, 50, 10), ("first", "last")
STEPS, EVERY = 2000, 10
SEEDS = {"quick": range(5), "paper": range(20)}


class RunningEstimates:
    """Estimate statistics with all estimators and with several weights at once.

    Attributes:
        values: estimates by estimator, each of shape (weights, k).

    Arguments:
        start: the first estimate, (k,).
        weights: how many weights alpha ``update`` gets.
    """

    def __init__(self, start: Tensor, weights: int) -> None:
        self.values = {name: start.expand(weights, -1) for name in ESTIMATORS}
        self._trend = torch.zeros_like(self.values["momentum"])

    def update(self, alpha: Tensor, statistics: Tensor, statistics_before: Tensor) -> None:
        """Update the estimates with the statistics of a batch.

        Arguments:
            alpha: weights of the newest batch, (weights, 1).
            statistics: of the batch in the current network, (k,).
            statistics_before: of the same batch in the network before its last training step, (k,).
        """
        old = self.values
        smooth = (1 - alpha) * (old["momentum"] + self._trend) + alpha * statistics
        self._trend = (1 - alpha / 4) * self._trend + alpha / 4 * (smooth - old["momentum"])
        self.values = {
            "exponential": (1 - alpha) * old["exponential"] + alpha * statistics,
            "corrected": (1 - alpha) * (old["corrected"] - statistics_before) + statistics,
            "momentum": smooth,
        }


def layer_moments(network: nn.Sequential, x: Tensor, parts: int = 1) -> Tensor:
    """Compute mean and mean square of the inputs of the first and the last FullNorm layer, in float64.

    Arguments:
        network: in eval mode.
        x: samples, (n, ...).
        parts: number of equal parts into which ``x`` is divided.

    Returns:
        the moments of each part, (parts, layers, 2, channels).
    """
    found = []
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, FullNorm):
                found.append(x)
            x = layer(x)
        z = torch.stack((found[0], found[-1])).double()
        z = z.view(2, parts, -1, z.size(-1)).transpose(0, 1)
        return torch.stack((z.mean(2), z.square().mean(2)), 2)


def relative_errors(values: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare estimated with true moments, (weights, layers, 2, channels) and (layers, 2, channels).

    Returns:
        three tensors (weights, layers, channels): the error of the mean in true standard deviations; the error of the
        variance relative to the true one; whether the estimated variance is not positive.
    """
    mean, square = truth.unbind(-2)
    variance = square - mean.square()
    estimated = values[..., 1, :] - values[..., 0, :].square()
    return (values[..., 0, :] - mean) / variance.sqrt(), estimated / variance - 1, estimated <= 0


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return all batch sizes and learning rates, with more seeds at paper scale."""
    return {cell: SEEDS[scale] for cell in itertools.product(BATCH_SIZES, LEARNING_RATES)}


def measure(batch_size: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Train an MLP with FullNorm on digits by SGD, on shuffled batches, and follow its statistics.

    The estimates start from the true values, which are the moments of all training data. The statistics of a batch are
    taken in eval mode before the batch changes the network, so they are unbiased for the current network.

    Returns:
        for both ``LAYERS``, each estimator and each of ``ALPHAS``, from the second half of the steps: ``mean``, the
        root mean square error of the mean in true standard deviations, and ``variance``, that of the variance relative
        to the truth, medians over channels; ``not_positive``, the share of steps and channels with an estimated
        variance of 0 or below. And ``loss``, the mean mini-batch loss of both halves.
    """
    data = datasets.load("digits").to(device)
    network = mlp(SIZES, FullNorm, seed=seed).to(device)
    optimiser, x = torch.optim.SGD(network.parameters(), lr=lr), data.train_x.flatten(1)
    alpha = torch.tensor(ALPHAS, dtype=torch.float64, device=device)[:, None]
    estimates = RunningEstimates(layer_moments(network.eval(), x).flatten(), len(ALPHAS))
    indices = list(itertools.islice(samplers.shuffled(data.train_y.cpu(), batch_size, seed), STEPS + 1))
    losses, found, before = [], [], None
    for step, (index, following) in enumerate(itertools.pairwise(indices)):
        # The next batch, too: after the step these are its statistics in the network before.
        seen, ahead = layer_moments(network.eval(), x[torch.cat((index, following))], 2).flatten(1)
        estimates.update(alpha, seen, seen if before is None else before)
        before = ahead
        if step >= STEPS // 2 and step % EVERY == 0:
            truth = layer_moments(network, x)[0]
            found.append([relative_errors(each.view(-1, *truth.shape), truth) for each in estimates.values.values()])
        loss = F.cross_entropy(network.train()(x[index]), data.train_y[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return _summary(found) | {"loss": torch.stack(losses).view(2, -1).mean(1).tolist()}


def _summary(found: list[list[tuple[Tensor, Tensor, Tensor]]]) -> dict[str, np.ndarray]:
    """Reduce errors by step and estimator to numbers by layer, estimator and weight."""
    parts = [torch.stack([torch.stack(row) for row in zip(*step, strict=True)]) for step in found]
    mean, variance, negative = torch.stack(parts).unbind(1)  # each (steps, estimators, weights, layers, channels)
    result = {
        "mean": mean.square().mean(0).sqrt().median(-1).values,
        "variance": variance.square().mean(0).sqrt().median(-1).values,
        "not_positive": negative.double().mean((0, -1)),
    }
    return {name: value.permute(2, 0, 1).cpu().numpy() for name, value in result.items()}


EXPERIMENT = Measurement(
    name="convergence.estimator_errors",
    question="How well do moving estimates follow the mean and the variance of a layer's inputs during training?",
    source="Lian and Liu 2019, section 6; Chen, Sun and Yin 2021; Holt 1957",
    axes=("batch_size", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def lookup(quantity: str, batch_size: int, lr: float) -> dict[str, Any]:
    """Return the committed errors of ``"mean"`` or ``"variance"`` by layer and estimator, and the alphas."""
    found = load()[batch_size, lr][quantity]
    errors = {
        layer: {name: found[:, number, place] for place, name in enumerate(ESTIMATORS)}
        for number, layer in enumerate(LAYERS)
    }
    return {"alphas": ALPHAS, **errors}


def best_error(batch_size: int, lr: float, quantity: str, layer: str, estimator: str) -> float:
    """Return the committed error of an estimator at its best alpha: the least of the medians over seeds.

    Arguments:
        batch_size, lr: of the training.
        quantity: ``"mean"`` or ``"variance"``.
        layer: one of ``LAYERS``.
        estimator: one of ``bnlib.mcsgd.ESTIMATORS``.
    """
    found = load()[batch_size, lr][quantity][:, LAYERS.index(layer), ESTIMATORS.index(estimator)]
    return float(np.median(found, 0).min())


def not_positive_share(batch_size: int, lr: float, alpha: float = 0.01, estimator: str = "corrected") -> float:
    """Return the share of estimated variances that are not positive, median over seeds and layers."""
    found = load()[batch_size, lr]["not_positive"]
    return float(np.median(found[:, :, ESTIMATORS.index(estimator), ALPHAS.index(alpha)]))


def error_ratio_rows() -> list[dict]:
    """Compare the corrected with the exponential estimator, each at its best alpha, a row per setting.

    Returns:
        the ratios of their errors by quantity and layer, and the share (%) of the corrected variances at alpha 0.01
        that are not positive.
    """
    rows = []
    for batch_size, lr in load():
        row: dict = {"batch size": batch_size, "learning rate": f"{lr:g}"}
        for quantity, layer in itertools.product(("mean", "variance"), LAYERS):
            corrected, exponential = (
                best_error(batch_size, lr, quantity, layer, name) for name in ("corrected", "exponential")
            )
            row[quantity, f"{layer} layer"] = corrected / exponential
        row["variance", "not positive (%)"] = round(100 * not_positive_share(batch_size, lr))
        rows.append(row)
    return rows
