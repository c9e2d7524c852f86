"""The synthetic data sets are those of the paper."""

import numpy as np
import torch

from bnlib.datasets import load


def test_three_points_are_the_papers():
    data = load("three_points")
    assert data.train_x.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert data.train_y.tolist() == [0, 1, 2] and torch.equal(data.train_x, data.test_x)


def test_wide_variation_is_the_papers_recipe():
    data = load("wide_variation")
    assert data.train_x.shape == (10_000, 1000) and data.test_x.shape == (100, 1000) and data.num_classes == 1000
    own = data.train_x[torch.arange(10_000), data.train_y]
    assert abs(own.mean() - 25) < 1 and abs(own.std() - (50**2 / 12 + 1) ** 0.5) < 0.5
    others = data.train_x.clone()
    others[torch.arange(10_000), data.train_y] = torch.nan
    assert abs(others.nanmean()) < 0.01 and abs(np.nanstd(others.numpy()) - 1) < 0.01


def test_wide_variation_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = load("wide_variation", num_train=10, seed=5)
    state = torch.get_rng_state()
    again, other = load("wide_variation", num_train=10, seed=5), load("wide_variation", num_train=10, seed=6)
    assert torch.equal(first.train_x, again.train_x) and not torch.equal(first.train_x, other.train_x)
    assert torch.equal(state, torch.get_rng_state())
