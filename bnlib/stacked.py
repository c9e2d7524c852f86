"""Stack many models of the same architecture into one model, for runs that differ only in seed and learning rate.

``torch.func.vmap`` can run any models at once, but it uses many small operations. A faster implementation exists for
sequences of simple layers: linear layers become one batched matrix product, and normalisation layers become one layer
with the channels of all models.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnlib.norm import ActivationNoise, BatchNorm, BatchRenorm, EvoNormS0, FullNorm, GhostBatchNorm, NoisyBatchNorm

_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus)
_GROUPED = (nn.GroupNorm, EvoNormS0)
_PER_CHANNEL = (BatchNorm, BatchRenorm, FullNorm, GhostBatchNorm, nn.BatchNorm1d, *_GROUPED)


def stack(models: Sequence[nn.Module]) -> Stack:
    r"""Combine E models into one model that takes (E, N, \*) tensors; slice e of the input goes through model e.

    Outputs, gradients and running statistics are those of the single models up to rounding. The models are copied and
    not changed; ``Stack.unstack`` returns the trained models. After ``backward`` the gradients are in ``.grad``;
    ``torch.autograd.grad`` does not find the gradients of all weights.

    Arguments:
        models: E models with the same layers, shapes and settings.

    Returns:
        A ``LayerStack`` if ``has_stacked_layers`` holds for the models, else a ``VmapStack``.

    Raises:
        ValueError: if there are no models, if their layers, shapes or settings differ, or if ``can_stack`` is False.

    Example:
        >>> single = [models.mlp((3, 4, 2), bnlib.BatchNorm, seed=seed) for seed in range(2)]
        >>> both, x = stacked.stack(single), torch.linspace(-1, 1, 30).view(2, 5, 3) ** 3
        >>> torch.allclose(both(x)[1], single[1](x[1]), atol=1e-4)
        True
        >>> [type(model).__name__ for model in both.unstack()]
        ['Sequential', 'Sequential']
    """
    if not models:
        raise ValueError("models must hold at least one model, got none")
    shapes = [[(name, value.shape, value.dtype) for name, value in model.state_dict().items()] for model in models]
    if any(repr(model) != repr(models[0]) or shape != shapes[0] for model, shape in zip(models, shapes, strict=True)):
        raise ValueError("models must have the same layers, shapes and settings, got models that differ in them")
    if not can_stack(models[0]):
        raise ValueError(
            "models must not contain ActivationNoise or NoisyBatchNorm, which draw noise from their own seeds; train "
            "such models one after another"
        )
    return (LayerStack if has_stacked_layers(models[0]) else VmapStack)(models)


def can_stack(model: nn.Module) -> bool:
    """Return whether ``stack`` accepts the model; it rejects layers that draw noise from a seed of their own.

    Example:
        >>> stacked.can_stack(models.mlp((3, 4, 2), bnlib.NoisyBatchNorm))
        False
    """
    return not any(isinstance(layer, (ActivationNoise, NoisyBatchNorm)) for layer in model.modules())


def has_stacked_layers(model: nn.Module) -> bool:
    """Return whether ``stack`` has a fast stacked version of every layer of ``model``; if not, it uses vmap.

    Example:
        >>> [stacked.has_stacked_layers(each) for each in (models.mlp((3, 4, 2), bnlib.FullNorm), models.small_cnn())]
        [True, False]
    """
    return isinstance(model, nn.Sequential) and all(map(_can_stack, model))


class Stack(nn.Module):
    """E models as one module; each parameter and buffer has E as its first dimension, or E times as many channels.

    Attributes:
        size: the number of models, E.
        template: a copy of the first model.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.size = len(models)
        # Not a submodule, because its parameters must not be trained.
        self.__dict__["template"] = copy.deepcopy(models[0])
        self.train(models[0].training)

    def broadcast_to_parameters(self, values: Tensor) -> list[Tensor]:
        """Expand one number per model, shape (E,), to a list of tensors that broadcast against the parameters."""
        return [
            values.repeat_interleave(len(each) // self.size).view(-1, *[1] * (each.dim() - 1)).to(each.dtype)
            for each in self.parameters()
        ]

    def states(self) -> list[dict[str, Tensor]]:
        """Return the ``state_dict`` of each model."""
        raise NotImplementedError

    def unstack(self) -> list[nn.Module]:
        """Return copies of the models with their current parameters and buffers, in the mode of the stack."""
        models = [copy.deepcopy(self.template).to(next(self.parameters()).device) for _ in range(self.size)]
        for model, state in zip(models, self.states(), strict=True):
            model.load_state_dict(state)
        return [model.train(self.training) for model in models]


class VmapStack(Stack):
    """A stack of any models, run by ``torch.func.vmap``."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        parameters, buffers = torch.func.stack_module_state(list(models))
        # Parameter names must not contain the dots that the names in submodules have.
        self.names = {name.replace(".", "/"): name for name in (*parameters, *buffers)}
        for name, value in parameters.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach()))
        for name, value in buffers.items():
            self.register_buffer(name.replace(".", "/"), value)

    def forward(self, input: Tensor) -> Tensor:
        """Apply model e to slice e of ``input``, shape (E, N, ...)."""
        self.template.train(self.training)

        def one(state: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(self.template, state, (x,))

        state = {self.names[name]: value for name, value in (*self.named_parameters(), *self.named_buffers())}
        return torch.func.vmap(one, randomness="different")(state, input)

    def states(self) -> list[dict[str, Tensor]]:
        """Return the ``state_dict`` of each model."""
        state = {self.names[name]: value.detach() for name, value in self.state_dict().items()}
        return [{name: value[index].clone() for name, value in state.items()} for index in range(self.size)]


class LayerStack(Stack):
    """A stack of sequences of Flatten, Linear, elementwise and per-channel layers."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        self.layers = nn.Sequential(*[_stack_layer(list(layers)) for layers in zip(*models, strict=True)])
        self.train(models[0].training)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the stacked layers to ``input``, shape (E, N, ...)."""
        return self.layers(input)

    def states(self) -> list[dict[str, Tensor]]:
        """Return the ``state_dict`` of each model."""
        states: list[dict[str, Tensor]] = [{} for _ in range(self.size)]
        for position, layer in enumerate(self.layers):
            for index, state in enumerate(states):
                state |= {f"{position}.{name}": value for name, value in _slice(layer, index).items()}
        return states


class _Product(torch.autograd.Function):
    """A batched linear layer that adds the gradient of its weights to ``weight.grad`` itself.

    Autograd would allocate a new large tensor for this gradient in each step, which takes longer than computing it.
    """

    @staticmethod
    def forward(ctx, input, weight, bias):
        ctx.save_for_backward(input, weight)
        return torch.bmm(input, weight) if bias is None else torch.baddbmm(bias, input, weight)

    @staticmethod
    def backward(ctx, g):
        input, weight = ctx.saved_tensors
        x = input.transpose(1, 2)
        if weight.grad is None:
            weight.grad = x.bmm(g)
        else:
            weight.grad.baddbmm_(x, g)
        down = g.bmm(weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        return down, None, g.sum(1, keepdim=True) if ctx.needs_input_grad[2] else None


class _Linear(nn.Module):
    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]).contiguous())
        self.bias = None
        if layers[0].bias is not None:
            self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers])[:, None])

    def forward(self, input: Tensor) -> Tensor:
        return _Product.apply(input, self.weight, self.bias)

    def of(self, index: int) -> dict[str, Tensor]:
        found = {"weight": self.weight[index].T.clone()}
        return found if self.bias is None else found | {"bias": self.bias[index, 0].clone()}


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
            joined = torch.cat([getattr(layer, name).detach() for layer in layers])
            setattr(self.layer, name, nn.Parameter(joined, value.requires_grad))
        for name, value in layers[0].named_buffers():
            if value.dim() == 1:
                setattr(self.layer, name, torch.cat([getattr(layer, name) for layer in layers]))

    def forward(self, input: Tensor) -> Tensor:
        size, samples, channels = input.shape
        wide = input.transpose(0, 1).reshape(samples, size * channels)
        return self.layer(wide).view(samples, size, channels).transpose(0, 1)

    def of(self, index: int) -> dict[str, Tensor]:
        part = slice(index * self.channels, (index + 1) * self.channels)
        return {
            name: value[part].clone() if value.dim() else value.clone()
            for name, value in self.layer.state_dict().items()
        }


class _Flatten(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(2)


def _can_stack(layer: nn.Module) -> bool:
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    # The gradient of this oracle depends on the number of channels, which the stack changes.
    literal = isinstance(layer, FullNorm) and layer.oracle == "literal"
    return type(layer) in (nn.Linear, *_ELEMENTWISE, *_PER_CHANNEL) and not literal


def _stack_layer(layers: list[Any]) -> nn.Module:
    kind = type(layers[0])
    if kind is nn.Linear:
        return _Linear(layers)
    if kind is nn.Flatten:
        return _Flatten()
    return _PerChannel(layers) if kind in _PER_CHANNEL else copy.deepcopy(layers[0])


def _slice(layer: nn.Module, index: int) -> dict[str, Tensor]:
    return layer.of(index) if isinstance(layer, (_Linear, _PerChannel)) else layer.state_dict()
