"""Select setting and learning rate of each norm for the contest on Fashion-MNIST, and on CIFAR-10 with ResNet-18."""

from __future__ import annotations

from functools import cache

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.full_normalization import rivals, rivals_on_images
from bnlib.experiments.full_normalization.rivals_selection import errors_at_the_end

EXPERIMENT = Experiment(
    name="full_normalization.rivals_images_selection",
    question="Which setting and learning rate of each of ten norms, and of none, has the smallest error on images "
    "kept apart?",
    source="the rule of full_normalization.rivals_on_images",
    axes=("norm", "setting", "construction", "batch_size", "lr"),
    cells=rivals_on_images.selection_cells,
    curves=("train_loss", "test_error"),
)


@cache
def chosen(scale: Scale = "quick") -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return the setting and learning rate that the rule chooses, by norm, construction and batch size."""
    images = rivals_on_images.LABELS * rivals_on_images.IMAGES[scale].kept_apart
    grouped: dict[tuple[str, str, int], dict[tuple[str, float], list]] = {}
    for (norm, setting, construction, batch_size, lr), row in EXPERIMENT.load(scale).items():
        pairs = grouped.setdefault((norm, construction, batch_size), {})
        pairs[setting, lr] = errors_at_the_end(row, images)
    return {place: rivals.choose(pairs) for place, pairs in grouped.items()}
