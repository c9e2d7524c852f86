"""Sums and statistics over very many values per channel: as exact as float64 needs, whatever the layout.

PyTorch's kernel for the two sums adds up a plane, or the rows of vectors, in float32: 8 million values of a plane lost
half of their digits.
"""

import pytest
import torch
from torch import nn

import bnlib
from bnlib.norm import sums

PLANES = [
    *[(8, 2, size, size) for size in (64, 112, 227)],
    *[(2, 3, 512, 384), (1, 2, 1024, 1024), (3, 1, 768, 768), (1, 1, 4096, 2048)],
    *[(2, 1, 2**19), (3, 2, 100_003), (1, 3, 2 * 50_021), (2, 2, 16, 64, 65)],
]
MEANS = [0.0, 1.0, -2.5]
ROWS = [(20_000, 3), (70_001, 1), (9_000, 600), (20_001, 40), (12, 3, 100, 80), (2, 3, 17, 30, 29), (70_000, 1, 1)]
OTHERS = [(0, 3, 2000), (4, 3), (2, 3, 5, 5), (2, 700, 40, 30)]


def batch(shape, mean, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean


def over_channels(x):
    return [dim for dim in range(x.dim()) if dim != 1]


def like(values, x):
    return values.view(-1, *[1] * (x.dim() - 2))


def error(ours, exact):
    return ((ours.double() - exact).abs() / exact.abs().clamp(min=1)).max().item()


@pytest.fixture
def every_size_is_large(monkeypatch):
    monkeypatch.setattr("bnlib.norm.batch_norm_fast_path.LARGE", 2)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("shape", PLANES)
@pytest.mark.usefixtures("every_size_is_large")
def test_train_steps_on_large_planes_are_as_exact_as_those_of_torch(shape, mean):
    x = batch(shape, mean)
    precise, channels, dims = x.double(), shape[1], over_channels(x)
    of_batch, variance = precise.mean(dims), precise.var(dims, unbiased=False)
    count = x.numel() / channels
    theirs = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[x.dim()](channels, momentum=1.0)
    renorm = bnlib.BatchRenorm(channels, momentum=1.0, r_max=1, d_max=0)
    found = {}
    for layer in (theirs, bnlib.BatchNorm(channels, momentum=1.0), renorm):
        unbiased = 1 if layer is renorm else count / (count - 1)
        with torch.no_grad():
            y = layer(x)
        expected = (precise - like(of_batch, x)) / like((variance + 1e-5).sqrt(), x)
        errors = error(y, expected), error(layer.running_var, variance * unbiased), error(layer.running_mean, of_batch)
        found[type(layer).__name__] = max(errors)
    # About the running mean the sums are larger than about the mean: by mean**2 times the rounding of float32.
    most = 4 * found.pop(type(theirs).__name__) + 4e-7 * mean**2
    assert all(wrong < most for wrong in found.values()), (found, most)


@pytest.mark.parametrize("alpha", [0.03, 0.5, 0.95])
@pytest.mark.parametrize("mean", [0.0, 2.5, 1e3])
@pytest.mark.parametrize("shape", [PLANES[3], PLANES[-2], *ROWS])
def test_full_norm_is_exact_for_many_values(shape, mean, alpha):
    x, layer = batch(shape, mean), bnlib.FullNorm(shape[1], alpha=alpha)
    if len(shape) > 3:
        x = x.contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    precise, dims, old = x.double(), over_channels(x), torch.zeros(shape[1]).double()
    y = layer(x.requires_grad_())
    of_batch, variance = precise.mean(dims), precise.var(dims, unbiased=False)
    new = old + alpha * (of_batch - old)
    new_var = 1 - alpha + alpha * (variance + (1 - alpha) * of_batch.square())
    normalised = (precise - like(new, x)) / like(new_var.sqrt(), x)
    assert error(y, normalised) < 2e-5
    assert error(layer.running_var, new_var) < 3e-6
    g = batch(shape, 0.5, seed=1)
    y.backward(g)
    total, projection = g.double().sum(dims), (g * normalised).sum(dims)
    size = x.numel() / shape[1]
    # The rounded mean of far data is the limit of the second sum, not the number of values.
    assert (layer.bias.grad - total).abs().max() < 4e-6 * size
    assert (layer.weight.grad - projection).abs().max() < (4e-6 + 1e-7 * abs(mean) / new_var.min().sqrt()) * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [*PLANES[:4], *PLANES[-3:], *ROWS, (0, 3, 2000), (4, 3), (2, 3, 5, 5), (2, 700, 40, 30)]
)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "strided"])
def test_the_two_sums(shape, layout, dtype):
    g, x = (batch(shape, mean, seed).to(dtype) for seed, mean in enumerate((0.5, 1.0)))
    if layout == "channels-last":
        g, x = (each.movedim(1, -1).contiguous().movedim(-1, 1) for each in (g, x))
    elif layout == "strided":
        g, x = (torch.stack((each, each), -1)[..., 0] for each in (g, x))
    kind = torch.promote_types(dtype, torch.float32)
    mean, gain = torch.linspace(0, 1, shape[1]).to(kind), torch.linspace(1, 2, shape[1]).to(kind)
    projection, total = sums.sums(g, x, mean, gain)
    assert projection.dtype is total.dtype is kind
    dims, precise = over_channels(x), (x.double() - like(mean, x)) * like(gain, x)
    most = max(1.0, x.numel() / shape[1]) * {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1e-2}[dtype]
    if layout == "strided":
        most *= 30  # PyTorch's own sums
    assert (total - g.double().sum(dims)).abs().max() < most
    assert (projection - (g.double() * precise).sum(dims)).abs().max() < most


@pytest.mark.parametrize("shape", [*ROWS, (50, 3), (9, 3, 4, 5)])
def test_statistics(shape):
    for mean in (0.0, 5.0):
        x = batch(shape, mean)
        for layout in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
            ours, precise = sums.statistics(layout), x.double()
            dims = over_channels(x)
            assert error(ours[0], precise.mean(dims)) < 2e-6
            assert error(ours[1], precise.var(dims, unbiased=False)) < 3e-6


def test_a_part_has_at_most_a_thousand_values_and_rarely_few():
    for plane in range(1, 20_000):
        parts = sums.number_of_parts(plane)
        longest = -(-plane // parts)
        assert longest <= 1024 and (longest >= 64 or plane < 64), plane
