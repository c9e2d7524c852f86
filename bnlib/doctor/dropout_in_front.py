"""Whether running statistics are wrong because training computed them behind dropout, which is off in eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from bnlib.doctor.batch_passes import Statistics
from bnlib.doctor.layer_statistics import pool_statistics
from bnlib.doctor.losses import Score
from bnlib.doctor.measurements import Measurements

REMEDY = (
    "Move dropout behind the last norm layer, or lower its rate. For a model that is already trained, recompute the "
    "running statistics with the norm layers in train mode and dropout in eval mode: "
    "torch.optim.swa_utils.update_bn alone would switch dropout on again."
)


def loss_with_dropout_statistics(measurements: Measurements) -> Score | None:
    """Return the loss in eval mode if the statistics are computed with dropout on; None if dropout is not the cause.

    Dropout raises the variance of the next norm layer's input, but in train mode only. It is the cause if statistics
    computed with dropout on raise the loss by more than half of what the running statistics do.

    Source: Li et al. 2019, Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift
    (https://arxiv.org/abs/1801.05134).
    """
    statistics = _statistics_with_dropout(measurements)
    if not statistics:
        return None
    score, precise = measurements.score_with_statistics(statistics), measurements.eval_recomputed_score.losses
    explained = float((score.losses - precise).mean()) / float((measurements.eval_score.losses - precise).mean())
    return score if 0.5 < explained < 2 else None


def _statistics_with_dropout(measurements: Measurements) -> Statistics:
    """Return the mean and the variance of each called layer's input with dropout on; empty without dropout."""
    instrumented = measurements.instrumented
    modules = [module for module in instrumented.model.modules() if _drops(module)]
    if not modules:
        return {}
    with _in_train_mode(modules), measurements.domain_in_use():
        passes = [instrumented(measurements.batches[number], "batch", record=True) for number in measurements.few]
    pooled = {
        name: pool_statistics([call for run in passes for call in run.calls.get(name, [])])
        for name in measurements.statistics
    }
    return {name: (each.mean, each.total_variance) for name, each in pooled.items() if each is not None}


def _drops(module: nn.Module) -> bool:
    """Return whether a module is dropout or drops residual branches (stochastic depth)."""
    name = type(module).__name__.lower()
    return "dropout" in name or "droppath" in name or "stochasticdepth" in name


@contextmanager
def _in_train_mode(modules: list[nn.Module]) -> Iterator[None]:
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module in modules:
            module.training = False
