"""BatchRenorm does what Ioffe's Algorithm 1 does in NumPy, for random shapes, options and data."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnlib.norm.batch_renorm import BatchRenorm

SHAPES = st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple)
OPTIONS = st.fixed_dictionaries(
    {
        "eps": st.sampled_from([1e-8, 1e-5, 1e-3, 1.0]),
        "momentum": st.floats(0, 1),
        "r_max": st.floats(1, 10),
        "d_max": st.floats(0, 10),
        "affine": st.booleans(),
        "bias": st.booleans(),
    }
)


def algorithm1(x, mean, sigma, *, r_max, d_max, momentum, eps):
    """The x hat of Algorithm 1, and mu and sigma after the step."""
    over, wide = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    batch_mean, batch_sigma = x.mean(over), np.sqrt(x.var(over) + eps)
    r = np.clip(batch_sigma / sigma, 1 / r_max, r_max).reshape(wide)
    d = np.clip((batch_mean - mean) / sigma, -d_max, d_max).reshape(wide)
    normalised = (x - batch_mean.reshape(wide)) / batch_sigma.reshape(wide) * r + d
    return normalised, mean + momentum * (batch_mean - mean), sigma + momentum * (batch_sigma - sigma)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    shape=SHAPES,
    options=OPTIONS,
    steps=st.integers(1, 4),
    offset=st.floats(-10, 10),
    scale=st.floats(1e-2, 1e2),
    seed=st.integers(0, 2**31),
)
def test_outputs_and_running_statistics_are_those_of_algorithm_1(shape, options, steps, offset, scale, seed):
    torch.manual_seed(seed)
    layer = BatchRenorm(shape[1], **options, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    affine, bias, eps = options.pop("affine"), options.pop("bias"), options["eps"]
    wide = (-1, *[1] * (len(shape) - 2))
    gamma = layer.weight.detach().numpy().reshape(wide) if affine else 1
    beta = layer.bias.detach().numpy().reshape(wide) if affine and bias else 0
    mean, sigma = np.zeros(shape[1]), np.sqrt(np.ones(shape[1]) + eps)
    for _ in range(steps):
        x = torch.randn(shape, dtype=torch.float64) * scale + offset
        normalised, mean, sigma = algorithm1(x.numpy(), mean, sigma, **options)
        np.testing.assert_allclose(layer(x).detach(), gamma * normalised + beta, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose((layer.running_var + eps).sqrt(), sigma, rtol=1e-9)
    assert layer.num_batches_tracked == steps
