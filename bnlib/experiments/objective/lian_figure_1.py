"""Figure 1 of Lian and Liu (2019): three samples, batch size 1.

The paper gives neither learning rate nor number of steps nor seeds. What BN does to a test sample depends on its
running variance, and there are two conventions for that. Algorithm 1 of the paper averages the variances of the
batches, here all 0. torch averages unbiased ones; of a single value there is none, and ``bnlib.BatchNorm`` then leaves
the average as it is (``torch.nn.BatchNorm1d`` refuses such a batch).
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


class PrintedBatchNorm(BatchNorm):
    """BN with the running variance of Algorithm 1, an average of biased variances."""

    def forward(self, input: Tensor) -> Tensor:
        """As ``BatchNorm``."""
        before = self.running_var.clone()
        output = super().forward(input)
        if self.training:
            self.running_var.copy_(before.lerp(input.detach().var(0, unbiased=False), self.momentum))
        return output


NORMS = {"without normalisation": None, "BN, algorithm 1": PrintedBatchNorm} | lian_setup.norms(
    lian_figure_4_alpha, [oracle for oracle in ORACLES if oracle != "leave_one_out"]
)


def cells(scale: Scale) -> dict[tuple, list[Run]]:
    """Each norm, and none; the scales differ in the number of seeds alone."""
    settings = {"data": "three_points", "batch_size": 1, "lr": LEARNING_RATE, "epochs": EPOCHS}
    return {
        (name,): [Run(partial(three_point_network, norm), seed=seed, **settings) for seed in SEEDS[scale]]
        for name, norm in NORMS.items()
    }


EXPERIMENT = Experiment(
    name="objective.lian_figure_1",
    question="Can a network with BN learn three samples at batch size 1, and one with Full Normalization?",
    source="Lian and Liu 2019, figure 1",
    axes=("norm",),
    cells=cells,
)


TABLE_NORMS = {
    "BN, variance of Algorithm 1": "BN, algorithm 1",
    "BN, variance as in PyTorch": "BN",
    "without normalisation": "without normalisation",
    "Full Normalization": "FN, default",
}
"""Names in tables, and those of ``NORMS``."""


def final_losses(scale: Scale, norm: str, curve: str) -> np.ndarray:
    """Return the last value of ``"train_loss"`` or ``"test_loss"`` in nats, one number per seed."""
    return np.array([run[-1] for run in EXPERIMENT.load(scale)[norm,][curve]], dtype=float)


def share_of_rising_test_losses(scale: Scale, norm: str) -> float:
    """Return the share of seeds whose test loss is higher after training than before, in per cent."""
    start = np.array([run[0] for run in EXPERIMENT.load(scale)[norm,]["test_loss"]], dtype=float)
    return 100 * float((final_losses(scale, norm, "test_loss") > start).mean())


def final_loss_rows() -> list[dict]:
    """Return the losses after training in nats, one number per seed, for both scales, as rows of a table."""
    columns = [
        ((f"{len(SEEDS[scale])} seeds", header), scale, curve)
        for scale in ("quick", "paper")
        for header, curve in (("training loss", "train_loss"), ("test loss", "test_loss"))
    ]
    return [
        {"norm": title} | {header: final_losses(scale, norm, curve) for header, scale, curve in columns}
        for title, norm in TABLE_NORMS.items()
    ]


def failure_rows(scale: Scale = "paper") -> list[dict]:
    """Return the shares of seeds (%) whose test loss rose, and whose test loss ends above 0.5 nats."""
    return [
        {
            "norm": title,
            "test loss rose": share_of_rising_test_losses(scale, norm),
            "test loss ends above 0.5 nats": 100 * float((final_losses(scale, norm, "test_loss") > 0.5).mean()),
        }
        for title, norm in TABLE_NORMS.items()
    ]
