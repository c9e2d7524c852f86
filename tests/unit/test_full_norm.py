"""FullNorm: the layer of Algorithm 3 against the formulas in NumPy, and what a user may expect of any layer."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import bnlib
from bnlib import reference, schedules
from bnlib.norm import full_norm, full_norm_passes

ORACLES = reference.ORACLES
SHAPES = [(6, 4), (5, 3, 7), (4, 3, 5, 2), (3, 2, 2, 3, 2)]


def data(shape, dtype=torch.float64, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.5, 2, shape[1], dtype=dtype).view(-1, *[1] * (len(shape) - 2))
    return torch.randn(shape, generator=generator, dtype=dtype) * spread + offset


def layer_of(channels, **options):
    """A layer in float64 with a weight and a bias that are not the initial ones."""
    layer = bnlib.FullNorm(channels, dtype=torch.float64, **options)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, -1.5, channels))
        layer.bias.copy_(torch.linspace(-1, 1, channels))
    return layer


class Reference:
    """Algorithm 3 in NumPy, step by step, with the running gradients of the "running" oracle."""

    def __init__(self, layer):
        channels = layer.num_features
        self.estimates = reference.Estimates(np.zeros(channels), np.ones(channels))
        self.history = np.zeros(channels), np.zeros(channels)
        self.layer = layer

    def step(self, x, g, alpha):
        affine = self.layer.weight.detach().numpy(), self.layer.bias.detach().numpy()
        y, self.estimates, cache = reference.full_norm_forward(x, self.estimates, alpha, *affine, self.layer.eps)
        grads = reference.full_norm_backward(g, cache, self.layer.oracle, self.history)
        self.history = tuple((1 - alpha) * old + alpha * new for old, new in zip(self.history, grads[1:], strict=True))
        return y, *grads


def close(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, rtol=tolerance, atol=tolerance)


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


def test_eval_gradients_take_the_estimates_for_constants_and_can_be_differentiated_twice():
    layer = layer_of(3).eval()
    layer.running_var.copy_(torch.tensor([0.5, 2.0, 1e-9]))
    assert torch.autograd.gradcheck(layer, data((5, 3)).requires_grad_())
    assert torch.autograd.gradgradcheck(layer, data((5, 3)).requires_grad_())


def test_train_mode_refuses_a_second_derivative():
    layer, x = layer_of(3), data((5, 3)).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated twice.*eval mode"):
        grad.sum().backward()
    assert not any(buffer.requires_grad for buffer in layer.buffers())


def test_one_value_a_channel_the_batch_oracle_has_the_wrong_sign():
    layer, x = layer_of(3, alpha=0.3, oracle="batch"), data((1, 3)).requires_grad_()
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.zero_()
    y = layer(x)
    y.backward(torch.ones_like(y))
    torch.testing.assert_close(x.grad, -y.square() / layer.running_var.sqrt())


@pytest.mark.parametrize("oracle", ["batch", "literal", "constant", "running"])
def test_batch_size_one_trains(oracle):
    layer, x = bnlib.FullNorm(3, oracle=oracle), data((1, 3), torch.float32).requires_grad_()
    for _ in range(3):
        layer(x).sum().backward()
    assert torch.isfinite(x.grad).all() and (layer.bias.grad == 3).all()


def test_the_first_gradients_of_a_deep_stack_at_batch_size_one_do_not_explode():
    torch.manual_seed(0)
    net = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(5, 5), bnlib.FullNorm(5), nn.Tanh())])
    norms = []
    for _ in range(3):
        net.zero_grad()
        net(torch.randn(1, 5)).sum().backward()
        norms.append(net[0].weight.grad.norm().item())
    assert max(norms) < 100, norms


def test_leave_one_out_needs_two_samples():
    with pytest.raises(ValueError, match="at least two samples for oracle='leave_one_out', got 1"):
        bnlib.FullNorm(3, oracle="leave_one_out")(torch.ones(1, 3, 4))


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


def test_a_batch_that_is_not_finite_leaves_the_estimates_of_its_channel():
    layer = bnlib.FullNorm(2, alpha=0.5)
    layer(data((6, 2), torch.float32)).sum().backward()
    before = copy.deepcopy(layer.state_dict())
    x = data((6, 2), torch.float32, seed=1)
    x[2, 0] = torch.nan
    y = layer(x.requires_grad_())
    y.backward(data((6, 2), torch.float32, seed=2))
    assert layer.running_mean[0] == before["running_mean"][0] and layer.running_var[0] == before["running_var"][0]
    for name in ("running_mean", "running_var", "running_grad_bias"):
        assert getattr(layer, name)[1] != before[name][1], name
    assert all(torch.isfinite(each).all() for each in layer.buffers())
    assert layer.num_batches_tracked == 2


def test_a_resumed_run_goes_on_bit_for_bit():
    def run(layer, optimiser, steps):
        for k in steps:
            optimiser.zero_grad()
            layer(data((4, 3), torch.float32, seed=k)).square().mean().backward()
            optimiser.step()

    def new():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 3), bnlib.FullNorm(3, alpha=schedules.lian_figure_4_alpha), nn.Linear(3, 3))
        return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    whole, whole_optimiser = new()
    run(whole, whole_optimiser, range(20))
    first, first_optimiser = new()
    run(first, first_optimiser, range(11))
    file = io.BytesIO()
    torch.save((first.state_dict(), first_optimiser.state_dict()), file)
    file.seek(0)
    state, optimiser_state = torch.load(file, weights_only=True)
    second, second_optimiser = new()
    second.load_state_dict(state)
    second_optimiser.load_state_dict(optimiser_state)
    run(second, second_optimiser, range(11, 20))
    for ours, theirs in zip(second.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_checkpoint_of_batch_norm_loads():
    trained = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    trained(data((6, 3), torch.float32))
    model = nn.Sequential(nn.Linear(3, 3), bnlib.FullNorm(3))
    model[1].running_grad_bias.fill_(5)
    model.load_state_dict(trained.state_dict())
    assert (model[1].running_grad_bias == 0).all() and model[1].num_batches_tracked == 1
    torch.testing.assert_close(model.eval()(torch.ones(2, 3)), trained.eval()(torch.ones(2, 3)), rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="running_var"):
        model[1].load_state_dict({name: value for name, value in trained[1].state_dict().items() if "var" not in name})


def test_a_half_checkpoint_assigned_leaves_the_estimates_long():
    state = {name: value.half() for name, value in bnlib.FullNorm(3).state_dict().items()}
    layer = bnlib.FullNorm(3)
    layer.load_state_dict(state, assign=True)
    assert layer.weight.dtype == torch.float16
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float32
    assert state["running_mean"].dtype == torch.float16


def test_the_representation_names_all_that_differs():
    assert repr(bnlib.FullNorm(3, alpha=0.1, bias=False)) == (
        "FullNorm(3, eps=1e-05, alpha=0.1, oracle='running', affine=True, bias=False)"
    )


@settings(deadline=None, max_examples=50)
@given(
    alpha=st.sampled_from([1e-3, 0.03, 0.3, 0.7]),
    shape=st.sampled_from([(1, 3), (8, 3), (2, 3, 5)]),
    tail=st.sampled_from([1.0, 3.0, 6.0]),
    drift=st.sampled_from([0.0, 0.3, 3.0]),
    seed=st.integers(0, 1000),
)
def test_what_a_short_step_knows_of_its_estimates_is_true(alpha, shape, tail, drift, seed):
    """And a layer that looks at them at each step does the same, bit for bit."""
    layer, looks = (bnlib.FullNorm(3, alpha=alpha) for _ in range(2))
    generator, short = torch.Generator().manual_seed(seed), 0
    for k in range(40):
        x = torch.randn(shape, generator=generator)
        x = x * x.abs() ** (tail - 1) + drift * k
        looks._checked_estimates = None
        outputs = layer(x), looks(x)
        assert torch.equal(*outputs)
        if (
            layer._checked_estimates is not None
            and layer._checked_estimates.mean_version == layer.running_mean._version
        ):
            short += 1
            mean, variance = layer.running_mean.double(), layer.running_var.double()
            assert (mean.square() / variance).max() <= layer._checked_estimates.ratio * (1 + 1e-5)
            assert variance.min() >= layer._checked_estimates.least * (1 - 1e-5)
            assert (layer.running_mean_rest == 0).all()
    assert short or drift
    for ours, theirs in zip(layer.buffers(), looks.buffers(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("write", ["fill", "load", "data moves off", "minus infinity"])
def test_a_short_step_notices_what_others_write(write):
    layer, precise = bnlib.FullNorm(3, alpha=0.1), bnlib.FullNorm(3, alpha=0.1, dtype=torch.float64)
    x = data((8, 3), torch.float32)
    for _ in range(5):
        layer(x)
        precise(x.double())
    assert layer._checked_estimates is not None
    for each in (layer, precise):
        if write == "fill":
            each.running_var.fill_(1e-7)
            each.running_mean.fill_(1e3)
        elif write == "load":
            state = {name: value.clone() for name, value in each.state_dict().items()}
            each.load_state_dict(state | {"running_mean": torch.full((3,), 1e4), "running_var": torch.full((3,), 1e-9)})
    for k in range(60):
        x = data((8, 3), torch.float32, seed=k)
        x = x + 200.0 * k if write == "data moves off" else x
        x = x - 1e25 if write == "minus infinity" and k == 3 else x
        y, expected = layer(x), precise(x.double())
        if write == "minus infinity" and k >= 3:
            assert y.isfinite().all() and all(each.isfinite().all() for each in layer.buffers())
            continue
        torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)
    mean, known = (each.running_mean.double() + each.running_mean_rest.double() for each in (layer, precise))
    if write != "minus infinity":
        torch.testing.assert_close(mean, known, rtol=1e-6, atol=1e-6)


def test_a_mean_far_from_0_moves_in_steps_that_float32_would_round_away():
    layer, x = bnlib.FullNorm(2, alpha=1e-5), torch.full((4, 2), 1e4) + torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    layer.running_mean.fill_(1e4 - 1)
    for _ in range(100):
        layer(x)
    moved = layer.running_mean.double() + layer.running_mean_rest.double() - (1e4 - 1)
    torch.testing.assert_close(moved, torch.full((2,), 1 - (1 - 1e-5) ** 100, dtype=torch.float64), rtol=1e-4, atol=0)


def test_a_layer_made_in_inference_mode():
    with torch.inference_mode():
        layer = bnlib.FullNorm(3)
        for _ in range(2):
            assert layer(data((8, 3), torch.float32)).isfinite().all()
    assert layer.num_batches_tracked == 2


def test_a_checkpointed_pass_may_take_the_other_way():
    """The first pass finds a variance near eps, the pass that repeats it does not."""
    layer, x = bnlib.FullNorm(3, alpha=0.9), data((6, 3), torch.float32).requires_grad_()
    layer.running_var.fill_(0)
    layer.eps = 0.95
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    layer.eps = 1e-5
    y.sum().backward()
    assert x.grad.isfinite().all() and layer.num_batches_tracked == 2


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


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_converted_layer_keeps_its_estimates_precise(kind):
    layer = bnlib.FullNorm(3)
    layer(data((8, 3), torch.float32))
    before = layer.running_mean.clone()
    layer.to(kind)
    assert layer.weight.dtype == kind
    assert torch.equal(layer.running_mean.float(), before)
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.promote_types(kind, torch.float32)
    x = data((8, 3)).to(kind).requires_grad_()
    for mode in (True, False):
        y = layer.train(mode)(x)
        y.sum().backward()
        assert y.dtype == x.grad.dtype == layer.weight.grad.dtype == kind


@pytest.mark.parametrize("oracle", ORACLES)
def test_two_forwards_before_a_backward(oracle):
    """A layer shared by two places: each place's gradient uses the statistics it was normalised with."""
    layer, twin = layer_of(3, alpha=0.4, oracle=oracle), layer_of(3, alpha=0.4, oracle=oracle)
    xs = [data((4, 3), seed=k).requires_grad_() for k in range(2)]
    gs = [data((4, 3), seed=9 + k) for k in range(2)]
    ys = [layer(x) for x in xs]
    late = [torch.autograd.grad(y, x, g)[0] for y, x, g in zip(ys, xs, gs, strict=True)]
    ys = [twin(x) for x in xs]
    torch.autograd.backward(ys, gs)
    if oracle != "running":
        torch.testing.assert_close([x.grad for x in xs], late)
    torch.testing.assert_close(layer.running_mean, twin.running_mean)


