"""Other ways to call and differentiate a network: checkpoints, ``torch.func``, and parameters that are computed."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint

from bnlib.compatibility.networks import Maker, batch, check_equal, network, train


def checkpointed(make: Maker, use_reentrant: bool = False) -> None:
    """Train with ``torch.utils.checkpoint`` as without."""
    model, twin = network(make), network(make)
    train(model)
    train(twin, call=lambda x: checkpoint(twin, x.requires_grad_(), use_reentrant=use_reentrant))
    check_equal(twin.state_dict(), model.state_dict())


def checkpointed_by_the_older_kind(make: Maker) -> None:
    """Train with ``torch.utils.checkpoint`` and ``use_reentrant=True`` as without."""
    checkpointed(make, use_reentrant=True)


def called_with_other_tensors(make: Maker) -> None:
    """Call a layer with the tensors of another one: only those are used and changed."""
    layer, other = make(), make()
    other(batch(0)).sum().backward()
    twin, before = copy.deepcopy(other), copy.deepcopy(layer.state_dict())
    state = {name: value.detach() for name, value in (*other.named_parameters(), *other.named_buffers())}
    functional_call(layer, state, (batch(1),)).square().sum()
    twin(batch(1))
    check_equal({name: state[name] for name, _ in other.named_buffers()}, dict(twin.named_buffers()), 0)
    check_equal(layer.state_dict(), before, 0)


def ensemble(make: Maker) -> None:
    """Train many networks at once with ``torch.func.vmap``, each with parameters and buffers of its own."""
    models = [network(make) for _ in range(3)]
    for number, model in enumerate(models):
        train(model, range(number))
    parameters, buffers = stack_module_state(models)
    x = torch.stack([batch(seed) for seed in (20, 21, 22)])

    def loss(parameters, buffers, x):
        return functional_call(models[0], (parameters, buffers), (x,)).square().mean()

    gradients = vmap(grad(loss), randomness="different")(parameters, buffers, x)
    alone = [copy.deepcopy(model) for model in models]
    for number, model in enumerate(alone):
        model.zero_grad()
        model(x[number]).square().mean().backward()
    for name, value in gradients.items():
        check_equal(value, torch.stack([model.get_parameter(name).grad for model in alone]))
    for name, value in buffers.items():
        check_equal(value, torch.stack([model.get_buffer(name) for model in alone]))


def per_sample(make: Maker, training: bool = False) -> None:
    """Compute the gradient of each sample in eval mode with ``torch.func.vmap``."""
    model = network(make)
    train(model)
    model.train(training)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters, x):
        return functional_call(model, parameters, (x[None],)).square().sum()

    gradients = vmap(grad(loss), in_dims=(None, 0))(parameters, batch(0))
    for number, x in enumerate(batch(0)):
        model.zero_grad()
        model(x[None]).square().sum().backward()
        for name, value in gradients.items():
            check_equal(value[number], model.get_parameter(name).grad, 1e-4)


def per_sample_in_train_mode(make: Maker) -> None:
    """Compute the gradient of each sample in train mode with ``torch.func.vmap``."""
    per_sample(make, training=True)


def _two(make: Maker) -> tuple[nn.Module, nn.Module]:
    layer = network(make)[1]
    return layer, copy.deepcopy(layer)


def _weighted(layer: nn.Module) -> nn.Module:
    return layer.domains[layer.domain] if hasattr(layer, "domains") else layer


class _Softplus(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.softplus(x)


def parametrised(make: Maker) -> None:
    """Compute the weight of a layer by ``torch.nn.utils.parametrize``."""
    layer, twin = _two(make)
    parametrize.register_parametrization(_weighted(layer), "weight", _Softplus())
    with torch.no_grad():
        _weighted(twin).weight.copy_(nn.functional.softplus(_weighted(twin).weight))
    found, expected = layer(batch(0)), twin(batch(0))
    check_equal(found, expected)
    found.square().sum().backward()
    assert _weighted(layer).parametrizations.weight.original.grad.abs().sum() > 0


def pruned(make: Maker) -> None:
    """Prune half of the weight of a layer by ``torch.nn.utils.prune``, and train it."""
    layer, twin = _two(make)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prune.random_unstructured(_weighted(layer), "weight", amount=0.5)
    mask = _weighted(layer).weight_mask
    with torch.no_grad():
        _weighted(twin).weight.mul_(mask)
    found = layer(batch(0))
    check_equal(found, twin(batch(0)))
    found.square().sum().backward()
    assert (_weighted(layer).weight_orig.grad[mask == 0] == 0).all()
