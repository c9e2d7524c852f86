"""The forward and backward passes of FullNorm: against Algorithm 3 in NumPy, and with every kind of tensor."""

import copy

import numpy as np
import pytest
import torch
from full_norm_examples import ORACLES, Reference, close, data, layer_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import bnlib
from bnlib import schedules
from bnlib.norm import full_norm, full_norm_passes

SHAPES = [(6, 4), (5, 3, 7), (4, 3, 5, 2), (3, 2, 2, 3, 2)]


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [0.3, 1.0, schedules.lian_figure_4_alpha])
def test_equals_algorithm_3_step_by_step(oracle, shape, alpha):
    layer = layer_of(shape[1], alpha=alpha, oracle=oracle)
    expected = Reference(layer)
    for k in range(4):
        x, g = data(shape, seed=k).requires_grad_(), data(shape, seed=100 + k)
        layer.zero_grad()
        y = layer(x)
        y.backward(g)
        results = expected.step(x.detach().numpy(), g.numpy(), alpha(k) if callable(alpha) else alpha)
        for ours, theirs in zip((y, x.grad, layer.weight.grad, layer.bias.grad), results, strict=True):
            close(ours, theirs)
    mean, second_moment = expected.estimates
    close(layer.running_mean, mean)
    close(layer.running_var, second_moment - mean**2)
    if oracle == "running":
        close(layer.running_grad_weight, expected.history[0])
        close(layer.running_grad_bias, expected.history[1])
    assert layer.num_batches_tracked == 4


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_torch_kernels_alone_give_the_same(oracle, shape, monkeypatch):
    """The way taken on a GPU, on the CPU."""
    monkeypatch.setattr(full_norm_passes, "needs_shift", lambda x: False)
    monkeypatch.setattr(full_norm, "needs_shift", lambda x: False)
    test_equals_algorithm_3_step_by_step(oracle, shape, 0.3)
    test_train_and_eval_agree_given_the_estimates(oracle)


@settings(deadline=None, max_examples=200)
@given(
    shape=st.sampled_from([(1, 3), (2, 3), (7, 2), (3, 2, 5), (2, 3, 4, 3), (1, 2, 3, 3)]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    alpha=st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.9, 1.0]),
    oracle=st.sampled_from(ORACLES),
    offset=st.sampled_from([0.0, 3.0, -1e3, 1e6]),
    spread=st.sampled_from([1.0, 1e-4, 1e3]),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_algorithm_3_for_any_data(shape, dtype, alpha, oracle, offset, spread, channels_last, seed):
    assume(oracle != "leave_one_out" or shape[0] > 1)
    layer = bnlib.FullNorm(shape[1], alpha=alpha, oracle=oracle, dtype=torch.promote_types(dtype, torch.float32))
    expected = Reference(layer)
    for k in range(3):
        x = (data(shape, seed=seed + k) * spread + offset).to(dtype)
        g = data(shape, seed=seed + 50 + k).to(dtype)
        if channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        y = layer(x)
        y.backward(g)
        y_expected, grad_expected, *_ = expected.step(x.detach().double().numpy(), g.double().numpy(), alpha)
        mean, second_moment = expected.estimates
        variance = second_moment - mean**2
        assume((np.abs(variance / layer.eps - 1) > 0.01).all())  # where rounding decides whether it is clamped
        sigma = np.sqrt(np.maximum(variance, layer.eps))
        # The textbook form nu - mu^2, in float64, loses digits to the offset; the layer does not. Its gradient is an
        # affine function of x and loses some, too.
        ratio = np.abs(mean / sigma).max()
        tolerance = 1e-9 + 1e-13 * ratio**2 + 100 * torch.finfo(dtype).eps * (1 + ratio)
        assume(tolerance < 0.01 if dtype != torch.bfloat16 else ratio < 1)
        close(y, y_expected, tolerance)
        wide = sigma.reshape(-1, *[1] * (x.dim() - 2))
        np.testing.assert_allclose(x.grad.double().numpy() * wide, grad_expected * wide, rtol=tolerance, atol=tolerance)


def test_alpha_one_on_all_data_is_batch_norm():
    x, g = data((40, 6)).requires_grad_(), data((40, 6), seed=1)
    full, batch = (
        layer_of(6, alpha=1.0, oracle="batch", eps=1e-300),
        bnlib.BatchNorm(6, eps=1e-300, dtype=torch.float64),
    )
    batch.load_state_dict({name: full.state_dict()[name] for name in batch.state_dict()})
    ours, theirs = full(x), batch(x)
    ours_grads = torch.autograd.grad(ours, (x, full.weight, full.bias), g)
    theirs_grads = torch.autograd.grad(theirs, (x, batch.weight, batch.bias), g)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours_grads, theirs_grads, rtol=1e-12, atol=1e-12)


