"""Several backward passes through one forward pass leave the same state eagerly, compiled, mapped and checkpointed."""

import copy
import random

import pytest
import torch
from layers import LAYERS
from torch import nn
from torch.func import functional_call, stack_module_state, vjp, vmap
from torch.utils.checkpoint import checkpoint

NAMES = ["FullNorm running", "FullNorm batch", "MovingAverageBatchNorm", "OnlineNorm"]


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    for _ in range(3):
        layer(torch.randn(6, 4) * 2 + 1).pow(3).mean().backward()
    return layer.zero_grad() or layer


def eager(layer):
    return layer


def compiled(layer):
    return torch.compile(layer, backend="aot_eager")


def mapped(layer):
    """Train a stack of one model."""
    parameters, buffers = stack_module_state([layer])
    for name, value in layer.named_buffers():
        value.data = buffers[name][0]  # so that the layer sees what becomes of them
    call = vmap(lambda state, x: functional_call(layer, state, (x,)))
    return lambda x: call((parameters, buffers), x[None])[0]


def checkpointed(layer):
    return lambda x: checkpoint(layer, x, use_reentrant=False)


def checkpointed_by_the_older_kind(layer):
    return lambda x: checkpoint(layer, x, use_reentrant=True)


def program(layer: nn.Module, call, seed: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Make a random sequence of forward and backward passes; return the gradients of the inputs, and the buffers."""
    rng, generator, graphs, found = random.Random(seed), torch.Generator().manual_seed(seed), [], []
    for _ in range(12):
        if not graphs or rng.random() < 0.4:
            x = torch.randn(5, 4, generator=generator, requires_grad=True)
            graphs.append((x, call(x)))
        x, y = rng.choice(graphs)
        x.grad = None
        y.backward(torch.randn(5, 4, generator=generator), retain_graph=True)
        found.append(x.grad)
    return found, dict(layer.named_buffers())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch sets off its own when it compiles
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "way", [compiled, mapped, checkpointed, checkpointed_by_the_older_kind], ids=lambda way: way.__name__
)
def test_random_sequences_of_passes_leave_the_state_that_they_leave_eagerly(way, name, seed):
    torch._dynamo.reset()
    plain, ours = made(name), made(name)
    expected, state = program(plain, eager(plain), seed)
    found, new_state = program(ours, way(ours), seed)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new_state, state, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", [eager, compiled, mapped, checkpointed], ids=lambda way: way.__name__)
def test_the_state_after_several_losses_is_the_average_of_what_each_would_leave(way, name):
    torch._dynamo.reset()
    start, x, gs = made(name), torch.randn(5, 4), torch.randn(3, 5, 4)
    layer = copy.deepcopy(start)
    y = way(layer)(x.requires_grad_())
    for g in gs:
        y.backward(g, retain_graph=True)
    alone = [copy.deepcopy(start) for _ in gs]
    for each, g in zip(alone, gs, strict=True):
        each(x).backward(g)
    for buffer, *single in zip(layer.buffers(), *[each.buffers() for each in alone], strict=True):
        if buffer.dim():
            torch.testing.assert_close(buffer, torch.stack(single).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by", ["autograd", "torch.func"])
def test_vectorised_rows_are_not_counted_as_losses(by, name):
    plain, ours = made(name), made(name)
    x, g = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    y = plain(x)
    y.backward(g, retain_graph=True)
    y.backward(2 * g)

    def with_buffers(x):
        state = {key: value.clone() for key, value in ours.named_buffers()}
        return functional_call(ours, state, (x,)), state

    if by == "autograd":
        y, state = ours(x), dict(ours.named_buffers())
        back, rows = lambda g: torch.autograd.grad(y, x, g, retain_graph=True), torch.stack((g, 3 * g))
        torch.autograd.grad(y, x, rows, is_grads_batched=True, retain_graph=True)
    else:
        _, back, state = vjp(with_buffers, x.detach(), has_aux=True)
        vmap(back)(torch.stack((g, 3 * g)))
    back(g)
    back(2 * g)
    torch.testing.assert_close(state, dict(plain.named_buffers()), rtol=1e-4, atol=1e-5)
