"""The data sets of images: the digits are complete, and show what their labels say."""

import torch

from bnlib.datasets import load


def test_digits_are_a_stratified_split_of_all_of_them():
    data = load("digits")
    assert data.train_x.shape == (1437, 1, 8, 8) and data.test_x.shape == (360, 1, 8, 8)
    assert data.train_x.dtype == torch.float32 and data.train_y.dtype == torch.int64
    assert data.train_x.min() == 0 and data.train_x.max() == 1
    everything = torch.cat([data.train_x, data.test_x]).flatten(1)
    assert len({tuple(row.tolist()) for row in everything}) == 1797
    shares = [torch.bincount(y, minlength=10) / len(y) for y in (data.train_y, data.test_y)]
    assert (shares[0] - shares[1]).abs().max() < 0.003


def test_digits_are_those_of_scikit_learn():
    # Imported here, because the import takes a second in each of the processes that share the tests.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    splits = train_test_split(images / 16, labels, test_size=360, stratify=labels, random_state=0)
    data = load("digits")
    for stored, expected in zip((data.train_x, data.test_x, data.train_y, data.test_y), splits, strict=True):
        assert torch.equal(stored.flatten(1) if stored.dim() > 1 else stored, torch.tensor(expected).to(stored.dtype))


def test_digits_show_what_their_label_says():
    """Mean pictures are told apart by the label: a shuffled label would not pass."""
    data = load("digits")
    means = torch.stack([data.train_x[data.train_y == digit].mean(0) for digit in range(10)]).flatten(1)
    nearest = torch.cdist(data.test_x.flatten(1), means).argmin(1)
    assert (nearest == data.test_y).float().mean() > 0.8