def test_batch_oracle_with_alpha_one_passes_gradcheck():
    layer = layer_of(3, alpha=1.0, oracle="batch")
    assert torch.autograd.gradcheck(layer, data((5, 3)).requires_grad_())


@pytest.mark.parametrize("oracle", ORACLES)
def test_train_and_eval_agree_given_the_estimates(oracle):
    layer = layer_of(3, oracle=oracle)
    for k in range(5):
        x = data((4, 3, 6), seed=k, offset=2.0)
        y = layer(x)
    torch.testing.assert_close(layer.eval()(x), y, rtol=1e-12, atol=1e-12)
    before = copy.deepcopy(layer.state_dict())
    layer(data((4, 3, 6), seed=9))
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(64, 32), (16, 32, 8, 8)])
def test_offset_1e4_in_float32(shape, channels_last):
    """Right to 1e-3, which is what one step of the input's own float32 grid amounts to."""
    layer, precise = (
        bnlib.FullNorm(32, alpha=schedules.lian_figure_4_alpha),
        bnlib.FullNorm(32, alpha=schedules.lian_figure_4_alpha).double(),
    )
    for k in range(60):
        x = data(shape, torch.float32, seed=k, offset=1e4)
        if channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        wrong = (layer(x) - precise(x.double())).abs().max().item()
        assert wrong < 1e-4, f"step {k}: {wrong}"
    wrong = (layer.eval()(x) - precise.eval()(x.double())).abs().max().item()
    assert wrong < 1e-4


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("values", ["constant", "zero", "1e30", "-1e18", "1e-30", "mixed"])
def test_extreme_values_give_finite_outputs_and_gradients(oracle, values):
    layer = bnlib.FullNorm(2, oracle=oracle)
    fill = {"constant": 7.3, "zero": 0.0, "mixed": 1.0}.get(values) if values in ("constant", "zero", "mixed") else None
    for k in range(3):
        x = data((6, 2), torch.float32, seed=k)
        x = torch.full_like(x, fill) if fill is not None else x * float(values)
        if values == "mixed":
            x[:, 0], x[0, 1] = 1e38, -1e37
        x.requires_grad_()
        y = layer(x)
        y.backward(data((6, 2), torch.float32, seed=9))
        for each in (y, x.grad, layer.weight.grad, *layer.buffers()):
            assert torch.isfinite(each).all(), (k, each)


