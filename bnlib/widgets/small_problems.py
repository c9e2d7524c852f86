"""The explorers of problems that bring their own data, which the page can train as well as networks on digits."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from bnlib.experiments.full_normalization import mcsgd_paths
from bnlib.experiments.full_normalization.oracle_names import ORACLE_NAMES
from bnlib.experiments.objective import two_weights as objective
from bnlib.figures.full_normalization import ORACLE_COLORS
from bnlib.figures.objective import CONSTRUCTION_STYLES
from bnlib.mcsgd import ORACLES
from bnlib.widgets.train_here import FIELDS, TrainHere

STEPS = {"label": "steps", "kind": "integer", "least": 1, "most": 100_000}
SEED = 100
"""A seed that no committed path has used."""
LARGEST_BATCHES = {"all subsets": 12, "one worker": 6, "one label": 6, "fixed": 12}
"""The most samples that a batch of each construction can have."""


@cache
def minima() -> dict[str, list[list[float] | None]]:
    """Return the weights at the minimum of the BN objective for each construction, by batch size from 1 on.

    None stands for an objective that is the same for all weights.
    """
    return {
        name: [_minimum(name, batch_size) for batch_size in range(1, most + 1)]
        for name, most in LARGEST_BATCHES.items()
    }


def _minimum(construction: str, batch_size: int) -> list[float] | None:
    batches = objective.CONSTRUCTIONS[construction](batch_size)
    best = objective.minimiser(lambda weights: objective.objective(weights, batches))
    return None if best is None else [round(each, 3) for each in best.tolist()]


def two_weights() -> TrainHere:
    """Return the training of chapter 4's explorer: SGD on the BN objective over two weights."""
    low, high = objective.WEIGHT_RANGE
    weights, least = objective.full_batch_minimum()
    lines = [{"key": "objective", "label": "BN objective"}, {"key": "full_batch", "label": "full-batch objective"}]
    loss = {
        "label": "loss (nats)",
        "lines": lines,
        "log": True,
        "range": [0.2, 5],
        "ticks": [0.3, 1, 3],
        "levels": [
            {"label": "full-batch minimum", "value": round(least, 3)},
            {"label": "ln 2", "value": round(math.log(2), 3)},
        ],
    }
    path = {
        "label": "path over the two weights",
        "lines": [],
        "plane": {
            "axes": ["weight of input 1", "weight of input 2"],
            "range": [low, high],
            "ticks": [0, 2, 4, 6],
            "star": [round(each, 3) for each in weights.tolist()],
            "dots": minima(),
            "told": "Star: full-batch minimum; dot: minimum of the BN objective for the chosen batches and batch size",
        },
    }

    def start(construction: str, batch_size: int, lr: float) -> dict[str, Any]:
        setting = {"construction": construction, "batch_size": batch_size, "lr": lr}
        return {**setting, "steps": objective.STEPS, "seed": SEED}

    construction = {"label": "batches", "kind": "choice", "options": list(LARGEST_BATCHES), "told": "{}"}
    return TrainHere(
        start=start,
        chosen=[],
        fields=("construction", "batch_size", "lr", "steps", "seed"),
        own_fields={
            "construction": construction,
            "batch_size": {**FIELDS["batch_size"], "most": objective.SAMPLES},
            "steps": STEPS,
        },
        norms={
            name: {"construction": name.replace(" ", "_"), "color": CONSTRUCTION_STYLES[name][0]}
            for name in objective.CONSTRUCTIONS
        },
        panels=(loss, path),
        ends=[{**line, "unit": ""} for line in lines],
        problem="two_weights",
        series="construction",
        trained="the two weights",
    )


def composition() -> TrainHere:
    """Return the training of chapter 5's explorer: Algorithm 2 on one parameter, for each oracle."""
    low, high = -1.6, 1.6
    names = {ORACLE_NAMES[oracle]: oracle for oracle in ORACLES}
    alphas = {"(k/20+1)^-0.4": "(k/20 + 1)⁻⁰·⁴", "(k+1)^-0.4": "(k + 1)⁻⁰·⁴"}
    axis = {
        "range": [low, high],
        "ticks": [-1, 0, 1],
        "levels": [
            {"label": "best w", "value": round(mcsgd_paths.OPTIMUM, 3)},
            {"label": "zero of the biased gradient", "value": round(mcsgd_paths.SAME_ORACLE_ZERO, 3)},
        ],
    }

    def start(oracle: str, alpha: str, lr: float) -> dict[str, Any]:
        fixed = alpha not in alphas
        return {
            "oracle": ORACLE_NAMES[oracle],
            "alpha": "constant" if fixed else alphas[alpha],
            "weight": float(alpha) if fixed else 0.03,
            "floor": 0,
            "lr": lr,
            "steps": mcsgd_paths.STEPS,
            "seed": SEED,
        }

    def bands(oracle: str, alpha: str, lr: float) -> dict[str, dict[str, Any]]:
        paths = mcsgd_paths.lookup(oracle, alpha, lr)
        return {ORACLE_NAMES[oracle]: {"step": paths.steps, "median": paths.values}}

    copies = mcsgd_paths.COPIES
    return TrainHere(
        start=start,
        chosen=[],
        bands=bands,
        fields=("oracle", "alpha", "weight", "floor", "lr", "steps", "seed"),
        own_fields={
            "oracle": {"label": "oracle", "kind": "choice", "options": list(names), "told": "{}"},
            "steps": STEPS,
        },
        norms={name: {"oracle": oracle, "color": ORACLE_COLORS[oracle]} for name, oracle in names.items()},
        panels=(
            {"label": f"w, median of {copies} copies", "lines": [{"key": "median"}], **axis},
            {"label": "w of one copy", "lines": [{"key": "parameter", "band": "median"}], **axis},
        ),
        ends=(
            {"label": f"median of w over {copies} copies", "key": "median", "unit": ""},
            {"label": "lowest", "key": "lowest", "unit": ""},
            {"label": "highest", "key": "highest", "unit": ""},
        ),
        problem="composition",
        series="oracle",
        trained=f"{copies} copies of the parameter, each on samples of its own,",
    )
