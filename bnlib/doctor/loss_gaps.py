"""Whether the losses of a few batches in each mode already tell what those of all batches would."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def losses_agree(train: Tensor, others: Sequence[Tensor], limit: float) -> bool:
    """Return whether losses differ from those in train mode by less than a limit, and in no batch by twice the limit.

    Arguments:
        train, others: the losses of the same batches, shape (number of batches,).
        limit: in the unit of the loss.
    """
    gaps = [(each - train).abs() for each in others]
    # Not "gap > limit": it may be nan.
    return all(bool(gap.mean() < limit and gap.max() < 2 * limit) for gap in gaps)


def gaps_are_clear(train: Tensor, in_eval: Tensor, recomputed: Tensor, limit: float) -> bool:
    """Return whether a few batches tell which losses are clearly larger than which: the gaps are far from the limit.

    The mean gap of 12 batches deviates from that of 4 of them by 0.4 standard deviations of the gaps; three times that
    is far. Two batches tell their standard deviation badly, so both gaps must be far from the limit. Unless eval mode
    is worse than both others, the batches may matter, and all of them should be asked.

    Arguments:
        train, in_eval, recomputed: the losses of the same batches in train mode, in eval mode and in eval mode with
            recomputed statistics, shape (number of batches,).
        limit: the smallest gap that is relevant.
    """
    pairs = ((in_eval, train), (in_eval, recomputed), (recomputed, train), (train, in_eval), (recomputed, in_eval))
    for worse, better in pairs:
        gaps = worse - better
        no, yes = _both_are_far(gaps, limit) if len(gaps) == 2 else _mean_is_far(gaps, limit)
        if not (no or (yes and worse is in_eval)):
            return False
    return True


def _mean_is_far(gaps: Tensor, limit: float) -> tuple[bool, bool]:
    """Return whether the mean gap is far below the limit, and whether it is far above."""
    mean, deviation = float(gaps.mean()), float(gaps.std())
    return mean + 1.25 * deviation < limit, mean - 1.25 * deviation > limit and mean > 2 * deviation


def _both_are_far(gaps: Tensor, limit: float) -> tuple[bool, bool]:
    """Return whether two gaps are both far below the limit, and whether they are both far above and nearly equal."""
    low, high = float(gaps.min()), float(gaps.max())
    return high < 0.5 * limit, low > 1.5 * limit and low > 0.5 * high
