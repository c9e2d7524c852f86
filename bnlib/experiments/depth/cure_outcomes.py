"""Read what the cures of deep stacks do, each at its best learning rate, from ``descent`` and two more results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from bnlib.experiments.depth import cures, cures_by_depth, descent, gradient_growth
from bnlib.experiments.depth.cures import DEPTH, SMALL_RATE
from bnlib.experiments.depth.descent import Curves, curves
from bnlib.experiments.framework.best_rates import BestRate, best_rates

GROUPS: dict[str, tuple[str, ...]] = {
    "baseline": ("batch norm",),
    "rounding and scale": ("float32", "eps 0.1", "initial weights x 10", "weight norms fixed"),
    "smaller steps": ("warm-up", "gradient clipping", "adaptive gradient clipping"),
    "batch, gamma, activation": ("128 characters", "gamma 0.1", "tanh"),
    "cures from the answers": (
        "Batch Renorm",
        "Batch Renorm, statistics of the first batch",
        "variance at least 0.01",
        "variance at least 0.1",
    ),
    "growth removed, BN kept": ("linear", "beta 3", "tanh, gamma 0.1"),
    "without BN, or almost": ("eps 1", "layer norm", "without normalisation", "without normalisation, He init"),
    "skip connections": (
        "residual",
        "residual, gamma 0.1",
        "residual, gamma 0",
        "residual, norm before the head",
        "post-activation, gamma 1",
        "post-activation, gamma 0",
        "pre-activation",
    ),
}
"""The variants of all three results in the order of the figure."""

LABELS = descent.LABELS | {
    "batch norm": "batch norm and ReLU",
    "linear": "no activation",
    "residual, norm before the head": "skip connections, norm before last layer",
    "adaptive gradient clipping": "AGC",
    "without normalisation, He init": "without BN, He init",
    "without normalisation": "without BN",
    "post-activation, gamma 1": "skip connections, post-activation, gamma 1",
    "post-activation, gamma 0": "skip connections, post-activation, gamma 0",
    "pre-activation": "skip connections, pre-activation",
    "Batch Renorm, statistics of the first batch": "Batch Renorm, warm start",
}
"""Names of variants in figures and tables, where they differ from the keys."""


SMALL_AT_THE_START = ("residual, norm before the head", "post-activation, gamma 0", "pre-activation")
"""The networks with skip connections whose output is small before training."""


@cache
def all_runs() -> dict[tuple[str, int, float], Curves]:
    """Load the committed results by variant, depth and learning rate."""
    rows = {(name, DEPTH, lr): row for (name, lr), row in cures.load().items()} | cures_by_depth.load()
    return descent.load() | {cell: curves(row["initial_loss"], row["loss_changes"]) for cell, row in rows.items()}


def runs(depth: int = DEPTH) -> dict[tuple[str, float], Curves]:
    """Return the runs at one depth by variant and learning rate."""
    return {(name, lr): each for (name, layers, lr), each in all_runs().items() if layers == depth}


def best_rate(variant: str, depth: int = DEPTH) -> BestRate:
    """Return the rate at which the median loss ends lowest, and whether it lies inside those that were tried."""
    ends = {cell: {"loss": each.losses[:, -1]} for cell, each in runs(depth).items() if cell[0] == variant}
    return best_rates(ends, ("variant", "lr"), "loss")[variant,]


@dataclass(frozen=True)
class Outcome:
    """What a variant does in 60 steps.

    Attributes:
        roughness: at a learning rate of 0.0001, one number per seed.
        initial_loss: before training in nats, one number per seed.
        rate: the best of the learning rates that were tried.
        final_loss: at the best rate, in nats, one number per seed.
    """

    roughness: np.ndarray
    initial_loss: np.ndarray
    rate: float
    final_loss: np.ndarray


def outcome(variant: str, depth: int = DEPTH) -> Outcome:
    """Return the outcome of a variant at one depth."""
    rate = best_rate(variant, depth).rate
    small, best = runs(depth)[variant, SMALL_RATE], runs(depth)[variant, rate]
    # The rounded changes do not add up to a tiny loss, so the later results keep it.
    row = cures.load().get((variant, rate)) if depth == DEPTH else None
    row = cures_by_depth.load().get((variant, depth, rate)) if row is None else row
    ended = best.losses[:, -1]
    final_loss = ended if row is None else np.where(np.isfinite(ended), row["final_loss"], np.nan)
    return Outcome(small.roughness, small.losses[:, 0], rate, final_loss)


def compare(variant: str, lr: float) -> dict[str, Curves]:
    """Return the curves of a variant and of the baseline with BN, both with 100 layers."""
    return {name: runs()[name, lr] for name in ("batch norm", variant)}


def train_variant(variant: str, lr: float) -> Iterator[tuple[int, int, Mapping[str, Curves]]]:
    """Train a variant and the baseline with BN now, both with 100 layers; yields as ``descent.train`` does."""
    yield from descent.live(compare(variant, lr), DEPTH, lr, descent.VARIANTS | cures.VARIANTS)


def outcomes() -> dict[str, dict[str, Outcome]]:
    """Return the outcomes by group and label, in the order of the figure."""
    return {group: {LABELS.get(name, name): outcome(name) for name in names} for group, names in GROUPS.items()}


def residual_rows() -> list[dict]:
    """Return table rows: without skip connections, with them, and with a norm before the last layer in two ways."""
    names = ("batch norm", "residual", "residual, norm before the head", "pre-activation")
    shown = {LABELS.get(name, name): outcome(name) for name in names}
    return [
        {
            "100 layers with BN": label,
            "loss before training (nats)": each.initial_loss,
            "best learning rate": f"{each.rate:g}",
            "loss after 60 steps (nats)": each.final_loss,
        }
        for label, each in shown.items()
    ]


def growth_rows() -> list[dict]:
    """Return table rows of BN, Batch Renorm and clipped variances: growth of the gradient, jitter and final loss."""
    measured = {name: row["growth"] for (name, lr), row in cures.load().items() if lr == SMALL_RATE}
    measured["batch norm"] = gradient_growth.load()["batch norm", descent.CHARACTERS, descent.WIDTH]["growth"][:, 0]
    return [
        {
            "100 layers": LABELS.get(name, name),
            "growth of the gradient norm per layer": measured[name],
            "jitter at 0.0001 (nats)": runs()[name, SMALL_RATE].jitter,
            "roughness at 0.0001": outcome(name).roughness,
            "loss after 60 steps at the best rate (nats)": outcome(name).final_loss,
        }
        for name in ("batch norm", *GROUPS["cures from the answers"])
    ]


def depth_rows() -> list[dict]:
    """Return table rows, one per variant: median roughness and median final loss by number of layers."""
    rows = []
    for name in ("batch norm", *cures_by_depth.COMPARED):
        found = {depth: outcome(name, depth) for depth in cures_by_depth.LAYERS}
        row: dict = {"change": LABELS.get(name, name)}
        row |= {("roughness at 0.0001", f"{depth} layers"): _median(each.roughness) for depth, each in found.items()}
        row |= {("final loss (nats)", f"{depth} layers"): _median(each.final_loss) for depth, each in found.items()}
        rows.append(row)
    return rows


def _median(values: np.ndarray) -> float:
    return float(np.median(np.nan_to_num(values, nan=np.inf)))