def test_empty_batch():
    layer = bnlib.FullNorm(3)
    layer(data((4, 3), torch.float32))
    before = layer.running_mean.clone()
    x = torch.empty(0, 3, 2, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 3, 2)
    assert torch.equal(layer.running_mean, before) and layer.num_batches_tracked == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps must be positive, and not below what torch.float32 can hold, got 0.0"),
        ({"eps": 1e-40}, "eps must be positive, and not below what torch.float32 can hold, got 1e-40"),
        ({"alpha": lambda k: torch.exp(-k / 10)}, "alpha must be a function of the step, .* fails at 0: exp"),
        ({"alpha": lambda k: torch.ones(3) + k}, "alpha must be a function of the step"),
        ({"alpha": 0.0}, r"alpha must lie in \(0, 1\], got 0.0"),
        ({"alpha": 1.5}, r"alpha must lie in \(0, 1\], got 1.5"),
        ({"alpha": lambda k: k + 2}, r"alpha must lie in \(0, 1\], got 2.0 at step 0"),
        ({"oracle": "magic"}, "oracle must be one of 'batch', 'literal', 'constant', 'running', .*, got 'magic'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        bnlib.FullNorm(3, **options)


@pytest.mark.parametrize("shape", [(3,), (5, 4), (5, 4, 3)])
def test_input_of_another_shape(shape):
    with pytest.raises(ValueError, match="input must have"):
        bnlib.FullNorm(3)(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"affine": False}, {"bias": False}])
