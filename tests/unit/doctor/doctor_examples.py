"""Networks, batches and helpers that the tests of ``bnlib.diagnose`` share."""

import copy
import functools
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, FullNorm, datasets, models, samplers
from bnlib.doctor import diagnose

MLP_SIZES = (64, 32, 32, 10)

WHOLE = ("eval-mode-distorted", "")
"""The finding that the loss with running statistics is clearly worse than with precise ones."""


@functools.cache
def digits():
    return datasets.load("digits")


def batches(size=32, count=12, sampler=samplers.shuffled, seed=7, change=lambda x, y: (x, y)):
    data = digits()
    index = sampler(data.train_y, size, seed)
    return [change(data.train_x[i], data.train_y[i]) for i, _ in zip(index, range(count), strict=False)]


def train(model, loader, steps, lr=0.1):
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for _, (x, y) in zip(range(steps), loader, strict=False):
        optimiser.zero_grad()
        outputs = model(x)
        F.cross_entropy(outputs.flatten(0, -2), y.flatten()).backward()
        optimiser.step()
    return model


def settle(model, loader):
    """Call a model in train mode without training it, until its running statistics have caught up with its weights."""
    with torch.no_grad():
        for x, _ in loader:
            model.train()(x)
    return model


def head():
    """Return a convolution, and a norm after the pooling, where a sample has one value per channel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 10),
        )  # fmt: skip


MAKE = {
    "mlp": lambda: models.mlp(MLP_SIZES, nn.BatchNorm1d),
    "ours": lambda: models.mlp(MLP_SIZES, BatchNorm),
    "full": lambda: models.mlp(MLP_SIZES, FullNorm),
    "cnn": lambda: models.small_cnn(norm=nn.BatchNorm2d, width=8),
    "head": head,
}


FIRST = {"mlp": "2", "ours": "2", "full": "2", "cnn": "1", "head": "1"}


LAST = {"mlp": "5", "ours": "5", "full": "5", "cnn": "9", "head": "5"}


@functools.cache
def _trained(name):
    # Full Norm averages over more batches.
    steps = 120 if name == "full" else 60
    return settle(train(MAKE[name](), batches(count=steps), steps), batches(count=40))


def trained(name):
    return copy.deepcopy(_trained(name))


def not_notes(report):
    return {(each.code, each.layer) for each in report if each.severity != "note"}


def everything(model):
    """Return all that ``diagnose`` must not change."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [(id(value), value.clone(), value.requires_grad) for value in tensors],
        [None if value.grad is None else value.grad.clone() for value in model.parameters()],
        [(module.training, id(module), sorted(vars(module))) for module in model.modules()],
        [len(value) for module in model.modules() for key, value in vars(module).items() if key.endswith("_hooks")],
        (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
    )


def same(before, after):
    if isinstance(before, torch.Tensor):
        return torch.equal(before.nan_to_num(9.25), after.nan_to_num(9.25))
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    return before == after


def diagnose_unchanged(model, *args, **options):
    """Return the report, and assert that nothing was changed."""
    before = everything(model)
    report = diagnose(model, *args, **options)
    assert same(before, everything(model))
    return report


def findings(model, *args, **options):
    return not_notes(diagnose_unchanged(model, *args, **options))


def displaced(name, layer):
    model = trained(name).eval()
    layer = model.get_submodule(layer)
    layer.running_mean += 3 * layer.running_var.sqrt()
    return model


def negative(x, y):
    return 2.5 - 2 * x, y
