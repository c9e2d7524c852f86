"""Which statistics eval mode is given: running averages of any momentum, or those of the data, for any micro-batch.

A step of training has always the same samples. Cut into micro-batches whose gradients are added up, they give a plain
network the same gradient; a network with BN is normalised by each micro-batch.
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
"""Weights of the newest micro-batch; 0.1 is torch's, 0.01 that of Keras."""
LARGE, SMALL = 256, 32
"""Samples a step: to be cut into micro-batches, and as they are."""
MICRO_BATCHES = (2, 4, 8, 16, 32, 64, 128, 256)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
CHECKPOINTS = {LARGE: (1, 2, 5, 10, 20, 30, 50, 75, 100, 125, 150), SMALL: (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 264)}
RECOMPUTED = (1, 2, 4, 8, 16, 32)
"""Numbers of batches of ``SMALL`` samples from which statistics are estimated anew."""
SEEDS = {"quick": range(5), "paper": range(20)}
_live_seed = itertools.count(100)


class MicroBatchNorm(BatchNorm):
    """BN of a batch that is cut into micro-batches of ``size``, each normalised by itself, with many running averages.

    Attributes:
        size: samples a micro-batch.
        averages: after training on batches the running mean and variance for each of ``MOMENTA``, shape (M, 2, C).
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
        self._follow(means.detach(), variances.detach() * self.size / (self.size - 1))
        scale = (variances + self.eps).rsqrt()[:, None] * self.weight
        return ((parts - means[:, None]) * scale + self.bias).view_as(input)

    def _follow(self, means: Tensor, variances: Tensor) -> None:
        """Update the averages by one micro-batch after the other, in closed form."""
        kept = 1 - torch.tensor(MOMENTA, dtype=means.dtype, device=means.device)
        ages = torch.arange(len(means) - 1, -1, -1, device=means.device)
        weights = (1 - kept)[:, None] * kept[:, None] ** ages
        newest = torch.einsum("mg,gsc->msc", weights, torch.stack([means, variances], 1))
        self.averages.mul_((kept ** len(means))[:, None, None]).add_(newest)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Micro-batches of a large batch at two rates, a small batch at all, and both without BN."""
    grid = [("batch norm", LARGE, micro, lr) for micro in MICRO_BATCHES for lr in (0.1, 1.0)]
    grid += [("batch norm", SMALL, SMALL, lr) for lr in LEARNING_RATES]
    grid += [("no norm", LARGE, LARGE, lr) for lr in (0.1, 1.0)]
    return {setting: SEEDS[scale] for setting in grid}


def network(norm: str, micro: int, seed: int) -> nn.Sequential:
    """The network on digits whose BN layers see micro-batches of ``micro`` samples."""
    return mlp(SIZES, (lambda channels: MicroBatchNorm(channels, micro)) if norm == "batch norm" else None, seed=seed)


def measure(norm: str, batch_size: int, micro: int, lr: float, *, seed: int, device) -> dict[str, list]:
    """Train with SGD; at ``CHECKPOINTS`` take losses in nats and shares of errors, each as a pair.

    Returns:
        ``train``, of the steps since the last checkpoint in train mode; of the test set in eval mode, ``precise``, with
        the statistics of all training samples, and ``running``, with the averages of each of ``MOMENTA``; at the end,
        ``recomputed``, with statistics averaged over each number of ``RECOMPUTED`` of random training batches.
    """
    model = network(norm, micro, seed).to(device)
    found = {}
    for _, found in _checkpoints(model, batch_size, lr, seed):  # noqa: B007, the last is wanted
        pass
    data = datasets.load("digits").to(device)
    order = iter(shuffled(data.train_y.cpu(), SMALL, seed + 1000))
    batches = [data.train_x[next(order)] for _ in range(max(RECOMPUTED))]
    return found | {"recomputed": [_precise(model, data, batches[:count]) for count in RECOMPUTED]}


def _checkpoints(model: nn.Module, batch_size: int, lr: float, seed: int) -> Iterator[tuple[int, dict[str, list]]]:
    """Train, and yield at each checkpoint the number of steps and all that was found until then."""
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
        seen.append(_judged(outputs.detach(), data.train_y[index]))
        if step in CHECKPOINTS[batch_size]:
            found["train"].append(np.mean(seen, 0).tolist())
            seen = []
            found["precise"].append(_precise(model, data, [data.train_x]))
            found["running"].append([_running(model, data, place) for place in range(len(MOMENTA))])
            yield step, found


def _norms(model: nn.Module) -> list[MicroBatchNorm]:
    return [layer for layer in model if isinstance(layer, MicroBatchNorm)]


