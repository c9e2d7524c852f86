"""Show one image before and after BN in random batches: the other images of a batch decide where it arrives.

The two channels are two units of the first layer of an untrained network for digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnlib import reference
from bnlib.experiments.formula.batch_noise import channel_values

BATCH_SIZES = (2, 8, 32)
BATCHES = (1, 2, 3, 4, 5, 6)
"""Numbers of the batches that are drawn for each batch size."""


@dataclass(frozen=True)
class BeforeAndAfter:
    """One batch in two channels; the image that is in every batch comes first.

    Attributes:
        before: the inputs of BN, shape (batch size, 2).
        after: the normalised values, in the same shape.
        in_all_batches: the normalised values of the image in each of ``BATCHES``, shape (batches, 2).
    """

    before: np.ndarray
    after: np.ndarray
    in_all_batches: np.ndarray


def one_batch(batch_size: int, batch: int) -> BeforeAndAfter:
    """Put image 0 into one of ``BATCHES`` with other random training images, and normalise the batch.

    Example:
        >>> from bnlib.experiments.formula.before_and_after import one_batch
        >>> found = one_batch(batch_size=8, batch=1)
        >>> found.before.shape, bool(abs(found.after.mean(0)).max() < 1e-9)
        ((8, 2), True)
    """
    values = np.column_stack([channel_values(unit) for unit in (0, 1)])
    inputs = [values[_images(batch_size, number)] for number in BATCHES]
    outputs = [reference.batch_norm_forward(each)[0] for each in inputs]
    place = BATCHES.index(batch)
    return BeforeAndAfter(inputs[place], outputs[place], np.array([each[0] for each in outputs]))


def _images(batch_size: int, batch: int) -> np.ndarray:
    """Return the images of a batch: image 0 and random others."""
    rng = np.random.default_rng((batch, batch_size))
    others = rng.choice(np.arange(1, len(channel_values())), batch_size - 1, replace=False)
    return np.concatenate([[0], others])
