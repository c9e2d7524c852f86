"""Train the network of ``batch_sizes_convolutional`` with the two norms that were made for images and small batches.

The settings are those of ``batch_sizes_convolutional``, with four learning rates, on shuffled batches. FRN and
EvoNorm-S0 contain their activation, and no ReLU follows them.
"""

from __future__ import annotations

import itertools

from bnlib.experiments.alternatives import batch_sizes, batch_sizes_convolutional
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.sweep import Run

NORMS = ("FRN", "EvoNorm-S0")
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return both norms on shuffled batches at each batch size and learning rate."""
    chosen = itertools.product(NORMS, ("shuffled",), batch_sizes_convolutional.BATCH_SIZES, LEARNING_RATES)
    return batch_sizes.runs(
        chosen,
        batch_sizes_convolutional.model,
        batch_sizes_convolutional.CONSTRUCTIONS,
        batch_sizes_convolutional.EPOCHS,
        batch_sizes_convolutional.POINTS,
        batch_sizes_convolutional.SEEDS[scale],
    )


EXPERIMENT = Experiment(
    name="alternatives.newer_norms_convolutional",
    question="Do FRN and EvoNorm-S0 train a convolutional network with one image per batch, and with sixteen?",
    source="the settings of alternatives.batch_sizes_convolutional",
    axes=("norm", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("test_error",),
)
