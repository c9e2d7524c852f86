"""Train with gradient checkpointing, whose second forward pass updates the running statistics of batch norm again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bnlib import datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.training_code.skipped_step import buffers_of, restore
from bnlib.models import mlp
from bnlib.norm import BatchNorm
from bnlib.probes import with_recomputed_statistics
from bnlib.samplers import shuffled
from bnlib.training import error_rate

MOMENTA = (0.01, 0.03, 0.1, 0.3, 0.6)
CHECKPOINTING = ("off", "on")
BATCH_SIZE, LEARNING_RATE = 16, 0.1
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 300)
"""Numbers of steps after which the network is evaluated."""
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per momentum, with and without checkpointing."""
    return {setting: SEEDS[scale] for setting in itertools.product(MOMENTA, CHECKPOINTING)}


def corrected_momentum(momentum: float) -> float:
    """Return the momentum of which two updates with one batch are worth one update with ``momentum``.

    Example:
        >>> from bnlib.experiments.training_code.gradient_checkpointing import corrected_momentum
        >>> round(corrected_momentum(0.19), 3)
        0.1
    """
    return 1 - (1 - momentum) ** 0.5


def same_state(module: nn.Module) -> Callable[[], tuple[AbstractContextManager, AbstractContextManager]]:
    """Return the ``context_fn`` of ``checkpoint`` that lets the second pass see, and leave, the buffers as they were.

    Call it right before the forward pass: it copies the buffers. The second pass starts from these copies, and after it
    the buffers have the values that the first pass gave them.
    """
    before = buffers_of(module)

    @contextmanager
    def recomputation() -> Iterator[None]:
        after = buffers_of(module)
        restore(module, before)
        try:
            yield
        finally:
            restore(module, after)

    return lambda: (nullcontext(), recomputation())


def network(momentum: float, seed: int) -> nn.Sequential:
    """Build a network for digits: hidden layers with BN of this momentum, and a linear layer."""
    model = mlp((64, 50, 50, 10), "batch_norm", seed=seed)
    for layer in model:
        if isinstance(layer, BatchNorm):
            layer.momentum = momentum
    return model


def forward(model: nn.Sequential, x: Tensor, checkpointing: str) -> Tensor:
    """Return the outputs; with checkpointing the hidden layers are computed again in the backward pass."""
    hidden, last = model[:-1], model[-1]
    return last(checkpoint(hidden, x, use_reentrant=False) if checkpointing == "on" else hidden(x))


def measure(momentum: float, checkpointing: str, *, seed: int, device) -> dict[str, list]:
    """Train with SGD, and evaluate after each number of ``STEPS``.

    Returns:
        ``running``: test error in eval mode; ``precise``: the same with statistics recomputed on the training set;
        ``distance``: of the running means from the recomputed ones in standard deviations, root mean square over the
        channels of both layers.
    """
    data = datasets.load("digits").to(device)
    model = network(momentum, seed).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    found: dict[str, list] = {"running": [], "precise": [], "distance": []}
    for step, index in enumerate(itertools.islice(shuffled(data.train_y.cpu(), BATCH_SIZE, seed), STEPS[-1]), 1):
        optimiser.zero_grad()
        F.cross_entropy(forward(model, data.train_x[index], checkpointing), data.train_y[index]).backward()
        optimiser.step()
        if step in STEPS:
            precise = with_recomputed_statistics(model, [data.train_x])
            found["running"].append(error_rate(model, data.test_x, data.test_y))
            found["precise"].append(error_rate(precise, data.test_x, data.test_y))
            found["distance"].append(_distance(model, precise))
    return found


def _distance(model: nn.Sequential, precise: nn.Sequential) -> float:
    pairs = [(a, b) for a, b in zip(model, precise, strict=True) if isinstance(a, BatchNorm)]
    gaps = torch.cat([(a.running_mean - b.running_mean) / (b.running_var + b.eps).sqrt() for a, b in pairs])
    return gaps.square().mean().sqrt().item()


EXPERIMENT = Measurement(
    name="training_code.gradient_checkpointing",
    question="What do two updates of the running statistics per step change in eval mode?",
    source="PyTorch issue 96136",
    axes=("momentum", "checkpointing"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def lookup(momentum: float) -> dict[str, Mapping[str, np.ndarray]]:
    """Return the committed numbers with and without checkpointing at one momentum."""
    return {checkpointing: load()[momentum, checkpointing] for checkpointing in CHECKPOINTING}


def error_rows(numbers: Sequence[int]) -> list[dict]:
    """Return test errors (%) in eval mode for ``tables.Table``, a row per momentum, after these numbers of steps."""
    return [
        {"momentum": f"{momentum:g}", "two updates count as": f"{1 - (1 - momentum) ** 2:.2g}"}
        | {
            (f"{number} steps", f"checkpointing {each}"): 100
            * load()[momentum, each]["running"][:, STEPS.index(number)]
            for number in numbers
            for each in CHECKPOINTING
        }
        for momentum in MOMENTA
    ]
