"""BatchRenorm: what it has of batch norm and what not; for Algorithm 1 itself see tests/property."""

import copy
import pickle

import pytest
import torch
from torch import nn

import bnlib
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.schedules import LinearRamp


def randomised(layer, seed=0):
    """Give the layer parameters and running statistics that are not the initial ones."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in (layer.weight, layer.bias, layer.running_mean):
            if value is not None:
                value.normal_()
        layer.running_var.uniform_(0.5, 2)
    return layer


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (3, 4, 5, 2), (2, 4, 3, 2, 2), (1, 4), (1, 4, 1, 1)])
def test_eval_mode_divides_by_the_averaged_sigma_and_changes_nothing(shape):
    layer = randomised(BatchRenorm(4, dtype=torch.float64)).eval()
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), batch_norm_like(layer).eval()(x))
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def batch_norm_like(layer):
    twin = bnlib.BatchNorm(layer.num_features, dtype=layer.running_var.dtype)
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize(("shape", "tolerance"), [((6, 4), 0), ((1, 4), 0), ((3, 4, 5, 2), 1e-5)])
def test_without_room_for_correction_it_is_batch_norm_for_vectors_to_the_bit(shape, tolerance):
    layer = randomised(BatchRenorm(4, r_max=1, d_max=0))
    results = []
    for each in (layer, batch_norm_like(layer)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = each(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *each.parameters()])))
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


def test_where_nothing_is_clipped_training_gives_the_output_of_eval_mode():
    layer = randomised(BatchRenorm(4, r_max=1e6, d_max=1e6, dtype=torch.float64))
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    expected = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), expected)


def test_where_nothing_is_clipped_the_gradient_is_batch_norms_times_sigma_b_over_sigma():
    layer = randomised(BatchRenorm(4, r_max=1e6, d_max=1e6, dtype=torch.float64))
    twin = batch_norm_like(layer)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    r = torch.sqrt((x.var(0, correction=0) + 1e-5) / (layer.running_var + 1e-5)).detach()
    above = torch.randn(6, 4, dtype=torch.float64)
    (ours,), (theirs,) = (torch.autograd.grad(each(x), x, above) for each in (layer, twin))
    torch.testing.assert_close(ours, theirs * r)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_numerical_differentiation_where_r_and_d_are_at_their_limits(bias):
    layer = randomised(BatchRenorm(3, momentum=0.0, r_max=1.5, d_max=0.5, bias=bias, dtype=torch.float64))
    x = (10 * torch.randn(5, 3, 2, dtype=torch.float64) + 30).requires_grad_()

    def output(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(("weight", "bias"), parameters, strict=False)), (x,))

    torch.autograd.gradcheck(output, (x, *layer.parameters()))
    torch.autograd.gradgradcheck(output, (x, *layer.parameters()))


def test_the_gradient_takes_r_and_d_for_constants():
    layer = randomised(BatchRenorm(3, r_max=2.0, d_max=2.0, dtype=torch.float64))
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    above = torch.randn(5, 3, dtype=torch.float64)
    mean, sigma = layer.running_mean.clone(), torch.sqrt(layer.running_var + 1e-5)
    batch_mean, batch_sigma = x.mean(0), torch.sqrt(x.var(0, correction=0) + 1e-5)
    r = (batch_sigma / sigma).clamp(0.5, 2).detach()
    d = ((batch_mean - mean) / sigma).clamp(-2, 2).detach()
    expected = layer.weight * ((x - batch_mean) / batch_sigma * r + d) + layer.bias
    wanted = [x, layer.weight, layer.bias]
    torch.testing.assert_close(
        torch.autograd.grad(layer(x), wanted, above), torch.autograd.grad(expected, wanted, above)
    )


def test_no_graph_is_left_in_the_running_statistics():
    layer = BatchRenorm(3)
    layer(torch.randn(4, 3, requires_grad=True))
    assert not layer.running_mean.requires_grad and not layer.running_var.requires_grad


@pytest.mark.parametrize(("eps", "momentum"), [(1e-5, 0.5), (2.0, 1.0)])
def test_constant_batches_do_not_take_the_running_variance_below_zero(eps, momentum):
    layer = BatchRenorm(1, eps=eps, momentum=momentum)
    for _ in range(60):
        layer(torch.full((4, 1), 2.5))
        assert layer.running_var >= 0
    assert layer.running_var < 1e-6


@pytest.mark.parametrize("value", [3.0, -1e6, 1e30])
@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1, 1)])
def test_one_value_a_channel_gives_exactly_gamma_d_plus_beta_and_no_gradient_to_the_input(value, shape):
    layer = randomised(BatchRenorm(2, r_max=3.0, d_max=5.0))
    mean, sigma = layer.running_mean.clone(), torch.sqrt(layer.running_var + 1e-5)
    x = torch.full(shape, value, requires_grad=True)
    y = layer(x)
    d = ((value - mean) / sigma).clamp(-5, 5)
    torch.testing.assert_close(y.flatten(), layer.weight * d + layer.bias)
    y.backward(torch.tensor([2.0, 3.0]).view(shape))
    assert torch.equal(x.grad, torch.zeros(shape))
    torch.testing.assert_close(layer.weight.grad, d * torch.tensor([2.0, 3.0]))
    assert torch.equal(layer.bias.grad, torch.tensor([2.0, 3.0]))


def test_one_value_a_channel_moves_mean_and_sigma():
    layer = BatchRenorm(1, eps=0.25, momentum=0.5)
    layer.running_var.fill_(2.0)
    layer(torch.tensor([[7.0]]))
    assert layer.running_mean.item() == 3.5
    assert layer.running_var.item() == pytest.approx((0.5 * 1.5 + 0.5 * 0.5) ** 2 - 0.25)


@pytest.mark.parametrize("shape", [(0, 4), (3, 4, 0)])
def test_an_empty_batch_changes_nothing(shape):
    layer = BatchRenorm(4)
    assert layer(torch.zeros(shape)).shape == shape
    torch.testing.assert_close(layer.state_dict(), BatchRenorm(4).state_dict())


def test_weights_and_statistics_load_from_batch_norm_and_back():
    ours, other = randomised(BatchRenorm(4)), nn.BatchNorm1d(4)
    assert list(ours.state_dict()) == list(other.state_dict())
    other.load_state_dict(ours.state_dict())
    again = BatchRenorm(4)
    again.load_state_dict(other.state_dict())
    torch.testing.assert_close(again.state_dict(), ours.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_from_before_num_batches_tracked_loads():
    old = {key: value for key, value in nn.BatchNorm1d(3).state_dict().items() if key != "num_batches_tracked"}
    BatchRenorm(3).load_state_dict(old)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_schedules_are_called_with_the_number_of_batches_before_as_a_number_or_a_tensor(dtype):
    steps = []

    def limit(step):
        steps.append(step)
        return step + 1

    layer = BatchRenorm(2, r_max=limit, d_max=0.0)
    for _ in range(3):
        layer(torch.randn(4, 2).to(dtype))
    kind = int if dtype is torch.float32 else torch.Tensor
    assert all(isinstance(step, kind) for step in steps[2:])
    assert [float(step) for step in steps[2:]] == [0, 1, 2]  # the first two calls check the argument


def test_the_defaults_begin_as_batch_norm_and_end_at_r_3_and_d_5():
    layer, x = BatchRenorm(1), torch.tensor([[99.0], [101.0]])
    outputs = []
    for step in (0, 5000, 15000, 40000):
        layer.reset_parameters()
        layer.num_batches_tracked.fill_(step)
        outputs.append(layer(torch.cat((x, x + 20))).detach())
    batch_norm = bnlib.BatchNorm(1)(torch.cat((x, x + 20))).detach()
    halfway = 1 + 2 * (15000 - 5000) / 35000, 5 * (15000 - 5000) / 20000
    for y, (r, d) in zip(outputs, ((1, 0), (1, 0), halfway, (3, 5)), strict=True):
        torch.testing.assert_close(y, batch_norm * r + d)


def test_float32_statistics_of_bfloat16_input_are_not_rounded_to_bfloat16():
    layer, x = BatchRenorm(4, momentum=1.0), (torch.randn(64, 4) + 100).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(layer.running_mean, x.float().mean(0))
    torch.testing.assert_close(layer.running_var, x.float().var(0, correction=0))


def test_autocast_normalises_what_a_linear_layer_gives_in_bfloat16():
    model = nn.Sequential(nn.Linear(8, 4), BatchRenorm(4, r_max=3.0, d_max=5.0))
    x = torch.randn(16, 8)
    expected = copy.deepcopy(model)(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and model[1].running_var.dtype == model[1].weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_parameters_and_input_of_one_type_give_an_output_of_that_type(dtype, affine, training):
    layer = BatchRenorm(4, r_max=3.0, d_max=5.0, affine=affine, dtype=dtype).train(training)
    x = torch.randn(8, 4, 3)
    y = layer(x.to(dtype))
    assert y.dtype == layer.running_mean.dtype == layer.running_var.dtype == dtype
    expected = BatchRenorm(4, r_max=3.0, d_max=5.0).train(training)(x)
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


def test_channels_last_stays_channels_last():
    x = torch.randn(4, 8, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    layer = BatchRenorm(8, r_max=3.0, d_max=5.0)
    expected = copy.deepcopy(layer)(x.contiguous())
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_many_layers_at_once_under_vmap_equal_each_on_its_own(count, training):
    ramp = LinearRamp(1.0, 3.0, 0, 4)
    layers = [randomised(BatchRenorm(2, r_max=ramp, d_max=ramp), seed).train(training) for seed in range(4)]
    for step, layer in enumerate(layers):
        layer.num_batches_tracked.fill_(step)
    parameters, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(4, count, 2)

    def loss(parameters, buffers, x):
        y = torch.func.functional_call(layers[0], (parameters, buffers), (x,))
        return y.square().sum(), y

    gradients, y = torch.func.vmap(torch.func.grad(loss, has_aux=True))(parameters, buffers, x)
    alone = torch.stack([layer(rows) for layer, rows in zip(layers, x, strict=True)])
    alone.square().sum().backward()
    torch.testing.assert_close(y, alone)
    for name in gradients:
        torch.testing.assert_close(gradients[name], torch.stack([getattr(layer, name).grad for layer in layers]))
    for name in buffers:
        torch.testing.assert_close(buffers[name], torch.stack([getattr(layer, name) for layer in layers]))


# torch sets off its own DeprecationWarnings when it compiles.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("count", "dtype"), [(1, torch.float32), (5, torch.float32), (5, torch.bfloat16)])
def test_compiled_in_one_graph_it_gives_the_same(count, dtype):
    layer = randomised(BatchRenorm(3, r_max=LinearRamp(1.0, 3.0, 0, 4), d_max=5.0))
    twin, held = copy.deepcopy(layer), dict(layer.named_buffers())
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager_decomp_partition")
    for _ in range(3):
        x, g = torch.randn(count, 3).to(dtype).requires_grad_(), torch.randn(count, 3).to(dtype)
        ours, theirs = ((y, *torch.autograd.grad(y, x, g)) for y in (compiled(x), twin(x)))
        torch.testing.assert_close(ours, theirs, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())
    assert all(value is held[name] for name, value in layer.named_buffers())


def test_it_can_be_copied_and_pickled_after_a_step():
    layer = BatchRenorm(3)
    layer(torch.randn(4, 3))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin.state_dict(), layer.state_dict())


def test_a_conversion_to_synchronised_batch_norm_leaves_it_alone():
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(BatchRenorm(3)))[0], BatchRenorm)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"affine": False}])
def test_reset_gives_a_fresh_layer(options):
    layer = randomised(BatchRenorm(3, **options))
    layer(torch.randn(4, 3))
    layer.reset_parameters()
    torch.testing.assert_close(layer.state_dict(), BatchRenorm(3, **options).state_dict())


def test_device_and_dtype_reach_parameters_and_buffers():
    with torch.device("meta"):
        layer = BatchRenorm(3, dtype=torch.float64)
    assert {value.device.type for value in (*layer.parameters(), *layer.buffers())} == {"meta"}
    assert layer.weight.dtype == layer.running_var.dtype == torch.float64


def test_it_prints_its_arguments():
    assert str(BatchRenorm(3, r_max=2.0, d_max=1.0, bias=False)) == (
        "BatchRenorm(3, eps=1e-05, momentum=0.01, r_max=2.0, d_max=1.0, affine=True, bias=False)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps must be positive, got 0.0"),
        ({"momentum": None}, "momentum must lie between 0 and 1, got None"),
        ({"momentum": 1.5}, "momentum must lie between 0 and 1, got 1.5"),
        ({"r_max": 0.5}, "r_max must be at least 1, got 0.5"),
        ({"d_max": -1.0}, "d_max must be at least 0, got -1.0"),
        ({"r_max": LinearRamp(0.0, 3.0, 1, 2)}, "r_max must be at least 1, got 0.0"),
        ({"d_max": lambda step: step.sqrt()}, "d_max must be a function of the step, given as a number or as a 0-dim"),
    ],
)
def test_an_argument_outside_its_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        BatchRenorm(3, **options)


@pytest.mark.parametrize(("shape", "message"), [((3,), r"shape \(N, C\).*\(3,\)"), ((2, 5), "num_features=3.*got 5")])
def test_a_wrong_shape_is_named(shape, message):
    with pytest.raises(ValueError, match=message):
        BatchRenorm(3)(torch.zeros(shape))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kinds", [(torch.float16, torch.float32), (torch.bfloat16, torch.float32),
                                   (torch.float32, torch.bfloat16), (torch.float16, torch.bfloat16)])  # fmt: skip
def test_types_that_torch_does_not_mix(kinds, training):
    """Half precision computes with statistics of float32, in both modes."""
    own, given = kinds
    layer = bnlib.BatchRenorm(3, momentum=0.5, r_max=2.0, d_max=1.0).to(own)
    layer(torch.randn(8, 3).to(own) * 2 + 1)
    twin = bnlib.BatchRenorm(3, momentum=0.5, r_max=2.0, d_max=1.0)
    twin.load_state_dict({name: value.float() for name, value in layer.state_dict().items()})
    x, found = torch.randn(8, 3, dtype=torch.float64).to(given), []
    for each, values in ((layer, x), (twin, x.float())):
        values = values.detach().requires_grad_()
        y = each.train(training)(values)
        y.float().pow(3).sum().backward()
        found.append([part.float() for part in (y, values.grad, each.weight.grad)])
    torch.testing.assert_close(*found, rtol=0.02, atol=0.05)
