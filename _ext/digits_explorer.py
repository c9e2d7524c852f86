"""The explorer on the front page: test errors on digits by batch size and learning rate, with and without BN."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from matplotlib.figure import Figure

from bnlib.experiments.formula import training_curves
from bnlib.figures import BLUE, VERMILLION, as_array, band
from bnlib.widgets import Explorer, Slider, in_the_page

LEARNING_RATE = 0.03
"""The learning rate in the sentence above the explorer, and the explorer's default."""
# Fewer values than in chapter 1, because the page contains a frame for each of them.
BATCH_SIZES = (1, 2, 4, 8, 16, 64, 256)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
_LOOKS = {
    "batch norm": ("with batch norm", BLUE, "-"),
    "without normalisation": ("without batch norm", VERMILLION, "--"),
}


def misread(norm: str, batch_size: int, lr: float = LEARNING_RATE) -> int:
    """Return how many of a hundred test digits the network misclassifies after training; the median over seeds."""
    return round(100 * float(np.median(training_curves.final_test_errors(norm, batch_size, lr))))


def draw(figure: Figure, data: Mapping[str, dict], batch_size: int, lr: float) -> str:
    """Draw the test error over epochs, with and without BN."""
    axes = figure.subplots()
    for norm, (label, color, dash) in _LOOKS.items():
        band(axes, data[norm]["epoch"], 100 * as_array(data[norm]["test_error"]), color=color, label=label, ls=dash)
    axes.set(xlim=(0, 10), ylim=(0, 101))
    axes.set_xlabel("epoch", fontsize=11)
    axes.set_ylabel("test error (%)", fontsize=11)
    axes.tick_params(labelsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=11)
    counts = [f"{label} {misread(norm, batch_size, lr)} in 100" for norm, (label, *_) in _LOOKS.items()]
    number = f"{batch_size} images" if batch_size > 1 else "1 image"
    return f"Batches of {number}, learning rate {lr:g}. Digits misclassified after ten epochs: {', '.join(counts)}."


@cache
def explorer() -> Explorer:
    """Return the explorer: chapter 1's grid of batch sizes and learning rates, with fewer values and one curve."""
    sliders = [
        Slider("batch_size", "batch size", BATCH_SIZES, 256, "{:d}"),
        Slider("lr", "learning rate", LEARNING_RATES, LEARNING_RATE),
    ]
    title = "Test error over ten epochs, with batch norm and without"
    return Explorer(
        "digits",
        title,
        sliders,
        training_curves.lookup,
        draw,
        here=in_the_page.training_curves(),
        size=(5.6, 2.35),
        budget=120_000,
    )
