"""What holds for the layers beside the rest of PyTorch: copies, programs, derivatives and processes."""

from bnlib.compatibility.networks import LAYERS
from bnlib.compatibility.table import EXCEPTIONS, SITUATIONS, Situation, expected, outcome, rows

__all__ = ["EXCEPTIONS", "LAYERS", "SITUATIONS", "Situation", "expected", "outcome", "rows"]
