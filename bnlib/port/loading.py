"""Load batch norms of any framework into a PyTorch model: ``load``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnlib.arguments import check_usual
from bnlib.port.conversion import check_neutral, converted, values_of
from bnlib.port.matching import check_states, grouped, known_order, pairs
from bnlib.port.objects import torch_norms
from bnlib.port.state import BatchNormState
from bnlib.port.writing import counted

ROLES = (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0))


def load(
    model: nn.Module,
    states: BatchNormState | Mapping[str, BatchNormState],
    *,
    names: Mapping[str, str] | None = None,
    values_per_channel: int | Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    """Set the batch norms of a PyTorch model: arrays, ``eps`` and ``momentum``.

    Nothing is set unless everything fits. Other layers are left as they are; their weights need the framework's layout
    of convolutions and matrices, which this function does not know. If the source does not count its batches,
    ``num_batches_tracked`` becomes so large that nothing of the initial statistics is left at this momentum; only
    ``momentum=None`` uses the count in training.

    Arguments:
        model: a model, or a single layer; every batch norm in it gets a state.
        states: a state, or states by name, as ``norms`` returns them.
        names: names in the model by names in ``states``. None matches equal names, or else the order of the layers.
        values_per_channel: batch size times positions of the training to come, one number or by layer of the model, as
            ``values_per_channel`` counts them. It converts the running variance to PyTorch's, which is unbiased; None
            copies it as it is stored, so that the outputs in eval mode are equal.

    Returns:
        what was assumed, and what could not be carried, each as a sentence.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if a layer is missing or left over, the numbers of channels differ, the order of the source is not
            known, a layer with ``affine=False`` would need a weight, or a tensor of the model cannot hold the values:
            it is parametrised, on the meta device, or of a type with a smaller range.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
        >>> stem = {"gamma": [3.0], "beta": [0.0], "moving_mean": [2.0], "moving_variance": [4.0]}
        >>> notes = port.load(model, port.norms({"stem": stem}, "keras"))
        >>> model[1].eps, model[1].momentum, model[1].running_var.item()
        (0.001, 0.01, 4.0)
    """
    check_usual(model=model)
    named = check_states(states)
    layers = dict(torch_norms(model))
    if not layers:
        raise ValueError("model must have a batch norm with running statistics, got none")
    for name, layer in layers.items():
        if is_lazy(layer.running_mean):
            raise ValueError(f"model must know its channels, got a lazy layer {name}; call the model on a batch first")
    matched, notes = pairs(
        named, {name: each.num_features for name, each in layers.items()}, names, known_order(states)
    )
    ready, told = [], []
    for source, target in matched:
        lacking = {role: neutral for role, neutral in ROLES[:2] if getattr(layers[target], role) is None}
        state = converted(named[source], "torch", values_of(values_per_channel, target, source), lacking)
        for role, neutral in lacking.items():
            check_neutral(role, getattr(state, role), neutral, target)
        _check_place(target, layers[target], state)
        ready.append((layers[target], state))
        told += [(target, note) for note in state.notes]
    for layer, state in ready:
        _set(layer, state)
    return (*notes, *grouped(told))


def _check_place(name: str, layer: Any, state: BatchNormState) -> None:
    """Raise a ValueError if a tensor of a layer would not hold the values of the state."""
    for role, _ in ROLES:
        tensor, value = getattr(layer, role), getattr(state, role)
        if tensor is None:
            continue
        if tensor.is_meta:
            raise ValueError(f"model must have values, got layer {name} on the meta device; call model.to_empty first")
        # What a parametrisation computes is forgotten.
        if not any(tensor is place.get(role) for place in (layer._parameters, layer._buffers, vars(layer))):
            raise ValueError(
                f"layer {name} must store its {role}, got a parametrised one; remove_parametrizations first"
            )
        largest = torch.finfo(tensor.dtype).max
        if value is not None and (np.isfinite(value) & (np.abs(value) > largest)).any():
            raise ValueError(
                f"layer {name} must have a {role} that holds {np.abs(value[np.isfinite(value)]).max():.3g}, got "
                f"{tensor.dtype}, which ends at {largest:.3g}"
            )


@torch.no_grad()
def _set(layer: Any, state: BatchNormState) -> None:
    for role, neutral in ROLES:
        tensor, value = getattr(layer, role), getattr(state, role)
        if tensor is not None:
            value = np.full_like(state.running_mean, neutral) if value is None else value
            tensor.copy_(torch.from_numpy(value))
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.fill_(counted(state))
    layer.eps, layer.momentum = state.eps, state.momentum


def values_per_channel(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Return how many values per channel each batch norm of a model normalises over for a batch.

    The model is called once in eval mode, so its statistics do not move.

    Arguments:
        model: a PyTorch model.
        x: a batch as it will be used in training.

    Raises:
        TypeError: if an argument is of a wrong type.

    Example:
        >>> port.values_per_channel(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), torch.zeros(4, 3, 10, 10))
        {'1': 256}
    """
    check_usual(model=model, x=x)
    counted: dict[str, int] = {}
    modes = {each: each.training for each in model.modules()}

    def hook(name: str) -> Any:
        return lambda layer, inputs: counted.__setitem__(name, inputs[0].numel() // layer.num_features)

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in torch_norms(model)]
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
        for each, mode in modes.items():
            each.training = mode
    return counted
