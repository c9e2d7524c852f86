"""Sets of batches: all batches that shuffling can produce, on one machine or on several.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnlib.arguments import check_integer


def all_batches(samples: int, batch_size: int, limit: int = 200_000) -> Tensor:
    """Return all subsets of ``batch_size`` samples, which are the batches that shuffling can produce.

    Arguments:
        samples: number of samples.
        batch_size: samples per batch.
        limit: the most batches to return.

    Returns:
        Indices of the samples, shape (K, batch_size).

    Raises:
        ValueError: if ``batch_size`` is outside 1..samples, or if there are more than ``limit`` subsets.

    Example:
        >>> objective.all_batches(4, 2).tolist()
        [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    """
    check_integer("samples", samples)
    check_integer("batch_size", batch_size, 1, samples)
    count = math.comb(samples, batch_size)
    if count > limit:
        raise ValueError(
            f"limit must be at least {count:,}, the number of batches of {batch_size} of {samples} samples, got "
            f"{limit:,}; or estimate the objective from sampled batches with estimated_objective"
        )
    return torch.tensor(list(itertools.combinations(range(samples), batch_size)))


def worker_batches(shards: Sequence[Sequence[int]], batch_size: int, limit: int = 200_000) -> list[Tensor]:
    """Return the batches that several workers can draw: all subsets of ``batch_size`` samples of each worker's shard.

    Arguments:
        shards: the indices of each worker's samples.
        batch_size: samples per batch.
        limit: the most batches of one worker.

    Returns:
        A list of index tensors, each of shape (batch_size,).

    Raises:
        ValueError: as ``all_batches``, for any of the shards.

    Source: Lian and Liu 2019, section 4.

    Example:
        >>> [batch.tolist() for batch in objective.worker_batches([[0, 1, 2], [3, 4]], 2)]
        [[0, 1], [0, 2], [1, 2], [3, 4]]
    """
    found = []
    for shard in shards:
        index = torch.as_tensor(shard)
        found += list(index[all_batches(len(index), batch_size, limit)])
    return found
