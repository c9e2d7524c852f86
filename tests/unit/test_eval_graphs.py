"""A backward pass in eval mode is right if batches go through the layer in train mode before it.

A teacher, a target network or a siamese pair does this. PyTorch's layers keep the running statistics themselves for the
backward pass, and have wrong gradients then.
"""

import pytest
import torch
from layers import EACH, LAYERS
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import bnlib

SHAPES = {"vectors": (6, 4), "images": (6, 4, 3, 2), "one image": (1, 4, 3, 2)}
IMAGES = [name for name in LAYERS if name not in ("CrossIterationBatchNorm", "CosineLinear")]


def gradients(layer, x, y):
    wanted = [x, *[value for value in layer.parameters() if value.requires_grad]]
    return torch.autograd.grad(y.float().pow(3).sum(), wanted, retain_graph=True, allow_unused=True)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_training_step_does_not_change_an_earlier_gradient(name, shape, offset, dtype):
    if shape != "vectors" and name not in IMAGES:
        pytest.skip("a layer for vectors")
    torch.manual_seed(0)
    layer, x = LAYERS[name](dtype=dtype), (torch.randn(SHAPES[shape]) + offset).to(dtype).requires_grad_()
    layer(torch.randn(6, *x.shape[1:]).to(dtype) + offset)
    y = layer.eval()(x)
    expected = gradients(layer, x, y)
    layer.train()
    for _ in range(2):
        batch = (5 * torch.randn(6, *x.shape[1:]) + 3).to(dtype).requires_grad_()
        layer(batch).float().square().sum().backward()
    torch.testing.assert_close(gradients(layer, x, y), expected, rtol=0, atol=0)


@EACH
def test_eval_mode_without_gradients_copies_nothing(name):
    """The copies are made for the backward pass alone."""
    if "running_mean" not in LAYERS[name]().state_dict():
        pytest.skip("a layer without running statistics")
    layer, x = LAYERS[name]().eval(), torch.randn(6, 4)
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(x)
    assert "aten::clone" not in [each.key for each in profile.key_averages()]


# torch sets off its own DeprecationWarnings when it compiles.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "name", [name for name, make in LAYERS.items() if "num_batches" in "".join(make().state_dict())]
)
def test_a_compiled_layer(name):
    torch.compiler.reset()
    layer, x = LAYERS[name](), torch.randn(6, 4, requires_grad=True)
    layer(torch.randn(6, 4))
    y = torch.compile(layer.eval(), backend="aot_eager", fullgraph=True)(x)
    expected = gradients(layer, x, y)
    layer.train()(5 * torch.randn(6, 4) + 3)
    torch.testing.assert_close(gradients(layer, x, y), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [bnlib.BatchNorm, bnlib.BatchRenorm, bnlib.FullNorm])
def test_the_gradient_is_that_of_the_statistics_of_the_forward_pass(kind):
    layer, x = kind(4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    for values in (layer.running_mean, layer.running_var):
        nn.init.uniform_(values, 1, 2)
    gain = (layer.running_var if kind is bnlib.FullNorm else layer.running_var + layer.eps).rsqrt()
    y = layer.eval()(x)
    layer.train()(x.detach() * 3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, gain.expand(6, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, in forward mode
@pytest.mark.parametrize("kind", [bnlib.BatchNorm, bnlib.BatchRenorm, bnlib.FullNorm, bnlib.OnlineNorm])
@pytest.mark.parametrize("buffer", ["running_mean", "running_var"])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_derivative_by_running_statistics_is_right_or_refused(kind, buffer, gradients):
    """PyTorch's kernel would take it for 0 in forward mode."""
    layer = kind(4, dtype=torch.float64).eval()
    x, start = torch.randn(6, 4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)

    def call(value):
        return torch.func.functional_call(layer, {buffer: value}, (x,))

    with torch.set_grad_enabled(gradients):
        if kind is not bnlib.OnlineNorm:
            with pytest.raises(RuntimeError, match=r"no tangents|not differentiable"):
                torch.func.jvp(call, (start,), (start,))
            return
        tangent = torch.func.jvp(call, (start,), (start,))[1]
    torch.testing.assert_close(tangent, (call(start + 1e-6) - call(start - 1e-6)) / 2e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["BatchNorm", "FullNorm running", "OnlineNorm"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Attempted to insert a get_attr Node")  # of torch
def test_a_linearised_layer_has_the_derivative_of_the_layer(name):
    layer, (x, v) = LAYERS[name]().eval(), torch.randn(2, 6, 4)
    torch.testing.assert_close(torch.func.linearize(layer, x)[1](v), torch.func.jvp(layer, (x,), (v,))[1])


@pytest.mark.parametrize("name", ["BatchNorm", "BatchRenorm", "FullNorm running", "OnlineNorm"])
def test_a_traced_train_step_takes_other_batches_and_moves_the_statistics(name):
    layer, x = LAYERS[name](), torch.randn(2, 6, 4)
    copies = [{key: value.clone() for key, value in layer.state_dict().items()} for _ in range(2)]

    def step(state, x):
        return torch.func.functional_call(layer, state, (x,)), state

    traced = make_fx(step)(copies[0], x[0])
    torch.testing.assert_close(traced(copies[1], x[1])[0], layer(x[1]))
    torch.testing.assert_close(copies[1], dict(layer.state_dict()))
