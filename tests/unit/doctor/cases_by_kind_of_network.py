"""Cases for the rows about single values, sentences, noise levels and features without labels; see ``CASES``."""

import copy

import torch
from cases_in_tools import blurred
from doctor_examples import batches, trained
from torch import nn

from bnlib import models


class InPlaceABN(nn.Module):
    """A layer with the name of the one of the package ``inplace_abn``."""


class OverTokens(nn.BatchNorm1d):
    """Batch norm of the features of tokens, of the shape (N, L, C)."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def with_empty_batch(x):
    return [*batches(), (x[:0], torch.zeros(0, dtype=torch.long))]


def denoiser(norm):
    """A norm that has seen a mixture of noise levels, and a batch at one level."""
    for _ in range(40):
        norm(torch.randn(64, 4, 6, 6) * torch.rand(64, 1, 1, 1) * 10)
    return {"denoiser": norm, "noisy": 0.5 * torch.randn(64, 4, 6, 6)}


class OwnNorm(nn.Module):
    """A norm that keeps an average of means, with their graph or without it."""

    def __init__(self, detached):
        super().__init__()
        self.linear, self.detached = nn.Linear(3, 3), detached
        self.register_buffer("running_mean", torch.zeros(3))

    def forward(self, x):
        mean = (x := self.linear(x)).mean(0)
        self.running_mean = torch.lerp(self.running_mean, mean.detach() if self.detached else mean, 0.1)
        return x - self.running_mean


def after_a_step(detached):
    network = OwnNorm(detached)
    network(torch.randn(4, 3)).sum().backward()
    return {"network": network}


def features(spread):
    return {"features": 1 + spread * torch.randn(64, 16)}


def negative_gamma():
    model = trained("mlp")
    model[2].weight.data[3] *= -1
    return {"model": model}


def adapts(again):
    """A step of entropy minimisation that returns the predictions from before it, or those of another pass."""

    def adapt(x):
        model = trained("mlp").train()
        affine = [p for layer in model if isinstance(layer, nn.BatchNorm1d) for p in layer.parameters()]
        optimiser, logits = torch.optim.Adam(affine, lr=0.02), model(x)
        (-logits.softmax(1) * logits.log_softmax(1)).sum(1).mean().backward()
        optimiser.step()
        return copy.deepcopy(model)(x) if again else logits

    return {"adapt": adapt, "batches": blurred()}


CASES_BY_KIND_OF_NETWORK = {
    "running-average-of-an-empty-batch": (lambda: {"batches": with_empty_batch(batches()[0][0])}, dict),
    "one-active-site": tuple(lambda sites=sites: {"features": torch.randn(sites, 8)} for sites in (1, 2)),
    "average-keeps-the-graph": tuple(lambda each=each: after_a_step(each) for each in (False, True)),
    "eps-of-zero": tuple(lambda eps=eps: {"layer": nn.BatchNorm1d(3, eps=eps)} for eps in (0, 1e-5)),
    "activation-inside-the-norm": tuple(
        lambda layer=layer: {"network": nn.Sequential(nn.Conv2d(1, 3, 3), layer)}
        for layer in (InPlaceABN(), nn.BatchNorm2d(3))
    ),
    "one-noise-level": tuple(
        lambda norm=norm: denoiser(norm(4)) for norm in (nn.BatchNorm2d, lambda width: nn.GroupNorm(1, width))
    ),
    "norm-sees-later-tokens": tuple(
        lambda norm=norm: {"network": norm(6), "tokens": torch.randn(3, 8, 6)} for norm in (OverTokens, nn.LayerNorm)
    ),
    "norm-gives-zeros": tuple(
        lambda size=size: {"layer": nn.LayerNorm(size), "values": torch.randn(4, 5, size)} for size in (1, 6)
    ),
    "less-noise-than-batch-norm": tuple(
        lambda loss=loss: {"group_loss": loss, "batch_loss": 0.2} for loss in (0.15, 0.6)
    ),
    "collapse-without-norm": tuple(lambda spread=spread: features(spread) for spread in (0.001, 1)),
    "negative-gamma": (negative_gamma, lambda: {"model": models.mlp((64, 32, 10), nn.BatchNorm1d)}),
    "output-before-the-step": tuple(lambda again=again: adapts(again) for again in (False, True)),
}
