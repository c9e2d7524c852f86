"""The training loop: for a single model, and for many models at once."""

from bnlib.training.evaluation import error_rate
from bnlib.training.history import History
from bnlib.training.loop import iterate, iterate_many
from bnlib.training.optimisers import (
    OptimiserMaker,
    step_is_elementwise,
    step_is_proportional_to_gradient,
    step_is_proportional_to_rate,
)
from bnlib.training.progress import fit, progress_bar
from bnlib.training.settings import Callback, best_device, check_device

__all__ = [
    "Callback",
    "History",
    "OptimiserMaker",
    "best_device",
    "check_device",
    "error_rate",
    "fit",
    "iterate",
    "iterate_many",
    "progress_bar",
    "step_is_elementwise",
    "step_is_proportional_to_gradient",
    "step_is_proportional_to_rate",
]
