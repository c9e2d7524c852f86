"""Samplers, which build mini-batches: values for the argument ``batches`` of ``training.iterate`` and ``sweep.Run``.

A sampler is a callable ``sampler(labels, batch_size, seed)``. It takes the classes of all training samples, an integer
tensor of shape (n,) on the CPU, and returns an endless iterator of int64 index tensors of shape (batch_size,). The same
seed gives the same batches. Samplers without options are functions; those with options are frozen dataclasses, so that
``sweep`` can identify them.

In this module an epoch is one pass of a sampler, which may leave out samples. In ``training`` an epoch is a number of
steps: the number of samples divided by the batch size, rounded down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from numbers import Integral

import torch
from torch import Tensor

from bnlib.arguments import check_flags, check_integer, check_kind, check_number, shown

Sampler = Callable[[Tensor, int, int], Iterator[Tensor]]
"""``sampler(labels, batch_size, seed)``, an endless iterator of index tensors."""


def check_batch_size(batch_size: int, count: int, of: str = "samples") -> None:
    """Raise an error if ``batch_size`` is not an integer from 1 to ``count``; ``of`` names what is counted.

    Example:
        >>> samplers.check_batch_size(32, 20)
        Traceback (most recent call last):
            ...
        ValueError: batch_size must be an integer between 1 and the number of samples (20), got 32
    """
    message = f"batch_size must be an integer between 1 and the number of {of} ({count}), got {shown(batch_size)}"
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral):
        raise TypeError(message)
    if not 1 <= batch_size <= count:
        raise ValueError(message)


def shuffled(labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Shuffle all samples in each epoch, cut them into batches, and drop an incomplete last batch.

    Dropping it keeps the batch size the same in every step; a last batch of one sample would be a special case for BN.

    Arguments:
        labels: class of each sample, shape (n,); only their number matters.
        batch_size: samples per batch.
        seed: seed of the random order.

    Returns:
        An endless iterator of index tensors, shape (batch_size,).

    Raises:
        ValueError: if ``batch_size`` is outside 1..number of samples.

    Example:
        >>> batches = samplers.shuffled(torch.zeros(6), batch_size=2, seed=0)
        >>> sorted(torch.cat([next(batches) for _ in range(3)]).tolist())
        [0, 1, 2, 3, 4, 5]
    """
    count = _checked_count(labels)
    check_batch_size(batch_size, count)
    return _endless(
        lambda generator: _cut(torch.randperm(count, generator=generator, device="cpu"), batch_size),
        _generator(seed),
    )


