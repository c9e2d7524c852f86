"""The explorers whose trainings the page can do as well: what each of their positions means for its engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bnlib.experiments.alternatives import batch_sizes, contest, newer_norms
from bnlib.experiments.failing import evaluation_statistics, initial_gamma
from bnlib.experiments.formula import training_curves as curves
from bnlib.experiments.framework.results import as_array
from bnlib.experiments.full_normalization import labels_per_batch as few_labels
from bnlib.experiments.full_normalization import oracles_on_digits
from bnlib.experiments.objective import objective_and_evaluation as objective
from bnlib.experiments.perils import gan_discriminator
from bnlib.experiments.perils import train_mode_at_inference as in_use
from bnlib.experiments.perils import two_towers as two_domains
from bnlib.widgets.small_problems import STEPS
from bnlib.widgets.train_here import ENDS, ERROR, FIELDS, LOSS, MORE_NORMS, NORMS, PANELS, USUAL, TrainHere

TRAINING_SAMPLES = 1437
"""The training images of the digits."""


def _curves(rows: Mapping[str, Mapping], names: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return committed curves of an ``Experiment`` for ``TrainHere.bands``, errors in per cent."""
    return {
        (names or {}).get(name, name): {
            "epoch": row["epoch"],
            **{
                key: as_array(row[key]) * (100 if key.endswith("error") else 1)
                for key in ("train_loss", "test_error")
                if key in row
            },
        }
        for name, row in rows.items()
    }


def training_curves() -> TrainHere:
    """Return the training of chapter 1's explorer and of the front page: with and without BN on digits."""
    return TrainHere(
        start=lambda batch_size, lr: {"batch_size": batch_size, "lr": lr, **USUAL},
        chosen=list(curves.NORMS),
        bands=lambda **setting: _curves(curves.lookup(**setting)),
    )


def evaluation() -> TrainHere:
    """Return the training of chapter 4's explorer: errors on the training images in train mode and in eval mode."""
    constructions = {"shuffled": "shuffled", "fixed": "the same in every epoch", "one label": "one label"}

    def start(labels: str, construction: str, batch_size: int) -> dict[str, Any]:
        setting = {"digit_labels": labels, "batch_size": batch_size, "lr": objective.LEARNING_RATE, **USUAL}
        return {**setting, "batches": constructions[construction], "epochs": objective.EPOCHS[batch_size]}

    lines = (
        {"key": "train_error", "label": "batches of the training"},
        {"key": "reshuffled_error", "label": "new batches"},
        {"key": "memorised_error", "label": "eval mode"},
    )
    return TrainHere(
        start=start,
        chosen=list(objective.NORMS),
        fields=("digit_labels", "batch_size", "lr", "batches", "labels", "depth", "width", "epochs", "seed"),
        panels=(
            {"label": "error on the training images (%)", "lines": list(lines), **ERROR},
            {"label": "test error (%)", "lines": [{"key": "test_error"}], **ERROR},
        ),
        ends=(
            {"label": "error on the training images in train mode", "key": "train_error", "unit": " %"},
            {"label": "in new batches", "key": "reshuffled_error", "unit": " %"},
            {"label": "in eval mode", "key": "memorised_error", "unit": " %"},
            {"label": "test error", "key": "test_error", "unit": " %"},
        ),
        fixed={"evaluations": ["eval", "train"]},
    )


def alphas() -> TrainHere:
    """Return the training of chapter 5's explorer of alpha: BN and Full Normalization at one batch size."""
    batch_size = 4

    def start(alpha: str, construction: str, lr: float) -> dict[str, Any]:
        floors = {f"floor {floor}": floor for floor in oracles_on_digits.FLOORS}
        named = "1/(k + 1), bounded" if alpha in floors else "(k/20 + 1)⁻⁰·⁴"
        one_label = construction == oracles_on_digits.SINGLE_LABEL
        setting = {"alpha": named, "floor": floors.get(alpha, 0.03), "weight": 0.03, "batch_size": batch_size, "lr": lr}
        batches = "one label" if one_label else "shuffled"
        return {**setting, **USUAL, "batches": batches, "epochs": oracles_on_digits.EPOCHS[batch_size]}

    def bands(alpha: str, construction: str, lr: float) -> dict[str, dict[str, Any]]:
        arms = {"batch norm": "batch norm", "Full Normalization": f"running, {alpha}"}
        cells = oracles_on_digits.load()
        rows = {name: cells[arm, construction, batch_size, lr] for name, arm in arms.items()}
        return _curves({name: {"epoch": row["epoch"], "test_error": row["test_error"]} for name, row in rows.items()})

    usual = ("batch_size", "lr", "batches", "labels", "depth", "width", "epochs", "seed")
    return TrainHere(
        start=start,
        chosen=["batch norm", "Full Normalization"],
        bands=bands,
        fields=("alpha", "floor", "weight", *usual),
    )


