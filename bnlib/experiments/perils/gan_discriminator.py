"""Train a GAN discriminator on batches that are all real or all generated, as is common, or on mixed batches.

Real samples are normally distributed in the plane. Generated ones differ in mean, in scale, or in shape only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.models.building import seeded

NORMS = {
    "without normalisation": None,
    "batch norm": BatchNorm,
    "batch norm, layer 2 only": BatchNorm,
    "layer norm": "layer_norm",
}
"""Normalisation in both hidden layers, unless the name says otherwise."""
FAKES = ("shifted", "scaled", "reshaped")
BATCHES = ("separate", "mixed")
SIZES, BATCH_SIZE, STEPS, LEARNING_RATE = (2, 64, 64, 1), 64, 1500, 0.05
SEEDS = {"quick": range(5), "paper": range(20)}


def real(count: int, generator: torch.Generator) -> Tensor:
    """Draw standard normal samples in the plane, shape (count, 2)."""
    return torch.randn(count, 2, generator=generator)


def fake(kind: str, count: int, generator: torch.Generator) -> Tensor:
    """Draw generated samples, shape (count, 2): another mean, another scale, or or a ring with equal covariance."""
    if kind == "shifted":
        return real(count, generator) + torch.tensor([2.0, 0.0])
    if kind == "scaled":
        return 2 * real(count, generator)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    return math.sqrt(2) * torch.stack((angle.cos(), angle.sin()), 1)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per norm, kind of generated samples and kind of batches."""
    return {cell: SEEDS[scale] for cell in itertools.product(NORMS, FAKES, BATCHES)}