@torch.no_grad()
def _running(model: nn.Module, data: datasets.Dataset, place: int) -> list[float]:
    for layer in _norms(model):
        layer.running_mean.copy_(layer.averages[place, 0])
        layer.running_var.copy_(layer.averages[place, 1])
    return _tested(model, data)


@torch.no_grad()
def _precise(model: nn.Module, data: datasets.Dataset, batches: Sequence[Tensor]) -> list[float]:
    """Estimate statistics as ``swa_utils.update_bn`` does, batches weighing the same, and test with them."""
    layers, taken = _norms(model), []
    for batch in batches:
        values = [batch]
        for layer in model:
            if isinstance(layer, MicroBatchNorm):
                variance, mean = torch.var_mean(values[-1], 0)
                taken.append(torch.stack([mean, variance]))
                values.append(_scaled(layer, values[-1], mean, variance * (1 - 1 / len(batch))))
            else:
                values.append(layer(values[-1]))
    for place, layer in enumerate(layers):
        mean, variance = torch.stack(taken[place :: len(layers)]).mean(0)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return _tested(model, data)


def _scaled(layer: MicroBatchNorm, input: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (input - mean) * (variance + layer.eps).rsqrt() * layer.weight + layer.bias


def _tested(model: nn.Module, data: datasets.Dataset) -> list[float]:
    model.eval()
    judged = _judged(model(data.test_x), data.test_y)
    model.train()
    return judged


def _judged(outputs: Tensor, labels: Tensor) -> list[float]:
    return [F.cross_entropy(outputs, labels).item(), (outputs.argmax(1) != labels).float().mean().item()]


EXPERIMENT = Measurement(
    name="failing.evaluation_statistics",
    question="When are running averages worse than the statistics of the data, and what do micro-batches cost?",
    source="Wu and Johnson 2021, sections 3 and 4, at the size of digits",
    axes=("norm", "batch_size", "micro", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """The committed result."""
    return EXPERIMENT.load("quick")


def by_micro_batch(micro: int, lr: float) -> dict[str, object]:
    """Steps, and shares of errors (seeds, checkpoints) of the large batch in micro-batches and without a norm."""
    rows = {"batch norm": load()["batch norm", LARGE, micro, lr], "no norm": load()["no norm", LARGE, LARGE, lr]}
    errors = {norm: {name: row[name][..., 1] for name in ("train", "precise")} for norm, row in rows.items()}
    return {"steps": CHECKPOINTS[LARGE], "batch size": LARGE} | errors


def by_momentum(lr: float, momentum: float) -> dict[str, object]:
    """Steps, and pairs of loss and error (seeds, checkpoints, 2) of the small batch, with running and precise ones."""
    row = load()["batch norm", SMALL, SMALL, lr]
    running = row["running"][:, :, MOMENTA.index(momentum)]
    return {"steps": CHECKPOINTS[SMALL], "precise": row["precise"], "running": running}


def last_errors(micro: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors in per cent at the end of the large batch's training, in train mode and on the test set, one a seed."""
    row = by_micro_batch(micro, lr)["batch norm"]
    return 100 * row["train"][:, -1], 100 * row["precise"][:, -1]


def cost(lr: float, momentum: float, step: int) -> np.ndarray:
    """Test errors with running averages less those with precise statistics, in points, one a seed."""
    row = by_momentum(lr, momentum)
    place = row["steps"].index(step)
    return 100 * (row["running"][:, place, 1] - row["precise"][:, place, 1])


def train_micro_batch(
    micro: int, lr: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Train one position of ``by_micro_batch`` for real, with a new seed; see ``widgets.Explorer``."""
    shown = by_micro_batch(micro, lr)
    for step, total, live in _live(LARGE, micro, lr, device):
        errors = {name: live[name][..., 1] for name in ("train", "precise")}
        yield step, total, shown | {"live": {"steps": live["steps"]} | errors}


def train_momentum(
    lr: float, momentum: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """The same for ``by_momentum``."""
    shown = by_momentum(lr, momentum)
    for step, total, live in _live(SMALL, SMALL, lr, device):
        running = live["running"][:, MOMENTA.index(momentum)]
        yield step, total, shown | {"live": live | {"running": running}}


def _live(batch_size: int, micro: int, lr: float, device) -> Iterator[tuple[int, int, dict]]:
    seed = next(_live_seed)
    model = network("batch norm", micro, seed).to(device or best_device())
    for step, found in _checkpoints(model, batch_size, lr, seed):
        steps = CHECKPOINTS[batch_size][: len(found["train"])]
        live = {name: np.array(values) for name, values in found.items()}
        yield step, CHECKPOINTS[batch_size][-1], {"steps": steps} | live
