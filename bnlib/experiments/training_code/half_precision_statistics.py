"""Keep the running statistics of batch norm in half precision, and compare them with those of the data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import nn

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MOMENTA = (0.1, 0.01, 0.001)
MEAN, DEVIATION, CHANNELS, BATCH_SIZE = 10.0, 3.0, 50, 64
SEEDS = {"quick": range(3), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per type and momentum."""
    return {setting: SEEDS[scale] for setting in itertools.product(DTYPES, MOMENTA)}


@torch.no_grad()
def measure(dtype: str, momentum: float, *, seed: int, device) -> dict[str, float]:
    """Feed a layer with normal batches until the start has a weight of 0.7 %: 5 / momentum batches.

    Returns:
        ``mean`` and ``variance``: the running statistics in per cent of those of the data, means over channels.
    """
    generator = torch.Generator().manual_seed(seed)
    layer = nn.BatchNorm1d(CHANNELS, momentum=momentum).to(device, DTYPES[dtype])
    for _ in range(round(5 / momentum)):
        x = MEAN + DEVIATION * torch.randn(BATCH_SIZE, CHANNELS, generator=generator)
        layer(x.to(device, DTYPES[dtype]))
    return {
        "mean": 100 * layer.running_mean.double().mean().item() / MEAN,
        "variance": 100 * layer.running_var.double().mean().item() / DEVIATION**2,
    }


EXPERIMENT = Measurement(
    name="training_code.half_precision_statistics",
    question="How far do running statistics in half precision get towards the statistics of the data?",
    source="none",
    axes=("dtype", "momentum"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def statistics_rows() -> list[dict]:
    """Return for ``tables.Table`` the running statistics in per cent of the data's: medians, a row per type."""
    return [
        {"buffers": dtype}
        | {
            (f"{name}, momentum", f"{momentum:g}"): float(np.median(load()[dtype, momentum][name]))
            for name in ("mean", "variance")
            for momentum in MOMENTA
        }
        for dtype in DTYPES
    ]


@torch.no_grad()
def running_means(momentum: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the running mean after each of 5 / momentum batches, in per cent of the data's, by type.

    It is a mean over channels, and all types see the same batches.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {name: nn.BatchNorm1d(CHANNELS, momentum=momentum).to(dtype) for name, dtype in DTYPES.items()}
    means: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(round(5 / momentum)):
        x = MEAN + DEVIATION * torch.randn(BATCH_SIZE, CHANNELS, generator=generator)
        for name, layer in layers.items():
            layer(x.to(layer.weight.dtype))
            means[name].append(100 * layer.running_mean.double().mean().item() / MEAN)
    return {name: np.array(values) for name, values in means.items()}
