"""How mini-batches are built."""

import json
import pickle
import re
from itertools import islice

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bnlib import models, training
from bnlib.datasets import load
from bnlib.samplers import ClassSkewed, FixedBatches, MaxLabelsPerBatch, PerWorker, shuffled, single_label
from bnlib.sweep import describe

LABELS = torch.tensor([2, 0, 1, 0, 2, 0, 1, 0, 0, 2])
DIGITS = load("digits").train_y
SAMPLERS = [
    shuffled,
    single_label,
    MaxLabelsPerBatch(3),
    MaxLabelsPerBatch(10),
    ClassSkewed(0),
    ClassSkewed(0.75),
    FixedBatches(),
    FixedBatches(shuffle_batches=True),
    FixedBatches(shuffle_samples=False),
    PerWorker(0, 2),
    PerWorker(1, 2),
    PerWorker(1, 2, base=MaxLabelsPerBatch(3)),
    PerWorker(1, 2, reshard=True),
]
SOME = settings(max_examples=100, deadline=None, derandomize=True)
CLASSES = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(torch.tensor)


def named(sampler):
    """Its repr, without the address of a function: the same in all processes that share out the tests."""
    return re.sub(r"<function (\w+) at \w+>", r"\1", repr(sampler))


def take(batches, count):
    return torch.stack(list(islice(batches, count)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=named)
def test_batches_are_indices_of_samples_each_once(sampler):
    batches = take(sampler(DIGITS, 32, seed=0), 200)
    assert batches.dtype == torch.int64 and batches.shape == (200, 32)
    assert batches.min() >= 0 and batches.max() < len(DIGITS)
    assert all(len(batch.unique()) == 32 for batch in batches)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=named)
