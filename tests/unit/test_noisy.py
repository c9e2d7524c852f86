"""Noise behind BN: its distribution, what samples and steps share, and that it is repeatable."""

import copy
import pickle

import pytest
import torch
from torch import nn

import bnlib
from bnlib import models
from bnlib.norm.noisy import ActivationNoise, NoisyBatchNorm


def moments(noise, steps=400, samples=200, channels=5):
    """Mean and standard deviation over the samples of each step and channel, of factors and offsets."""
    drawn = [noise.draw((samples, channels), step) for step in range(steps)]
    factors, offsets = (torch.stack(each) for each in zip(*drawn, strict=True))
    return factors.mean(1), factors.std(1), offsets.mean(1), offsets.std(1), offsets


def test_the_noise_has_the_published_distribution():
    factor, factor_spread, offset, offset_spread, offsets = moments(ActivationNoise(seed=0))
    assert factor.min() > 0.97 and factor.max() < 1.28 and factor.mean() == pytest.approx(1.125, abs=0.01)
    assert factor.std() == pytest.approx(0.25 / 12**0.5, rel=0.1)
    assert factor_spread.mean() == pytest.approx(0.1, rel=0.02)
    assert -0.52 < offset.min() < -0.48 and 0.48 < offset.max() < 0.52 and abs(offset.mean()) < 0.02
    assert offset.std() == pytest.approx(1 / 12**0.5, rel=0.05)
    assert offset_spread.mean() == pytest.approx(0.2 / 12**0.5, rel=0.02)
    assert offsets.abs().max() <= 0.6


def test_a_step_is_shared_by_its_samples_and_no_step_is_like_another():
    factor, _, offset, _, _ = moments(ActivationNoise(shift_spread=0, scale_spread=0, seed=0), steps=50)
    assert len(factor.flatten().unique()) == len(offset.flatten().unique()) == 250
    factors, offsets = ActivationNoise(shift_spread=0, scale_spread=0, seed=0).draw((7, 3), 4)
    assert torch.equal(factors, factors[:1].expand(7, 3)) and torch.equal(offsets, offsets[:1].expand(7, 3))


def test_the_default_dtype_does_not_change_the_noise():
    expected = ActivationNoise(seed=0).draw((7, 3), 4)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        torch.testing.assert_close(ActivationNoise(seed=0).draw((7, 3), 4), expected, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(before)


def test_without_noise_it_is_batch_norm():
    layer, plain = NoisyBatchNorm(3, shift=0, scale=1, shift_spread=0, scale_spread=0), bnlib.BatchNorm(3)
    for step in range(3):
        x = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(step))
        assert torch.equal(layer(x), plain(x))
    torch.testing.assert_close(layer.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_eval_mode_is_that_of_batch_norm():
    layer = NoisyBatchNorm(3, seed=1)
    layer(torch.randn(6, 3))
    plain = bnlib.BatchNorm(3).eval()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(layer.eval()(x), plain(x)) and layer.num_batches_tracked == 1
    assert torch.equal(ActivationNoise().eval()(x), x)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4), (6, 3, 4, 2)])
def test_train_mode_is_the_noise_of_the_step_on_what_batch_norm_gives(shape):
    layer, plain = NoisyBatchNorm(3, seed=5, dtype=torch.float64), bnlib.BatchNorm(3, dtype=torch.float64)
    for step in range(3):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64, requires_grad=True)
        factor, offset = (
            each.double().view(6, 3, *[1] * (len(shape) - 2)) for each in ActivationNoise(seed=5).draw((6, 3), step)
        )
        expected = plain(x) * factor + offset
        torch.testing.assert_close(layer(x), expected)
        layer.num_batches_tracked -= 1
        ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (layer(x), expected))
        torch.testing.assert_close(ours, theirs)


def test_a_resumed_run_has_the_noise_it_would_have_had():
    x = torch.randn(6, 3)
    for make in (lambda: NoisyBatchNorm(3, seed=2), lambda: ActivationNoise(seed=2)):
        whole = make()
        outputs = [whole(x) for _ in range(4)]
        assert not torch.equal(outputs[0], outputs[1])
        for again in (make(), copy.deepcopy(make()), pickle.loads(pickle.dumps(make()))):
            first = [again(x) for _ in range(2)]
            resumed = make()
            resumed.load_state_dict(again.state_dict())
            for ours, theirs in zip([*first, resumed(x), resumed(x)], outputs, strict=True):
                assert torch.equal(ours, theirs)


def test_the_seed_comes_from_the_global_generator_if_none_is_given():
    torch.manual_seed(0)
    first, second = NoisyBatchNorm(3), NoisyBatchNorm(3)
    torch.manual_seed(0)
    assert NoisyBatchNorm(3).noise.seed == first.noise.seed != second.noise.seed
    state = torch.get_rng_state()
    first(torch.randn(4, 3, generator=torch.Generator()))
    assert torch.equal(state, torch.get_rng_state())
    layers = [layer for layer in models.mlp((4, 3, 3, 2), NoisyBatchNorm) if isinstance(layer, NoisyBatchNorm)]
    assert layers[0].noise.seed != layers[1].noise.seed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -0.1}, "shift must be at least 0, got -0.1"),
        ({"scale": 0.9}, "scale must be at least 1, got 0.9"),
        ({"shift_spread": float("nan")}, "shift_spread must be a finite number, got nan"),
        ({"scale_spread": -1}, "scale_spread must be at least 0, got -1"),
    ],
)
def test_arguments_out_of_range(options, message):
    for make in (ActivationNoise, lambda **options: NoisyBatchNorm(3, **options)):
        with pytest.raises(ValueError, match=message):
            make(**options)


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match=r"must have shape \(N, C\) or \(N, C, \*spatial\), got \(3,\)"):
        ActivationNoise()(torch.ones(3))


def test_it_trains_in_half_precision():
    layer = nn.Sequential(nn.Linear(3, 3), NoisyBatchNorm(3)).bfloat16()
    y = layer(torch.randn(5, 3, dtype=torch.bfloat16))
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and layer[0].weight.grad.isfinite().all()
    assert repr(layer[1]).endswith(
        "track_running_stats=True, shift=0.5, scale=1.25, shift_spread=0.1, scale_spread=0.1)"
    )


def test_the_default_device_does_not_matter():
    expected = ActivationNoise(seed=3).draw((4, 3), 0)
    with torch.device("meta"):
        drawn = ActivationNoise(seed=3).draw((4, 3), 0)
    torch.testing.assert_close(drawn, expected)
