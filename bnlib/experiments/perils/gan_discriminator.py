"""Train a GAN discriminator on batches that are all real or all generated, as is common, or on mixed batches.

Real samples are normally distributed in the plane. Generated ones differ in mean, in scale, or in shape only.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

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
Draw = Callable[[], tuple[Tensor, Tensor]]
"""Returns a batch of real samples and a batch of generated ones."""
FAKES = ("shifted", "scaled", "reshaped")
BATCHES = ("separate", "mixed")
SIZES, BATCH_SIZE, STEPS, LEARNING_RATE = (2, 64, 64, 1), 64, 1500, 0.05
SEEDS = {"quick": range(5), "paper": range(20)}
_live_seed = itertools.count(100)


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
    copied = copy.deepcopy(model)  # train mode changes the running statistics
    alignment = np.mean([_gradient_alignment(copied, kind, batches, generator, device) for _ in range(20)])
    accuracies = accuracies_on(model, partial(pair, kind, generator, device))
    return {"loss": last, "gradient_alignment": float(alignment)} | accuracies


def network(norm: str, seed: int, width: int = SIZES[1]) -> nn.Sequential:
    """Build a discriminator of points in the plane; its output (N, 1) is above 0 for real."""
    sizes = SIZES[0], width, width, SIZES[-1]
    if norm == "spectral norm":
        return spectrally_normalised(mlp(sizes, seed=seed), seed)
    if norm != "batch norm, layer 2 only":
        return mlp(sizes, NORMS[norm], seed=seed)
    first, *_ = (layer for layer in mlp(sizes, seed=seed) if isinstance(layer, nn.Linear))
    return nn.Sequential(first, nn.ReLU(), mlp(sizes[1:], NORMS[norm], seed=seed + 1000))


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
    model, losses = network(norm, seed).to(device), torch.empty(steps)
    draws = training(model, partial(pair, kind, generator, device), batches, lr)
    for step, loss in enumerate(itertools.islice(draws, steps)):
        losses[step] = loss
    return model, losses


def training(model: nn.Module, draw: Draw, batches: str, lr: float = LEARNING_RATE) -> Iterator[Tensor]:
    """Train a discriminator with SGD on pairs of batches, without end; yield the loss after each step."""
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    while True:
        loss = loss_of(model, *draw(), batches)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.detach()


def pair(kind: str, generator: torch.Generator, device="cpu") -> tuple[Tensor, Tensor]:
    """Draw a batch of real samples and one of generated samples, each of shape (64, 2)."""
    return real(BATCH_SIZE, generator).to(device), fake(kind, BATCH_SIZE, generator).to(device)


def _outputs(model: nn.Module, ours: Tensor, theirs: Tensor, batches: str) -> tuple[Tensor, Tensor]:
    """Return the outputs for real and generated samples, passed in separate batches or in one."""
    if batches == "separate":
        return model(ours)[:, 0], model(theirs)[:, 0]
    ours, theirs = model(torch.cat((ours, theirs)))[:, 0].chunk(2)
    return ours, theirs


def loss_of(model: nn.Module, ours: Tensor, theirs: Tensor, batches: str) -> Tensor:
    """Return the mean binary cross-entropy of real and generated samples, in nats."""
    ours, theirs = _outputs(model, ours, theirs, batches)
    return (F.softplus(-ours).mean() + F.softplus(theirs).mean()) / 2


def _gradient_alignment(model: nn.Module, kind: str, batches: str, generator: torch.Generator, device) -> float:
    ours, theirs = pair(kind, generator, device)
    theirs.requires_grad_()
    _, outputs = _outputs(model, ours, theirs, batches)
    (gradient,) = torch.autograd.grad(F.softplus(-outputs).mean(), theirs)
    return (gradient.mean(0).norm() / gradient.norm(dim=1).mean()).item()


@torch.no_grad()
def accuracies_on(model: nn.Module, draw: Draw) -> dict[str, float]:
    """Return mean accuracies on 20 pairs of batches, without changing the model or its running statistics.

    Returns:
        ``separate`` and ``mixed`` in train mode, and ``eval`` in eval mode.
    """
    in_train_mode, in_eval_mode = copy.deepcopy(model).train(), copy.deepcopy(model).eval()
    rows: dict[str, list[float]] = {"separate": [], "mixed": [], "eval": []}
    for _ in range(20):
        drawn = draw()
        for name, row in rows.items():
            one, batches = (in_eval_mode, "mixed") if name == "eval" else (in_train_mode, name)
            ours, theirs = _outputs(one, *drawn, batches)
            row.append(torch.cat((ours > 0, theirs < 0)).float().mean().item())
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


def train(kind: str, batches: str, points: int = 10) -> Iterator[tuple[int, int, dict]]:
    """Train all discriminators now, with a seed that no result has used; ``run`` holds the accuracies of each."""
    seed, shown, run = next(_live_seed), lookup(kind, batches), {}
    every, total = STEPS // points, STEPS * len(NORMS)
    for number, norm in enumerate(NORMS):
        model, generator = network(norm, seed), torch.Generator().manual_seed(seed)
        steps = training(model, partial(pair, kind, generator), batches)
        for step, _ in enumerate(itertools.islice(steps, STEPS), 1):
            if step % every == 0 or step == STEPS:
                new = partial(pair, kind, torch.Generator().manual_seed(seed + 1))
                run = run | {norm: accuracies_on(model, new)}
                yield number * STEPS + step, total, shown | {"run": run}


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
