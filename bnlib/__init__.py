"""Batch Normalization as code that can be read, measured and trusted.

``import bnlib`` needs torch and numpy only: matplotlib, ipywidgets, scikit-learn and pooch are imported by
the functions that use them.
"""

from bnlib.doctor import diagnose
from bnlib.norm import (
    NORMS,
    ActivationNoise,
    BatchNorm,
    BatchRenorm,
    CosineLinear,
    DomainBatchNorm,
    FullNorm,
    NoisyBatchNorm,
    SyncBatchNorm,
    convert,
    use_domain,
    weight_standardise,
)

__version__ = "0.1.0"
__all__ = [
    "NORMS",
    "ActivationNoise",
    "BatchNorm",
    "BatchRenorm",
    "CosineLinear",
    "DomainBatchNorm",
    "FullNorm",
    "NoisyBatchNorm",
    "SyncBatchNorm",
    "__version__",
    "convert",
    "diagnose",
    "use_domain",
    "weight_standardise",
]
