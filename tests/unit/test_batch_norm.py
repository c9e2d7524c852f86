"""bnlib.BatchNorm: that it is torch's layer, and the one case in which it is not."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import bnlib

PAIRS = pytest.mark.parametrize(
    ("theirs", "shape"),
    [
        (nn.BatchNorm1d, (6, 4)),
        (nn.BatchNorm1d, (6, 4, 5)),
        (nn.BatchNorm2d, (3, 4, 5, 2)),
        (nn.BatchNorm3d, (2, 4, 3, 2, 2)),
    ],
)


def randomised(layer, seed=0):
    """Give the layer parameters and running statistics that are not the initial ones."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in (layer.weight, layer.bias, layer.running_mean):
            if value is not None:
                value.normal_()
        if layer.running_var is not None:
            layer.running_var.uniform_(0.5, 2)
    return layer


@PAIRS
def test_weights_and_statistics_load_both_ways(theirs, shape):
    ours, other = bnlib.BatchNorm(4), theirs(4)
    assert list(ours.state_dict()) == list(other.state_dict())
    other.load_state_dict(randomised(bnlib.BatchNorm(4)).state_dict())
    ours.load_state_dict(other.state_dict())
    x = torch.randn(shape)
    torch.testing.assert_close(ours.eval()(x), other.eval()(x), rtol=0, atol=0)


def test_a_checkpoint_from_before_num_batches_tracked_loads():
    old = {key: value for key, value in nn.BatchNorm1d(3).state_dict().items() if key != "num_batches_tracked"}
    bnlib.BatchNorm(3).load_state_dict(old)


@PAIRS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_low_and_high_precision_equal_torch(theirs, shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours, other = bnlib.BatchNorm(4, dtype=dtype), theirs(4, dtype=dtype)
    assert_same_step(ours, other, x)


@PAIRS
def test_float32_parameters_accept_bfloat16_input_as_torchs_do(theirs, shape):
    assert_same_step(bnlib.BatchNorm(4), theirs(4), torch.randn(shape).bfloat16())


@PAIRS
def test_autocast_gives_torchs_dtype_and_values(theirs, shape):
    x = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16):
        ours, other = bnlib.BatchNorm(4)(x), theirs(4)(x)
        low = bnlib.BatchNorm(4)(x.bfloat16()).dtype, theirs(4)(x.bfloat16()).dtype
    assert ours.dtype == other.dtype and low[0] == low[1]
    torch.testing.assert_close(ours, other, rtol=0, atol=0)


def test_channels_last_stays_channels_last():
    x = torch.randn(4, 8, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    ours, other = bnlib.BatchNorm(8)(x), nn.BatchNorm2d(8)(x)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours.stride() == other.stride()
    torch.testing.assert_close(ours, other, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(ours.square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 5), (3, 4, 0)])
def test_an_empty_batch_does_what_it_does_in_torch(shape):
    """Nothing comes out, the statistics stay, and the batch is counted."""
    ours, other = bnlib.BatchNorm(4), nn.BatchNorm1d(4)
    outcomes = []
    for layer in (ours, other):
        try:
            outcomes.append(layer(torch.zeros(shape)).shape)
        except (RuntimeError, ValueError) as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]
    for mine, yours in zip(ours.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=0, atol=0, equal_nan=True)


def test_double_backward_equals_torch():
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    seconds = []
    for layer in (bnlib.BatchNorm(4, dtype=torch.float64), nn.BatchNorm1d(4, dtype=torch.float64)):
        (first,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*seconds)


def test_it_is_a_batch_norm_for_tools_that_look_for_one():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(bnlib.BatchNorm(3)))
    assert isinstance(converted[0], nn.SyncBatchNorm)


def test_it_prints_as_torchs_layer():
    assert str(bnlib.BatchNorm(3, momentum=None, bias=False)) == str(
        nn.BatchNorm1d(3, momentum=None, bias=False)
    ).replace("BatchNorm1d", "BatchNorm")


def test_it_can_be_copied_and_pickled_after_a_step():
    layer = bnlib.BatchNorm(3)
    layer(torch.randn(4, 3))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin.state_dict(), layer.state_dict())
    torch.save(layer.state_dict(), io.BytesIO())


def test_device_and_dtype_reach_parameters_and_buffers():
    layer = bnlib.BatchNorm(3, device="meta", dtype=torch.float64)
    assert {value.device.type for value in (*layer.parameters(), *layer.buffers())} == {"meta"}
    assert layer.weight.dtype == layer.running_var.dtype == torch.float64


@pytest.mark.parametrize("bias", [True, False])
def test_reset_gives_a_fresh_layer(bias):
    layer = randomised(bnlib.BatchNorm(3, bias=bias))
    layer.reset_parameters()
    torch.testing.assert_close(layer.state_dict(), bnlib.BatchNorm(3, bias=bias).state_dict())


