"""How mini-batches are built, besides shuffling (``bnlib.training.shuffled_batches``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from bnlib.training import check_batch_size


def single_label(labels: torch.Tensor) -> Callable[[int, int, int], Iterator[torch.Tensor]]:
    """Make mini-batches that hold one class each, for ``bnlib.training.iterate(batches=...)``.

    In each epoch the samples of each class are shuffled and cut into batches, what is left over of a class is dropped,
    and the batches come in random order.

    Arguments:
        labels: class of each sample, shape (n,).

    Raises:
        ValueError: when called, ``batch_size`` above the number of samples of the smallest class.

    Source: Lian and Liu 2019, section 6.2, "unshuffled case".
    """

    def batches(count: int, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
        classes = [torch.nonzero(labels.cpu() == label).flatten() for label in labels.unique()]
        check_batch_size(batch_size, min(map(len, classes)))
        generator = torch.Generator().manual_seed(seed)
        while True:
            epoch = []
            for members in classes:
                members = members[torch.randperm(len(members), generator=generator)]
                epoch += members[: len(members) - len(members) % batch_size].split(batch_size)
            for index in torch.randperm(len(epoch), generator=generator):
                yield epoch[index]

    return batches