def measure(norm: str, kind: str, batches: str, *, seed: int, device, lr: float = LEARNING_RATE) -> dict[str, float]:
    """Train a discriminator with SGD and binary cross-entropy.

    Returns:
        ``loss``: mean over the last fifth of training, in nats; accuracies on new samples: ``separate`` and ``mixed``
        in train mode on such batches, ``eval`` in eval mode; ``gradient_alignment``: for a batch of generated samples,
        the norm of their mean gradient over the mean norm of their gradients, in train mode on batches like those of
        training. It is 0 if a generator cannot learn to shift all its samples in one direction.
    """
    generator = torch.Generator().manual_seed(seed)
    model, losses = trained(norm, kind, batches, seed, generator, device, lr=lr)
    last = losses[-STEPS // 5 :].mean().item()
    alignment = np.mean([_gradient_alignment(model, kind, batches, generator, device) for _ in range(20)])
    return {"loss": last, "gradient_alignment": float(alignment)} | _accuracies(model, kind, generator, device)


def network(norm: str, seed: int) -> nn.Sequential:
    """Build a discriminator of points in the plane; its output (N, 1) is above 0 for real."""
    if norm == "spectral norm":
        return spectrally_normalised(mlp(SIZES, seed=seed), seed)
    if norm != "batch norm, layer 2 only":
        return mlp(SIZES, NORMS[norm], seed=seed)
    first, *_ = (layer for layer in mlp(SIZES, seed=seed) if isinstance(layer, nn.Linear))
    return nn.Sequential(first, nn.ReLU(), mlp(SIZES[1:], NORMS[norm], seed=seed + 1000))


def spectrally_normalised(model: nn.Sequential, seed: int) -> nn.Sequential:
    """Divide the weights of each linear layer by an estimate of their largest singular value (Miyato et al. 2018)."""
    with seeded(seed):  # the estimate begins with random vectors
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.utils.parametrizations.spectral_norm(layer)
    return model


def trained(
    norm: str,
    kind: str,
    batches: str,
    seed: int,
    generator: torch.Generator,
    device="cpu",
    steps: int = STEPS,
    lr: float = LEARNING_RATE,
) -> tuple[nn.Module, Tensor]:
    """Train a discriminator with SGD and return it with the loss of each step; ``generator`` draws the samples."""
    model = network(norm, seed).to(device)
    optimiser, losses = torch.optim.SGD(model.parameters(), lr=lr), torch.empty(steps)
    for step in range(steps):
        loss = _loss(model, *_pair(kind, generator, device), batches)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[step] = loss.detach()
    return model, losses


def _pair(kind: str, generator: torch.Generator, device) -> tuple[Tensor, Tensor]:
    return real(BATCH_SIZE, generator).to(device), fake(kind, BATCH_SIZE, generator).to(device)


def _outputs(model: nn.Module, ours: Tensor, theirs: Tensor, batches: str) -> tuple[Tensor, Tensor]:
    """Return the outputs for real and generated samples, passed in separate batches or in one."""
    if batches == "separate":
        return model(ours)[:, 0], model(theirs)[:, 0]
    ours, theirs = model(torch.cat((ours, theirs)))[:, 0].chunk(2)
    return ours, theirs


def _loss(model: nn.Module, ours: Tensor, theirs: Tensor, batches: str) -> Tensor:
    ours, theirs = _outputs(model, ours, theirs, batches)
    return (F.softplus(-ours).mean() + F.softplus(theirs).mean()) / 2


def _gradient_alignment(model: nn.Module, kind: str, batches: str, generator: torch.Generator, device) -> float:
    ours, theirs = _pair(kind, generator, device)
    theirs.requires_grad_()
    _, outputs = _outputs(model, ours, theirs, batches)
    (gradient,) = torch.autograd.grad(F.softplus(-outputs).mean(), theirs)
    return (gradient.mean(0).norm() / gradient.norm(dim=1).mean()).item()


@torch.no_grad()
def _accuracies(model: nn.Module, kind: str, generator: torch.Generator, device) -> dict[str, float]:
    rows: dict[str, list[float]] = {"separate": [], "mixed": [], "eval": []}
    for _ in range(20):
        pair = _pair(kind, generator, device)
        for name, row in rows.items():
            model.train(name != "eval")
            ours, theirs = _outputs(model, *pair, "mixed" if name == "eval" else name)
            row.append(torch.cat((ours > 0, theirs < 0)).float().mean().item())
        model.eval()
    return {name: float(np.mean(row)) for name, row in rows.items()}


EXPERIMENT = Measurement(
    name="perils.gan_discriminator",
    question="What does a discriminator with BN learn from batches that are all real or all generated?",
    source="Irpan 2017",
    axes=("norm", "fake", "batches"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def lookup(kind: str, batches: str, count: int = 150) -> dict[str, object]:
    """Return the committed numbers by norm, and samples as a BN layer would normalise them.

    Returns:
        ``numbers``: by norm; ``real`` and ``fake``: (``count``, 2).
    """
    generator = torch.Generator().manual_seed(0)
    ours, theirs = real(count, generator), fake(kind, count, generator)
    if batches == "separate":
        seen = normalised(ours), normalised(theirs)
    else:
        seen = normalised(torch.cat((ours, theirs))).split(count)
    numbers = {norm: load()[norm, kind, batches] for norm in NORMS}
    return {"numbers": numbers, "real": seen[0].numpy(), "fake": seen[1].numpy()}


def batch_norm_accuracy_rows() -> list[dict]:
    """Return for ``tables.Table`` the training loss and the accuracies (%) of the discriminators with BN."""
    evaluations = {"separate": "separate batches", "mixed": "mixed batches", "eval": "eval mode"}
    return [
        {
            "discriminator, generated samples": f"{norm}, {kind}",
            "training batches": batches,
            "training loss (nats)": found["loss"],
        }
        | {("accuracy (%)", title): 100 * found[name] for name, title in evaluations.items()}
        for (norm, kind, batches), found in load().items()
        if norm.startswith("batch norm")
    ]


def gradient_alignment_rows(kind: str = "shifted") -> list[dict]:
    """Return for ``tables.Table`` the ``gradient_alignment`` of each norm, by the batches of training."""
    return [
        {"normalisation": norm}
        | {("training batches", batches): load()[norm, kind, batches]["gradient_alignment"] for batches in BATCHES}
        for norm in NORMS
    ]


def normalised(x: Tensor) -> Tensor:
    """Normalise each column of ``x`` to mean 0 and variance 1."""
    return F.batch_norm(x, None, None, training=True)
