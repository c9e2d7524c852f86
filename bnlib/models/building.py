"""Helpers for the builders of networks: applying a normalisation to a layer, and seeding the initialisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bnlib.arguments import check_integer, check_usual, suggestion
from bnlib.norm.registry import NORMS, Norm

NormLike = str | Norm | Callable[[int], nn.Module] | None


def as_norm(norm: NormLike) -> Norm:
    """Return the entry of ``NORMS`` for a builder's argument ``norm``, or a new entry for a callable.

    Raises:
        ValueError: if no normalisation has this name.
        TypeError: if ``norm`` is not None, a name, a ``Norm`` or a callable.
    """
    if norm is None:
        return NORMS["none"]
    if isinstance(norm, Norm):
        return norm
    if isinstance(norm, str):
        if norm not in NORMS:
            names = ", ".join(NORMS)
            raise ValueError(f"norm must be one of {names} if it is a name, got {norm!r}{suggestion(norm, NORMS)}")
        return NORMS[norm]
    # A layer is callable, too, but it does not take a number of channels.
    if not callable(norm) or isinstance(norm, nn.Module):
        raise TypeError(
            f"norm must be None, a name, a Norm or a callable of the number of channels, got {norm!r}; pass the class "
            "of a layer, not a layer"
        )
    return Norm("callable", "callable", norm)


def with_norm(layer: nn.Module, norm: NormLike, *, bias: bool) -> list[nn.Module]:
    """Apply a normalisation to a layer and return the resulting layers in their order.

    Arguments:
        layer: a Linear or Conv2d layer.
        norm: the normalisation, see ``bnlib.models``.
        bias: keep the layer's bias even if a normalisation layer, which has its own bias, follows.

    Raises:
        TypeError: if the normalisation cannot be applied to this type of layer.
    """
    with _independent_random_numbers():
        applied = as_norm(norm).apply(layer)
    layers = list(applied) if isinstance(applied, nn.Sequential) else [applied]
    if len(layers) > 1 and not bias:
        # The bias is drawn first and dropped here, so that the next weights are the same as without a normalisation.
        layers[0].bias = None
    return layers


def convolution(fan_in: int, fan_out: int, size: int, norm: NormLike, *, stride: int = 1) -> list[nn.Module]:
    """Return a convolution, padded to keep the image size (divided by ``stride``), with its normalisation."""
    return with_norm(nn.Conv2d(fan_in, fan_out, size, stride, padding=size // 2), norm, bias=False)


def activation_behind(norm: NormLike, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Return the activation that follows a normalisation: none if the normalisation contains its own."""
    return nn.Identity() if as_norm(norm).includes_activation else activation()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's random numbers inside a ``with`` block and restore the global generator at its end."""
    check_usual(seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        yield


@contextmanager
def _independent_random_numbers() -> Iterator[None]:
    """Use different random numbers inside a ``with`` block without changing those that follow it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield


def check_counts(**counts: int) -> None:
    """Raise an error that names the first of ``counts`` that is not an integer or below 1."""
    for name, count in counts.items():
        check_integer(name, count)
