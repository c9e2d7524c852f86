"""More cases for the rows of the symptom table: what is broken, and what is healthy; see ``CASES``."""

from types import SimpleNamespace

import numpy as np
import torch
from cases_by_kind_of_network import CASES_BY_KIND_OF_NETWORK
from cases_by_task import CASES_BY_TASK
from cases_in_exporters import CASES_IN_EXPORTERS
from cases_in_tools import CASES_IN_TOOLS
from cases_of_no_fault import CASES_OF_NO_FAULT
from doctor_examples import batches, train, trained
from more_examples import RootMeanSquareNorm, by_hand, norm_replaced, with_plain_tensor
from torch import nn

from bnlib import models


def convolution_and_norm(*modes):
    return [layer.train(mode) for layer, mode in zip((nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), modes, strict=True)]


def without_tracking():
    model = trained("mlp")
    model[2].track_running_stats = False
    return model


def after_few_updates():
    """A network whose running averages move by 1 % in each of 40 steps."""
    model = models.mlp((64, 32, 32, 10), nn.BatchNorm1d)
    for layer in model:
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 0.01
    return train(model, batches(count=40), 40)


def sharpness_aware(passes, steps=10, momentum=None):
    """A network after steps of sharpness-aware minimisation, or of plain descent with one pass."""
    model = models.mlp((64, 32, 32, 10), nn.BatchNorm1d)
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm1d)]
    for x, y in batches(count=steps):
        nn.functional.cross_entropy(model(x), y).backward()
        moves = [0.05 * each.grad for each in model.parameters()]
        with torch.no_grad():
            for each, move in zip(model.parameters(), moves, strict=True):
                each += move
        if passes == 2:
            model.zero_grad()
            for norm in norms:
                norm.momentum = 0.1 if momentum is None else momentum
            nn.functional.cross_entropy(model(x), y).backward()
            for norm in norms:
                norm.momentum = 0.1
        with torch.no_grad():
            for each, move in zip(model.parameters(), moves, strict=True):
                each -= move + 0.1 * each.grad
        model.zero_grad()
    return {"model": model, "steps": steps}


def trained_frozen():
    """A trained network, trained on with frozen statistics on inputs on a larger scale."""
    model = trained("mlp")
    few = batches(count=40, change=lambda x, y: (4 * x, y))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for x, y in few * 2:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model.eval()(x), y).backward()
        optimiser.step()
    return model


MORE_CASES = {
    "number-of-dimensions": tuple(
        lambda layer=layer: {"layer": layer, "values": torch.randn(2, 3, 4)}
        for layer in (nn.BatchNorm2d(3), nn.BatchNorm1d(3))
    ),
    "one-position-per-channel": tuple(lambda size=size: {"values": torch.randn(2, 3, size, size)} for size in (1, 2)),
    "layer-norm-with-channels-first": tuple(
        lambda values=values: {"layer": nn.LayerNorm(3), "values": values}
        for values in (torch.randn(2, 3, 4, 5), torch.randn(2, 4, 5, 3))
    ),
    "fused-in-train-mode": tuple(
        lambda modes=modes: {"parts": convolution_and_norm(*modes)} for modes in ((True, False), (False, False))
    ),
    # Arrays as a session of TensorFlow 1 returns them.
    "update-operations-not-run": tuple(
        lambda mean=mean: {"moving": [(np.zeros(3), np.ones(3)), (np.full(3, mean), np.ones(3))]} for mean in (0, 0.2)
    ),
    "tracking-off-is-not-freezing": (lambda: {"model": without_tracking()}, dict),
    "features-differ": tuple(
        lambda layer=layer: {"layer": layer, "values": torch.randn(2, 36, 20)}
        for layer in (nn.BatchNorm1d(20), nn.BatchNorm1d(36))
    ),
    "plain-tensor-statistics": (lambda: {"model": with_plain_tensor()}, dict),
    "functional-transform": (dict, lambda: {"model": trained("mlp").eval()}),
    "too-few-updates": (lambda: {"model": after_few_updates()}, dict),
    "two-passes-per-step": tuple(lambda passes=passes: sharpness_aware(passes) for passes in (2, 1)),
    "unfrozen-later": (
        lambda: {"model": trained_frozen(), "batches": batches(change=lambda x, y: (4 * x, y))},
        dict,
    ),
    "adapter-without-buffers": (
        lambda: {"adapter": dict(trained("mlp").named_parameters())},
        lambda: {"adapter": trained("mlp").state_dict()},
    ),
    # Arrays as Keras returns them.
    "keras-call-without-training": tuple(
        lambda mean=mean: {"moving": [(np.full(3, mean), np.ones(3)), (np.zeros(3), np.ones(3))]} for mean in (0, 0.2)
    ),
    "keras-wrong-axis": tuple(
        lambda width=width: {
            "layer": SimpleNamespace(moving_mean=np.zeros(width)), "values": np.zeros((4, 3, 8, 8)),
        }
        for width in (8, 3)
    ),
    "statistics-collection-missing": (
        lambda: {"variables": {"params": {}}},
        lambda: {"variables": {"params": {}, "batch_stats": {}}},
    ),
    "statistics-thrown-away": tuple(
        lambda mean=mean: {"means": [np.full(3, mean), np.zeros(3)]} for mean in (0, 0.2)
    ),
    "groups-do-not-divide-channels": (
        lambda: {"channels": 48, "groups": 32},
        lambda: {"channels": 48, "groups": 16},
    ),
    "one-value-per-group": tuple(
        lambda groups=groups: {"layer": nn.GroupNorm(groups, 64), "values": torch.randn(4, 64)} for groups in (32, 1)
    ),
    "instance-norm-tracks": tuple(
        lambda tracks=tracks: {
            "model": nn.Sequential(
                nn.InstanceNorm2d(1, affine=True, track_running_stats=tracks), nn.Flatten(), nn.Linear(64, 10)
            )
        }
        for tracks in (True, False)
    ),
    "instance-norm-buffers": tuple(
        lambda tracks=tracks: {
            "model": nn.Sequential(nn.InstanceNorm2d(1), nn.Flatten(), nn.Linear(64, 10)),
            "checkpoint": nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=tracks)).state_dict(),
        }
        for tracks in (True, False)
    ),
    "own-norm-overflows": tuple(
        lambda layer=layer: {"layer": layer, "values": torch.tensor([[300.0, -300.0, 100.0, 20.0]]).half()}
        for layer in (RootMeanSquareNorm(), nn.LayerNorm(4).half())
    ),
    "norm-replaced": tuple(
        lambda steps=steps: {"model": trained("mlp").eval(), "replaced": norm_replaced(steps)} for steps in (0, 96)
    ),
    "own-norm-differs": tuple(
        lambda unbiased=unbiased: {"own": by_hand(unbiased), "values": torch.randn(8, 3)} for unbiased in (True, False)
    ),
} | CASES_BY_TASK | CASES_OF_NO_FAULT | CASES_IN_TOOLS | CASES_IN_EXPORTERS | CASES_BY_KIND_OF_NETWORK  # fmt: skip
