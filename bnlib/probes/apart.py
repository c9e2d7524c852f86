"""Passes through a model, at any parameters, that leave its training as it was: what the probes are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]

measuring = ContextVar("measuring", default=False)
"""Whether the pass that runs is one of a probe."""


def apart(model: nn.Module, function: Callable[[nn.Module], object], parameters: Mapping[str, Tensor] | None = None):
    """``function(model)`` with other parameters, without a trace in buffers, generators and ``recording``."""
    state = {f"model.{name}": value.clone() for name, value in model.named_buffers()}
    state |= {f"model.{name}": value for name, value in (parameters or {}).items()}
    token = measuring.set(True)
    try:
        with generators_kept(model):
            return torch.func.functional_call(_Call(model, function), state, ())
    finally:
        measuring.reset(token)


def loss_at(model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor]) -> Tensor:
    """The loss at ``parameters``, 0-dimensional and without a graph."""

    def value(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return one_number(loss(model))

    return apart(model, value, parameters)


def gradients_at(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """The gradient of ``loss`` at ``parameters``, by the names ``wanted``, without those it does not depend on."""
    return loss_and_gradients_at(model, loss, parameters, wanted)[1]


def loss_and_gradients_at(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], wanted: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Both of one pass; see ``loss_at`` and ``gradients_at``."""
    leaves = leaves_at(model, parameters)

    def both(model: nn.Module) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with torch.enable_grad():
            value = one_number(loss(model))
            # Within the call, because the backward pass of FullNorm moves buffers, too.
            return value.detach(), torch.autograd.grad(value, [leaves[name] for name in wanted], allow_unused=True)

    value, found = apart(model, both, leaves)
    return value, {name: each for name, each in zip(wanted, found, strict=True) if each is not None}


def leaves_at(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``parameters`` as the leaves of a new graph, trained where those of the model are."""
    trained = {name: value.requires_grad for name, value in model.named_parameters()}
    return {name: value.detach().requires_grad_(trained[name]) for name, value in parameters.items()}


def trained(model: nn.Module, names: Iterable[str] | None = None) -> list[str]:
    """The names of the parameters that are trained: all, or ``names``, in the order of the model.

    Raises:
        ValueError: ``names`` has one that does not exist or is not trained, or none.
    """
    found = [name for name, value in model.named_parameters() if value.requires_grad]
    if names is None:
        if not found:
            raise ValueError("model must have a parameter that is trained, got none")
        return found
    names = list(names)
    for name in names:
        if name not in found:
            raise ValueError(f"names must name parameters of the model that are trained, got {name!r}")
    if not names:
        raise ValueError("names must name at least one parameter, got none")
    return [name for name in found if name in names]


def one_number(value: Tensor) -> Tensor:
    """A loss, 0-dimensional.

    Raises:
        ValueError: it is no single number.
    """
    if value.numel() != 1:
        raise ValueError(f"loss must return a single number, got shape {tuple(value.shape)}")
    return value.reshape(())


@contextmanager
def generators_kept(model: nn.Module) -> Iterator[None]:
    """Leave the global generators of the CPU and of the model's device as they were."""
    devices = {value.device for value in (*model.parameters(), *model.buffers()) if value.device.type != "cpu"}
    kind = next((device.type for device in devices), "cuda")
    with torch.random.fork_rng(devices, device_type=kind):
        yield


def filled(gradients: Mapping[str, Tensor], names: Iterable[str], like: Mapping[str, Tensor]) -> list[Tensor]:
    """The gradients by ``names``, 0 for those that are not there."""
    return [gradients[name] if name in gradients else torch.zeros_like(like[name]) for name in names]


def joined(tensors: Iterable[Tensor]) -> Tensor:
    """All values of the tensors, detached, in a row of one dimension."""
    return torch.cat([precise(each.detach()).flatten() for each in tensors])


def precise(values: Tensor) -> Tensor:
    """At least float32, in which a half has no rounding errors to speak of."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class _Call(nn.Module):
    """A function of the model as a module, for ``functional_call``."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module], object]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self):
        return self.function(self.model)
