"""Batch Normalization and its alternatives in PyTorch: layers, probes, a training loop, and a doctor for models.

``import bnlib`` needs only torch and numpy. The functions that use matplotlib, pandas, ipywidgets or pooch import these
packages when they are called.

Example:
    >>> model = nn.Sequential(nn.Linear(3, 4), bnlib.BatchNorm(4), nn.ReLU())
    >>> model(torch.zeros(8, 3)).shape
    torch.Size([8, 4])
"""

from bnlib.doctor import diagnose
from bnlib.norm import (
    NORMS,
    ActivationNoise,
    BatchNorm,
    BatchRenorm,
    CosineLinear,
    CrossIterationBatchNorm,
    DomainBatchNorm,
    DynamicTanh,
    EvoNormS0,
    FilterResponseNorm,
    FullNorm,
    GhostBatchNorm,
    MovingAverageBatchNorm,
    NoisyBatchNorm,
    OnlineNorm,
    RMSNorm,
    SyncBatchNorm,
    convert,
    use_domain,
    weight_centralise,
    weight_standardise,
)

__version__ = "0.1.0"
__all__ = [
    "NORMS",
    "ActivationNoise",
    "BatchNorm",
    "BatchRenorm",
    "CosineLinear",
    "CrossIterationBatchNorm",
    "DomainBatchNorm",
    "DynamicTanh",
    "EvoNormS0",
    "FilterResponseNorm",
    "FullNorm",
    "GhostBatchNorm",
    "MovingAverageBatchNorm",
    "NoisyBatchNorm",
    "OnlineNorm",
    "RMSNorm",
    "SyncBatchNorm",
    "__version__",
    "convert",
    "diagnose",
    "use_domain",
    "weight_centralise",
    "weight_standardise",
]
