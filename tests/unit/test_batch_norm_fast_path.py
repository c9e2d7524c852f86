"""The train step of BatchNorm on large images: the numbers of PyTorch's layer, up to rounding, in less time."""

import copy

import pytest
import torch
from torch import nn

import bnlib
from bnlib.norm import batch_norm, batch_norm_fast_path

SHAPE = (8, 4, 16, 16)


@pytest.fixture
def steps(monkeypatch):
    """Small batches take the fast step too; the calls of it are counted."""
    calls, own = [], batch_norm_fast_path.fast_step
    monkeypatch.setattr(batch_norm_fast_path, "LARGE", 2)
    monkeypatch.setattr(batch_norm, "fast_step", lambda *args: calls.append(1) or own(*args))
    return calls


def pair(**options):
    theirs = nn.BatchNorm2d(4, **options)
    for value in theirs.parameters():
        nn.init.uniform_(value, 0.5, 2)
    ours = bnlib.BatchNorm(4, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def batch(seed, offset=0.0, dtype=torch.float32):
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    return (x + offset).to(dtype)


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": 0.5, "eps": 0.1}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("offset", "fast"), [(0.0, 5), (2.0, 5), (1e3, 1)])
def test_outputs_gradients_and_statistics_are_those_of_torch(steps, options, dtype, offset, fast):
    ours, theirs = (layer.to(dtype) for layer in pair(**options))
    exact = {"rtol": 1e-11, "atol": 1e-10} if dtype is torch.float64 else {"rtol": 1e-5, "atol": 2e-5 + 1e-7 * offset}
    for seed in range(5):
        results = []
        for layer in (ours, theirs):
            x = batch(seed, offset, dtype).requires_grad_()
            y = layer(x)
            results.append((y, *torch.autograd.grad((y.pow(3) / 100).sum(), [x, *layer.parameters()])))
        for our, their in zip(*results, strict=True):
            torch.testing.assert_close(our, their, rtol=1e-4 if dtype is torch.float32 else 1e-9, atol=exact["atol"])
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-6, atol=exact["atol"])
    assert len(steps) <= fast and steps


def test_it_can_be_differentiated_twice(steps):
    ours, theirs = pair()
    results = []
    for layer in (ours, theirs):
        x = batch(0).requires_grad_()
        (grad,) = torch.autograd.grad(layer(x).pow(3).mean(), x, create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum() * 1e6, [x, layer.weight]))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
    assert steps


def test_an_earlier_batch_may_have_its_backward_pass_later(steps, monkeypatch):
    """The first batch goes through PyTorch's kernel, which keeps the running statistics for its backward pass."""
    results = []
    for layer in pair():
        x, z = batch(0).requires_grad_(), batch(1).requires_grad_()
        with monkeypatch.context() as patch:
            patch.setattr(batch_norm_fast_path, "LARGE", 2**40)
            early = layer(x)
        late = layer(z)
        (late.pow(3).sum() + early.pow(3).sum()).backward()
        results.append((x.grad, z.grad))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_a_copy_moves_its_own_statistics(steps):
    ours, _ = pair()
    ours(batch(0))
    twin, before = copy.deepcopy(ours), copy.deepcopy(ours.state_dict())
    twin(batch(1))
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)
    given = {name: value.clone() for name, value in ours.state_dict().items()}
    torch.func.functional_call(ours, given, (batch(1),))
    torch.testing.assert_close(given, twin.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


def test_other_batches_take_the_step_of_torch():
    ours, theirs = pair()
    for x in (batch(0), batch(0).contiguous(memory_format=torch.channels_last), batch(0).half().float()):
        assert torch.equal(ours(x), theirs(x))
    assert not batch_norm_fast_path.has_fast_step(batch(0), ours)
    large = torch.zeros(64, 4, 64, 64)
    assert batch_norm_fast_path.has_fast_step(large, ours)
    assert not batch_norm_fast_path.has_fast_step(large.contiguous(memory_format=torch.channels_last), ours)
    ours.momentum = None
    assert not batch_norm_fast_path.has_fast_step(large, ours)
