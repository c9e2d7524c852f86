"""FullNorm: what a user may expect of any layer."""

import copy
import io
import pickle

import pytest
import torch
from full_norm_examples import ORACLES, data, layer_of
from torch import nn

import bnlib
from bnlib import schedules


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


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_does_not_spread_to_other_samples(place, value):
    layer = bnlib.FullNorm(2)
    layer(torch.randn(8, 2) + 1e3)
    x = torch.randn(5, 2, 3) + 1e3
    expected = copy.deepcopy(layer).eval()(x)
    x[place, 0, 0] = value
    output, others = layer(x), [sample for sample in range(5) if sample != place]
    torch.testing.assert_close(output[others, 0], expected[others, 0], rtol=1e-5, atol=1e-5)


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


def test_on_the_meta_device():
    with torch.device("meta"):
        assert bnlib.FullNorm(3).running_mean.is_meta


def test_deepcopy_and_repr():
    layer = bnlib.FullNorm(4, alpha=0.2, oracle="batch")
    layer(data((6, 4), torch.float32))
    twin = copy.deepcopy(layer)
    layer(data((6, 4), torch.float32, seed=1))
    assert pickle.loads(pickle.dumps(layer)).num_batches_tracked == 2
    assert twin.num_batches_tracked == 1 and layer.num_batches_tracked == 2
    assert repr(layer) == "FullNorm(4, eps=1e-05, alpha=0.2, oracle='batch', affine=True)"
