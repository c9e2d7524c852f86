"""How mini-batches are built: what ``batches=`` of ``training.iterate`` and of ``sweep.Run`` takes.

A sampler is a callable ``sampler(labels, batch_size, seed)``. It takes the classes of all training samples, an integer
tensor (n,) on the CPU, and returns an endless iterator of int64 index tensors (``batch_size``,), the same for the same
seed. Those without options are functions, those with options are frozen dataclasses, so that ``sweep`` can name them.

An epoch is here one pass of a sampler, which may leave samples out. ``training`` counts steps: its epoch has as many
batches as all samples make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

Sampler = Callable[[Tensor, int, int], Iterator[Tensor]]
"""``sampler(labels, batch_size, seed)``, an endless iterator of index tensors."""


def check_batch_size(batch_size: int, count: int, of: str = "samples") -> None:
    """Raise a ValueError if ``batch_size`` lies outside 1..``count``, the number of ``of``.

    Example:
        >>> samplers.check_batch_size(32, 20)
        Traceback (most recent call last):
            ...
        ValueError: batch_size must lie between 1 and the number of samples (20), got 32
    """
    if not 1 <= batch_size <= count:
        raise ValueError(f"batch_size must lie between 1 and the number of {of} ({count}), got {batch_size}")


def shuffled(labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Make a new random order of all samples for each epoch, the incomplete last batch dropped.

    Dropping keeps every step alike; a left-over batch of one sample would be a special case for BN.

    Raises:
        ValueError: ``batch_size`` outside 1..number of samples.

    Example:
        >>> batches = samplers.shuffled(torch.zeros(6), batch_size=2, seed=0)
        >>> sorted(torch.cat([next(batches) for _ in range(3)]).tolist())
        [0, 1, 2, 3, 4, 5]
    """
    count = len(labels)
    check_batch_size(batch_size, count)
    return _endless(
        lambda generator: _cut(torch.randperm(count, generator=generator), batch_size),
        torch.Generator().manual_seed(seed),
    )