def test_the_order_comes_from_the_seed_alone(sampler):
    state = torch.get_rng_state()
    first, again, other = (take(sampler(DIGITS, 32, seed), 100) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (sampler == FixedBatches(shuffle_samples=False))
    assert torch.equal(state, torch.get_rng_state())


def test_a_sampler_can_be_sent_and_named():
    assert [pickle.loads(pickle.dumps(sampler)) for sampler in SAMPLERS] == SAMPLERS
    assert len({json.dumps(describe(sampler)) for sampler in SAMPLERS}) == len(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=named)
@pytest.mark.parametrize("batch_size", [0, 1438])
def test_a_batch_size_that_cannot_be_is_named(sampler, batch_size):
    with pytest.raises(
        ValueError, match=rf"batch_size must be an integer between 1 and the number of samples.*, got {batch_size}"
    ):
        sampler(DIGITS, batch_size, 0)


def test_training_hands_over_the_labels_the_batch_size_and_each_seed():
    points, asked = load("three_points"), []

    def sampler(labels, batch_size, seed):
        asked.append((labels.tolist(), batch_size, seed))
        return shuffled(labels, batch_size, seed)

    options = {"batch_size": 2, "epochs": 1, "batches": sampler}
    list(training.iterate(models.mlp((3, 3)), points, lr=0.1, seed=7, **options))
    list(training.iterate_many([models.mlp((3, 3))] * 2, points, lrs=[0.1, 0.1], seeds=[8, 9], **options))
    assert asked == [([0, 1, 2], 2, seed) for seed in (7, 8, 9)]


def test_the_streams_are_those_of_the_committed_results():
    assert take(shuffled(LABELS, 3, 0), 4).tolist() == [[4, 1, 7], [5, 3, 9], [0, 8, 6], [3, 9, 4]]
    assert take(single_label(LABELS, 2, 0), 5).tolist() == [[0, 9], [6, 2], [8, 1], [3, 7], [3, 7]]


def test_each_batch_holds_one_class_and_an_epoch_each_sample_at_most_once():
    batches = single_label(LABELS, 2, seed=0)
    for _ in range(3):
        epoch = take(batches, 4)  # 5, 2 and 3 samples: two, one and one batch of two
        assert all(len(LABELS[batch].unique()) == 1 for batch in epoch)
        assert len(epoch.unique()) == 8


def test_a_batch_must_fit_into_every_class():
    with pytest.raises(ValueError, match=r"number of samples of the smallest class \(2\), got 3"):
        single_label(LABELS, 3, 0)
    with pytest.raises(ValueError, match=r"number of samples of the smallest class \(0\), got 1"):
        single_label(LABELS[:0], 1, 0)


@SOME
@given(labels=CLASSES, k=st.integers(1, 7), batch_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_at_most_so_many_labels_and_few_samples_are_dropped(labels, k, batch_size, seed):
    sizes = labels.bincount()
    classes = int((sizes > 0).sum())
    assume(k <= classes and batch_size <= sizes.sort(descending=True).values[:k].sum())
    dropped = classes * (batch_size - 1) // k
    batches = take(MaxLabelsPerBatch(k)(labels, batch_size, seed), max(1, -(-(len(labels) - dropped) // batch_size)))
    assert all(len(labels[batch].unique()) <= k for batch in batches)
    assert len(batches.unique()) == batches.numel()


@pytest.mark.parametrize(("k", "batches"), [(1, 4), (3, 5)])
def test_epoch_after_epoch_uses_each_sample_at_most_once(k, batches):
    stream = MaxLabelsPerBatch(k)(LABELS, 2, seed=0)
    epochs = [take(stream, batches) for _ in range(4)]
    assert all(len(epoch.unique()) == 2 * batches for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_three_labels_are_in_nearly_every_batch_of_at_most_three_and_all_mixtures_occur():
    batches = take(MaxLabelsPerBatch(3)(DIGITS, 64, seed=0), 2000)
    mixtures = [tuple(DIGITS[batch].unique().tolist()) for batch in batches]
    assert sum(len(mixture) == 3 for mixture in mixtures) > 1950
    assert len({mixture for mixture in mixtures if len(mixture) == 3}) == 120


@SOME
@given(labels=CLASSES, share=st.floats(0, 1), batch_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_one_class_has_its_share_or_the_batch_size_is_refused(labels, share, batch_size, seed):
    assume(batch_size <= len(labels))
    ours, sizes = round(share * batch_size), labels.bincount()
    sizes = sizes[sizes > 0]
    if not any(size >= ours and len(labels) - size >= batch_size - ours for size in sizes):
        with pytest.raises(ValueError, match=f"some class has {ours} samples and {batch_size - ours} of other classes"):
            ClassSkewed(share)(labels, batch_size, seed)
        return
    for batch in islice(ClassSkewed(share)(labels, batch_size, seed), 10):
        assert len(batch.unique()) == batch_size
        assert ours in labels[batch].bincount(minlength=7)


@pytest.mark.parametrize(("share", "ours"), [(0, 0), (0.25, 5), (0.5, 10), (0.75, 15), (0.9, 18), (1.0, 20)])
def test_the_class_with_the_share_changes_and_an_epoch_uses_each_sample_at_most_once(share, ours):
    batches = take(ClassSkewed(share)(DIGITS, 20, seed=0), 1437 * 9 // 10 // 20)
    counts = torch.stack([DIGITS[batch].bincount(minlength=10) for batch in batches])
    has_it = counts == ours
    assert has_it.any(1).all() and has_it.any(0).all()
    assert len(batches.unique()) == batches.numel()
    if share >= 0.5:
        assert (counts.amax(1) == ours).all()


def test_a_class_with_the_share_is_not_at_the_start_of_the_batch():
    batches = take(ClassSkewed(0.5)(DIGITS, 20, seed=0), 50)
    assert any(len(DIGITS[batch[:10]].unique()) > 1 for batch in batches)


def test_fixed_batches_come_again_in_every_epoch():
    stream = FixedBatches()(DIGITS, 64, seed=5)
    first, second = take(stream, 22), take(stream, 22)
    assert torch.equal(first, second)
    assert torch.equal(first, take(shuffled(DIGITS, 64, seed=5), 22))


def test_fixed_batches_in_the_order_of_the_data():
    stream = FixedBatches(shuffle_samples=False)(LABELS, 3, seed=5)
    assert take(stream, 6).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] * 2


@pytest.mark.parametrize("shuffle_samples", [True, False])
def test_fixed_batches_can_come_in_another_order_as_they_are(shuffle_samples):
    stream = FixedBatches(shuffle_samples, shuffle_batches=True)(DIGITS, 64, seed=5)
    first, second = take(stream, 22), take(stream, 22)
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist())


@SOME
@given(
    count=st.integers(1, 50),
    world_size=st.integers(1, 6),
    batch_size=st.integers(1, 10),
    seed=st.integers(0, 9),
    reshard=st.booleans(),
)
def test_shards_are_disjoint_and_all_but_a_remainder(count, world_size, batch_size, seed, reshard):
    labels, size = torch.zeros(count, dtype=torch.int64), count // world_size
    assume(batch_size <= size)
    workers = [PerWorker(rank, world_size, reshard=reshard)(labels, batch_size, seed) for rank in range(world_size)]
    for _ in range(3):
        epoch = torch.stack([take(worker, size // batch_size) for worker in workers])
        assert len(epoch.unique()) == epoch.numel()
    if not reshard:
        seen = [set(take(worker, 60 * size).flatten().tolist()) for worker in workers]
        assert all(len(shard) == size for shard in seen)
        assert len(set.union(*seen)) == size * world_size > count - world_size


def test_new_shards_hold_other_samples():
    stream = PerWorker(1, 4, reshard=True)(DIGITS, 32, seed=0)
    first, second = (set(take(stream, 1437 // 4 // 32).flatten().tolist()) for _ in range(2))
    assert 0.1 < len(first & second) / len(first) < 0.4  # a quarter by chance


def test_workers_do_not_go_through_their_shards_in_step():
    left, right = (PerWorker(rank, 2)(DIGITS, 1, seed=0) for rank in range(2))
    epochs = [
        set(zip(take(left, 718).flatten().tolist(), take(right, 718).flatten().tolist(), strict=True)) for _ in range(2)
    ]
    assert len(epochs[0] & epochs[1]) < 20


def test_a_worker_builds_batches_as_its_base_does():
    batches = take(PerWorker(1, 3, base=single_label)(DIGITS, 16, seed=0), 100)
    assert all(len(DIGITS[batch].unique()) == 1 for batch in batches)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxLabelsPerBatch(0), "k must be an integer, at least 1, got 0"),
        (lambda: MaxLabelsPerBatch(4)(LABELS, 2, 0), r"k must be at most the number of classes \(3\), got 4"),
        (lambda: MaxLabelsPerBatch(2)(LABELS, 9, 0), r"number of samples of the 2 largest classes \(8\), got 9"),
        (lambda: ClassSkewed(-0.1), "share must be a finite number, at least 0 and at most 1, got -0.1"),
        (lambda: ClassSkewed(1.1), "share must be a finite number, at least 0 and at most 1, got 1.1"),
        (lambda: ClassSkewed(float("nan")), "share must be a finite number, at least 0 and at most 1, got nan"),
        (lambda: ClassSkewed(1.0)(LABELS, 6, 0), "some class has 6 samples and 0 of other classes, got 6"),
        (
            lambda: ClassSkewed(0.5)(LABELS[:1].expand(8), 4, 0),
            "some class has 2 samples and 2 of other classes, got 4",
        ),
        (lambda: PerWorker(0, 0), "world_size must be an integer, at least 1, got 0"),
        (lambda: PerWorker(2, 2), "rank must be an integer from 0 to 1, got 2"),
        (lambda: PerWorker(-1, 2), "rank must be an integer from 0 to 1, got -1"),
        (lambda: PerWorker(0, 3)(LABELS, 4, 0), r"number of samples of a worker \(3\), got 4"),
        (lambda: PerWorker(0, 11)(LABELS, 1, 0), r"number of samples of a worker \(0\), got 1"),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