def labels_per_batch() -> TrainHere:
    """Return the training of chapter 5's explorer: BN and Full Normalization on batches with few labels."""
    norms = {
        "batch norm": NORMS["batch norm"],
        "FN, same batch": {"kind": "full_norm", "oracle": "batch"},
        "FN, running": {"kind": "full_norm"},
        "without normalisation": NORMS["without normalisation"],
        "Batch Renorm": NORMS["Batch Renorm"],
        "layer norm": NORMS["layer norm"],
    }

    def start(labels: int, batch_size: int, lr: float) -> dict[str, Any]:
        few = {"batches": "at most k labels", "labels": labels}
        return {"batch_size": batch_size, "lr": lr, **USUAL, **few, "epochs": few_labels.EPOCHS[batch_size]}

    return TrainHere(
        start=start,
        chosen=list(few_labels.NORMS),
        bands=lambda **setting: _curves(few_labels.lookup(**setting)),
        norms=norms,
        fixed={"checkpoints": 10},
    )


def train_mode_at_inference() -> TrainHere:
    """Return the training of chapter 6's explorer of predictions in train mode; the page has no convolutions."""
    end = in_use.TRAINING["epochs"]
    last_step = end * (TRAINING_SAMPLES // in_use.TRAINING["batch_size"])

    def start(network: str, batch_size: int) -> dict[str, Any] | None:
        if network != "fully connected":
            return None
        return {**USUAL, **in_use.TRAINING, "evaluation_batch_size": batch_size}

    def bands(network: str, batch_size: int) -> dict[str, dict[str, Any]]:
        found = in_use.load()[network, "shuffled"]
        errors = {
            "test_error": 100 * (1 - found["eval_mode"]),
            "train_mode_error": 100 * (1 - found["train_mode"][:, in_use.BATCH_SIZES.index(batch_size)]),
        }
        # Only the ends of the committed runs are known: a mark from the last step to the end of the axis.
        (after,) = _by_steps([last_step], in_use.TRAINING["batch_size"])
        return {"batch norm": {"epoch": [after, end], **{key: as_array([e, e]).T for key, e in errors.items()}}}

    lines = [
        {"key": "test_error", "label": "eval mode"},
        {"key": "train_mode_error", "label": "train mode, test set shuffled"},
    ]
    size = {key: value for key, value in FIELDS["evaluation_batch_size"].items() if key != "when"}
    return TrainHere(
        start=start,
        chosen=["batch norm"],
        bands=bands,
        fields=("evaluation_batch_size", "batch_size", "lr", "batches", "labels", "depth", "width", "epochs", "seed"),
        own_fields={"evaluation_batch_size": size | {"told": "tested in batches of {}"}},
        panels=({"label": "test error (%)", "lines": lines, **ERROR},),
        ends=(
            {"label": "test error in eval mode", "key": "test_error", "unit": " %"},
            {"label": "in train mode", "key": "train_mode_error", "unit": " %"},
        ),
        fixed={"evaluations": ["eval", "train"]},
        trained="the fully connected network",
    )


def two_towers() -> TrainHere:
    """Return the training of chapter 6's explorer: one network on digits and inverted digits; the page has no MNIST."""

    def start(domains: str, share: float, batch_size: int) -> dict[str, Any] | None:
        if domains != "inverted":
            return None
        settings = {"data": "two domains", "share": share, "batch_size": batch_size, "lr": two_domains.LEARNING_RATE}
        return {**settings, **USUAL, "epochs": two_domains.EPOCHS[batch_size]}

    error = {"label": "test error (%)", "lines": [{"key": "test_error", "label": "digits"}], **ERROR}
    error["lines"].append({"key": "second_error", "label": "inverted digits"})
    return TrainHere(
        start=start,
        chosen=["batch norm"],
        fields=("share", "batch_size", "lr", "depth", "width", "epochs", "seed"),
        norms=NORMS | {"domain batch norm": MORE_NORMS["domain batch norm"]},
        panels=(PANELS[0], error),
        ends=(
            ENDS[0],
            {"label": "test error on digits", "key": "test_error", "unit": " %"},
            {"label": "on inverted digits", "key": "second_error", "unit": " %"},
        ),
    )


def discriminator() -> TrainHere:
    """Return the training of chapter 6's explorer of a discriminator of real and generated points in the plane."""
    norms = {
        "batch norm": {"norm": "batch_norm"},
        "batch norm, layer 2 only": {"norm": "batch_norm", "secondOnly": True},
        "without normalisation": {"norm": "none"},
        "layer norm": {"norm": "layer_norm"},
    }
    lines = (
        {"key": "separate", "label": "train mode, separate batches"},
        {"key": "mixed", "label": "train mode, mixed batches"},
        {"key": "eval_mode", "label": "eval mode"},
    )
    chance = [{"label": "ln 2", "value": round(math.log(2), 3)}]
    loss = {"label": "training loss (nats)", "lines": [{"key": "train_loss"}], "range": [0, 1], "ticks": [0, 0.5, 1]}
    usual = {"batch_size": gan_discriminator.BATCH_SIZE, "lr": gan_discriminator.LEARNING_RATE}
    usual |= {"width": gan_discriminator.SIZES[1], "steps": gan_discriminator.STEPS, "seed": USUAL["seed"]}

    def choice(label: str, options: tuple[str, ...], told: str) -> dict[str, Any]:
        return {"label": label, "kind": "choice", "options": list(options), "told": told}

    return TrainHere(
        start=lambda kind, batches: {"kind": kind, "batches": batches, **usual},
        chosen=["batch norm", "batch norm, layer 2 only"],
        fields=("kind", "batches", "batch_size", "lr", "width", "steps", "seed"),
        norms=norms,
        own_fields={
            "kind": choice("generated points are", gan_discriminator.FAKES, "{} points"),
            "batches": choice("training batches", gan_discriminator.BATCHES, "{} batches"),
            "batch_size": {**FIELDS["batch_size"], "label": "real points in a step", "most": 1024},
            "steps": STEPS,
        },
        panels=({**loss, "levels": chance}, {"label": "accuracy on new points (%)", "lines": list(lines), **ERROR}),
        ends=(ENDS[0], *({"label": line["label"], "key": line["key"], "unit": " %"} for line in lines)),
        problem="discriminator",
        trained="discriminators",
    )


def _by_steps(steps: Any, batch_size: int) -> list[float]:
    return [step * batch_size / TRAINING_SAMPLES for step in steps]


def micro_batches() -> TrainHere:
    """Return the training of chapter 7's explorer of micro-batches: each batch of 256 is normalised in parts."""
    batch_size = evaluation_statistics.LARGE_BATCH
    steps = evaluation_statistics.CHECKPOINTS[batch_size]

    def start(micro_batch_size: int, lr: float) -> dict[str, Any]:
        settings = {"batch_size": batch_size, "micro_batch_size": micro_batch_size, "lr": lr, **USUAL}
        return {**settings, "epochs": steps[-1] // (TRAINING_SAMPLES // batch_size)}

    def bands(micro_batch_size: int, lr: float) -> dict[str, dict[str, Any]]:
        found = evaluation_statistics.by_micro_batch(micro_batch_size, lr)
        return {
            norm: {
                "epoch": _by_steps(found["steps"], batch_size),
                "train_error": 100 * found[norm]["train"],
                "precise_error": 100 * found[norm]["precise"],
            }
            for norm in ("batch norm", "without normalisation")
        }

    return TrainHere(
        start=start,
        chosen=["batch norm", "without normalisation"],
        bands=bands,
        fields=("batch_size", "micro_batch_size", "lr", "batches", "labels", "depth", "width", "epochs", "seed"),
        norms={name: NORMS[name] for name in ("batch norm", "without normalisation", "layer norm")},
        panels=(
            {"label": "training error, train mode (%)", "lines": [{"key": "train_error"}], **ERROR},
            {"label": "test error, precise statistics (%)", "lines": [{"key": "precise_error"}], **ERROR},
        ),
        ends=(
            {"label": "training error", "key": "train_error", "unit": " %"},
            {"label": "test error with precise statistics", "key": "precise_error", "unit": " %"},
        ),
        fixed={"checkpoints": list(steps), "evaluations": ["eval", "precise"]},
    )


def running_statistics() -> TrainHere:
    """Return the training of chapter 7's explorer of running averages and precise statistics."""
    batch_size = evaluation_statistics.SMALL_BATCH
    steps = evaluation_statistics.CHECKPOINTS[batch_size]
    lines = {"precise": "precise statistics", "test": "running averages"}

    def start(lr: float, momentum: float) -> dict[str, Any]:
        settings = {"batch_size": batch_size, "lr": lr, "momentum": momentum, **USUAL}
        return {**settings, "epochs": steps[-1] // (TRAINING_SAMPLES // batch_size)}

    def bands(lr: float, momentum: float) -> dict[str, dict[str, Any]]:
        found = evaluation_statistics.by_momentum(lr, momentum)
        return {
            "batch norm": {
                "epoch": _by_steps(found["steps"], batch_size),
                "precise_loss": found["precise"][..., 0],
                "test_loss": found["running"][..., 0],
                "precise_error": 100 * found["precise"][..., 1],
                "test_error": 100 * found["running"][..., 1],
            }
        }

    def panel(quantity: str, **axis: Any) -> dict[str, Any]:
        return {"lines": [{"key": f"{key}_{quantity}", "label": label} for key, label in lines.items()], **axis}

    return TrainHere(
        start=start,
        chosen=["batch norm"],
        bands=bands,
        fields=("batch_size", "lr", "momentum", "batches", "labels", "depth", "width", "epochs", "seed"),
        norms={name: NORMS[name] for name in ("batch norm", "Batch Renorm")},
        panels=(
            panel("loss", label="test loss (nats)", **{**LOSS, "range": [0.03, 30], "ticks": [0.1, 1, 10]}),
            panel("error", label="test error (%)", **ERROR),
        ),
        ends=(
            {"label": "test error with precise statistics", "key": "precise_error", "unit": " %"},
            {"label": "with running averages", "key": "test_error", "unit": " %"},
        ),
        fixed={"checkpoints": list(steps), "evaluations": ["eval", "precise"]},
    )


def initial_gammas() -> TrainHere:
    """Return the training of chapter 7's explorer of gamma."""
    networks = {
        "2 layers": {"depth": 2, "placement": "before the ReLU", "skip": "without"},
        "8 layers": {"depth": 8, "placement": "before the ReLU", "skip": "without"},
        "ReLU, BN": {"depth": 2, "placement": "after the ReLU", "skip": "without"},
        "residual": {"depth": 8, "placement": "before the ReLU", "skip": "with"},
    }
    batch_size = initial_gamma.BATCH_SIZE

    def start(network: str, gamma: float) -> dict[str, Any]:
        settings = {"batch_size": batch_size, "lr": initial_gamma.LEARNING_RATE, **USUAL, **networks[network]}
        return {**settings, "gamma": gamma, "width": initial_gamma.WIDTH}

    def bands(network: str, gamma: float) -> dict[str, dict[str, Any]]:
        losses = initial_gamma.load()[initial_gamma.NETWORK_LABELS[network], gamma]["loss"]
        return {"batch norm": {"epoch": _by_steps(initial_gamma.CHECKPOINTS, batch_size), "train_loss": losses}}

    return TrainHere(
        start=start,
        chosen=["batch norm"],
        bands=bands,
        fields=("gamma", "skip", "placement", "batch_size", "lr", "depth", "width", "epochs", "seed"),
        norms={name: NORMS[name] for name in ("batch norm", "layer norm")},
        fixed={"checkpoints": list(initial_gamma.CHECKPOINTS)},
    )


def alternatives() -> TrainHere:
    """Return the training of chapter 9's explorer: all norms of the contest, at the best learning rate of BN."""
    names = {"Full Norm": "Full Normalization"}
    known = NORMS | MORE_NORMS | {"without normalisation, PyTorch init": {"kind": "none", "initialisation": "pytorch"}}
    norms = {names.get(name, name): known[names.get(name, name)] for name in contest.NORMS}
    batches = {"shuffled": ("shuffled", 2), "two labels": ("at most k labels", 2), "one label": ("one label", 1)}

    def rate(budget: str, construction: str, batch_size: int) -> float:
        made = construction if batch_sizes.possible(construction, batch_size) else "shuffled"
        found = contest.errors("batch norm", budget, made, batch_size)
        return batch_sizes.LEARNING_RATES[batch_sizes.best_learning_rate(found)]

    def start(budget: str, construction: str, batch_size: int) -> dict[str, Any]:
        made, labels = batches[construction]
        return {
            "batch_size": batch_size, "lr": rate(budget, construction, batch_size), **USUAL, "batches": made,
            "labels": labels, "initialisation": "He", "width": 64, "epochs": batch_sizes.BUDGETS[budget][batch_size],
        }  # fmt: skip

    def bands(budget: str, construction: str, batch_size: int) -> dict[str, dict[str, Any]]:
        made = "shuffled" if batch_size == 1 else construction
        if not batch_sizes.trained(made, batch_size):
            return {}
        point = batch_sizes.checkpoint(budget, batch_size)
        lr = rate(budget, construction, batch_size)
        rows = {norm: batch_sizes.load()[norm, made, batch_size, lr] for norm in batch_sizes.NORMS}
        for norm in newer_norms.NORMS:
            there = contest.trained(norm, budget, construction, batch_size)
            if there and lr in newer_norms.learning_rates(norm, batch_size):
                rows[norm] = contest.newer()[norm, batch_size, lr]
        kept = {
            norm: {"epoch": row["epoch"][: point + 1], "test_error": [run[: point + 1] for run in row["test_error"]]}
            for norm, row in rows.items()
        }
        return _curves(kept, names)

    return TrainHere(
        start=start,
        chosen=["batch norm", "layer norm"],
        bands=bands,
        norms=norms,
        fields=("batch_size", "lr", "batches", "labels", "initialisation", "depth", "width", "epochs", "seed"),
    )
