"""Keeping the buffers of a layer up to date."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def store(layer: nn.Module, **values: Tensor) -> None:
    """Set buffers of ``layer``: in place, or under ``torch.compile`` by new tensors.

    A compiled backward pass may work out anew what the forward pass computed from a buffer. After an update in place it
    would start from the step after (seen in torch 2.13 with inductor, and without a warning).
    """
    for name, value in values.items():
        old = getattr(layer, name)
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            setattr(layer, name, value.to(old.dtype))
        else:
            old.copy_(value)
