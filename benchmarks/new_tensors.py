"""Measure the memory that the operations of a forward or a backward pass take; ``full_norm`` prints it."""

import weakref

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class NewTensors(TorchDispatchMode):
    """Follow the tensors that operations make; ``peak`` is the largest number of bytes that existed at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and count the memory of its results that is new."""
        results = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        for each in results if isinstance(results, tuple | list) else (results,):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in given:
                size = each.untyped_storage().nbytes()
                self.alive += size
                self.peak = max(self.peak, self.alive)
                weakref.finalize(each, self._forget, size)
        return results

    def _forget(self, size: int) -> None:
        self.alive -= size


def peak_of_backward(layer: nn.Module, x: torch.Tensor) -> float:
    """Return the most memory that a backward pass needs at one time, in sizes of the input."""
    output, gradient = layer(x), torch.randn_like(x)
    with NewTensors() as new:
        torch.autograd.grad(output, x, gradient)
    return new.peak / x.untyped_storage().nbytes()


def kept(layer: nn.Module, x: torch.Tensor) -> float:
    """Return how much memory a forward pass keeps, beside its input, in sizes of the input."""
    with NewTensors() as new:
        output = layer(x)
    assert output.requires_grad
    return new.alive / x.untyped_storage().nbytes()
