"""Networks that are broken on purpose, for the doctor, and a short training for them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets
from bnlib.datasets import Dataset
from bnlib.models import mlp
from bnlib.samplers import Fixed, Sampler, shuffled


class WrittenDown(nn.Module):
    """BN as a function, its mode written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.register_buffer("mean", torch.zeros(32))
        self.register_buffer("var", torch.ones(32))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, 10)."""
        x = F.batch_norm(self.first(x.flatten(1)), self.mean, self.var, training=True)
        return self.last(torch.relu(x))


class Listed(nn.Module):
    """Layers in a list of Python's, of which PyTorch knows nothing."""

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


class Forced(nn.Module):
    """Somebody wanted fresh statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp((64, 32, 10), nn.BatchNorm1d)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, 10)."""
        self.body.train()
        return self.body(x)


healthy = partial(mlp, (64, 32, 10), nn.BatchNorm1d)


def wrong_modes() -> dict[str, nn.Module]:
    """Trained networks by the name of their fault, and a healthy one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {kind.__name__: kind() for kind in (WrittenDown, Listed, Forced)}
    return {name: train(model) for name, model in (made | {"healthy": healthy()}).items()}


def young() -> nn.Module:
    """Trained for two epochs with Keras's momentum."""
    return train(mlp((64, 100, 100, 10), partial(BatchNorm, momentum=0.01)), epochs=2)


def random_labels() -> Dataset:
    """256 of the digits, with labels drawn at random."""
    digits = datasets.load("digits")
    labels = torch.randint(10, (256,), generator=torch.Generator().manual_seed(0))
    return replace(digits, train_x=digits.train_x[:256], train_y=labels)


def never_reshuffled() -> nn.Module:
    """Trained on random labels, in batches of 16 that are always the same."""
    return train(mlp((64, 64, 64, 10), BatchNorm), 60, random_labels(), size=16, batches=Fixed())


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
    """The first batches that ``train`` takes, as pairs (inputs, labels)."""
    data = data or datasets.load("digits")
    index = itertools.islice(batches(data.train_y, size, 0), count)
    return [(data.train_x[each], data.train_y[each]) for each in index]


@torch.no_grad()
def error_after_eval(model: nn.Module, size: int) -> float:
    """Share of the digits' test set that is wrong after ``model.eval()``, asked in batches of ``size``."""
    data = datasets.load("digits")
    pairs = zip(data.test_x.split(size), data.test_y.split(size), strict=True)
    return torch.cat([model.eval()(x).argmax(1) != y for x, y in pairs]).double().mean().item()
