"""What the page needs to train networks in the reader's browser, without a kernel."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnlib.figures.methods import method_color

FIELDS: dict[str, dict[str, Any]] = {
    "data": {"label": "data", "kind": "choice", "options": ["digits", "two domains"]},
    "share": {
        "label": "share of a batch from one domain",
        "kind": "number",
        "least": 0.5,
        "most": 1,
        "when": {"data": "two domains"},
        "told": "share {} from one domain",
    },
    "digit_labels": {"label": "labels", "kind": "choice", "options": ["true", "random"], "told": "{} labels"},
    "norm": {"label": "normalisation", "kind": "choice"},
    "batch_size": {"label": "batch size", "kind": "integer", "least": 1, "most": 1437},
    "micro_batch_size": {"label": "micro-batch size", "kind": "integer", "least": 1, "most": 1437},
    "lr": {"label": "learning rate", "kind": "number", "positive": True},
    "batches": {
        "label": "batches",
        "kind": "choice",
        "options": ["shuffled", "one label", "at most k labels", "the same in every epoch"],
    },
    "labels": {
        "label": "labels in a batch, k",
        "kind": "integer",
        "least": 1,
        "most": 10,
        "when": {"batches": "at most k labels"},
        "told": "k = {}",
    },
    "initialisation": {"label": "initialisation", "kind": "choice", "options": ["PyTorch's default", "He"]},
    "skip": {
        "label": "skip connections",
        "kind": "choice",
        "options": ["without", "with"],
        "told": "{} skip connections",
    },
    "placement": {
        "label": "place of the norm",
        "kind": "choice",
        "options": ["before the ReLU", "after the ReLU"],
        "when": {"skip": "without"},
    },
    "gamma": {"label": "initial gamma", "kind": "number"},
    "depth": {"label": "hidden layers", "kind": "integer", "least": 1, "most": 20},
    "width": {"label": "units per layer", "kind": "integer", "least": 1, "most": 512},
    "momentum": {"label": "momentum of the statistics", "kind": "number", "least": 0, "most": 1},
    "alpha": {"label": "weight α in step k", "kind": "choice"},
    "floor": {
        "label": "lower bound of α",
        "kind": "number",
        "least": 0,
        "most": 1,
        "when": {"alpha": "1/(k + 1), bounded"},
        "told": "at least {}",
    },
    "weight": {
        "label": "value of α",
        "kind": "number",
        "positive": True,
        "most": 1,
        "when": {"alpha": "constant"},
        "told": "α = {}",
    },
    "freeze": {
        "label": "freeze the statistics after step",
        "kind": "integer",
        "least": 0,
        "optional": True,
        "empty": "statistics never frozen",
        "placeholder": "never",
        "told": "statistics frozen after step {}",
    },
    "evaluation": {
        "label": "test in",
        "kind": "choice",
        "options": ["eval mode", "train mode"],
        "told": "tested in {}",
    },
    "evaluation_batch_size": {
        "label": "test batch size",
        "kind": "integer",
        "least": 1,
        "most": 360,
        "when": {"evaluation": "train mode"},
        "told": "in batches of {}",
    },
    "epochs": {"label": "epochs", "kind": "number", "positive": True, "most": 1000},
    "seed": {"label": "seed", "kind": "integer", "least": 0, "most": 2**31 - 1},
}
"""The settings that a reader can change on a page, in the order of their fields."""

ALPHAS: dict[str, dict[str, float] | None] = {
    "constant": None,
    "1/(k + 1), bounded": {"scale": 1, "power": 1},
    "(k/20 + 1)⁻⁰·⁴": {"scale": 20, "power": 0.4},
    "(k + 1)⁻⁰·⁴": {"scale": 1, "power": 0.4},
}
"""Weights of the newest batch, by the names of the field ``alpha``: arguments of ``schedules.PowerSchedule``."""

NORMS: dict[str, dict[str, Any]] = {
    "batch norm": {"kind": "batch_norm"},
    "without normalisation": {"kind": "none"},
    "Full Normalization": {"kind": "full_norm"},
    # As in chapter 9: the limits do not rise, because with those of the paper it is batch norm for 5000 steps.
    "Batch Renorm": {"kind": "batch_renorm", "momentum": 0.1, "rMax": 3, "dMax": 5},
    "layer norm": {"kind": "layer_norm"},
}
"""The normalisations that every explorer offers, as the page's engine (``assets/engine/protocol.js``) has them."""

