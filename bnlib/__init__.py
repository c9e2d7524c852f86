"""Batch Normalization as code that can be read, measured and trusted.

``import bnlib`` needs torch and numpy only: matplotlib, ipywidgets, scikit-learn and pooch are imported by
the functions that use them.
"""

from bnlib.norm import (
    NORMS,
    BatchNorm,
    BatchRenorm,
    CosineLinear,
    DomainBatchNorm,
    FullNorm,
    convert,
    use_domain,
    weight_standardise,
)

__version__ = "0.1.0"
__all__ = [
    "NORMS",
    "BatchNorm",
    "BatchRenorm",
    "CosineLinear",
    "DomainBatchNorm",
    "FullNorm",
    "__version__",
    "convert",
    "use_domain",
    "weight_standardise",
]