def single_label(labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Build mini-batches that contain a single class each.

    In each epoch the samples of each class are shuffled and cut into batches. The remaining samples of a class are
    dropped, and the batches come in random order.

    Arguments:
        labels: class of each sample, shape (n,).
        batch_size: samples per batch.
        seed: seed of the random order.

    Returns:
        An endless iterator of index tensors, shape (batch_size,).

    Raises:
        ValueError: if ``batch_size`` is larger than the smallest class.

    Source: Lian and Liu 2019, section 6.2, "unshuffled case".

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
        >>> batches = samplers.single_label(labels, batch_size=3, seed=0)
        >>> sorted(labels[next(batches)].tolist() for _ in range(3))
        [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    """
    _checked_count(labels)
    classes = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    check_batch_size(batch_size, min(map(len, classes), default=0), "samples of the smallest class")

    def epoch(generator: torch.Generator) -> Iterable[Tensor]:
        batches = []
        for members in classes:
            batches += _cut(members[torch.randperm(len(members), generator=generator, device="cpu")], batch_size)
        return (batches[index] for index in torch.randperm(len(batches), generator=generator, device="cpu"))

    return _endless(epoch, _generator(seed))


@dataclass(frozen=True)
class MaxLabelsPerBatch:
    """A sampler of mini-batches with at most ``k`` classes each.

    For each batch it draws ``k`` classes, with probabilities proportional to their numbers of unused samples, and fills
    the batch with unused samples of these classes. If there are too few of them, it uses the ``k`` classes with the
    most unused samples; if these have too few as well, the epoch ends. No sample is used twice in an epoch, and fewer
    than ``batch_size * classes / k`` samples are dropped.

    Arguments:
        k: the most classes in a batch, from 1 (similar to ``single_label``) to the number of classes (similar to
            ``shuffled``).

    Raises:
        ValueError: if ``k`` is outside 1..number of classes, or if the ``k`` largest classes have fewer than
            ``batch_size`` samples.

    Source: Lian and Liu 2019, figure 5, with ``k=3``. The paper does not say how its batches were built.

    Example:
        >>> labels = torch.arange(100) % 10
        >>> batches = samplers.MaxLabelsPerBatch(3)(labels, 20, 0)
        >>> max(len(labels[next(batches)].unique()) for _ in range(5))
        3
    """

    k: int

    def __post_init__(self) -> None:
        check_integer("k", self.k)

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Return an endless iterator of index tensors, shape (batch_size,); see ``bnlib.samplers``."""
        _checked_count(labels)
        k, sizes = self.k, labels.unique(return_counts=True)[1]
        if k > len(sizes):
            raise ValueError(f"k must be at most the number of classes ({len(sizes)}), got {k}")
        check_batch_size(batch_size, int(sizes.topk(k).values.sum()), f"samples of the {k} largest classes")

        def epoch(generator: torch.Generator) -> Iterator[Tensor]:
            unused = _Unused(labels, generator)
            while unused.counts.topk(k).values.sum() >= batch_size:
                chosen = unused.choose(unused.counts, min(k, int(unused.counts.count_nonzero())))
                if unused.counts[chosen].sum() < batch_size:
                    chosen = unused.counts.topk(k).indices
                yield unused.draw(chosen, batch_size)

        return _endless(epoch, _generator(seed))


@dataclass(frozen=True)
class ClassSkewed:
    """A sampler of mini-batches in which one class makes up a given share of the samples.

    For each batch it draws the class, with probabilities proportional to the numbers of unused samples. The batch gets
    ``round(share * batch_size)`` samples of this class, and the rest come from all other classes. No sample is used
    twice in an epoch. The epoch ends when no class has enough unused samples; the remaining samples are dropped.

    Arguments:
        share: share of the class in each batch. 1 gives batches of a single class, 0 gives batches without one of the
            classes, and 1 / number of classes gives balanced batches.

    Raises:
        ValueError: if ``share`` is outside 0..1; on a call, if ``batch_size`` is outside 1..number of samples, or if
            the data set is too small for a single batch with this share.

    Example:
        >>> labels = torch.arange(100) % 10
        >>> batches = samplers.ClassSkewed(0.75)(labels, 8, 0)
        >>> int(labels[next(batches)].bincount().max())
        6
    """

    share: float

    def __post_init__(self) -> None:
        check_number("share", self.share, at_least=0, at_most=1)

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Return an endless iterator of index tensors, shape (batch_size,); see ``bnlib.samplers``."""
        check_batch_size(batch_size, _checked_count(labels))
        ours = round(self.share * batch_size)
        others = batch_size - ours

        def allowed(counts: Tensor) -> Tensor:
            return (counts >= ours) & (counts.sum() - counts >= others)

        if not allowed(labels.unique(return_counts=True)[1]).any():
            needed = f"{ours} samples and {others} of other classes"
            raise ValueError(f"batch_size must be such that some class has {needed}, got {batch_size}")

        def epoch(generator: torch.Generator) -> Iterator[Tensor]:
            unused = _Unused(labels, generator)
            while (able := allowed(unused.counts)).any():
                # Plus 1, because with a share of 0 the excluded class may be one without unused samples.
                one = unused.choose(able * (unused.counts + 1), 1)
                rest = torch.arange(len(able), device="cpu") != one
                batch = torch.cat([unused.draw(one, ours), unused.draw(rest, others)])
                yield batch[torch.randperm(batch_size, generator=generator, device="cpu")]

        return _endless(epoch, _generator(seed))


@dataclass(frozen=True)
class FixedBatches:
    """A sampler that cuts the samples into batches once and repeats the same batches in every epoch.

    Samples that do not fill a last batch are never used.

    Arguments:
        shuffle_samples: shuffle the samples before they are cut into batches, in the order of the first epoch of
            ``shuffled``; False keeps the order of the data set.
        shuffle_batches: present the batches in a new random order in each epoch.

    Raises:
        ValueError: on a call, if ``batch_size`` is outside 1..number of samples.

    Example:
        >>> batches = samplers.FixedBatches(shuffle_samples=False)(torch.zeros(5), 2, 0)
        >>> [next(batches).tolist() for _ in range(4)]
        [[0, 1], [2, 3], [0, 1], [2, 3]]
    """

    shuffle_samples: bool = True
    shuffle_batches: bool = False

    def __post_init__(self) -> None:
        check_flags(shuffle_samples=self.shuffle_samples, shuffle_batches=self.shuffle_batches)

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Return an endless iterator of index tensors, shape (batch_size,); see ``bnlib.samplers``."""
        count, generator = _checked_count(labels), _generator(seed)
        check_batch_size(batch_size, count)
        order = (
            torch.randperm(count, generator=generator, device="cpu")
            if self.shuffle_samples
            else torch.arange(count, device="cpu")
        )
        batches = _cut(order, batch_size)

        def epoch(generator: torch.Generator) -> Iterable[Tensor]:
            if not self.shuffle_batches:
                return batches
            return (batches[index] for index in torch.randperm(len(batches), generator=generator, device="cpu"))

        return _endless(epoch, generator)


@dataclass(frozen=True)
class PerWorker:
    """A sampler for one of several workers, each of which draws batches from its own shard of the data set.

    The function ``shards`` splits the data set; all workers with the same seed get the same split. Each worker has its
    own random order within its shard.

    Arguments:
        rank: number of the worker, from 0 to ``world_size - 1``.
        world_size: number of workers.
        base: the sampler that builds batches from the shard.
        reshard: split the data set anew after each epoch, as ``torch.utils.data.DistributedSampler`` does; False keeps
            the same shard for the whole training.
        skew: label skew of the shards, see ``shards``.

    Raises:
        ValueError: if ``world_size`` is below 1, ``rank`` is outside 0..``world_size - 1``, or ``skew`` is outside
            0..1; on a call, if ``batch_size`` is outside 1..size of a shard; and the errors of ``base``.

    Source: Lian and Liu 2019, section 4, where the set of batches is the union of the batches of all workers.

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
        check_flags(reshard=self.reshard)
        check_integer("rank", self.rank, 0, self.world_size - 1)
        if not callable(self.base):
            raise TypeError(f"base must be a sampler, see bnlib.samplers, got {shown(self.base)}")

    def __call__(self, labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Return an endless iterator of index tensors, shape (batch_size,); see ``bnlib.samplers``."""
        size = _checked_count(labels) // self.world_size
        check_batch_size(batch_size, size, "samples of a worker")

        def epoch(generator: torch.Generator) -> Iterator[Tensor]:
            shard = shards(labels, self.world_size, self.skew, generator)[self.rank]
            # With the same seed, the workers would combine the same positions of their shards in every step.
            seeds = torch.randint(2**31, (self.world_size,), generator=generator, device="cpu")
            batches = self.base(labels[shard], batch_size, seeds[self.rank].item())
            return (shard[batch] for batch in islice(batches, size // batch_size if self.reshard else None))

        return _endless(epoch, _generator(seed))


def shards(labels: Tensor, world_size: int, skew: float, generator: torch.Generator) -> list[Tensor]:
    """Split the samples into disjoint shards of equal size, one for each worker, with a given label skew.

    A share ``skew`` of all samples is sorted by label and split in this order, so the first worker gets the lowest
    labels, and so on. The other samples are split at random. So ``skew=0`` gives random shards, and ``skew=1`` gives
    shards sorted by label. Up to ``world_size - 1`` samples are left out to make the sizes equal.

    Arguments:
        labels: class of each sample, shape (n,).
        world_size: number of workers.
        skew: share of the samples that is sorted by label, from 0 to 1.
        generator: source of the random order.

    Returns:
        An index tensor for each worker, shape (n // world_size,).

    Raises:
        ValueError: if ``world_size`` is below 1, or ``skew`` is outside 0..1.

    Example:
        >>> labels = torch.tensor([2, 1, 0, 0, 1, 2])
        >>> found = samplers.shards(labels, world_size=3, skew=1.0, generator=torch.Generator())
        >>> [labels[shard].tolist() for shard in found]
        [[0, 0], [1, 1], [2, 2]]
    """
    _check_workers(world_size, skew)
    check_kind("generator", generator, torch.Generator, "a torch.Generator")
    size = _checked_count(labels) // world_size
    order = torch.randperm(len(labels), generator=generator, device="cpu")[: size * world_size]
    own = round(skew * size)
    first, rest = order[: own * world_size], order[own * world_size :]
    sorted_ = first[labels[first].argsort(stable=True)].view(world_size, own)
    return [torch.cat([sorted_[rank], rest[rank::world_size]]) for rank in range(world_size)]


def _checked_count(labels: Tensor) -> int:
    """Return the number of samples; raise an error if ``labels`` does not hold one class for each of them."""
    check_kind("labels", labels, Tensor, "a tensor with the class of each sample, shape (n,)")
    if labels.dim() != 1:
        raise ValueError(f"labels must have the shape (n,), one class for each sample, got {tuple(labels.shape)}")
    return len(labels)


def _generator(seed: int) -> torch.Generator:
    check_integer("seed", seed, at_least=0)
    return torch.Generator("cpu").manual_seed(int(seed))


def _check_workers(world_size: int, skew: float) -> None:
    check_integer("world_size", world_size)
    check_number("skew", skew, at_least=0, at_most=1)


class _Unused:
    """The samples that an epoch has not used yet, and their number in each class."""

    def __init__(self, labels: Tensor, generator: torch.Generator) -> None:
        _, self.classes, self.counts = labels.unique(return_inverse=True, return_counts=True)
        self.unused = torch.ones(len(labels), dtype=torch.bool, device="cpu")
        self.generator = generator

    def choose(self, weights: Tensor, count: int) -> Tensor:
        """Draw ``count`` different classes with probabilities proportional to ``weights``."""
        return torch.multinomial(weights.double(), count, generator=self.generator)

    def draw(self, classes: Tensor, count: int) -> Tensor:
        """Draw ``count`` random unused samples of the classes, an index or mask over classes, and mark them as used."""
        wanted = torch.zeros(len(self.counts), dtype=torch.bool, device="cpu")
        wanted[classes] = True
        pool = torch.nonzero(self.unused & wanted[self.classes]).flatten()
        drawn = pool[torch.randperm(len(pool), generator=self.generator, device="cpu")[:count]]
        self.unused[drawn] = False
        self.counts -= torch.bincount(self.classes[drawn], minlength=len(self.counts))
        return drawn


def _cut(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    return order[: len(order) - len(order) % batch_size].split(int(batch_size))


def _endless(epoch: Callable[[torch.Generator], Iterable[Tensor]], generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from epoch(generator)
