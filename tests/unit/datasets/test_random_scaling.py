"""A data set whose samples are multiplied by random numbers."""

import torch

from bnlib.datasets import load, randomly_scaled


def test_each_sample_is_multiplied_by_a_number_of_its_own():
    plain, data, again = load("digits"), randomly_scaled("digits"), randomly_scaled("digits")
    for part in ("train", "test"):
        x, times = getattr(plain, f"{part}_x"), getattr(data, f"{part}_x")
        factors = times.flatten(1).sum(1) / x.flatten(1).sum(1)
        torch.testing.assert_close(times, x * factors.view(-1, 1, 1, 1))
        assert -2.5 < factors.min() < -2.3 and 2.3 < factors.max() < 2.5 and abs(factors.mean()) < 0.25
        assert torch.equal(getattr(data, f"{part}_y"), getattr(plain, f"{part}_y"))
        assert torch.equal(times, getattr(again, f"{part}_x"))
    assert not torch.equal(data.train_x, randomly_scaled("digits", seed=1).train_x)
