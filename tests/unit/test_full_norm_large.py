"""FullNorm on batches so large that passes over the data count: the numbers of Algorithm 3, and little memory."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from full_norm_examples import ORACLES, Reference, close, data
from torch import nn

import bnlib
from bnlib.norm import full_norm_autograd, full_norm_passes
from bnlib.norm.full_norm_passes import LARGE

SHAPES = [((300, 256), None), ((9, 8, 1000), None), ((40, 16, 11, 10), None), ((40, 16, 11, 10), torch.channels_last)]
LARGE_SAMPLES = ((9, 32, 18, 16), torch.channels_last)
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "new_tensors.py"


def batch(shape, layout, dtype, seed, offset=0.0):
    x = data(shape, dtype, seed=seed, offset=offset)
    return x if layout is None else x.contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize(("shape", "layout"), [*SHAPES, LARGE_SAMPLES])
@pytest.mark.parametrize(("alpha", "offset"), [(0.3, 0.0), (0.3, 3.0), (0.03, 50.0), (0.95, 50.0), (0.1, -1e4)])
def test_equals_algorithm_3_step_by_step(dtype, oracle, shape, layout, alpha, offset):
    assert np.prod(shape) >= LARGE
    layer = bnlib.FullNorm(shape[1], alpha=alpha, oracle=oracle, dtype=dtype)
    torch.nn.init.uniform_(layer.weight, 0.5, 2)
    torch.nn.init.normal_(layer.bias)
    # As after many steps: the estimates are near the data, and one channel is far off.
    layer.running_mean.fill_(offset)
    layer.running_mean[0] -= 7
    expected = Reference(layer.double() if dtype is torch.float64 else layer)
    means, variances = layer.running_mean.double().numpy(), layer.running_var.double().numpy()
    expected.estimates = expected.estimates._replace(mean=means.copy(), second_moment=variances + means**2)
    for k in range(3):
        x = (batch(shape, layout, dtype, k, offset) + 0.1 * k).requires_grad_()
        g = batch(shape, layout, dtype, 100 + k)
        layer.zero_grad()
        y = layer(x)
        y.backward(g)
        numbers = x.detach().double().numpy(), g.double().numpy(), alpha
        # The reference loses digits to the offset, in float64; in float32 so does its rounded mean, in the gradient.
        ratio = abs(offset) + 1
        tolerance = 1e-11 * ratio**2 if dtype is torch.float64 else 4e-6 * ratio
        for name, ours, theirs in zip(
            ("y", "x.grad", "weight.grad", "bias.grad"),
            (y, x.grad, layer.weight.grad, layer.bias.grad),
            expected.step(*numbers),
            strict=True,
        ):
            size = np.abs(theirs).max()
            wrong = np.abs(ours.detach().double().numpy() - theirs).max() / size
            assert wrong < (min(tolerance, 1e-4) if name == "y" else tolerance), (k, name, wrong)
    mean, second_moment = expected.estimates
    ours = layer.running_mean.double() + layer.running_mean_rest.double()
    np.testing.assert_allclose(ours, mean, rtol=0, atol=5e-6)
    # The general way, which is taken for large alpha, has PyTorch's float32 sums, which are less exact.
    rounding = 3e-5 if alpha > 0.9 else 5e-6
    np.testing.assert_allclose(layer.running_var, second_moment - mean**2, rtol=max(rounding, 1e-13 * ratio**2))


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.0])
@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_the_first_batch_may_be_far_from_the_running_mean(alpha, shape, layout):
    layer, x = bnlib.FullNorm(shape[1], alpha=alpha), batch(shape, layout, torch.float32, 0, offset=1e3)
    y, precise = layer(x), x.double()
    over = [0, *range(2, x.dim())]
    mean, variance = precise.mean(over), precise.var(over, unbiased=False)
    variance = (1 - alpha) + alpha * (variance + (1 - alpha) * mean.square())
    torch.testing.assert_close(layer.running_var.double(), variance, rtol=2e-5, atol=0)
    wide = (-1, *[1] * (x.dim() - 2))
    expected = (precise - alpha * mean.view(wide)) / variance.sqrt().view(wide)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)


def test_sixteen_layers_train_alike_on_the_fast_and_on_the_general_way(monkeypatch):
    def train():
        torch.manual_seed(0)
        layers = [
            each for _ in range(16) for each in (nn.Conv2d(8, 8, 3, padding=1), bnlib.FullNorm(8, alpha=0.1), nn.ReLU())
        ]
        model = nn.Sequential(*layers).double()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        for k in range(5):
            optimiser.zero_grad()
            for scale in (0.5, 2.0):  # two losses
                x = batch((5, 8, 42, 42), None, torch.float64, k) * scale + scale
                (model(x) * batch((5, 8, 42, 42), None, torch.float64, 50 + k)).mean().backward()
            optimiser.step()
        return dict(model.state_dict())

    fast = train()
    monkeypatch.setattr(full_norm_autograd, "fast_step", lambda *_: None)
    general = train()
    assert fast["0.weight"].isfinite().all()
    torch.testing.assert_close(fast, general, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("shape", [(6, 4), (4, 3, 5, 2), (40, 16, 11, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_input_without_gradient_gives_the_same_other_gradients(oracle, shape, dtype):
    twins = [bnlib.FullNorm(shape[1], oracle=oracle, alpha=0.3) for _ in range(2)]
    for k in range(3):
        g = data(shape, torch.float32, seed=9 + k).to(dtype)
        for layer, needed in zip(twins, (True, False), strict=True):
            x = data(shape, torch.float32, seed=k).to(dtype).requires_grad_(needed)
            layer(x).backward(g)
    with_gradient, without = ([*each.buffers(), *[p.grad for p in each.parameters()]] for each in twins)
    torch.testing.assert_close(without, with_gradient, rtol=0, atol=0)


def memory():
    spec = importlib.util.spec_from_file_location("new_tensors", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("shape", "layout"), SHAPES)
@pytest.mark.parametrize(("oracle", "most"), [("running", 1.1), ("batch", 1.1), ("leave_one_out", 2.1)])
def test_the_backward_pass_needs_little_memory(shape, layout, oracle, most):
    x = batch(shape, layout, torch.float32, 0).requires_grad_()
    assert 1 <= memory().peak_of_backward(bnlib.FullNorm(shape[1], oracle=oracle), x) < most


@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_eval_mode_keeps_its_output_only(shape, layout):
    x = batch(shape, layout, torch.float32, 0).requires_grad_()
    layer = bnlib.FullNorm(shape[1]).eval()
    assert 1 <= memory().kept(layer, x) < 1.1
    layer.running_mean.fill_(100.0)  # must be subtracted first
    assert memory().kept(layer, x) > 1.9


@pytest.mark.parametrize("oracle", ["running", "batch", "leave_one_out"])
@pytest.mark.parametrize(("shape", "layout"), [*SHAPES, ((6, 4), None), ((5, 3, 4, 2), None)])
def test_float32_can_hold_the_squares_but_not_their_sum(oracle, shape, layout):
    ours, exact = (bnlib.FullNorm(shape[1], alpha=0.5, oracle=oracle, dtype=d) for d in (torch.float32, torch.float64))
    for k in range(3):
        results = []
        for layer in (ours, exact):
            x = (batch(shape, layout, torch.float32, k) * 4e18).to(layer.weight.dtype).requires_grad_()
            y = layer(x)
            g = batch(shape, layout, torch.float32, 50 + k) + 0.5
            y.backward(g.to(y.dtype))
            results.append((y, x.grad * 4e18))
        for our, their in zip(*results, strict=True):
            torch.testing.assert_close(our.double(), their, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.running_var.double(), exact.running_var, rtol=1e-4, atol=0)


@pytest.mark.parametrize("signs", [1.0, -1.0])
@pytest.mark.parametrize("offset", [0.0, 20.0, 1e3])
@pytest.mark.parametrize(("shape", "layout"), [SHAPES[0], SHAPES[3], LARGE_SAMPLES])
def test_leave_one_out_for_both_signs_of_gamma_and_a_constant_channel(shape, layout, offset, signs):
    assert np.prod(shape) >= LARGE and np.prod(LARGE_SAMPLES[0][1:]) >= full_norm_passes._LARGE_SAMPLE
    layer = bnlib.FullNorm(shape[1], alpha=0.3, oracle="leave_one_out", dtype=torch.float64)
    torch.nn.init.uniform_(layer.weight, 0.5, 2)
    with torch.no_grad():
        layer.weight[:3] *= signs
        layer.running_mean.fill_(offset)
        layer.running_var[1] = 0.0
    expected = Reference(layer)
    means, variances = layer.running_mean.numpy(), layer.running_var.numpy()
    expected.estimates = expected.estimates._replace(mean=means.copy(), second_moment=variances + means**2)
    x, g = (batch(shape, layout, torch.float64, seed, each) for seed, each in ((1, offset), (2, 0.0)))
    x[:, 1] = offset  # its variance is below eps, so no correction passes through it
    x.requires_grad_()
    output = layer(x)
    output.backward(g)
    y, grad_input, *others = expected.step(x.detach().numpy(), g.numpy(), 0.3)
    tolerance = 1e-6 if offset > 100 else 1e-9
    actual = output, x.grad, layer.weight.grad, layer.bias.grad
    for ours, theirs in zip(actual, (y, grad_input, *others), strict=True):
        close(ours, theirs, tolerance)
