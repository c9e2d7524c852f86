"""Watch the batch normalisation of a model while it trains."""

from bnlib.monitor.lightning_callback import lightning
from bnlib.monitor.monitor import Monitor
from bnlib.monitor.quantities import QUANTITIES
from bnlib.monitor.transformers_callback import transformers

__all__ = ["QUANTITIES", "Monitor", "lightning", "transformers"]
