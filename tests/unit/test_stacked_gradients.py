"""The gradients of a stack reach its parameters in every way in which PyTorch computes gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from bnlib import BatchNorm, FullNorm, models
from bnlib.stacked import LayerStack, stack

NORMS = {"without a norm": nn.Identity, "BatchNorm": BatchNorm, "FullNorm": FullNorm}


def networks(norm: type, seed: int) -> list[nn.Module]:
    """Return three networks of random sizes in float64; a layer of each is frozen, and one has no bias."""
    generator = torch.Generator().manual_seed(seed)
    width, hidden = torch.randint(1, 6, (2,), generator=generator).tolist()
    torch.manual_seed(seed)
    sizes = (3, width), (width, hidden), (hidden, 2)
    first = nn.Sequential(
        nn.Linear(*sizes[0]), nn.Tanh(), nn.Linear(*sizes[1], bias=False), norm(hidden), nn.Linear(*sizes[2])
    ).double()
    first[2].weight.requires_grad_(seed % 2 == 0)
    found = [first, copy.deepcopy(first), copy.deepcopy(first)]
    for each in found:
        for value in each.parameters():
            value.data += 0.3 * torch.randn(value.shape, dtype=torch.float64)
    return found


def plain(model, x):
    (model(x).sin() * WEIGHTS[: x.size(-2)]).sum().backward()


def under_checkpoint(model, x):
    (checkpoint(model, x, use_reentrant=False).sin() * WEIGHTS[: x.size(-2)]).sum().backward()


def under_old_checkpoint(model, x):
    y = checkpoint(model, x.clone().requires_grad_(), use_reentrant=True)
    (y.sin() * WEIGHTS[: x.size(-2)]).sum().backward()


def under_save_on_cpu(model, x):
    with save_on_cpu():
        y = model(x)
    (y.sin() * WEIGHTS[: x.size(-2)]).sum().backward()


def under_copying_hooks(model, x):
    with saved_tensors_hooks(lambda value: value.clone(), lambda value: value):
        plain(model, x)


def by_grad(model, x):
    trained = [each for each in model.parameters() if each.requires_grad]
    found = torch.autograd.grad((model(x).sin() * WEIGHTS[: x.size(-2)]).sum(), trained)
    assert all(each.grad is None for each in trained)
    for each, gradient in zip(trained, found, strict=True):
        each.grad = gradient


def by_inputs(model, x):
    trained = [each for each in model.parameters() if each.requires_grad]
    loss = (model(x).sin() * WEIGHTS[: x.size(-2)]).sum()
    for each in trained:  # one after another: each call must leave the others alone
        before = [None if other.grad is None else other.grad.clone() for other in trained]
        loss.backward(inputs=[each], retain_graph=True)
        for other, old in zip(trained, before, strict=True):
            assert other is each or other.grad is old is None or torch.equal(other.grad, old)


def by_hooks(model, x):
    trained, seen = [each for each in model.parameters() if each.requires_grad], {}
    handles = [each.register_hook(lambda g, at=at: seen.__setitem__(at, g)) for at, each in enumerate(trained)]
    plain(model, x)
    for at, each in enumerate(trained):
        handles[at].remove()
        torch.testing.assert_close(seen[at], each.grad)


def compiled(model, x):
    plain(torch.compile(model, backend="aot_eager"), x)


def in_two_parts(model, x):  # gradients are added up
    loss = (model(x).sin() * WEIGHTS[: x.size(-2)]).sum()
    (0.25 * loss).backward(retain_graph=True)
    (0.75 * loss).backward()


WEIGHTS = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
EXACT = [plain, under_checkpoint, under_old_checkpoint, under_save_on_cpu, under_copying_hooks, by_grad, by_hooks]
WAYS = [*EXACT, compiled, by_inputs, in_two_parts]


def assert_same_gradients(together: LayerStack, alone: list[nn.Module]) -> None:
    for layer, *single in zip(together.layers, *alone, strict=True):
        for name, value in getattr(layer, "layer", layer).named_parameters():
            for index, each in enumerate(single):
                own = each.get_parameter(name)
                assert (value.grad is None) == (own.grad is None)
                if value.grad is not None:
                    part = value.grad if not hasattr(layer, "layer") else value.grad.unflatten(0, (len(single), -1))
                    part = part[index].T if part.dim() == 3 and name == "weight" else part[index].reshape(own.shape)
                    torch.testing.assert_close(part, own.grad)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does it
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_gradients_are_those_of_the_single_models(way, norm, seed):
    if way is compiled and seed:
        pytest.skip("compiling takes long")
    alone = networks(NORMS[norm], seed)
    together, x = stack(alone), torch.randn(3, 2 + seed, 3, dtype=torch.float64)
    assert isinstance(together, LayerStack)
    for model, each in zip(alone, x, strict=True):
        plain(model, each)
    way(together, x)
    assert_same_gradients(together, alone)


@pytest.mark.parametrize("seed", range(3))
def test_a_penalty_on_the_gradient_of_the_input_is_differentiated(seed):
    alone = networks(nn.Identity, seed)
    together, x = stack(alone), torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)

    def penalised(model, x):
        (slope,) = torch.autograd.grad(model(x).sin().sum(), x, create_graph=True)
        assert all(each.grad is None for each in model.parameters())
        slope.square().sum().backward()

    for model, each in zip(alone, x.detach(), strict=True):
        penalised(model, each.requires_grad_())
    penalised(together, x)
    for layer, *single in zip(together.layers, *alone, strict=True):
        if isinstance(single[0], nn.Linear) and layer.weight.requires_grad:
            torch.testing.assert_close(layer.weight.grad, torch.stack([each.weight.grad.T for each in single]))


def test_torch_func_differentiates_a_stack_and_each_of_its_samples():
    together = stack(networks(nn.Identity, 0))
    state, x = dict(together.named_parameters()), torch.randn(3, 4, 3, dtype=torch.float64)

    def loss(state, x):
        return torch.func.functional_call(together, state, (x,)).sin().sum()

    whole = torch.func.grad(loss)(state, x)
    by_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(state, x[:, :, None])
    together(x).sin().sum().backward()
    for name, value in together.named_parameters():
        torch.testing.assert_close(whole[name], value.grad)
        torch.testing.assert_close(by_sample[name].sum(0), value.grad)


def test_a_layer_that_is_trained_from_the_backward_pass_on_gets_no_gradient():
    together, single = (wrap([models.mlp((3, 4, 2))] * 2) for wrap in (stack, nn.ModuleList))
    first = together.layers[1].weight.requires_grad_(False), single[0][1].weight.requires_grad_(False)
    loss = together(torch.ones(2, 3, 3)).sum(), single[0](torch.ones(3, 3)).sum()
    for weight, each in zip(first, loss, strict=True):
        weight.requires_grad_()
        each.backward()
        assert weight.grad is None
