"""Update the buffers of a layer, with or without ``torch.compile``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def store(layer: nn.Module, **values: Tensor) -> None:
    """Write ``values`` into the buffers of ``layer``: in place, or as new tensors under ``torch.compile``.

    A compiled backward pass may recompute what the forward pass computed from a buffer. If the buffer had been updated
    in place, the recomputation would use the new value instead of the old one (observed in torch 2.13 with inductor,
    without a warning).
    """
    for name, value in values.items():
        old = getattr(layer, name)
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            setattr(layer, name, value.to(old.dtype))
        else:
            old.copy_(value)
