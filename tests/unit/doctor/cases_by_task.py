"""Cases for the rows about GANs, image translation, reinforcement and meta-learning, and privacy; see ``CASES``."""

import torch
from doctor_examples import batches, displaced, negative, trained
from more_examples import on_single_images
from torch import nn

from bnlib import models


def frozen_norms():
    model = trained("mlp")
    for layer in model:
        if isinstance(layer, nn.BatchNorm1d):
            layer.requires_grad_(False).eval()
    return model


def with_norms(name, *norms):
    """A network for each of some norms, beside a batch of digits, under a name of the row."""
    return tuple(
        lambda norm=norm: {name[0]: models.mlp((64, 32, 10), norm), name[1]: batches()[0][0]} for norm in norms
    )


def with_spike(height):
    """Feature maps of which one has one large value."""
    maps = torch.randn(4, 3, 16, 16)
    maps[0, 1, 3, 3] = height
    return maps


CASES_BY_TASK = {
    "joint-batch-in-one-step": tuple(
        lambda norm=norm: {
            "critic": models.mlp((64, 32, 1), norm),
            "real": batches()[0][0],
            "fake": batches(change=negative)[0][0],
        }
        for norm in (nn.BatchNorm1d, nn.LayerNorm)
    ),
    "generator-in-eval-mode": tuple(
        lambda make=make: {"generator": make().train(), "noise": batches(128)[0][0]}
        for make in (lambda: displaced("mlp", "2"), lambda: trained("mlp"))
    ),
    "droplets": tuple(lambda height=height: {"values": with_spike(height)} for height in (300, 1)),
    "image-to-image": tuple(
        lambda norm=norm: on_single_images(norm)
        for norm in (nn.BatchNorm2d, lambda channels: nn.InstanceNorm2d(channels, affine=True))
    ),
    "image-to-image-tested-in-train-mode": tuple(
        lambda training=training: {"model": trained("mlp").train(training)} for training in (True, False)
    ),
    "meta-learning": with_norms(("model", "query"), nn.BatchNorm1d, nn.LayerNorm),
    "policy-in-two-modes": with_norms(("policy", "observations"), nn.BatchNorm1d, nn.LayerNorm),
    "differential-privacy": (dict, lambda: {"model": frozen_norms()}),
    "attack-in-train-mode": (dict, lambda: {"model": trained("mlp").eval()}),
    "dropout-at-inference": (dict, lambda: {"model": trained("mlp").eval()}),
}