MORE_NORMS: dict[str, dict[str, Any]] = {
    "Ghost BN": {"kind": "ghost_batch_norm", "virtualBatchSize": 16},
    "domain batch norm": {"kind": "domain_batch_norm"},
    "RMSNorm": {"kind": "rms_norm"},
    "group norm": {"kind": "group_norm"},
    "FRN": {"kind": "filter_response_norm"},
    "EvoNorm-S0": {"kind": "evonorm_s0"},
    "weight norm": {"kind": "weight_norm"},
    "weight standardisation + GN": {"kind": "weight_standardisation"},
    "cosine normalisation": {"kind": "cosine"},
    "dynamic tanh": {"kind": "dynamic_tanh"},
}
"""The other normalisations of the engine, with the settings of chapters 6 and 9."""

LOSS = {"log": True, "range": [3e-3, 20], "ticks": [0.01, 0.1, 1, 10]}
ERROR = {"range": [0, 100], "ticks": [0, 20, 40, 60, 80, 100]}
PANELS = (
    {"label": "training loss (nats)", "lines": [{"key": "train_loss"}], **LOSS},
    {"label": "test error (%)", "lines": [{"key": "test_error"}], **ERROR},
)
"""Training loss and test error, as most figures of training show them."""
ENDS = (
    {"label": "training loss", "key": "train_loss", "unit": ""},
    {"label": "test error", "key": "test_error", "unit": " %"},
)
"""The numbers that the legend tells of a run."""
USUAL = {"batches": "shuffled", "labels": 2, "depth": 2, "width": 100, "epochs": 10, "seed": 100}
"""The settings of most trainings on digits. The seed is one that no committed result has used."""

TRAINER = (
    "This page trains {} in your browser, without a kernel and without a server. It does what bnlib, the "
    "package of this book, does in PyTorch. In a notebook with a kernel, the button Train uses PyTorch."
)
"""Who trains, for the reader of a page; the braces are for what is trained."""


