"""Three small architectures into which the tests plant faults, and what the doctor has to say about a fault."""

import copy
import functools
from dataclasses import dataclass, field

import torch
from doctor_examples import batches, settle, train
from torch import nn
from torch.utils.checkpoint import checkpoint

from bnlib import models

FEW = 8
"""Number of batches that the doctor gets."""

INFERENCE = {"inference": True}


class Residual(nn.Module):
    """A stem, a residual block, and a norm behind the pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(32), nn.Linear(32, 10))

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(x + self.block(x)))


class Depthwise(nn.Module):
    """A stem, a depthwise separable convolution, and a norm behind the pooling, with SiLU."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.SiLU(), nn.AvgPool2d(2))
        self.depthwise = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.SiLU())
        self.pointwise = nn.Sequential(nn.Conv2d(12, 16, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

    def forward(self, x):
        return self.head(self.pointwise(self.depthwise(self.stem(x))))


def fully_connected():
    return models.mlp((64, 32, 32, 32, 10), nn.BatchNorm1d)


ARCHITECTURES = {"fully connected": fully_connected, "residual": Residual, "depthwise": Depthwise}


@functools.cache
def _trained(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        some = batches(count=80)
        return settle(train(ARCHITECTURES[name](), some, 80), some[:40])


def trained(name):
    """Return a trained network whose running statistics are right, in train mode."""
    return copy.deepcopy(_trained(name)).train()


def untrained(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ARCHITECTURES[name]()


def norms(model):
    """Return the norm layers by name, in the order in which they are called."""
    return {name: each for name, each in model.named_modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)}


def middle(model):
    """Return the name of the second norm layer, after which an activation follows."""
    return list(norms(model))[1]


def after_middle(model):
    return list(norms(model))[2]


def replace(model, name, new):
    """Put another module in the place of a layer."""
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, new)
    return model


class Around(nn.Module):
    """A network whose call is another function of it."""

    def __init__(self, network, call):
        super().__init__()
        self.network, self.call = network, call

    def forward(self, x):
        return self.call(self, self.network, x)


class Checkpointed(nn.Module):
    """Run a module again in the backward pass, always or in train mode only."""

    def __init__(self, module, in_train_mode_only):
        super().__init__()
        self.module, self.in_train_mode_only = module, in_train_mode_only

    def forward(self, x):
        if self.training or not self.in_train_mode_only:
            return checkpoint(self.module, x, use_reentrant=False)
        return self.module(x)


class Forgetful(nn.Module):
    """A batch norm written from scratch that never updates its running statistics."""

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        dims, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = x.mean(dims), x.var(dims, correction=0)
        x = (x - mean.view(shape)) / (variance.view(shape) + self.eps).sqrt()
        return x * self.weight.view(shape) + self.bias.view(shape)


@dataclass
class Planted:
    """A network with a fault, and what the doctor has to say: the finding, its layers, its severity and its words.

    The severity is None where the loss decides. Other findings may stand beside it; if it is ``followed``, layers after
    those that are named may have it as well.
    """

    model: nn.Module
    code: str
    layers: list
    severity: str | None = "error"
    says: tuple = ()
    batches: object = None
    options: dict = field(default_factory=dict)
    beside: tuple = ()
    followed: bool = False


def few(**options):
    return batches(count=FEW, **options)
