"""The record of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """The record of a training run, with one entry per checkpoint.

    Attributes:
        epoch: number of passes over the training set so far; fractions are possible.
        train_loss: mean cross-entropy, in nats, of the mini-batches since the last checkpoint, in train mode. At the
            first checkpoint it is the loss of the first mini-batch before any step.
        train_error: share of wrongly classified samples in these mini-batches.
        test_loss: mean cross-entropy of the test set, in nats, in eval mode.
        test_error: share of wrongly classified samples in the test set, in eval mode.
        step_loss: mean cross-entropy of the mini-batch of each step, in nats; empty without ``record_step_loss``.
        diverged: whether the loss became infinite or nan, which ended the run.
        seconds: time of the run; its share if a sweep stacked it with others. ``==`` ignores it.
    """

    epoch: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_error: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    step_loss: list[float] = field(default_factory=list)
    diverged: bool = False
    seconds: float = field(default=0.0, compare=False)
