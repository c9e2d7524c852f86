"""Repeat figure 1 of Lian and Liu (2019): train on three samples with batch size 1.

The paper states no learning rate, number of steps or number of seeds. The output of BN for a test sample depends on its
running variance, for which there are two conventions. Algorithm 1 of the paper averages the biased variances of the
batches, which are all 0 here. PyTorch averages unbiased variances, which do not exist for a single value:
``bnlib.BatchNorm`` then leaves the running variance unchanged, and ``torch.nn.BatchNorm1d`` raises an error.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.objective import lian_setup
from bnlib.models import three_point_network
from bnlib.reference import ORACLES
from bnlib.schedules import lian_figure_4_alpha
from bnlib.sweep import Run

LEARNING_RATE, EPOCHS = 0.1, 1000
SEEDS = {"quick": range(20), "paper": range(100)}


class Algorithm1BatchNorm(BatchNorm):
    """Average biased variances in the running variance, as in Algorithm 1 of Lian and Liu (2019)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise as ``BatchNorm``, with another update of the running variance."""
        previous_var = self.running_var.clone()
        output = super().forward(input)
        if self.training:
            self.running_var.copy_(previous_var.lerp(input.detach().var(0, unbiased=False), self.momentum))
        return output


NORMS = {"without normalisation": None, "BN, algorithm 1": Algorithm1BatchNorm} | lian_setup.norms(
    lian_figure_4_alpha, [oracle for oracle in ORACLES if oracle != "leave_one_out"]
)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Return each norm; the scales differ only in the number of seeds."""
    settings = {"data": "three_points", "batch_size": 1, "lr": LEARNING_RATE, "epochs": EPOCHS}
    return {
        (name,): [Run(partial(three_point_network, norm), seed=seed, **settings) for seed in SEEDS[scale]]
        for name, norm in NORMS.items()
    }


EXPERIMENT = Experiment(
    name="objective.lian_figure_1",
    question="Can networks with BN and with Full Normalization learn three samples at batch size 1?",
    source="Lian and Liu 2019, figure 1",
    axes=("norm",),
    cells=cells,
)


def final_losses(scale: Scale, norm: str, curve: str) -> np.ndarray:
    """Return the last value of ``"train_loss"`` or ``"test_loss"`` in nats, one number per seed."""
    return np.array([run[-1] for run in EXPERIMENT.load(scale)[norm,][curve]], dtype=float)


def share_of_rising_test_losses(scale: Scale, norm: str) -> float:
    """Return the share of seeds whose test loss is higher after training than before, in per cent."""
    start = np.array([run[0] for run in EXPERIMENT.load(scale)[norm,]["test_loss"]], dtype=float)
    return 100 * float((final_losses(scale, norm, "test_loss") > start).mean())