def test_alpha_near_one_keeps_its_digits():
    layer, x = bnlib.FullNorm(2, alpha=0.9999), data((1, 2), torch.float32) * 1e-4
    layer(x)
    expected = 1e-4 * (1 + 0.9999 * x[0].double().square())
    torch.testing.assert_close(layer.running_var.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("oracle", ORACLES)
def test_channels_last_stays_channels_last(oracle):
    x = data((4, 3, 5, 6), torch.float32).contiguous(memory_format=torch.channels_last).requires_grad_()
    layer = bnlib.FullNorm(3, oracle=oracle)
    for _ in range(2):
        y = layer(x)
    # An upstream gradient in the other format is what a view or a loss often gives.
    (grad,) = torch.autograd.grad(y, x, data((4, 3, 5, 6), torch.float32, seed=1))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("oracle", ORACLES)
def test_strides_do_not_matter(oracle):
    """Transposed inputs, and gradients that are expanded from a single number."""
    x = data((5, 4, 6))
    twins = x.transpose(1, 2).contiguous().transpose(1, 2), x
    results = []
    for each in twins:
        layer, each = layer_of(4, oracle=oracle), each.clone(memory_format=torch.preserve_format).requires_grad_()
        for _ in range(2):
            y = layer(each)
            grads = torch.autograd.grad(y.sum() + (y * x).sum(), (each, layer.weight))
        results.append((y, *grads, layer.running_grad_bias))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_normalised_in_float32(oracle, dtype):
    layer, precise = bnlib.FullNorm(4, oracle=oracle, alpha=0.3), bnlib.FullNorm(4, oracle=oracle, alpha=0.3)
    for k in range(3):
        x, g = data((16, 4, 3), torch.float32, seed=k).to(dtype), data((16, 4, 3), torch.float32, seed=9 + k).to(dtype)
        x, wide = x.detach().requires_grad_(), x.float().requires_grad_()
        y, expected = layer(x), precise(wide)
        y.backward(g)
        expected.backward(g.float())
    assert y.dtype == x.grad.dtype == dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(y.float(), expected, rtol=step, atol=step / 4)
    torch.testing.assert_close(x.grad.float(), wide.grad, rtol=2 * step, atol=step)
    torch.testing.assert_close(layer.running_mean, precise.running_mean)
    torch.testing.assert_close(layer.running_grad_weight, precise.running_grad_weight, rtol=1e-3, atol=1e-3)


def test_autocast_hands_a_half_to_the_layer():
    net = nn.Sequential(nn.Linear(3, 4), bnlib.FullNorm(4), nn.Linear(4, 2))
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = net(torch.randn(8, 3))
        y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_input_of_another_type_than_the_weights_keeps_its_type(offset):
    x = data((4, 3), torch.float32, offset=offset).requires_grad_()
    y = bnlib.FullNorm(3).bfloat16()(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.float32


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_ensemble_under_vmap_equals_its_members(oracle):
    def member(seed):
        torch.manual_seed(seed)
        norm = bnlib.FullNorm(4, alpha=schedules.lian_figure_4_alpha, oracle=oracle)
        return nn.Sequential(nn.Linear(3, 4), norm, nn.ReLU(), nn.Linear(4, 2))

    members, xs = [member(seed) for seed in range(3)], data((3, 5, 3), torch.float32)
    params, buffers = torch.func.stack_module_state(members)
    params = {name: value.detach() for name, value in params.items()}

    def loss(params, buffers, x):
        return torch.func.functional_call(members[0], (params, buffers), (x,)).square().mean()

    singles = [copy.deepcopy(each) for each in members]
    for _ in range(3):
        grads = torch.func.vmap(torch.func.grad(loss))(params, buffers, xs)
        for single, x in zip(singles, xs, strict=True):
            single.zero_grad()
            single(x).square().mean().backward()
        for name in grads:
            torch.testing.assert_close(
                grads[name], torch.stack([dict(s.named_parameters())[name].grad for s in singles])
            )
        for name in buffers:
            torch.testing.assert_close(buffers[name], torch.stack([dict(s.named_buffers())[name] for s in singles]))


# torch sets off its own DeprecationWarnings when it compiles.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("oracle", ORACLES)
def test_torch_compile_gives_the_same_steps(oracle):
    layer = bnlib.FullNorm(4, alpha=schedules.lian_figure_4_alpha, oracle=oracle)
    torch._dynamo.reset()
    twin, held = copy.deepcopy(layer), dict(layer.named_buffers())
    # The backward pass of the operations behind the layer computes a part of the layer again.
    compiled = torch.compile(lambda x: layer(x).tanh() * x, backend="aot_eager_decomp_partition", fullgraph=True)
    for k in range(3):
        x, g = data((6, 4), torch.float32, seed=k).requires_grad_(), data((6, 4), torch.float32, seed=9 + k)
        ours, theirs = compiled(x), twin(x).tanh() * x
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*[torch.autograd.grad(y, x, g)[0] for y in (ours, theirs)])
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())
    assert all(value is held[name] for name, value in layer.named_buffers())


@pytest.mark.parametrize("shape", [(64, 8), (64, 8, 4, 4)])
@pytest.mark.parametrize("offset", [1e2, 1e3, 1e4])
def test_the_backward_pass_rounds_a_mean_that_is_far_from_0(offset, shape):
    """As the docstring says: the forward pass is exact, and the error of the gradients is that of a float32 mean."""
    layer, alpha = bnlib.FullNorm(8, alpha=0.03), 0.03
    x, g = data(shape, torch.float32, offset=offset).requires_grad_(), data(shape, torch.float32, seed=1) + 0.5
    layer.running_mean.copy_(offset + torch.linspace(-1, 1, 8))
    dims, view = [dim for dim in range(len(shape)) if dim != 1], (-1, *[1] * (len(shape) - 2))
    precise, mean = x.detach().double(), layer.running_mean.double()
    difference = precise.mean(dims) - mean
    variance = precise.var(dims, unbiased=False) + (1 - alpha) * difference.square()
    sigma = (1 - alpha + alpha * variance).sqrt()
    normalised = (precise - (mean + alpha * difference).view(view)) / sigma.view(view)
    y = layer(x)
    assert (y - normalised).abs().max() < 1e-5
    y.backward(g)
    total, rounding = g.double().sum(dims), 2.0**-24 * 2 * offset / sigma
    bound = rounding * total.abs() + 1e-6 * g.abs().sum(dims)
    exact = (g.double() * normalised).sum(dims)
    assert ((layer.weight.grad - exact).abs() < bound).all()
    assert ((layer.running_grad_weight - alpha * exact).abs() < alpha * bound).all()
