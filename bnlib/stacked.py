"""Many models of one shape as one model, for runs that differ in nothing but seed and learning rate.

``torch.func.vmap`` does that for any model, in many small operations. Where it is possible the layers are stacked by
hand: a batched matrix product for the linear ones, one layer of many channels for a normalisation of channels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnlib.norm import ActivationNoise, BatchNorm, BatchRenorm, FullNorm, NoisyBatchNorm

_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus)
_PER_CHANNEL = (BatchNorm, BatchRenorm, FullNorm, nn.BatchNorm1d, nn.GroupNorm)


def stack(models: Sequence[nn.Module]) -> Stack:
    r"""One model of (E, N, \*) tensors whose e-th slice goes through the e-th of E models.

    Outputs, gradients and running statistics are those of the single models up to rounding. The models are copied, not
    changed; ``Stack.unstack`` gives trained ones back. Gradients are found in ``.grad`` after ``backward``;
    ``torch.autograd.grad`` does not see those of all weights.

    Raises:
        ValueError: no models, models that are not built alike, or that draw noise (``can_stack``).

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
        raise ValueError("models must be built alike, got models of different layers, shapes or settings")
    if not can_stack(models[0]):
        raise ValueError("models must draw no noise of their own, got some with ActivationNoise or NoisyBatchNorm")
    return (LayerStack if has_stacked_layers(models[0]) else VmapStack)(models)


def can_stack(model: nn.Module) -> bool:
    """Whether ``stack`` takes it. Noise with a seed of its own cannot be mapped over models.

    Example:
        >>> stacked.can_stack(models.mlp((3, 4, 2), bnlib.NoisyBatchNorm))
        False
    """
    return not any(isinstance(layer, (ActivationNoise, NoisyBatchNorm)) for layer in model.modules())


def has_stacked_layers(model: nn.Module) -> bool:
    """Whether ``stack`` knows all layers of ``model``, or else leaves it to ``torch.func.vmap``.

    Example:
        >>> stacked.has_stacked_layers(models.mlp((3, 4, 2), bnlib.FullNorm)), stacked.has_stacked_layers(models.small_cnn())
        (True, False)
    """
    return isinstance(model, nn.Sequential) and all(map(_can_stack, model))


class Stack(nn.Module):
    """E models in one; each parameter and buffer has E as its first dimension, or E times as many channels."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.size = len(models)
        # Not a submodule: its parameters are not to be trained.
        self.__dict__["template"] = copy.deepcopy(models[0])
        self.train(models[0].training)

    def broadcast_to_parameters(self, values: Tensor) -> list[Tensor]:
        """One number for each model, shape (E,), as tensors that broadcast against the parameters."""
        return [
            values.repeat_interleave(len(each) // self.size).view(-1, *[1] * (each.dim() - 1)).to(each.dtype)
            for each in self.parameters()
        ]

    def states(self) -> list[dict[str, Tensor]]:
        """The ``state_dict`` of each model."""
        raise NotImplementedError

    def unstack(self) -> list[nn.Module]:
        """Return the models as they are now, in the mode the stack is in."""
        models = [copy.deepcopy(self.template).to(next(self.parameters()).device) for _ in range(self.size)]
        for model, state in zip(models, self.states(), strict=True):
            model.load_state_dict(state)
        return [model.train(self.training) for model in models]


class VmapStack(Stack):
    """Any models, by ``torch.func.vmap``."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        parameters, buffers = torch.func.stack_module_state(list(models))
        # Names of submodules have dots, which names of parameters must not.
        self.names = {name.replace(".", "/"): name for name in (*parameters, *buffers)}
        for name, value in parameters.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach()))
        for name, value in buffers.items():
            self.register_buffer(name.replace(".", "/"), value)

    def forward(self, input: Tensor) -> Tensor:
        """Map the models over the first dimension."""
        self.template.train(self.training)

        def one(state: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(self.template, state, (x,))

        state = {self.names[name]: value for name, value in (*self.named_parameters(), *self.named_buffers())}
        return torch.func.vmap(one, randomness="different")(state, input)

    def states(self) -> list[dict[str, Tensor]]:
        """The ``state_dict`` of each model."""
        state = {self.names[name]: value.detach() for name, value in self.state_dict().items()}
        return [{name: value[index].clone() for name, value in state.items()} for index in range(self.size)]


class LayerStack(Stack):
    """Models that are a sequence of Flatten, Linear, elementwise and per-channel layers."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        self.layers = nn.Sequential(*[_stack_layer(list(layers)) for layers in zip(*models, strict=True)])
        self.train(models[0].training)

    def forward(self, input: Tensor) -> Tensor:
        """One layer after the other."""
        return self.layers(input)

    def states(self) -> list[dict[str, Tensor]]:
        """The ``state_dict`` of each model."""
        states: list[dict[str, Tensor]] = [{} for _ in range(self.size)]
        for position, layer in enumerate(self.layers):
            for index, state in enumerate(states):
                state |= {f"{position}.{name}": value for name, value in _slice(layer, index).items()}
        return states


class _Product(torch.autograd.Function):
    """A batched linear layer that adds the gradient of its weights to ``weight.grad`` itself.

    That of autograd would be a new large tensor in each step, which takes longer to get than to compute.
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
    """A layer of E times as many channels."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layers[0])
        grouped = isinstance(self.layer, nn.GroupNorm)
        self.channels = self.layer.num_channels if grouped else self.layer.num_features
        # The channels of a model lie side by side, so that its groups do, too.
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
    # Its gradient counts the channels.
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
