"""Batch Normalization as code that can be read, measured and trusted.

``import bnlib`` needs torch and numpy only: matplotlib, ipywidgets, scikit-learn and pooch are imported by
the functions that use them.
"""

from bnlib.norm import BatchNorm, FullNorm

__version__ = "0.1.0"
__all__ = ["BatchNorm", "FullNorm", "__version__"]
