"""Parts of ``torch.func`` and parametrisations: other tensors in place of a layer's own, derivatives, many networks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, stack_module_state, vmap
from torch.nn.utils import parametrize

from bnlib.torch_parts.measuring import (
    BATCH,
    Measured,
    Numbers,
    Part,
    attempt,
    copied_buffers,
    network,
    output,
    statistics,
    train,
    trained,
)


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def called_with_parameters() -> Measured:
    """Call a network with other parameters; the remedy passes buffers as well."""
    model, other = network(), network()
    for _ in range(3):
        functional_call(model, _parameters(model), (BATCH,))
        functional_call(other, _parameters(other) | copied_buffers(other), (BATCH,))
    return Measured(statistics(network()), statistics(model), statistics(other))


def functional_gradient() -> Measured:
    """Differentiate a network in train mode with ``torch.func.grad``; the remedy makes the buffers an argument."""

    def loss(parameters, buffers=None):
        return functional_call(model, (parameters, buffers or {}), (BATCH,)).square().sum()

    model, buffers = network(), copied_buffers(network())

    def train_without_buffers():
        for _ in range(3):
            grad(loss)(_parameters(model))
        return statistics(model)

    def train_with_buffers():
        for _ in range(3):
            grad(loss)(_parameters(model), buffers)
        model.load_state_dict(buffers, strict=False)
        return statistics(model)

    return Measured(train(network()), attempt(train_without_buffers), train_with_buffers())


def _stacked(with_buffers: bool) -> Numbers:
    """Train three networks at once on batches with the means 10, 11 and 12, and return the statistics of the last."""
    models = [network() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x = torch.stack([BATCH, BATCH + 1, BATCH + 2])
    for _ in range(3):
        if with_buffers:
            vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,)))(parameters, buffers, x)
        else:
            vmap(lambda p, x: functional_call(models[0], p, (x,)))(parameters, x)
    models[2].load_state_dict({name: value[2] for name, value in buffers.items()}, strict=False)
    return statistics(models[2])


def many_networks() -> Measured:
    """Train three networks at once, with the buffers of each."""
    return Measured(train(network(), batches=[BATCH + 2] * 3), _stacked(with_buffers=True))


def many_networks_without_buffers() -> Measured:
    """Train three networks at once, and stack only their parameters."""
    found = attempt(lambda: _stacked(with_buffers=False))
    return Measured(train(network(), batches=[BATCH + 2] * 3), found, _stacked(with_buffers=True))


def replaced() -> Measured:
    """Take the running statistics away with ``replace_all_batch_norm_modules_``, and go to eval mode."""
    model, other = trained(), trained()
    expected = output(copy.deepcopy(model).eval())
    replace_all_batch_norm_modules_(model)
    replace_all_batch_norm_modules_(copy.deepcopy(other))
    return Measured(expected, output(model.eval()), output(other.eval()))


class _Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def parametrised() -> Measured:
    """Compute the weight of a batch norm by a parametrisation, and copy the network."""
    model = network()
    parametrize.register_parametrization(model[1], "weight", _Doubled())
    train(model)
    return Measured(train(network()), statistics(copy.deepcopy(model)))


PARTS = [
    Part(
        "torch.func.functional_call",
        "with other parameters, in train mode",
        called_with_parameters,
        "Buffers that are not passed are the network's own, so the call moves the statistics of the network.",
        "`num_batches_tracked` of the network grows.",
        "Pass copies of the buffers together with the parameters.",
    ),
    Part(
        "torch.func.grad",
        "a network in train mode",
        functional_gradient,
        "A function under `grad`, `jacrev`, `jvp` or `hessian` must not change tensors that are not its arguments.",
        "The error.",
        "Make the buffers an argument of the function, and load them into the network afterwards.",
    ),
    Part(
        "torch.func.vmap",
        "over three networks, with stacked parameters and buffers",
        many_networks,
        "Each network has the statistics that it has alone; they are in the stacked buffers.",
        "There is no difference.",
        "Nothing.",
    ),
    Part(
        "torch.func.vmap",
        "over three networks, with stacked parameters only",
        many_networks_without_buffers,
        "Three networks can't update one running mean.",
        "The error.",
        "Stack the buffers, too: `stack_module_state` returns both.",
    ),
    Part(
        "replace_all_batch_norm_modules_",
        "a trained network, then eval mode",
        replaced,
        "It takes the running statistics out of every batch norm, for good. From then on eval mode normalises with the "
        "batch, so one prediction depends on the others.",
        "`layer.running_mean is None`.",
        "Call it on a `copy.deepcopy`, and evaluate the original.",
    ),
    Part(
        "torch.nn.utils.parametrize",
        "the weight of a batch norm, then `copy.deepcopy`",
        parametrised,
        "The statistics move as without it.",
        "There is no difference.",
        "Nothing.",
    ),
]
"""The parts of this file."""