def single_label(labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Make mini-batches that hold one class each.

    In each epoch the samples of each class are shuffled and cut into batches, what is left over of a class is dropped,
    and the batches come in random order.

    Raises:
        ValueError: ``batch_size`` above the number of samples of the smallest class.

    Source: Lian and Liu 2019, section 6.2, "unshuffled case".

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
        >>> batches = samplers.single_label(labels, batch_size=3, seed=0)
        >>> sorted(labels[next(batches)].tolist() for _ in range(3))
        [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    """
    classes = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    check_batch_size(batch_size, min(map(len, classes), default=0), "samples of the smallest class")

    def epoch(generator: torch.Generator) -> Iterable[Tensor]:
        batches = []
        for members in classes:
            batches += _cut(members[torch.randperm(len(members), generator=generator)], batch_size)
        return (batches[index] for index in torch.randperm(len(batches), generator=generator))

    return _endless(epoch, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class MaxLabelsPerBatch:
    """Mini-batches that hold at most ``k`` classes each, other ones from batch to batch.

    For each batch, ``k`` classes are drawn with a probability by the samples that the epoch has not used yet, and from
    these samples the batch. If those are too few, the ``k`` fullest classes are taken; if these are too few as well,
    the epoch ends. So no sample comes twice in an epoch, and fewer than ``batch_size * classes / k`` are dropped.

    Arguments:
        k: from 1 (batches as those of ``single_label``) to the number of classes (as those of ``shuffled``).

    Raises:
        ValueError: ``k`` outside 1..number of classes, or ``batch_size`` above what the ``k`` largest classes hold.

    Source: Lian and Liu 2019, figure 5, with ``k=3``; how the batches were built is not stated there.

    Example:
        >>> labels = torch.arange(100) % 10
        >>> batches = samplers.MaxLabelsPerBatch(3)(labels, 20, 0)
        >>> max(len(labels[next(batches)].unique()) for _ in range(5))
        3
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """See ``bnlib.samplers``."""
        k, sizes = self.k, labels.unique(return_counts=True)[1]
        if k > len(sizes):
            raise ValueError(f"k must be at most the number of classes ({len(sizes)}), got {k}")
        check_batch_size(batch_size, int(sizes.topk(k).values.sum()), f"samples of the {k} largest classes")

        def epoch(generator: torch.Generator) -> Iterator[Tensor]:
            left = _Left(labels, generator)
            while left.counts.topk(k).values.sum() >= batch_size:
                chosen = left.choose(left.counts, min(k, int(left.counts.count_nonzero())))
                if left.counts[chosen].sum() < batch_size:
                    chosen = left.counts.topk(k).indices
                yield left.draw(chosen, batch_size)

        return _endless(epoch, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class ClassSkewed:
    """Mini-batches of which one class, another one from batch to batch, makes up a given share.

    For each batch the class is drawn with a probability by the samples that the epoch has not used yet. The batch takes
    ``round(share * batch_size)`` of these samples of the class and the rest from those of all other classes. The epoch
    ends, and what it has left is dropped, when there is no class that allows this. No sample comes twice in an epoch.

    Arguments:
        share: 1 is one class alone, 0 all but one; 1 / number of classes is as even as batches can be.

    Raises:
        ValueError: ``share`` outside 0..1; when called, a ``batch_size`` outside 1..number of samples or for which
            there is no class with that many samples, or too few samples besides.

    Example:
        >>> labels = torch.arange(100) % 10
        >>> batches = samplers.ClassSkewed(0.75)(labels, 8, 0)
        >>> int(labels[next(batches)].bincount().max())
        6
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie between 0 and 1, got {self.share}")

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """See ``bnlib.samplers``."""
        check_batch_size(batch_size, len(labels))
        ours = round(self.share * batch_size)
        others = batch_size - ours

        def allowed(counts: Tensor) -> Tensor:
            return (counts >= ours) & (counts.sum() - counts >= others)

        if not allowed(labels.unique(return_counts=True)[1]).any():
            needed = f"{ours} samples and {others} of other classes"
            raise ValueError(f"batch_size must be such that some class has {needed}, got {batch_size}")

        def epoch(generator: torch.Generator) -> Iterator[Tensor]:
            left = _Left(labels, generator)
            while (able := allowed(left.counts)).any():
                # One more each, for a class without samples may be the one that a share of 0 leaves out.
                one = left.choose(able * (left.counts + 1), 1)
                rest = torch.arange(len(able)) != one
                batch = torch.cat([left.draw(one, ours), left.draw(rest, others)])
                yield batch[torch.randperm(batch_size, generator=generator)]

        return _endless(epoch, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class FixedBatches:
    """Cut the samples into batches once and repeat these in every epoch; the samples left over are never used.

    Arguments:
        shuffle_samples: cut a random order, that of the first epoch of ``shuffled``; else that of the data set.
        shuffle_batches: bring the same batches into a new random order in each epoch.

    Raises:
        ValueError: ``batch_size`` outside 1..number of samples.

    Example:
        >>> batches = samplers.FixedBatches(shuffle_samples=False)(torch.zeros(5), 2, 0)
        >>> [next(batches).tolist() for _ in range(4)]
        [[0, 1], [2, 3], [0, 1], [2, 3]]
    """

    shuffle_samples: bool = True
    shuffle_batches: bool = False

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """See ``bnlib.samplers``."""
        count, generator = len(labels), torch.Generator().manual_seed(seed)
        check_batch_size(batch_size, count)
        order = torch.randperm(count, generator=generator) if self.shuffle_samples else torch.arange(count)
        batches = _cut(order, batch_size)

        def epoch(generator: torch.Generator) -> Iterable[Tensor]:
            if not self.shuffle_batches:
                return batches
            return (batches[index] for index in torch.randperm(len(batches), generator=generator))

        return _endless(epoch, generator)


@dataclass(frozen=True)
class PerWorker:
    """What one of several workers sees that have shards of the data set, each its own.

    The shards are those of ``shards``, the same for all workers of a seed. Each worker goes its own way through its
    shard.

    Arguments:
        rank: which worker, from 0 to ``world_size - 1``.
        world_size: number of workers.
        base: the sampler that builds batches from the shard.
        reshard: draw new shards after as many batches as a shard makes, as ``torch.utils.data.DistributedSampler``
            does in each epoch; else a worker never sees another shard.
        skew: see ``shards``.

    Raises:
        ValueError: ``world_size`` below 1, ``rank`` outside 0..``world_size - 1`` or ``skew`` outside 0..1; when
            called, ``batch_size`` outside 1..samples of a shard, and what ``base`` raises.

    Source: Lian and Liu 2019, section 4, where the set of batches is the union of those of all workers.

    Example:
        >>> both = [samplers.PerWorker(rank, world_size=2)(torch.zeros(8), 4, 0) for rank in (0, 1)]
        >>> first, second = (next(batches) for batches in both)
        >>> sorted(torch.cat([first, second]).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7]
    """

    rank: int
    world_size: int
    base: Sampler = shuffled
    reshard: bool = False
    skew: float = 0.0

    def __post_init__(self) -> None:
        _check_workers(self.world_size, self.skew)
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank must lie between 0 and world_size - 1 ({self.world_size - 1}), got {self.rank}")

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """See ``bnlib.samplers``."""
        size = len(labels) // self.world_size
        check_batch_size(batch_size, size, "samples of a worker")

        def epoch(generator: torch.Generator) -> Iterator[Tensor]:
            shard = shards(labels, self.world_size, self.skew, generator)[self.rank]
            # One seed for all would pair the same samples of two shards in every step.
            seeds = torch.randint(2**31, (self.world_size,), generator=generator)
            batches = self.base(labels[shard], batch_size, seeds[self.rank].item())
            return (shard[batch] for batch in islice(batches, size // batch_size if self.reshard else None))

        return _endless(epoch, torch.Generator().manual_seed(seed))


def shards(labels: Tensor, world_size: int, skew: float, generator: torch.Generator) -> list[Tensor]:
    """Deal all samples but fewer than ``world_size`` out to workers: index tensors, disjoint and of the same size.

    A share of each shard is of the worker's own labels: of ``skew`` of all samples the first worker has those with the
    lowest labels, and so on. The rest is random. So ``skew`` 0 is a random deal, and 1 sorts by label.

    Raises:
        ValueError: ``world_size`` below 1, or ``skew`` outside 0..1.

    Example:
        >>> labels = torch.tensor([2, 1, 0, 0, 1, 2])
        >>> found = samplers.shards(labels, world_size=3, skew=1.0, generator=torch.Generator())
        >>> [labels[shard].tolist() for shard in found]
        [[0, 0], [1, 1], [2, 2]]
    """
    _check_workers(world_size, skew)
    size = len(labels) // world_size
    order = torch.randperm(len(labels), generator=generator)[: size * world_size]
    own = round(skew * size)
    first, rest = order[: own * world_size], order[own * world_size :]
    sorted_ = first[labels[first].argsort(stable=True)].view(world_size, own)
    return [torch.cat([sorted_[rank], rest[rank::world_size]]) for rank in range(world_size)]


def _check_workers(world_size: int, skew: float) -> None:
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, got {world_size}")
    if not 0 <= skew <= 1:
        raise ValueError(f"skew must lie between 0 and 1, got {skew}")


class _Left:
    """The samples that an epoch has not used yet, and how many of each class."""

    def __init__(self, labels: Tensor, generator: torch.Generator) -> None:
        _, self.classes, self.counts = labels.unique(return_inverse=True, return_counts=True)
        self.unused = torch.ones(len(labels), dtype=torch.bool)
        self.generator = generator

    def choose(self, weights: Tensor, count: int) -> Tensor:
        """Different classes, drawn with a probability by weight."""
        return torch.multinomial(weights.double(), count, generator=self.generator)

    def draw(self, classes: Tensor, count: int) -> Tensor:
        """Use ``count`` random samples of the classes, given as what indexes them."""
        wanted = torch.zeros(len(self.counts), dtype=torch.bool)
        wanted[classes] = True
        pool = torch.nonzero(self.unused & wanted[self.classes]).flatten()
        drawn = pool[torch.randperm(len(pool), generator=self.generator)[:count]]
        self.unused[drawn] = False
        self.counts -= torch.bincount(self.classes[drawn], minlength=len(self.counts))
        return drawn


def _cut(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    return order[: len(order) - len(order) % batch_size].split(batch_size)


def _endless(epoch: Callable[[torch.Generator], Iterable[Tensor]], generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from epoch(generator)
