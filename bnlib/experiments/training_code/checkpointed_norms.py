"""Compare one training step with and without gradient checkpointing, for every norm of the registry.

FullNorm and BatchRenorm of this package recognise the second forward pass. Here this is switched off, because the
question is what the second pass does to the method.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.training_code.gradient_checkpointing import same_state
from bnlib.models.building import seeded
from bnlib.norm import NORMS, BatchRenorm
from bnlib.norm.recomputation import unrecognised

WIDTH, BATCH_SIZE, EARLIER_STEPS = 16, 32, 5
OPEN_LIMITS, SPECTRAL = "batch_renorm, limits 3 and 5", "spectral_norm"
IMPLEMENTATIONS = ("reentrant", "non-reentrant", "same state")
SEEDS = {"quick": range(3), "paper": range(20)}


def _apply_by_name(name: str, layer: nn.Module) -> nn.Module:
    if name == SPECTRAL:
        return spectral_norm(layer)
    if name == OPEN_LIMITS:
        return nn.Sequential(layer, BatchRenorm(WIDTH, r_max=3.0, d_max=5.0))
    return NORMS[name].apply(layer)


NAMES = (*NORMS, OPEN_LIMITS, SPECTRAL)
"""All norms of the registry; Batch Renorm with the limits that it has late in training; PyTorch's spectral norm."""


def _needs_images(name: str) -> bool:
    return name in NORMS and nn.Linear not in NORMS[name].layer_types


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per norm and implementation of checkpointing."""
    return {setting: SEEDS[scale] for setting in itertools.product(NAMES, IMPLEMENTATIONS)}


def block(name: str, seed: int) -> nn.Sequential:
    """Build a layer with the norm, a ReLU and a second layer: linear, or 1 x 1 convolutions if the norm needs them."""
    make = partial(nn.Conv2d, WIDTH, WIDTH, 1) if _needs_images(name) else partial(nn.Linear, WIDTH, WIDTH)
    with seeded(seed):
        return nn.Sequential(_apply_by_name(name, make()), nn.ReLU(), make()).double()


def forward(model: nn.Module, implementation: str, x: Tensor) -> Tensor:
    """Return the outputs; the implementation is one of ``IMPLEMENTATIONS``, or "none" without checkpointing."""
    if implementation == "none":
        return model(x)
    if implementation == "same state":
        return checkpoint(model, x, use_reentrant=False, context_fn=same_state(model))
    return checkpoint(model, x, use_reentrant=implementation == "reentrant")


def measure(name: str, implementation: str, *, seed: int, device) -> dict[str, float]:
    """Train some steps without checkpointing, then compare one step with and without it, from the same state.

    Returns:
        ``outputs``, ``gradients``: norm of the difference divided by the norm without checkpointing; ``state``: the
        same for the step of all buffers of floating point, 0 without such buffers.
    """
    plain, checkpointed = (_step(name, each, seed, device) for each in ("none", implementation))
    return {key: _relative(checkpointed[key], plain[key]) for key in plain}


def _step(name: str, implementation: str, seed: int, device) -> dict[str, Tensor]:
    model, generator = block(name, seed).to(device), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(EARLIER_STEPS + 1):
        shape = (BATCH_SIZE, WIDTH, *((4, 4) if _needs_images(name) else ()))
        x, target = (torch.randn(shape, generator=generator, dtype=torch.double).to(device) for _ in range(2))
        x = (2 * x + 1).requires_grad_()  # the reentrant implementation needs an input with a gradient
        last = step == EARLIER_STEPS
        before = _state(model)
        output = forward(model, implementation if last else "none", x)
        optimiser.zero_grad()
        with unrecognised():
            (output - target).square().mean().backward()
        if not last:
            optimiser.step()
    gradients = [value.grad for value in (*model.parameters(), x)]
    return {"outputs": output.detach(), "gradients": _flat(gradients), "state": _state(model) - before}


def _state(model: nn.Module) -> Tensor:
    return _flat([value.detach() for value in model.buffers() if value.is_floating_point()])


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values]) if values else torch.zeros(0)


def _relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item() if b.norm() > 0 else a.norm().item()


EXPERIMENT = Measurement(
    name="training_code.checkpointed_norms",
    question="For which norms does a training step change if its forward pass is computed twice?",
    source="PyTorch, torch.utils.checkpoint",
    axes=("norm", "implementation"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def norm_rows() -> list[dict]:
    """Return for ``tables.Table`` the changes in per cent: a row per norm with a state, and one for all others."""
    found = {name: load()[name, "non-reentrant"] for name in NAMES}
    changed = [name for name in NAMES if found[name]["state"].any()]
    groups = {_title(name): [name] for name in changed}
    groups[f"the {len(NAMES) - len(changed)} others"] = [name for name in NAMES if name not in changed]
    headings = {"gradients": "gradients", "state": "update of the buffers"}
    return [
        {"norm": title}
        | {heading: 100 * np.max([found[name][key] for name in names], axis=0) for key, heading in headings.items()}
        for title, names in groups.items()
    ]


def _title(name: str) -> str:
    more = {OPEN_LIMITS: "Batch Renorm, limits 3 and 5", SPECTRAL: "spectral norm (PyTorch)"}
    return more[name] if name in more else NORMS[name].title
