"""DOC stateless."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]


probe_is_running = ContextVar("probe_is_running", default=False)
"""Whether the pass that runs is one of a probe."""


def stateless_call(
    model: nn.Module, function: Callable[[nn.Module], object], parameters: Mapping[str, Tensor] | None = None
):
    """``function(model)`` with other parameters, without a trace in buffers, generators and ``record_activation_statistics``."""
    state = {f"model.{name}": value.clone() for name, value in model.named_buffers()}
    state |= {f"model.{name}": value for name, value in (parameters or {}).items()}
    token = probe_is_running.set(True)
    try:
        with preserve_random_state(model):
            return torch.func.functional_call(_FunctionAsModule(model, function), state, ())
    finally:
        probe_is_running.reset(token)


def loss_at(model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor]) -> Tensor:
    """The loss at ``parameters``, 0-dimensional and without a graph."""

    def value(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return scalar_loss(loss(model))

    return stateless_call(model, value, parameters)


def gradients_at(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """The gradient of ``loss`` at ``parameters``, by the names ``wanted``, without those it does not depend on."""
    return loss_and_gradients_at(model, loss, parameters, wanted)[1]


def loss_and_gradients_at(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], wanted: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Both of one pass; see ``loss_at`` and ``gradients_at``."""
    leaves = as_leaves(model, parameters)

    def both(model: nn.Module) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with torch.enable_grad():
            value = scalar_loss(loss(model))
            # Within the call, because the backward pass of FullNorm moves buffers, too.
            return value.detach(), torch.autograd.grad(value, [leaves[name] for name in wanted], allow_unused=True)

    value, found = stateless_call(model, both, leaves)
    return value, {name: each for name, each in zip(wanted, found, strict=True) if each is not None}


def as_leaves(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``parameters`` as the leaves of a new graph, trained where those of the model are."""
    trained = {name: value.requires_grad for name, value in model.named_parameters()}
    return {name: value.detach().requires_grad_(trained[name]) for name, value in parameters.items()}


def trainable_names(model: nn.Module, names: Iterable[str] | None = None) -> list[str]:
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


def scalar_loss(value: Tensor) -> Tensor:
    """A loss, 0-dimensional.

    Raises:
        ValueError: it is no single number.
    """
    if value.numel() != 1:
        raise ValueError(f"loss must return a single number, got shape {tuple(value.shape)}")
    return value.reshape(())


@contextmanager
def preserve_random_state(model: nn.Module) -> Iterator[None]:
    """Leave the global generators of the CPU and of the model's device as they were."""
    devices = {value.device for value in (*model.parameters(), *model.buffers()) if value.device.type != "cpu"}
    kind = next((device.type for device in devices), "cuda")
    with torch.random.fork_rng(devices, device_type=kind):
        yield


class _FunctionAsModule(nn.Module):
    """A function of the model as a module, for ``functional_call``."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module], object]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self):
        return self.function(self.model)
