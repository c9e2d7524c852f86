"""Layers that normalise in another way inside the forward of a subclass of batch norm, such as one with a ReLU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class KeptForward(nn.Module):
    """Base of the layers whose forward is that of ``outer``, with the normalisation inside done by another class.

    ``outer`` is a subclass of batch norm that does more than normalise, and ``inner`` the layer that takes over. The
    forward of ``outer`` sees the attributes and tensors of this layer. Its call of
    ``torch.nn.functional.batch_norm`` is answered by the forward of ``inner``.
    """

    outer: type[nn.Module]
    inner: type[nn.Module]
    _outer_attributes: dict[str, Any]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward of ``outer``."""
        view = self._view()
        calls: list[Tensor] = []
        with _Redirected(functools.partial(self.inner.forward, self), calls):
            output = self.outer.forward(view, *args, **kwargs)  # the layer may have one of its own
        if len(calls) != 1:
            raise RuntimeError(
                f"the forward of {self.outer.__name__} must call torch.nn.functional.batch_norm once, so that "
                f"{self.inner.__name__} can take its place, but called it {len(calls)} times"
            )
        return output

    def _view(self) -> nn.Module:
        """Return an object of class ``outer`` with the tensors and attributes of this layer."""
        view = object.__new__(self.outer)
        # The inner layer counts the batches itself.
        vars(view).update(self._outer_attributes | vars(self), track_running_stats=False)
        return view

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Describe the layer to ``pickle`` and ``copy``, which cannot find its class by a name."""
        return _empty_layer, (self.outer, self.inner), vars(self)


class _Redirected(TorchFunctionMode):
    """A context in which calls of batch norm go to ``normalise``, and their inputs to ``calls``."""

    def __init__(self, normalise: Callable[[Tensor], Tensor], calls: list[Tensor]) -> None:
        super().__init__()
        self.normalise, self.calls = normalise, calls

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.batch_norm or func is torch.batch_norm:
            self.calls.append(args[0] if args else kwargs["input"])
            return self.normalise(self.calls[-1])
        return func(*args, **(kwargs or {}))


@functools.cache
def class_with_forward_of(outer: type[nn.Module], inner: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of ``inner`` whose forward is that of ``outer``; its constructor is that of ``inner``."""
    members = {"outer": outer, "inner": inner, "__doc__": f"{inner.__name__} inside the forward of {outer.__name__}."}
    return type(f"{outer.__name__}With{inner.__name__}", (KeptForward, inner), members)


def _empty_layer(outer: type[nn.Module], inner: type[nn.Module]) -> nn.Module:
    return object.__new__(class_with_forward_of(outer, inner))


def check_kept_forward(layer: KeptForward, dimensions: int) -> None:
    """Try the forward of ``outer`` in both modes, on a layer that may be changed by it.

    Arguments:
        layer: a copy for this purpose.
        dimensions: number of dimensions of the input.

    Raises:
        ValueError: with the reason, if ``inner`` cannot take the place of batch norm in this forward.
    """
    kind = next(each for each in (layer.weight, layer.running_mean) if each is not None)
    size = (4, layer.num_features, *[3] * (dimensions - 2))
    x = torch.linspace(-2, 2, 4 * layer.num_features * 3 ** (dimensions - 2)).view(size).to(kind)
    for mode in (True, False):
        layer.train(mode)
        view = layer._view()
        given = dict(vars(view))
        calls: list[Tensor] = []
        cuda = [x.device] if x.is_cuda else []
        try:
            with torch.random.fork_rng(cuda), _Redirected(functools.partial(layer.inner.forward, layer), calls):
                layer.outer.forward(view, x)
        except Exception as error:
            raise ValueError(f"has a forward that fails for an input of shape {size}: {error}") from error
        if len(calls) != 1:
            raise ValueError(
                f"has a forward that calls torch.nn.functional.batch_norm {len(calls)} times in "
                f"{'train' if mode else 'eval'} mode, where convert needs one call"
            )
        if changed := [name for name, value in vars(view).items() if given.get(name, view) is not value]:
            raise ValueError(f"has a forward that sets the attributes {', '.join(changed)}, which would be lost")
