"""The number of PyTorch's threads on the CPU, by the size of the work.

Threads wait for each other at the end of every operation. The operations of a small network take microseconds, so a
second thread saves little, and if another program has its processor, the wait lasts until the operating system comes
round to it: milliseconds, at every operation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_LEAST_WORK = 3e8
"""Products in a forward pass from which on all threads are used: a step then takes more than 50 ms with one thread."""


def products_per_step(model: nn.Module, sample_shape: tuple[int, ...], samples: int) -> float:
    """Estimate the number of products in a forward pass over so many samples of a shape, without a pass.

    Every weight counts once per sample; those of convolutions once per position of the input.

    Arguments:
        model: the network; a stack of networks counts as one with all their weights.
        sample_shape: the shape of one input.
        samples: samples per step and network.

    Example:
        >>> training.threads.products_per_step(nn.Linear(64, 10, bias=False), (64,), 32)
        20480
    """
    positions = math.prod(sample_shape[1:]) if len(sample_shape) > 1 else 1
    return samples * sum(value.numel() * (positions if value.dim() > 3 else 1) for value in model.parameters())


@contextmanager
def threads_for(products: float) -> Iterator[None]:
    """Use one thread for steps with few products for the duration of a ``with`` block; then restore the number.

    Example:
        >>> before = torch.get_num_threads()
        >>> with training.threads.threads_for(20480):
        ...     print(torch.get_num_threads())
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    if before == 1 or products >= _LEAST_WORK:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
