"""Run a model, at any parameters, without side effects on its buffers, gradients or the random number generators.

All probes are built from these functions. PyTorch's own ``functional_call`` does most of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from bnlib.arguments import shown

Loss = Callable[[nn.Module], Tensor]


probe_is_running = ContextVar("probe_is_running", default=False)
"""True while a probe runs the model."""


def stateless_call(
    model: nn.Module, function: Callable[[nn.Module], object], parameters: Mapping[str, Tensor] | None = None
):
    """Return ``function(model)`` and undo every side effect of the call.

    Buffers (such as running statistics) and random number generators have their old values afterwards, and
    ``record_activation_statistics`` does not record the call.

    Arguments:
        model: any network.
        function: takes the model and may call it any number of times.
        parameters: tensors by parameter name that replace the parameters of the model during the call.
    """
    state = {f"model.{name}": value.clone() for name, value in model.named_buffers()}
    state |= {f"model.{name}": value for name, value in (parameters or {}).items()}
    token = probe_is_running.set(True)
    try:
        with preserve_random_state(model):
            return functional_call(_FunctionAsModule(model, function), state, ())
    finally:
        probe_is_running.reset(token)


def functional_call(module: nn.Module, tensors: Mapping[str, Tensor], arguments: tuple):
    """Call a module with other parameters and buffers, as ``torch.func.functional_call`` does.

    PyTorch's function (observed in 2.13) leaves its tensors in a module that has two names, such as a layer that an
    ``nn.Sequential`` contains twice. This one gives each module its tensors once. Tied tensors stay tied.

    Arguments:
        module: any module.
        tensors: parameters and buffers by name; a tied one needs only one of its names.
        arguments: the arguments of the call.
    """
    given = {}
    for named in (module.named_parameters, module.named_buffers):
        given |= {id(value): tensors[name] for name, value in named(remove_duplicate=False) if name in tensors}
    placed = {}
    for path, part in module.named_modules():
        for name, value in (*part._parameters.items(), *part._buffers.items()):
            if id(value) in given:
                placed[f"{path}.{name}" if path else name] = given[id(value)]
    return torch.func.functional_call(module, placed, arguments, tie_weights=False)


def loss_at(model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor]) -> Tensor:
    """Return the loss at ``parameters`` as a 0-dimensional tensor without a graph."""

    def value(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return scalar_loss(loss(model), differentiable=False)

    return stateless_call(model, value, parameters)


def gradients_at(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """Return the gradient of ``loss`` at ``parameters`` for each name in ``wanted`` on which the loss depends."""
    return loss_and_gradients_at(model, loss, parameters, wanted)[1]


def loss_and_gradients_at(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], wanted: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the results of ``loss_at`` and ``gradients_at`` from a single forward and backward pass."""
    leaves = as_leaves(model, parameters)

    def both(model: nn.Module) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with torch.enable_grad():
            value = scalar_loss(loss(model))
            # Inside the call, because the backward pass of FullNorm also changes buffers.
            return value.detach(), torch.autograd.grad(value, [leaves[name] for name in wanted], allow_unused=True)

    value, found = stateless_call(model, both, leaves)
    return value, {name: each for name, each in zip(wanted, found, strict=True) if each is not None}


def as_leaves(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detached copies of ``parameters`` that require a gradient where the parameters of the model do."""
    trained = {name: value.requires_grad for name, value in model.named_parameters()}
    return {name: value.detach().requires_grad_(trained[name]) for name, value in parameters.items()}


def trainable_names(model: nn.Module, parameter_names: Iterable[str] | None = None) -> list[str]:
    """Return the names of the parameters that require a gradient, in the order of the model.

    Arguments:
        model: any network.
        parameter_names: restricts the result to these names; by default all trainable parameters are returned.

    Raises:
        ValueError: ``parameter_names`` is empty, or names a parameter that does not exist or is not trainable; or the
            model has no trainable parameter.
    """
    found = [name for name, value in model.named_parameters() if value.requires_grad]
    if parameter_names is None:
        if not found:
            raise ValueError("model must have a parameter with requires_grad=True, got none")
        return found
    parameter_names = list(parameter_names)
    for name in parameter_names:
        if name not in found:
            raise ValueError(f"parameter_names must name trainable parameters of the model, got {name!r}")
    if not parameter_names:
        raise ValueError("parameter_names must name at least one parameter, got none")
    return [name for name in found if name in parameter_names]


def scalar_loss(value: Tensor, differentiable: bool = True) -> Tensor:
    """Return a loss with a single element as a 0-dimensional tensor.

    Arguments:
        value: what the loss returned.
        differentiable: whether a gradient is wanted.

    Raises:
        TypeError: the loss is no tensor of real numbers.
        ValueError: the loss has more than one element, or none, or has no gradient although one is wanted.
    """
    if not isinstance(value, Tensor) or value.is_complex():
        raise TypeError(f"loss must return a tensor with a single real number, got {shown(value)}")
    if value.numel() != 1:
        raise ValueError(f"loss must return a single number, got shape {tuple(value.shape)}")
    if differentiable and not value.requires_grad:
        raise ValueError(f"loss must depend on the trainable parameters of the model, got the constant {value.item()}")
    return value.reshape(())


@contextmanager
def preserve_random_state(model: nn.Module) -> Iterator[None]:
    """Restore the random number generators of the CPU and of the model's device at the end of a ``with`` block."""
    devices, kind = devices_with_generators(model)
    with torch.random.fork_rng(devices, device_type=kind):
        yield


def devices_with_generators(model: nn.Module) -> tuple[set[torch.device], str]:
    """Return the devices of a model other than the CPU, and their type, as ``torch.random.fork_rng`` takes them."""
    devices = {value.device for value in (*model.parameters(), *model.buffers()) if value.device.type != "cpu"}
    return devices, next((device.type for device in devices), "cuda")


@contextmanager
def preserve_modes(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore the train or eval mode of each module at the end of a ``with`` block.

    A user may have put some submodules into eval mode, so ``model.train()`` would not restore the modes.
    """
    modes = {module: module.training for module in modules}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _FunctionAsModule(nn.Module):
    """Wrap a function of the model in a module, because ``functional_call`` takes a module."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module], object]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self):
        return self.function(self.model)
