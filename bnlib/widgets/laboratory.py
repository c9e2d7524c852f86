"""The laboratory: two networks that differ in one setting, and situations that show what batch norm does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnlib.widgets.train_here import (
    ENDS,
    FIELDS,
    MORE_NORMS,
    NORMS,
    PANELS,
    TRAINER,
    USUAL,
    fields_of_page,
    norms_of_page,
    script,
)

START: dict[str, Any] = {
    "data": "digits",
    "share": 1,
    "norm": "batch norm",
    "batch_size": 32,
    "lr": 0.1,
    **USUAL,
    "initialisation": "PyTorch's default",
    "momentum": 0.1,
    "freeze": None,
    "evaluation": "eval mode",
    "evaluation_batch_size": 4,
}
"""The settings of the first network before the reader changes one."""
ALL_NORMS = {**NORMS, **MORE_NORMS}
"""The normalisations that the two networks can have."""
PLACE = "laboratory-networks"
"""The anchor of the two networks on their page."""
APART, OTHER = "norm", "without normalisation"
"""The setting in which the two networks differ at first, and its value for the second one."""

_REST = (
    "The laboratory trains networks in your browser, so it needs JavaScript and Web Workers, which this view does not "
    "run. The chapters show precomputed trainings instead."
)


@dataclass(frozen=True)
class Situation:
    """Two networks that differ in one setting, and what a reader should look for.

    Attributes:
        name: its name in links.
        title: its name for the reader.
        text: two sentences: what the networks are, and what happens. ``tests/book/test_training_in_the_page.py`` trains
            both networks and checks what the text promises.
        values: the settings of the first network, as far as they differ from ``START``.
        apart: the setting in which the networks differ.
        other: its value for the second network.
    """

    name: str
    title: str
    text: str
    values: Mapping[str, Any]
    apart: str
    other: Any


SITUATIONS = (
    Situation(
        "batch-size-1",
        "Batch size 1",
        "Each batch has one image, so each channel has one value, which is its own mean: batch norm turns it into 0. "
        "Look at the test errors: above 80 % with batch norm, and below 15 % without normalisation.",
        {"batch_size": 1, "lr": 0.03, "epochs": 2},
        "norm",
        "without normalisation",
    ),
    Situation(
        "one-label",
        "One label per batch, batch norm against Full Normalization",
        "All 64 images of a batch have the same label, and batch norm subtracts the mean that tells this label from "
        "the others. Look at the test errors: above 80 % with batch norm, and below 20 % with Full Normalization, "
        "whose statistics are averages over many batches.",
        {"batch_size": 64, "batches": "one label", "epochs": 20},
        "norm",
        "Full Normalization",
    ),
    Situation(
        "forgot-eval",
        "Forgot eval()",
        "Both networks train in the same way, in batches of 32 images, but the second one is tested in train mode, in "
        "batches of 4 images, as if somebody had forgotten model.eval(). Look at the test errors: below 10 % in eval "
        "mode and above 15 % in train mode, although the training losses are equal.",
        {"evaluation_batch_size": 4},
        "evaluation",
        "train mode",
    ),
    Situation(
        "two-domains",
        "Two domains",
        "The data are digits and inverted digits: each batch of the first network has images of one domain, and each "
        "batch of the second network has images of both. Look at the test errors on digits: above 40 % for the first "
        "network, although its training loss is below 0.2, and below 10 % for the second network.",
        {"data": "two domains", "share": 1, "batch_size": 64},
        "share",
        0.5,
    ),
    Situation(
        "learning-rate-10",
        "Learning rate 10",
        "Batch norm makes large learning rates possible, but not every large one. Look at the test errors: below 10 % "
        "at a learning rate of 1, and above 80 % at 10, where the training loss stays finite but does not fall.",
        {"lr": 1},
        "lr",
        10,
    ),
    Situation(
        "frozen-statistics",
        "Frozen running statistics",
        "After 44 steps, which are one epoch, the second network keeps its running statistics and normalises with "
        "them, also while it trains. Look at the training loss: the first network goes on learning, and the second one "
        "diverges, so its training ends early.",
        {"lr": 0.3},
        "freeze",
        44,
    ),
)
"""The situations in the order of their buttons."""


def description() -> dict[str, Any]:
    """Return all that the page's script needs, for JSON."""
    return {
        "name": "laboratory",
        "trainer": TRAINER.format("the networks"),
        "fields": [fields_of_page(name, ALL_NORMS) for name in FIELDS if name in START],
        "norms": norms_of_page(ALL_NORMS),
        "chosen": [],
        "told": ["batch_size", "lr"],
        "start": START,
        "bands": None,
        "panels": list(PANELS),
        "ends": list(ENDS),
        "fixed": {},
        "apart": APART,
        "other": OTHER,
        "situations": [vars(each) for each in SITUATIONS],
    }


def address(situation: Situation) -> str:
    """Return the address of a situation, from its page.

    Example:
        >>> from bnlib.widgets import laboratory
        >>> laboratory.address(laboratory.SITUATIONS[0])
        '?laboratory.situation=batch-size-1#laboratory-networks'
    """
    return f"?laboratory.situation={situation.name}#{PLACE}"


def html() -> str:
    """Return the laboratory's element for a page, whose script does the rest."""
    return (
        f'<div class="bnb-laboratory"><div class="bnb-laboratory-place" id="{PLACE}">'
        f'<p class="bnb-rest">{_REST}</p></div>{script(description())}</div>'
    )
