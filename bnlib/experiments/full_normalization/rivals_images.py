"""The contest of Full Normalization and ten alternatives on Fashion-MNIST, and on CIFAR-10 with ResNet-18."""

from __future__ import annotations

from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.full_normalization import rivals_images_selection, rivals_on_images
from bnlib.sweep import Run


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return the runs of the chosen pairs by norm, setting, construction, batch size and learning rate."""
    return {
        (norm, setting, construction, batch_size, lr): rivals_on_images.runs(
            scale, norm, setting, construction, batch_size, lr, selection=False
        )
        for (norm, construction, batch_size), (setting, lr) in rivals_images_selection.chosen(scale).items()
    }


EXPERIMENT = Experiment(
    name="full_normalization.rivals_images",
    question="On images of clothes, is Full Normalization better than ten alternatives?",
    source="the rule of full_normalization.rivals_on_images",
    axes=("norm", "setting", "construction", "batch_size", "lr"),
    cells=cells,
    curves=("train_loss", "test_error"),
)
