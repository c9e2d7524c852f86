"""A layer whose type changes between a forward and its backward pass: right gradients, or PyTorch's error."""

import copy

import pytest
import torch
from layers import EACH, LAYERS

import bnlib

AS_TORCH = ("BatchNorm", "GhostBatchNorm", "SyncBatchNorm", "NoisyBatchNorm", "DomainBatchNorm")
VECTORS_ONLY = ("CrossIterationBatchNorm", "CosineLinear")


def gradients(layer, x, y):
    y.mul(torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [x.grad, *[value.grad.float() for value in layer.parameters()]]


@EACH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_are_right_or_an_error(name, shape, training, dtype):
    if name in VECTORS_ONLY and len(shape) > 2:
        pytest.skip("a layer for vectors")
    layer = LAYERS[name]().train(training)
    twin, x = copy.deepcopy(layer), torch.randn(shape)
    y, given = layer(x.requires_grad_()), x.detach().clone().requires_grad_()
    layer.to(dtype)
    of_torch = name in AS_TORCH or (not training and ("FullNorm" in name or name == "BatchRenorm"))
    if of_torch:
        with pytest.raises(RuntimeError, match="mixed dtype"):
            gradients(layer, x, y)
        return
    expected, rounding = (
        gradients(twin, given, twin(given)),
        {} if dtype is torch.float64 else {"rtol": 0.01, "atol": 0.02},
    )
    found = gradients(layer, x, y)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1:], expected[1:], **rounding)


@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 3, 2)])
def test_batch_renorm_before_its_corrections_begin(shape):
    layer, x = bnlib.BatchRenorm(4), torch.randn(shape)
    twin = copy.deepcopy(layer)
    y, given = layer(x.requires_grad_()), x.detach().clone().requires_grad_()
    layer.double()
    if len(shape) == 2:
        with pytest.raises(RuntimeError, match="mixed dtype"):
            gradients(layer, x, y)
    else:
        torch.testing.assert_close(gradients(layer, x, y), gradients(twin, given, twin(given)))
