"""What parts of PyTorch do to the running statistics of ``torch.nn.BatchNorm``, measured, with remedies."""

from bnlib.torch_parts.measuring import Measured, Part
from bnlib.torch_parts.table import PARTS, SECTIONS, load, measure, missing, outcome, rows, summary_rows, versions

__all__ = [
    "PARTS",
    "SECTIONS",
    "Measured",
    "Part",
    "load",
    "measure",
    "missing",
    "outcome",
    "rows",
    "summary_rows",
    "versions",
]
