"""Train the 20 layers of ``without_norms`` on digits without their skip connections, with BN and with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from torch import nn

from bnlib import BatchNorm
from bnlib.experiments.depth import without_norms
from bnlib.experiments.depth.without_norms import BATCH_SIZES, Network
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import deep_stack

_STACK = partial(deep_stack, in_features=64, num_classes=10)
NETWORKS: dict[str, Network] = {
    "batch norm": Network(partial(_STACK, norm=BatchNorm)),
    "without normalisation, He init": Network(partial(_STACK, init=nn.init.kaiming_normal_)),
}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each network at each batch size; a cell trains at all learning rates at once."""
    return {(network, batch_size): without_norms.SEEDS[scale] for network in NETWORKS for batch_size in BATCH_SIZES}


def measure(network: str, batch_size: int, *, seed: int, device: str) -> dict[str, Any]:
    """Train one of ``NETWORKS``; see ``without_norms.train``."""
    return without_norms.train(NETWORKS[network], batch_size, seed=seed, device=device)


EXPERIMENT = Measurement(
    name="depth.without_skip_connections",
    question="How much of the low error of 20 layers is due to their skip connections?",
    source="the control of depth.without_norms",
    axes=("network", "batch_size"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def error_rows() -> list[dict]:
    """Return the table rows of ``without_norms`` and, above them, those of the networks without skip connections."""
    titles = {"batch norm": "BN", "without normalisation, He init": "nothing, He init"}
    mine = [without_norms.error_row("no", title, network, load()) for network, title in titles.items()]
    return mine + without_norms.error_rows()
