"""Compiled layers beside ``torch.func``, with symbolic sizes, and where PyTorch compiles only a part of them."""

import copy

import pytest
import torch
from layers import LAYERS
from torch import nn

import bnlib
from bnlib import stacked

# Warnings that torch itself sets off when it compiles.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor")
STACKED = [name for name in LAYERS if name not in ("NoisyBatchNorm", "CosineLinear")]


def follow(single, whole, shapes):
    """Train two networks side by side and compare gradients and buffers."""
    for shape in shapes:
        x = torch.randn(shape) * 2 + 1
        first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected = single(first)
        found = whole(second)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for y in (expected, found):
            y.pow(3).mean().backward()
        torch.testing.assert_close(second.grad, first.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name, backend", [*[(name, "eager") for name in STACKED], ("FullNorm running", "aot_eager")])
def test_a_compiled_stack_trains_as_its_models_do(name, backend):
    torch.compiler.reset()
    models = [nn.Sequential(LAYERS[name](), nn.PReLU()) for _ in range(2)]
    stack = stacked.stack(models)
    compiled = torch.compile(stack, backend=backend)
    follow(
        lambda x: torch.stack([model(part) for model, part in zip(models, x, strict=True)]), compiled, [(2, 6, 4)] * 3
    )
    for model, own in zip(models, stack.unstack(), strict=True):
        torch.testing.assert_close(own.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_symbolic_sizes_and_settings(name):
    if name == "NoisyBatchNorm":
        pytest.skip("its noise is drawn outside of the compiled code")
    torch.compiler.reset()
    layer = LAYERS[name]()
    plain = copy.deepcopy(layer)
    follow(plain, torch.compile(layer, dynamic=True, backend="eager"), [(count, 4) for count in (6, 8, 7, 6)])


def test_a_train_step_of_full_norm_is_exported_for_every_size():
    layer = bnlib.FullNorm(4)
    plain, sizes = copy.deepcopy(layer), {dim: torch.export.Dim(f"size_{dim}", min=2) for dim in (0, 2, 3)}
    program = torch.export.export(layer, (torch.randn(6, 4, 5, 5),), dynamic_shapes=(sizes,)).module()
    for shape in ((3, 4, 7, 2), (8, 4, 6, 5), (5, 4, 4, 4)):  # the program has its own buffers
        x = torch.randn(shape) + 1
        torch.testing.assert_close(program(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dynamic", [True, None])
def test_a_setting_of_a_compiled_layer_can_be_changed(dynamic):
    torch.compiler.reset()
    layer = bnlib.OnlineNorm(4)
    plain = copy.deepcopy(layer)
    compiled = torch.compile(layer, dynamic=dynamic, backend="aot_eager")
    for name, value in (("alpha_forward", 0.3), ("alpha_backward", 0.5), ("eps", 0.1)):
        follow(plain, compiled, [(6, 4)])
        setattr(layer, name, value), setattr(plain, name, value)
    follow(plain, compiled, [(6, 4), (7, 4)])


@pytest.mark.parametrize("count", [3, 5, 7])
def test_virtual_batches_of_one_sample(count):
    """The batch of one must not change what the backward pass of an earlier virtual batch needs."""
    torch.compiler.reset()
    layer = bnlib.GhostBatchNorm(4, 2)
    plain, models = copy.deepcopy(layer), [copy.deepcopy(layer) for _ in range(2)]
    follow(plain, torch.compile(layer, backend="aot_eager"), [(count, 4)] * 2)
    torch.testing.assert_close(layer.state_dict(), plain.state_dict())
    stack = stacked.stack([nn.Sequential(model) for model in models])
    follow(
        lambda x: torch.stack([model(part) for model, part in zip(models, x, strict=True)]), stack, [(2, count, 4)] * 2
    )
    for model, own in zip(models, stack.unstack(), strict=True):
        torch.testing.assert_close(own[0].state_dict(), model.state_dict())


def test_eval_mode_of_full_norm_keeps_its_statistics_for_the_backward_pass():
    """Like ``test_eval_graphs``, with the compiler that computes parts of the forward pass again."""
    torch.compiler.reset()
    layer, x = bnlib.FullNorm(4), torch.randn(6, 4) + 3
    compiled = torch.compile(layer)
    compiled(x)
    layer.eval()
    gain = layer.running_var.rsqrt().clone()
    wanted = x.clone().requires_grad_()
    y = compiled(wanted)
    layer.train()
    compiled(2 * x), compiled(3 * x)
    y.sum().backward()
    torch.testing.assert_close(wanted.grad, gain.expand(6, 4))
