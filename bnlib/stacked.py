"""Stack many models of the same architecture into one model, for runs that differ only in seed and learning rate.

``torch.func.vmap`` can run any models at once, but it uses many small operations. Faster implementations exist for
sequences of simple layers, where linear layers become one batched matrix product and normalisation layers one layer
with the channels of all models, and for convolutional networks (``bnlib.stacked_convolutions``).
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from bnlib import stacked_differences
from bnlib.arguments import check_kind, check_usual, shown
from bnlib.norm import ActivationNoise, BatchNorm, BatchRenorm, EvoNormS0, FullNorm, GhostBatchNorm, NoisyBatchNorm
from bnlib.probes.stateless import functional_call

_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus)
_GROUPED = (nn.GroupNorm, EvoNormS0)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_PER_CHANNEL = (BatchNorm, BatchRenorm, FullNorm, GhostBatchNorm, nn.BatchNorm1d, *_GROUPED)


def stack(models: Sequence[nn.Module]) -> Stack:
    r"""Combine E models into one model that takes (E, N, \*) tensors; slice e of the input goes through model e.

    Outputs, gradients and running statistics are those of the single models up to rounding. Parameters that are not
    trained (``requires_grad=False``) stay so, tied weights stay tied, and submodules keep their train or eval mode. The
    models are copied and not changed; ``Stack.unstack`` returns the trained models.

    Arguments:
        models: E models with the same layers, shapes and settings.

    Returns:
        A ``LayerStack`` if ``has_stacked_layers`` holds, or a ``ConvolutionStack`` (``bnlib.stacked_convolutions``) if
        its layers are known there, and the layers have seen the same number of batches; else a ``VmapStack``.

    Raises:
        TypeError: if one of the models is not an ``nn.Module``.
        ValueError: if there are no models, if they differ in layers, shapes or settings, or if ``can_stack`` is False;
            the message says why.

    Example:
        >>> single = [models.mlp((3, 4, 2), bnlib.BatchNorm, seed=seed) for seed in range(2)]
        >>> both, x = stacked.stack(single), torch.linspace(-1, 1, 30).view(2, 5, 3) ** 3
        >>> torch.allclose(both(x)[1], single[1](x[1]), atol=1e-4)
        True
        >>> [type(model).__name__ for model in both.unstack()]
        ['Sequential', 'Sequential']
    """
    if isinstance(models, nn.Module) or not isinstance(models, Iterable):
        raise TypeError(f"models must be a sequence of nn.Modules, got {shown(models)}")
    from bnlib.stacked_convolutions import ConvolutionStack, can_join  # which imports this file

    if not (models := list(models)):
        raise ValueError("models must hold at least one model, got none")
    for model in models:
        check_kind("models", model, nn.Module, "a sequence of nn.Modules")
        if reason := _obstacle(model):
            raise ValueError(f"models must not {reason}; train such models one after another")
    if different := stacked_differences.difference(models):
        raise ValueError(
            f"models must have the same layers, shapes and settings, got models that differ in {different}"
        )
    alike = len({tuple(each.item() for each in model.buffers() if each.dim() == 0) for model in models}) == 1
    if alike and can_join(models[0]) and not any(stacked_differences.ties(models[0])):
        return ConvolutionStack(models)
    by_layers = alike and has_stacked_layers(models[0])
    if not by_layers and (reason := _obstacle_to_vmap(models[0])):
        raise ValueError(f"models must not {reason}; train such models one after another")
    return (LayerStack if by_layers else VmapStack)(models)


def can_stack(model: nn.Module) -> bool:
    """Return whether ``stack`` accepts the model.

    It rejects models with hooks, which would not be called for each model, with layers that draw noise from a seed of
    their own, with lazy layers that have seen no data, and some layers without a momentum.

    Example:
        >>> stacked.can_stack(models.mlp((3, 4, 2), bnlib.NoisyBatchNorm))
        False
    """
    check_usual(model=model)
    return not (_obstacle(model) or (not has_stacked_layers(model) and _obstacle_to_vmap(model)))


def has_stacked_layers(model: nn.Module) -> bool:
    """Return whether ``stack`` has a fast stacked version of every layer of ``model``; if not, it uses vmap.

    Example:
        >>> [stacked.has_stacked_layers(each) for each in (models.mlp((3, 4, 2), bnlib.FullNorm), models.small_cnn())]
        [True, False]
    """
    check_usual(model=model)
    sequence = type(model).forward is nn.Sequential.forward and "forward" not in vars(model)
    return sequence and all(map(_can_stack, model)) and not any(stacked_differences.ties(model))


class Stack(nn.Module):
    """E models as one module; each parameter and buffer has E as its first dimension, or E times as many channels.

    Attributes:
        size: the number of models, E.
        template: a copy of the first model, in the modes of the stack.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.size = len(models)
        # Not a submodule, because its parameters must not be trained.
        self.__dict__["template"] = copy.deepcopy(models[0])
        self.training = models[0].training

    def train(self, mode: bool = True) -> Stack:
        """Put all submodules into train mode, or into eval mode if ``mode`` is False."""
        self.template.train(mode)
        return super().train(mode)

    def broadcast_to_parameters(self, values: Tensor) -> list[Tensor]:
        """Expand one number per model, shape (E,), to a list of tensors that broadcast against the parameters."""
        wide = [
            (each, values.repeat_interleave(len(each) // self.size).view(-1, *[1] * (each.dim() - 1)))
            for each in self.parameters()
        ]
        return [
            value.to(each.dtype).to(each.device) for each, value in wide
        ]  # the type first: not every device has all

    def unstack(self) -> list[nn.Module]:
        """Return copies of the models with their current parameters, buffers and modes."""
        models = [copy.deepcopy(self.template) for _ in range(self.size)]
        for index, model in enumerate(models):
            own = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
            for name, value in self._tensors_of(index).items():
                own[name].data = value.detach().clone(memory_format=torch.contiguous_format)
        return models

    def _check_input(self, input: Tensor) -> None:
        if input.dim() < 2 or len(input) != self.size:
            raise ValueError(f"input must have the shape ({self.size}, N, ...), got {tuple(input.shape)}")

    def _tensors_of(self, index: int) -> dict[str, Tensor]:
        """Return the parameters and buffers of a model by their names in it."""
        raise NotImplementedError


class VmapStack(Stack):
    """A stack of any models, run by ``torch.func.vmap``."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        # Parameter names must not contain the dots that the names in submodules have.
        self.names: dict[str, str] = {}
        for name, value in models[0].named_parameters():
            self.names[name.replace(".", "/")] = name
            whole = torch.stack([model.get_parameter(name).detach() for model in models])
            self.register_parameter(name.replace(".", "/"), nn.Parameter(whole, value.requires_grad))
        for name, _ in models[0].named_buffers():
            self.names[name.replace(".", "/")] = name
            whole = torch.stack([model.get_buffer(name).detach() for model in models])
            self.register_buffer(name.replace(".", "/"), whole)

    def forward(self, input: Tensor) -> Tensor:
        """Apply model e to slice e of ``input``, shape (E, N, ...).

        Raises:
            RuntimeError: if ``torch.func.vmap`` does not support an operation of the models.
        """
        self._check_input(input)

        def one(state: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.template, state, (x,))

        state = {self.names[name]: value for name, value in (*self.named_parameters(), *self.named_buffers())}
        try:
            return torch.func.vmap(one, randomness="different")(state, input)
        except RuntimeError as error:
            if re.search("vmap|[Bb]atching rule", str(error)):
                raise RuntimeError(
                    "models must consist of layers that torch.func.vmap can run; train such models one after another, "
                    f"got {type(self.template).__name__}: {error}"
                ) from error
            raise

    def _tensors_of(self, index: int) -> dict[str, Tensor]:
        whole = itertools.chain(self.named_parameters(), self.named_buffers())
        return {self.names[name]: value[index] for name, value in whole}


class LayerStack(Stack):
    """A stack of sequences of Flatten, Linear, elementwise and per-channel layers."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        self.layers = nn.Sequential(*[_stack_layer(list(layers)) for layers in zip(*models, strict=True)])

    def forward(self, input: Tensor) -> Tensor:
        """Apply the stacked layers to ``input``, shape (E, N, ...)."""
        self._check_input(input)
        return self.layers(input)

    def unstack(self) -> list[nn.Module]:
        """Return copies of the models with their current parameters, buffers and modes."""
        for layer, own in zip(self.layers, self.template, strict=True):
            own.train(layer.layer.training if isinstance(layer, _PerChannel) else layer.training)
        return super().unstack()

    def _tensors_of(self, index: int) -> dict[str, Tensor]:
        layers = [(position, layer) for position, layer in enumerate(self.layers) if hasattr(layer, "of")]
        return {f"{position}.{name}": value for position, layer in layers for name, value in layer.of(index).items()}


class _Linear(nn.Module):
    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        first = layers[0]
        weight = torch.stack([layer.weight.detach().T for layer in layers]).contiguous()
        self.weight = nn.Parameter(weight, first.weight.requires_grad)
        self.bias = None
        if first.bias is not None:
            bias = torch.stack([layer.bias.detach() for layer in layers])[:, None]
            self.bias = nn.Parameter(bias, first.bias.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        rows = input if input.dim() == 3 else input.reshape(len(input), -1, input.shape[-1])
        product = rows.bmm(self.weight) if self.bias is None else torch.baddbmm(self.bias, rows, self.weight)
        return product if input.dim() == 3 else product.view(*input.shape[:-1], -1)

    def of(self, index: int) -> dict[str, Tensor]:
        found = {"weight": self.weight[index].T}
        return found if self.bias is None else found | {"bias": self.bias[index, 0]}


class _PerChannel(nn.Module):
    """A normalisation layer with the channels of E models."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layers[0])
        grouped = isinstance(self.layer, _GROUPED)
        self.channels = self.layer.num_channels if grouped else self.layer.num_features
        # The channels of a model are adjacent, and so are its groups.
        for name in ("num_channels", "num_groups") if grouped else ("num_features",):
            setattr(self.layer, name, len(layers) * getattr(self.layer, name))
        for name, value in layers[0].named_parameters():
            whole = torch.cat([getattr(layer, name).detach() for layer in layers])
            setattr(self.layer, name, nn.Parameter(whole, value.requires_grad))
        for name, value in layers[0].named_buffers():
            if value.dim() == 1:
                setattr(self.layer, name, torch.cat([getattr(layer, name) for layer in layers]))

    def forward(self, input: Tensor) -> Tensor:
        size, samples, channels, *space = input.shape
        wide = input.transpose(0, 1).reshape(samples, size * channels, *space)
        return self.layer(wide).view(samples, size, channels, *space).transpose(0, 1)

    def of(self, index: int) -> dict[str, Tensor]:
        part = slice(index * self.channels, (index + 1) * self.channels)
        tensors = itertools.chain(self.layer.named_parameters(), self.layer.named_buffers())
        return {name: value[part] if value.dim() else value for name, value in tensors}


class _Flatten(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(2)


def _can_stack(layer: nn.Module) -> bool:
    if "forward" in vars(layer):
        return False
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    # The gradient of this oracle depends on the number of channels, which the stack changes.
    literal = isinstance(layer, FullNorm) and layer.oracle == "literal"
    return type(layer) in (nn.Linear, *_ELEMENTWISE, *_PER_CHANNEL) and not literal


def _stack_layer(layers: list[Any]) -> nn.Module:
    kind = type(layers[0])
    if kind is nn.Linear:
        made = _Linear(layers)
    elif kind is nn.Flatten:
        made = _Flatten()
    else:
        made = _PerChannel(layers) if kind in _PER_CHANNEL else copy.deepcopy(layers[0])
    return made.train(layers[0].training)


def _obstacle(model: nn.Module) -> str:
    """Return what in the model keeps it from being stacked, as the end of "models must not ...", or nothing."""
    for name, layer in model.named_modules():
        where = f"in {type(layer).__name__} {name!r}" if name else f"in the {type(layer).__name__} itself"
        if isinstance(layer, (ActivationNoise, NoisyBatchNorm)):
            return f"contain ActivationNoise or NoisyBatchNorm, which draw noise from their own seeds, got one {where}"
        if any(map(is_lazy, itertools.chain(layer._parameters.values(), layer._buffers.values()))):
            return f"have lazy layers that have seen no data, got one {where}; call the models first"
        if hooks := [hook for hook in _HOOKS if getattr(layer, hook)]:
            return f"have hooks, which a stack would not call for each model, got {', '.join(hooks)} {where}"
        for parameter, value in layer.named_parameters(recurse=False):
            if value._backward_hooks or value._post_accumulate_grad_hooks:
                return f"have hooks, which a stack would not call for each model, got one on {parameter} {where}"
    return ""


def _obstacle_to_vmap(model: nn.Module) -> str:
    for name, layer in model.named_modules():
        if isinstance(layer, _NormBase) and layer.track_running_stats and layer.momentum is None:
            return (
                f"have momentum=None, which torch.func.vmap does not support, got it in {type(layer).__name__} {name!r}"
            )
    return ""
