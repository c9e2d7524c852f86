"""Train a small pre-norm transformer on sequences with each norm, and with dynamic tanh from two initial alphas.

A sequence is an image of a digit, read row by row: eight tokens of eight pixels. Each block computes
x + attention(norm(x)) and then x + mlp(norm(x)), and a last norm follows the blocks. Layer norm, RMSNorm and dynamic
tanh treat each token by itself, as in language models; batch norm takes the tokens of the batch as its samples.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from bnlib import BatchNorm, DynamicTanh, datasets
from bnlib.experiments.alternatives.batch_sizes import best_learning_rate
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.models import SequenceWiseNorm
from bnlib.models.building import seeded
from bnlib.sweep import Run

DEPTH, WIDTH, HEADS, TOKENS, PIXELS, CLASSES = 2, 32, 4, 8, 8, 10
ALPHAS = (0.5, 2.0)
"""Initial values of alpha of dynamic tanh; 0.5 is the paper's."""
NORMS = {
    "layer norm": nn.LayerNorm,
    "RMSNorm": nn.RMSNorm,
    "batch norm": BatchNorm,
    "without normalisation": None,
} | {f"dynamic tanh, alpha {alpha:g}": partial(DynamicTanh, alpha=alpha) for alpha in ALPHAS}
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03)
SMALLER_RATE = 0.0003
"""A further rate for the norms whose best rate would be the lowest."""
BATCH_SIZE, EPOCHS = 32, 5
SEEDS = {"quick": range(3), "paper": range(10)}


class Attention(nn.Module):
    """Self-attention with several heads, in which every token sees all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_keys_values, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended values, shape (N, T, ``WIDTH``), as ``x``."""
        parts = self.queries_keys_values(x).unflatten(-1, (3, HEADS, -1)).movedim(-3, 0)
        queries, keys, values = (part.transpose(-3, -2) for part in parts)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(attended.transpose(-3, -2).flatten(-2))


class PreNorm(nn.Module):
    """A branch with a norm in front of it and a skip connection around both: x + branch(norm(x))."""

    def __init__(self, norm: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.norm, self.branch = norm, branch

    def forward(self, x: Tensor) -> Tensor:
        """Return x + branch(norm(x))."""
        return x + self.branch(self.norm(x))


class Transformer(nn.Module):
    """A pre-norm transformer that classifies an image of 8 x 8 by its rows."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, WIDTH)
        self.positions = nn.Parameter(torch.randn(TOKENS, WIDTH) / WIDTH**0.5)
        blocks = []
        for _ in range(DEPTH):
            mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
            blocks += [PreNorm(_norm(norm), Attention()), PreNorm(_norm(norm), mlp)]
        self.blocks = nn.Sequential(*blocks)
        self.last_norm, self.head = _norm(norm), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (N, ``CLASSES``), for images of shape (N, 1, 8, 8)."""
        x = self.embed(images.squeeze(1)) + self.positions
        return self.head(self.last_norm(self.blocks(x)).mean(-2))


def _norm(name: str) -> nn.Module:
    make = NORMS[name]
    return nn.Identity() if make is None else SequenceWiseNorm(make(WIDTH))


def model(norm: str, *, seed: int) -> Transformer:
    """Build the transformer with one of ``NORMS``; the initial weights depend on ``seed`` only."""
    with seeded(seed):
        return Transformer(norm)


def learning_rates(norm: str) -> tuple[float, ...]:
    """Return the learning rates of a norm in rising order."""
    smaller = norm in ("layer norm", "RMSNorm", "batch norm")
    return (SMALLER_RATE, *LEARNING_RATES) if smaller else LEARNING_RATES


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm at each learning rate of Adam."""
    settings = {"optimiser": Adam, "epochs": EPOCHS, "checkpoints": 2}
    return {
        (norm, lr): [Run(partial(model, norm), "digits", BATCH_SIZE, lr, seed, **settings) for seed in SEEDS[scale]]
        for norm in NORMS
        for lr in learning_rates(norm)
    }


EXPERIMENT = Experiment(
    name="alternatives.small_transformer",
    question="Can RMSNorm, dynamic tanh or batch norm replace layer norm in a small transformer?",
    source="Zhu et al. 2025, Transformers without Normalization, at the scale of digits",
    axes=("norm", "lr"),
    cells=cells,
    curves=("train_loss", "test_error"),
)


@cache
def load() -> dict[tuple, dict]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def errors(norm: str) -> np.ndarray:
    """Return the test errors (%) at the end of training, shape (learning rates, seeds); 90 for a run that diverged."""
    table = [[run[-1] for run in load()[norm, lr]["test_error"]] for lr in learning_rates(norm)]
    return np.array([[90.0 if error is None else 100 * error for error in row] for row in table])


def best_errors(norm: str) -> np.ndarray:
    """Return the test errors (%) at the best learning rate, one number per seed."""
    table = errors(norm)
    return table[best_learning_rate(table)]


def scale_behind_first_norm(norm: str, seed: int = 0) -> float:
    """Return the root mean square of what the first attention gets before training, over the test images."""
    network, images = model(norm, seed=seed), datasets.load("digits").test_x
    with torch.no_grad():
        x = network.embed(images.squeeze(1)) + network.positions
        return network.blocks[0].norm(x).square().mean().sqrt().item()


def error_rows() -> list[dict]:
    """Return for each norm the scale after it, its best rate, and the errors (%) at it and at that of layer norm."""
    usual = learning_rates("layer norm")[best_learning_rate(errors("layer norm"))]
    rows = []
    for norm in NORMS:
        table, rates = errors(norm), learning_rates(norm)
        best = best_learning_rate(table)
        rows.append(
            {
                "norm": norm,
                "scale after the first norm": scale_behind_first_norm(norm),
                "best rate": f"{rates[best]:g}",
                "error at this rate": table[best],
                f"error at rate {usual:g}": table[rates.index(usual)] if usual in rates else None,
            }
        )
    return rows
