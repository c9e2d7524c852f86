"""What the builders share: how a norm is named and put to a layer, and where the random numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bnlib.norm.registry import NORMS, Norm

NormLike = str | Norm | Callable[[int], nn.Module] | None


def as_norm(norm: NormLike) -> Norm:
    """Return the entry of ``NORMS`` that is meant, or one made for a callable.

    Raises:
        ValueError: no normalisation has that name.
        TypeError: ``norm`` is none of the kinds allowed.
    """
    if norm is None:
        return NORMS["none"]
    if isinstance(norm, Norm):
        return norm
    if isinstance(norm, str):
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)} if it is a name, got {norm!r}")
        return NORMS[norm]
    # A layer can be called, too, but not with a number of channels.
    if not callable(norm) or isinstance(norm, nn.Module):
        raise TypeError(f"norm must be None, a name, a Norm or a callable of the number of channels, got {norm!r}")
    return Norm("callable", "callable", norm)


def with_norm(layer: nn.Module, norm: NormLike, *, bias: bool) -> list[nn.Module]:
    """Return ``layer``, as ``norm`` changes it, and the layers that ``norm`` has follow.

    Arguments:
        layer: Linear or Conv2d, with weights.
        norm: see ``bnlib.models``.
        bias: keep the layer's bias even if another layer, with a shift of its own, follows.

    Raises:
        TypeError: ``norm`` is not for such a layer.
    """
    with _aside():
        applied = as_norm(norm).apply(layer)
    layers = list(applied) if isinstance(applied, nn.Sequential) else [applied]
    if len(layers) > 1 and not bias:
        # Drawn and dropped, so that the next weights are the same as without a norm.
        layers[0].bias = None
    return layers


def convolution(fan_in: int, fan_out: int, size: int, norm: NormLike, *, stride: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the size of the image, but for the stride, with its ``norm``."""
    return with_norm(nn.Conv2d(fan_in, fan_out, size, stride, padding=size // 2), norm, bias=False)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random numbers from ``seed``, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _aside() -> Iterator[None]:
    """Draw random numbers, should a norm need some, that do not shift those of the next weights nor are the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield


def check_counts(**counts: int) -> None:
    """Raise a ValueError that names the first of ``counts`` below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
