"""More cases for the rows of the symptom table: what is broken, and what is healthy; see ``CASES``."""

import numpy as np
import torch
from doctor_examples import trained
from torch import nn


def convolution_and_norm(*modes):
    return [layer.train(mode) for layer, mode in zip((nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), modes, strict=True)]


def without_tracking():
    model = trained("mlp")
    model[2].track_running_stats = False
    return model


MORE_CASES = {
    "number-of-dimensions": tuple(
        lambda layer=layer: {"layer": layer, "values": torch.randn(2, 3, 4)}
        for layer in (nn.BatchNorm2d(3), nn.BatchNorm1d(3))
    ),
    "one-position-per-channel": tuple(lambda size=size: {"values": torch.randn(2, 3, size, size)} for size in (1, 2)),
    "layer-norm-with-channels-first": tuple(
        lambda values=values: {"layer": nn.LayerNorm(3), "values": values}
        for values in (torch.randn(2, 3, 4, 5), torch.randn(2, 4, 5, 3))
    ),
    "fused-in-train-mode": tuple(
        lambda modes=modes: {"parts": convolution_and_norm(*modes)} for modes in ((True, False), (False, False))
    ),
    # Arrays as a session of TensorFlow 1 returns them.
    "update-operations-not-run": tuple(
        lambda mean=mean: {"moving": [(np.zeros(3), np.ones(3)), (np.full(3, mean), np.ones(3))]} for mean in (0, 0.2)
    ),
    "tracking-off-is-not-freezing": (lambda: {"model": without_tracking()}, dict),
}
