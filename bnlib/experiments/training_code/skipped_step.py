"""Feed one batch with an infinite value to a training with a gradient scaler, which skips that step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from bnlib import datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled

NORMS = {
    "batch norm": "batch_norm",
    "Batch Renorm": "batch_renorm",
    "Full Norm": "full_norm",
    "layer norm": "layer_norm",
}
CLEAN, SKIPPED = "no bad batch", "step skipped"
CURES = ("input checked first", "buffers restored", "statistics recomputed at the end")
BATCH_SIZE, LEARNING_RATE, STEPS, BAD_STEP = 32, 0.1, 240, 110
CHECKPOINTS = (20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220, 240)
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per norm and treatment of the bad batch; the cures are for batch norm only."""
    settings = [*itertools.product(NORMS, (CLEAN, SKIPPED)), *(("batch norm", cure) for cure in CURES)]
    return {setting: SEEDS[scale] for setting in settings}


def with_infinite_pixel(x: Tensor) -> Tensor:
    """Return a copy of a batch of images whose first pixel of the first image is infinite, as after an overflow."""
    x = x.clone()
    x[0, ..., 0, 0] = torch.inf
    return x


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all buffers by name."""
    return {name: value.clone() for name, value in model.named_buffers()}


@torch.no_grad()
def restore(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Write the copies of ``buffers_of`` back."""
    for name, value in model.named_buffers():
        value.copy_(saved[name])


def steps(model: nn.Module, treatment: str, seed: int, number: int = STEPS) -> Iterator[tuple[float, bool]]:
    """Train with SGD and a gradient scaler; yield the loss of each step, and whether the scaler skipped it.

    Arguments:
        model: the network, trained in place.
        treatment: ``CLEAN``, ``SKIPPED`` or one of ``CURES``.
        seed: seed of the batches.
        number: number of steps.
    """
    data = datasets.load("digits").to(next(model.parameters()).device)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    scaler = torch.amp.GradScaler(data.train_x.device.type)
    for step, index in enumerate(itertools.islice(shuffled(data.train_y.cpu(), BATCH_SIZE, seed), number), 1):
        x = with_infinite_pixel(data.train_x[index]) if step == BAD_STEP and treatment != CLEAN else data.train_x[index]
        if treatment == "input checked first" and not x.isfinite().all():
            yield float("nan"), True
            continue
        saved = buffers_of(model) if treatment == "buffers restored" else {}
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), data.train_y[index])
        scale = scaler.get_scale()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        skipped = scaler.get_scale() < scale
        if skipped and saved:
            restore(model, saved)
        yield loss.item(), skipped


def measure(norm: str, treatment: str, *, seed: int, device) -> dict[str, list | float]:
    """Train, and evaluate at each of ``CHECKPOINTS``.

    Returns:
        ``train_loss``: mean loss of the steps since the last checkpoint that the scaler did not skip, in train mode,
        in nats; ``test_error``: share of wrong predictions in eval mode; ``skipped``: number of skipped steps;
        ``non_finite``: share of the values in all buffers that are not finite at the end; ``weights_finite``: 1 if all
        parameters are finite at the end.
    """
    data = datasets.load("digits").to(device)
    model = mlp((64, 50, 50, 10), NORMS[norm], seed=seed).to(device)
    losses, errors, skips, recent = [], [], 0, []
    for step, (loss, skipped) in enumerate(steps(model, treatment, seed), 1):
        skips += skipped
        recent += [] if skipped else [loss]
        if step == STEPS and treatment == CURES[-1]:
            update_bn(data.train_x.split(BATCH_SIZE), model)
        if step in CHECKPOINTS:
            losses.append(float(np.mean(recent)) if recent else float("nan"))
            errors.append(_test_error(model, data))
            recent = []
    values = torch.cat([value.double().flatten() for value in model.buffers()] or [torch.zeros(1)])
    return {
        "train_loss": losses,
        "test_error": errors,
        "skipped": skips,
        "non_finite": (~values.isfinite()).double().mean().item(),
        "weights_finite": float(all(value.isfinite().all() for value in model.parameters())),
    }


@torch.no_grad()
def _test_error(model: nn.Module, data: datasets.Dataset) -> float:
    error = (model.eval()(data.test_x).argmax(1) != data.test_y).float().mean().item()
    model.train()
    return error


EXPERIMENT = Measurement(
    name="training_code.skipped_step",
    question="What remains in a network of one batch with an infinite value whose optimiser step was skipped?",
    source="PyTorch issues 88474 and 90342; Micikevicius et al. 2018, section 3.2",
    axes=("norm", "treatment"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def treatment_rows() -> list[dict]:
    """Return for ``tables.Table`` the state after training, a row per norm and treatment of the bad batch."""
    return [
        {
            "norm": norm,
            "the batch with one infinite pixel": treatment,
            "steps skipped": int(np.median(found["skipped"])),
            "training loss, train mode (nats)": found["train_loss"][:, -1],
            "test error, eval mode (%)": 100 * found["test_error"][:, -1],
        }
        for (norm, treatment), found in load().items()
    ]
