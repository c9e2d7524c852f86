"""Compare running averages with precise statistics in eval mode, for any momentum and micro-batch size.

Each training step takes the same samples, cut into micro-batches whose gradients are added. A network without
normalisation then gets the same gradient; a network with BN is normalised by each micro-batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled
from bnlib.training import best_device

SIZES = (64, 100, 100, 10)
MOMENTA = (1.0, 0.5, 0.1, 0.03, 0.01)
"""Weights of the newest micro-batch; PyTorch's default is 0.1, that of Keras 0.01 in this convention."""
LARGE_BATCH, SMALL_BATCH = 256, 32
"""Samples per step: the large batch is cut into micro-batches, the small one is not."""
MICRO_BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
CHECKPOINTS = {
    LARGE_BATCH: (1, 2, 5, 10, 20, 30, 50, 75, 100, 125, 150),
    SMALL_BATCH: (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 264),
}
RECOMPUTED = (1, 2, 4, 8, 16, 32)
"""Numbers of batches of ``SMALL_BATCH`` samples from which precise statistics are estimated."""
SEEDS = {"quick": range(5), "paper": range(20)}
_live_seed = itertools.count(100)


class MicroBatchNorm(BatchNorm):
    """Batch norm over micro-batches of ``size`` samples, with one running average per momentum.

    Attributes:
        size: samples per micro-batch.
        averages: running mean and variance for each of ``MOMENTA``, shape (M, 2, C).
    """

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__(num_features, track_running_stats=True)
        self.size = size
        start = torch.stack([torch.zeros(num_features), torch.ones(num_features)])
        self.register_buffer("averages", start.repeat(len(MOMENTA), 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by micro-batches in train mode, by ``running_mean`` and ``running_var`` in eval mode."""
        if not self.training:
            return super().forward(input)
        parts = input.view(-1, self.size, self.num_features)
        variances, means = torch.var_mean(parts, 1, correction=0)
        self._update_averages(means.detach(), variances.detach() * self.size / (self.size - 1))
        scale = (variances + self.eps).rsqrt()[:, None] * self.weight
        return ((parts - means[:, None]) * scale + self.bias).view_as(input)

    def _update_averages(self, means: Tensor, variances: Tensor) -> None:
        """Update the averages by one micro-batch after the other, in closed form."""
        kept = 1 - torch.tensor(MOMENTA, dtype=means.dtype, device=means.device)
        ages = torch.arange(len(means) - 1, -1, -1, device=means.device)
        weights = (1 - kept)[:, None] * kept[:, None] ** ages
        newest = torch.einsum("mg,gsc->msc", weights, torch.stack([means, variances], 1))
        self.averages.mul_((kept ** len(means))[:, None, None]).add_(newest)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return the large batch at two rates by micro-batch size, the small batch at all rates, and runs without BN."""
    grid = [("batch norm", LARGE_BATCH, size, lr) for size in MICRO_BATCH_SIZES for lr in (0.1, 1.0)]
    grid += [("batch norm", SMALL_BATCH, SMALL_BATCH, lr) for lr in LEARNING_RATES]
    grid += [("without normalisation", LARGE_BATCH, LARGE_BATCH, lr) for lr in (0.1, 1.0)]
    return {setting: SEEDS[scale] for setting in grid}


def network(norm: str, micro_batch_size: int, seed: int) -> nn.Sequential:
    """Build a network for digits whose BN layers normalise micro-batches of ``micro_batch_size`` samples."""
    norms = {"batch norm": lambda channels: MicroBatchNorm(channels, micro_batch_size), "without normalisation": None}
    return mlp(SIZES, norms[norm], seed=seed)


def measure(norm: str, batch_size: int, micro_batch_size: int, lr: float, *, seed: int, device) -> dict[str, list]:
    """Train with SGD; at ``CHECKPOINTS`` measure pairs of loss (nats) and error (a share).

    Returns:
        ``train``: mean over the steps since the last checkpoint, in train mode; on the test set in eval mode:
        ``precise``, with the statistics of all training samples; ``running``, with the averages of each of ``MOMENTA``;
        and after training ``recomputed``, with statistics averaged over each number ``RECOMPUTED`` of random batches.
    """
    model = network(norm, micro_batch_size, seed).to(device)
    found = {}
    for _, found in _checkpoints(model, batch_size, lr, seed):  # noqa: B007, the last is wanted
        pass
    data = datasets.load("digits").to(device)
    order = iter(shuffled(data.train_y.cpu(), SMALL_BATCH, seed + 1000))
    batches = [data.train_x[next(order)] for _ in range(max(RECOMPUTED))]
    return found | {"recomputed": [_test_with_precise_statistics(model, data, batches[:count]) for count in RECOMPUTED]}


def _checkpoints(model: nn.Module, batch_size: int, lr: float, seed: int) -> Iterator[tuple[int, dict[str, list]]]:
    """Train, and yield at each checkpoint the number of steps and all measurements so far."""
    data = datasets.load("digits").to(model[1].weight.device)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    found: dict[str, list] = {"train": [], "precise": [], "running": []}
    seen: list[list[float]] = []
    indices = itertools.islice(shuffled(data.train_y.cpu(), batch_size, seed), CHECKPOINTS[batch_size][-1])
    for step, index in enumerate(indices, 1):
        optimiser.zero_grad()
        outputs = model(data.train_x[index])
        F.cross_entropy(outputs, data.train_y[index]).backward()
        optimiser.step()
        seen.append(_loss_and_error(outputs.detach(), data.train_y[index]))
        if step in CHECKPOINTS[batch_size]:
            found["train"].append(np.mean(seen, 0).tolist())
            seen = []
            found["precise"].append(_test_with_precise_statistics(model, data, [data.train_x]))
            found["running"].append([_test_with_running_average(model, data, place) for place in range(len(MOMENTA))])
            yield step, found


def _batch_norm_layers(model: nn.Module) -> list[MicroBatchNorm]:
    return [layer for layer in model if isinstance(layer, MicroBatchNorm)]


@torch.no_grad()
def _test_with_running_average(model: nn.Module, data: datasets.Dataset, place: int) -> list[float]:
    for layer in _batch_norm_layers(model):
        layer.running_mean.copy_(layer.averages[place, 0])
        layer.running_var.copy_(layer.averages[place, 1])
    return _test_in_eval_mode(model, data)


@torch.no_grad()
def _test_with_precise_statistics(model: nn.Module, data: datasets.Dataset, batches: Sequence[Tensor]) -> list[float]:
    """Estimate statistics as the mean over ``batches``, like ``swa_utils.update_bn``, and test with them."""
    layers, taken = _batch_norm_layers(model), []
    for batch in batches:
        values = [batch]
        for layer in model:
            if isinstance(layer, MicroBatchNorm):
                variance, mean = torch.var_mean(values[-1], 0)
                taken.append(torch.stack([mean, variance]))
                values.append(_normalise(layer, values[-1], mean, variance * (1 - 1 / len(batch))))
            else:
                values.append(layer(values[-1]))
    for place, layer in enumerate(layers):
        mean, variance = torch.stack(taken[place :: len(layers)]).mean(0)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return _test_in_eval_mode(model, data)


def _normalise(layer: MicroBatchNorm, input: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (input - mean) * (variance + layer.eps).rsqrt() * layer.weight + layer.bias


def _test_in_eval_mode(model: nn.Module, data: datasets.Dataset) -> list[float]:
    model.eval()
    found = _loss_and_error(model(data.test_x), data.test_y)
    model.train()
    return found


def _loss_and_error(outputs: Tensor, labels: Tensor) -> list[float]:
    return [F.cross_entropy(outputs, labels).item(), (outputs.argmax(1) != labels).float().mean().item()]


EXPERIMENT = Measurement(
    name="failing.evaluation_statistics",
    question="When are running averages worse than precise statistics, and how much accuracy do micro-batches cost?",
    source="Wu and Johnson 2021, sections 3 and 4, at the size of digits",
    axes=("norm", "batch_size", "micro_batch_size", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def by_micro_batch(micro_batch_size: int, lr: float) -> dict[str, object]:
    """Return steps, and errors (seeds, checkpoints) of the large batch with BN of micro-batches and without BN."""
    cells = ("batch norm", micro_batch_size), ("without normalisation", LARGE_BATCH)
    rows = {norm: load()[norm, LARGE_BATCH, size, lr] for norm, size in cells}
    errors = {norm: {name: row[name][..., 1] for name in ("train", "precise")} for norm, row in rows.items()}
    return {"steps": CHECKPOINTS[LARGE_BATCH], "batch size": LARGE_BATCH} | errors


def by_momentum(lr: float, momentum: float) -> dict[str, object]:
    """Return steps, and loss and error (seeds, checkpoints, 2) of the small batch with both kinds of statistics."""
    row = load()["batch norm", SMALL_BATCH, SMALL_BATCH, lr]
    running = row["running"][:, :, MOMENTA.index(momentum)]
    return {"steps": CHECKPOINTS[SMALL_BATCH], "precise": row["precise"], "running": running}


def final_errors(micro_batch_size: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the final errors in per cent in train mode and on the test set, for the large batch, one per seed."""
    row = by_micro_batch(micro_batch_size, lr)["batch norm"]
    return 100 * row["train"][:, -1], 100 * row["precise"][:, -1]


def cost_of_running_averages(lr: float, momentum: float, step: int) -> np.ndarray:
    """Return test error with running averages minus test error with precise statistics, in points, one per seed."""
    row = by_momentum(lr, momentum)
    place = row["steps"].index(step)
    return 100 * (row["running"][:, place, 1] - row["precise"][:, place, 1])


def train_micro_batch(
    micro_batch_size: int, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Train one setting of ``by_micro_batch`` now, with a new seed; see ``widgets.Explorer``."""
    shown = by_micro_batch(micro_batch_size, lr)
    for step, total, live in _live(LARGE_BATCH, micro_batch_size, lr, device):
        errors = {name: live[name][..., 1] for name in ("train", "precise")}
        yield step, total, shown | {"live": {"steps": live["steps"]} | errors}


def train_momentum(
    lr: float, momentum: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Train one setting of ``by_momentum`` now, with a new seed; see ``widgets.Explorer``."""
    shown = by_momentum(lr, momentum)
    for step, total, live in _live(SMALL_BATCH, SMALL_BATCH, lr, device):
        running = live["running"][:, MOMENTA.index(momentum)]
        yield step, total, shown | {"live": live | {"running": running}}


def _live(batch_size: int, micro_batch_size: int, lr: float, device) -> Iterator[tuple[int, int, dict]]:
    seed = next(_live_seed)
    model = network("batch norm", micro_batch_size, seed).to(device or best_device())
    for step, found in _checkpoints(model, batch_size, lr, seed):
        steps = CHECKPOINTS[batch_size][: len(found["train"])]
        live = {name: np.array(values) for name, values in found.items()}
        yield step, CHECKPOINTS[batch_size][-1], {"steps": steps} | live


def micro_batch_rows(lr: float) -> list[dict]:
    """Return the final errors at a learning rate in per cent, a row per micro-batch size."""
    return [
        {"micro-batch size": size, "training error, train mode (%)": train, "test error, precise statistics (%)": test}
        for size in MICRO_BATCH_SIZES
        for train, test in [final_errors(size, lr)]
    ]


def running_average_cost_rows() -> list[dict]:
    """Return the median of ``cost_of_running_averages``, a row per momentum and learning rate."""
    return [
        {"momentum": f"{momentum:g}", "learning rate": f"{lr:g}"}
        | {
            ("training steps", str(step)): float(np.median(cost_of_running_averages(lr, momentum, step)))
            for step in (10, 20, 50, 150, 264)
        }
        for momentum, lr in itertools.product((0.1, 0.01), LEARNING_RATES)
    ]


def large_batch_errors(momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the final test errors of the large batch at a rate of 0.1 in per cent, one per seed.

    The first has running averages, the second precise statistics.
    """
    row = load()["batch norm", LARGE_BATCH, LARGE_BATCH, 0.1]
    return 100 * row["running"][:, -1, MOMENTA.index(momentum), 1], 100 * row["precise"][:, -1, 1]


def excess_loss_of_recomputed_statistics() -> np.ndarray:
    """Return the median test loss with recomputed minus that with precise statistics, one per entry of ``RECOMPUTED``.

    In nats, for the small batch at a learning rate of 0.1.
    """
    row = load()["batch norm", SMALL_BATCH, SMALL_BATCH, 0.1]
    return np.median(row["recomputed"][:, :, 0] - row["precise"][:, -1:, 0], axis=0)


def recomputed_rows() -> list[dict]:
    """Return ``excess_loss_of_recomputed_statistics``, a row per number of batches."""
    return [
        {
            "batches": count,
            "additional test loss (nats)": float(excess),
            "additional test loss × batches": float(count * excess),
        }
        for count, excess in zip(RECOMPUTED, excess_loss_of_recomputed_statistics(), strict=True)
    ]
