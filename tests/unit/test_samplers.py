"""How mini-batches are built."""

from itertools import islice

import pytest
import torch

from bnlib.samplers import single_label

LABELS = torch.tensor([2, 0, 1, 0, 2, 0, 1, 0, 0, 2])


def test_each_batch_holds_one_class_and_an_epoch_each_sample_at_most_once():
    batches = single_label(LABELS)(10, 2, seed=0)
    for _ in range(3):
        epoch = list(islice(batches, 4))  # 5, 2 and 3 samples: two, one and one batch of two
        assert all(len(batch) == 2 and len(LABELS[batch].unique()) == 1 for batch in epoch)
        assert len(torch.cat(epoch).unique()) == 8


def test_the_order_comes_from_the_seed():
    first, again, other = (torch.stack(list(islice(single_label(LABELS)(10, 2, seed), 20))) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[:4], first[4:8])


def test_a_batch_must_fit_into_every_class():
    with pytest.raises(ValueError, match=r"between 1 and the number of samples \(2\), got 3"):
        next(single_label(LABELS)(10, 3, 0))
