"""Batches without values: outputs and gradients of their shape, and no change of the statistics, in every layout."""

import pytest
import torch
from layers import EACH, LAYERS

SHAPES = [
    (0, 4),
    (0, 4, 1),
    (0, 4, 5),
    (0, 4, 1, 1),
    (0, 4, 3, 2),
    (2, 4, 0),
    (2, 4, 0, 3),
    (2, 4, 1, 0),
    (0, 4, 2, 1, 2),
]
VECTORS_ONLY = ("CrossIterationBatchNorm", "CosineLinear")
COUNTERS = ("num_batches_tracked",)


@EACH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_batch_has_a_backward_pass(name, shape, last, training):
    if name in VECTORS_ONLY and shape != (0, 4):
        pytest.skip("a layer for vectors")
    layer, x = LAYERS[name]().train(training), torch.zeros(shape)
    if last:
        x = x.new_zeros(shape[0], *shape[2:], 4).movedim(-1, 1)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    y = layer(x.requires_grad_())
    y.sum().backward()
    assert y.shape == x.shape == x.grad.shape
    assert all(value.grad is None or not value.grad.any() for value in layer.parameters())
    for key, value in layer.state_dict().items():
        assert key.endswith(COUNTERS) or torch.equal(value, before[key]), key