@dataclass(frozen=True)
class TrainHere:
    """Training in the page for the settings of an ``Explorer``, and for settings between and beyond them.

    The reader gets a field for each setting and a check box for each normalisation. The curves appear over the range of
    the committed runs, as long as the settings are those of a position of the explorer.

    Arguments:
        start: ``start(**setting)`` returns the values of the fields for a setting of the explorer, by their names in
            ``FIELDS``. Values without a field are possible; the reader cannot change them. None for a setting whose
            network the page cannot train.
        chosen: the normalisations that are trained unless the reader chooses others.
        bands: ``bands(**setting)`` returns for some normalisations the committed curves: ``"epoch"``, length P, and for
            keys of the panels arrays of shape (seeds, P), errors in per cent. None for no bands.
        fields: the names of the settings that the reader can change, without ``norm``.
        norms: normalisations by name, as in ``NORMS``.
        panels: the charts: label, range and ticks of the axis, and the keys of the lines.
        ends: the numbers that the legend tells of a run.
        fixed: further settings of the engine.
        problem: name of the engine's small problem that is trained in place of a network; None for a network. Its steps
            are counted, not its epochs.
        own_fields: fields besides those of ``FIELDS``, or in their place.
        series: the field whose value gives a run its name and its colour, those of ``norms``. Unless it is ``"norm"``,
            the reader chooses one value in the field.
        trained: what is trained, in words.

    Raises:
        ValueError: if ``chosen`` or ``fields`` contains an unknown name.

    Example:
        >>> usual = widgets.TrainHere(lambda lr: {"lr": lr, "batch_size": 32, "epochs": 10}, ["batch norm"])
        >>> usual.description("training", [{"lr": 0.1}, {"lr": 0.3}])["start"]
        {'lr': [0.1, 0.3], 'batch_size': 32, 'epochs': 10}
    """

    start: Callable[..., Mapping[str, Any] | None]
    chosen: Sequence[str]
    bands: Callable[..., Mapping[str, Mapping[str, Any]]] | None = None
    fields: Sequence[str] = ("batch_size", "lr", "batches", "labels", "depth", "width", "epochs", "seed")
    norms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: dict(NORMS))
    panels: Sequence[Mapping[str, Any]] = PANELS
    ends: Sequence[Mapping[str, str]] = ENDS
    fixed: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    own_fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    series: str = "norm"
    trained: str = "the networks"

    def __post_init__(self):
        known_fields = {**FIELDS, **self.own_fields}
        for name, given, known in (("chosen", self.chosen, self.norms), ("fields", self.fields, known_fields)):
            if unknown := [each for each in given if each not in known]:
                raise ValueError(f"{name} must be among {', '.join(known)}, got {unknown}")

    def description(self, name: str, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return all that the page's script needs, for JSON; ``settings`` are those of the explorer, in its order."""
        rows = [self.start(**setting) for setting in settings]
        usual = next(row for row in rows if row is not None)
        start = {key: _once([(row or usual)[key] for row in rows]) for key in usual}
        bands = None
        if self.bands is not None:
            bands = [
                None if row is None else _bands(self.bands(**setting))
                for row, setting in zip(rows, settings, strict=True)
            ]
        return {
            "name": name,
            "trainer": TRAINER.format(self.trained),
            "fields": [
                fields_of_page(each, self.norms, self.own_fields.get(each)) for each in self.fields if each in start
            ],
            "norms": norms_of_page(self.norms),
            "chosen": list(self.chosen),
            "told": [each for each in ("batch_size", "lr", "seed") if each in self.fields],
            "start": start,
            "bands": bands,
            "covered": [row is not None for row in rows],
            "panels": list(self.panels),
            "ends": list(self.ends),
            "fixed": dict(self.fixed),
            "problem": self.problem,
            "series": self.series,
            "x": "epoch" if self.problem is None else "step",
            "alphas": ALPHAS,
        }

    def html(self, name: str, settings: Iterator[Mapping[str, Any]]) -> str:
        """Return the element with the description, which the page's script looks for in an explorer."""
        return script(self.description(name, list(settings)))


def script(description: Mapping[str, Any]) -> str:
    """Return a description as an element of a page."""
    data = json.dumps(description, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    return f'<script type="application/json" class="bnb-training-description">{data}</script>'


def norms_of_page(norms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return normalisations for the page: with the colours of the figures."""
    return {name: {"color": method_color(name), **norm} for name, norm in norms.items()}


def fields_of_page(name: str, norms: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a field of ``FIELDS``, or ``own`` in its place, with its name and, if it has any, its options."""
    options = {"norm": norms, "alpha": ALPHAS}.get(name)
    return {"name": name, **(own or FIELDS[name]), **({} if options is None else {"options": list(options)})}


def _once(values: list) -> Any:
    return values if any(value != values[0] for value in values) else values[0]


def _bands(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list]]:
    """Return lowest, median and highest value at each epoch, for each normalisation and key."""
    return {
        name: {key: _rounded(values) if key in ("epoch", "step") else _range(values) for key, values in rows.items()}
        for name, rows in curves.items()
    }


def _range(runs: Any) -> list[list[float | None]]:
    """Return minimum, median and maximum over the runs; a run that diverged counts as infinite in the median."""
    runs = np.asarray(runs, dtype=float)
    infinite = np.where(np.isnan(runs), np.inf, runs)
    highest = np.where(np.isnan(runs), -np.inf, runs).max(0)
    return [_rounded(values) for values in (infinite.min(0), np.median(infinite, 0), highest)]


def _rounded(values: Sequence[float]) -> list[float | None]:
    """Round to three digits; None for what is not finite."""
    return [_short(float(f"{value:.3g}")) if math.isfinite(value) else None for value in values]


def _short(value: float) -> float:
    return int(value) if value == int(value) else value