@pytest.mark.parametrize("value", [3.0, -1e6, 1e30, 0.0])
@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_one_value_a_channel_gives_exactly_beta(value, shape, training):
    layer = randomised(bnlib.BatchNorm(2, track_running_stats=training)).train(training)
    y = layer(torch.full(shape, value))
    assert torch.equal(y.flatten(), layer.bias)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.functional.batch_norm(torch.full(shape, value), None, None, training=True)


@pytest.mark.parametrize("options", [{"affine": False}, {"bias": False}])
def test_one_value_a_channel_gives_zero_without_beta(options):
    assert torch.equal(bnlib.BatchNorm(2, **options)(torch.tensor([[7.0, -3.0]])), torch.zeros(1, 2))


def test_one_value_a_channel_passes_no_gradient_but_to_beta():
    layer = randomised(bnlib.BatchNorm(2))
    x = torch.tensor([[7.0, -3.0]], requires_grad=True)
    layer(x).backward(torch.tensor([[2.0, 5.0]]))
    assert torch.equal(x.grad, torch.zeros(1, 2))
    assert torch.equal(layer.weight.grad, torch.zeros(2))
    assert torch.equal(layer.bias.grad, torch.tensor([2.0, 5.0]))


@pytest.mark.parametrize(("momentum", "expected"), [(0.1, [0.7, 1.03]), (None, [7.0, 5.0])])
def test_one_value_a_channel_moves_the_running_mean_and_not_the_variance(momentum, expected):
    layer = bnlib.BatchNorm(1, momentum=momentum)
    for value, mean in zip((7.0, 4.0 if momentum else 3.0), expected, strict=True):
        layer(torch.tensor([[value]]))
        assert layer.running_mean.item() == pytest.approx(mean)
    assert layer.running_var.item() == 1 and layer.num_batches_tracked.item() == 2


def test_one_value_a_channel_of_bfloat16_moves_a_float32_running_mean():
    layer = bnlib.BatchNorm(2)
    y = layer(torch.tensor([[7.0, -3.0]], dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.7, -0.3]))


def test_one_value_a_channel_leaves_no_graph_in_the_running_mean():
    layer = bnlib.BatchNorm(2)
    layer(torch.tensor([[7.0, -3.0]], requires_grad=True))
    assert not layer.running_mean.requires_grad


@pytest.mark.parametrize("missing", [("num_batches_tracked",), ("running_mean", "running_var", "num_batches_tracked")])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("count", [1, 3])
def test_buffers_set_to_none_stay_none(missing, momentum, count):
    layer, other = (kind(2, momentum=momentum) for kind in (bnlib.BatchNorm, nn.BatchNorm1d))
    for name in missing:
        setattr(layer, name, None)
        setattr(other, name, None)
    for same_mean in (torch.tensor([[7.0, -3.0]]).expand(count, 2), torch.tensor([[2.0, 5.0]]).expand(count, 2)):
        layer(same_mean)
        other(same_mean.repeat(2, 1))  # torch refuses a single value
    assert all(getattr(layer, name) is None for name in missing)
    torch.testing.assert_close(layer.running_mean, other.running_mean)


@pytest.mark.parametrize("count", [1, 3])
def test_many_layers_at_once_under_vmap_equal_each_on_its_own(count):
    layers = [randomised(bnlib.BatchNorm(2), seed) for seed in range(4)]
    parameters, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(4, count, 2)
    together = torch.func.vmap(lambda p, b, x: torch.func.functional_call(layers[0], (p, b), (x,)))
    y = together(parameters, buffers, x)
    torch.testing.assert_close(y, torch.stack([layer(rows) for layer, rows in zip(layers, x, strict=True)]))
    for name in buffers:
        torch.testing.assert_close(buffers[name], torch.stack([getattr(layer, name) for layer in layers]))


def test_one_value_a_channel_in_eval_mode_uses_the_running_statistics():
    layer, other = bnlib.BatchNorm(2).eval(), nn.BatchNorm1d(2).eval()
    x = torch.tensor([[7.0, -3.0]])
    torch.testing.assert_close(layer(x), other(x))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3,), r"shape \(N, C\).*\(3,\)"), ((2, 5), r"num_features=3.*got 5.*\(2, 5\)"), ((2, 5, 3), "got 5")],
)
def test_a_wrong_shape_is_named(shape, message):
    with pytest.raises(ValueError, match=message):
        bnlib.BatchNorm(3)(torch.zeros(shape))


@pytest.mark.parametrize("count", [1, 4])
def test_eps_must_be_positive_in_training(count):
    with pytest.raises(ValueError, match="eps must be positive during training"):
        bnlib.BatchNorm(3, eps=0.0)(torch.zeros(count, 3))


def assert_same_step(ours, other, x):
    """Outputs, gradients and buffers of one training step and the output in eval mode afterwards."""
    results = []
    for layer in (ours, other):
        variable = x.clone().requires_grad_()
        output = layer(variable)
        output.float().square().sum().backward()
        state = {**layer.state_dict(), **{f"{k}.grad": p.grad for k, p in layer.named_parameters()}}
        results.append((output.detach(), variable.grad, state, layer.eval()(x).detach()))
    torch.testing.assert_close(*results, rtol=0, atol=0)
