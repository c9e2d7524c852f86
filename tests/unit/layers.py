"""All layers of ``bnlib.norm`` for 4 channels, for tests that hold for each of them."""

import pytest
import torch

import bnlib
from bnlib.reference import ORACLES


def domain_batch_norm(**options):
    layer = bnlib.DomainBatchNorm(4, 2, shared_affine=True, **options)
    layer.domain = 1
    return layer


def cross_iteration_batch_norm(**options):
    with torch.inference_mode(False):
        return bnlib.CrossIterationBatchNorm(torch.nn.Linear(4, 4, **options), 3)


LAYERS = {
    "BatchNorm": lambda **options: bnlib.BatchNorm(4, **options),
    "GhostBatchNorm": lambda **options: bnlib.GhostBatchNorm(4, 3, **options),
    "SyncBatchNorm": lambda **options: bnlib.SyncBatchNorm(4, **options),
    "NoisyBatchNorm": lambda **options: bnlib.NoisyBatchNorm(4, seed=1, **options),
    "DomainBatchNorm": domain_batch_norm,
    "BatchRenorm": lambda **options: bnlib.BatchRenorm(4, momentum=0.3, r_max=2.0, d_max=1.0, **options),
    **{f"FullNorm {oracle}": lambda oracle=oracle, **options: bnlib.FullNorm(4, oracle=oracle, **options)
       for oracle in ORACLES},
    "MovingAverageBatchNorm": lambda **options: bnlib.MovingAverageBatchNorm(4, 2, **options),
    "OnlineNorm": lambda **options: bnlib.OnlineNorm(4, 0.9, 0.8, **options),
    "CrossIterationBatchNorm": cross_iteration_batch_norm,
    "RMSNorm": lambda **options: bnlib.RMSNorm(4, **options),
    "DynamicTanh": lambda **options: bnlib.DynamicTanh(4, **options),
    "FilterResponseNorm": lambda **options: bnlib.FilterResponseNorm(4, **options),
    "EvoNormS0": lambda **options: bnlib.EvoNormS0(2, 4, **options),
    "CosineLinear": lambda **options: bnlib.CosineLinear(4, 4, **options),
}  # fmt: skip

EACH = pytest.mark.parametrize("name", LAYERS)
EACH_FULL_NORM = pytest.mark.parametrize("name", [name for name in LAYERS if "FullNorm" in name])
