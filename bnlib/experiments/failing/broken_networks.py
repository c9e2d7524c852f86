"""Build networks with BN that are broken on purpose, to test ``bnlib.diagnose``, and train them briefly."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets
from bnlib.datasets import Dataset
from bnlib.models import mlp
from bnlib.samplers import FixedBatches, Sampler, shuffled


class HardCodedTraining(nn.Module):
    """Call ``F.batch_norm`` with ``training=True``, whatever the mode of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.register_buffer("mean", torch.zeros(32))
        self.register_buffer("var", torch.ones(32))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, 10)."""
        x = F.batch_norm(self.first(x.flatten(1)), self.mean, self.var, training=True)
        return self.last(torch.relu(x))


class LayersInList(nn.Module):
    """Keep layers in a plain Python list, so that ``eval()`` does not reach them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.middle = [nn.BatchNorm1d(32), nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, 10)."""
        x = self.first(x.flatten(1))
        for layer in self.middle:
            x = layer(x)
        return self.last(x)


class TrainInForward(nn.Module):
    """Switch a child module to train mode in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp((64, 32, 10), nn.BatchNorm1d)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, 10)."""
        self.body.train()
        return self.body(x)


healthy = partial(mlp, (64, 32, 10), nn.BatchNorm1d)


def wrong_modes() -> dict[str, nn.Module]:
    """Train the networks with a wrong mode, and a healthy one; return them by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {kind.__name__: kind() for kind in (HardCodedTraining, LayersInList, TrainInForward)}
    return {name: train(model) for name, model in (made | {"healthy": healthy()}).items()}


def young_statistics() -> nn.Module:
    """Train for two epochs with a momentum of 0.01, Keras's default, so that the running statistics lag behind."""
    return train(mlp((64, 100, 100, 10), partial(BatchNorm, momentum=0.01)), epochs=2)


def random_labels() -> Dataset:
    """Return 256 of the digits with random labels."""
    digits = datasets.load("digits")
    labels = torch.randint(10, (256,), generator=torch.Generator().manual_seed(0))
    return replace(digits, train_x=digits.train_x[:256], train_y=labels)


def never_reshuffled() -> nn.Module:
    """Train on random labels in batches of 16 that are never reshuffled."""
    return train(mlp((64, 64, 64, 10), BatchNorm), 60, random_labels(), size=16, batches=FixedBatches())


def train(
    model: nn.Module, epochs: int = 3, data: Dataset | None = None, *, size: int = 32, batches: Sampler = shuffled
) -> nn.Module:
    """Train with SGD at a rate of 0.1 on ``data``, by default the digits, and return the model in the mode it had."""
    data = data or datasets.load("digits")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader(data, size=size, batches=batches, count=epochs * (len(data.train_y) // size)):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model


def loader(
    data: Dataset | None = None, *, size: int = 32, batches: Sampler = shuffled, count: int = 16
) -> list[tuple[Tensor, Tensor]]:
    """Return the first batches of ``train`` as pairs (inputs, labels)."""
    data = data or datasets.load("digits")
    index = itertools.islice(batches(data.train_y, size, 0), count)
    return [(data.train_x[each], data.train_y[each]) for each in index]


@torch.no_grad()
def error_after_eval(model: nn.Module, size: int) -> float:
    """Measure the test error (a share) on digits after ``model.eval()``, in batches of ``size``."""
    data = datasets.load("digits")
    pairs = zip(data.test_x.split(size), data.test_y.split(size), strict=True)
    return torch.cat([model.eval()(x).argmax(1) != y for x, y in pairs]).double().mean().item()


def error_rows(models: Mapping[str, nn.Module], sizes: Sequence[int] = (360, 4, 2)) -> list[dict]:
    """Return ``error_after_eval`` in per cent, a row per model and a column per batch size."""
    return [
        {"network": name} | {("images per batch", str(size)): 100 * error_after_eval(model, size) for size in sizes}
        for name, model in models.items()
    ]