def test_without_weight_or_bias(options):
    layer, full = bnlib.FullNorm(3, alpha=0.5, **options), bnlib.FullNorm(3, alpha=0.5)
    for k in range(3):
        x, g = data((4, 3), torch.float32, seed=k).requires_grad_(), data((4, 3), torch.float32, seed=9 + k)
        ours, theirs = layer(x), full(x)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*[torch.autograd.grad(y, x, g)[0] for y in (ours, theirs)])
    assert layer.bias is None and (layer.weight is None) == (not layer.affine)
    assert set(layer.state_dict()) == set(full.state_dict()) - ({"bias"} if layer.affine else {"bias", "weight"})


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
    twin = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="aot_eager_decomp_partition", fullgraph=True)
    for k in range(3):
        x, g = data((6, 4), torch.float32, seed=k).requires_grad_(), data((6, 4), torch.float32, seed=9 + k)
        ours, theirs = compiled(x), twin(x)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*[torch.autograd.grad(y, x, g)[0] for y in (ours, theirs)])
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_input_of_another_type_than_the_weights_keeps_its_type(offset):
    x = data((4, 3), torch.float32, offset=offset).requires_grad_()
    y = bnlib.FullNorm(3).bfloat16()(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.float32


def test_alpha_near_one_keeps_its_digits():
    layer, x = bnlib.FullNorm(2, alpha=0.9999), data((1, 2), torch.float32) * 1e-4
    layer(x)
    expected = 1e-4 * (1 + 0.9999 * x[0].double().square())
    torch.testing.assert_close(layer.running_var.double(), expected, rtol=1e-5, atol=0)


def test_on_the_meta_device():
    with torch.device("meta"):
        assert bnlib.FullNorm(3).running_mean.is_meta


def test_deepcopy_and_repr():
    layer = bnlib.FullNorm(4, alpha=0.2, oracle="batch")
    layer(data((6, 4), torch.float32))
    twin = copy.deepcopy(layer)
    layer(data((6, 4), torch.float32, seed=1))
    assert pickle.loads(pickle.dumps(layer))._checked_estimates is None
    assert twin.num_batches_tracked == 1 and layer.num_batches_tracked == 2
    assert repr(layer) == "FullNorm(4, eps=1e-05, alpha=0.2, oracle='batch', affine=True)"
