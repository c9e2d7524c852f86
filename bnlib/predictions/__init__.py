"""Questions whose right answer is computed: the reader picks an option, then the answer and its reason unfold."""

from typing import Any

from bnlib.arguments import Names, suggestion
from bnlib.predictions import (
    alternatives,
    convergence,
    covariate_shift,
    depth,
    failing,
    formula,
    full_normalization,
    machines,
    objective,
    perils,
    smoothness,
    training_code,
    training_code_precision,
)
from bnlib.predictions.prediction import Answered, Prediction

_CHAPTERS = (
    formula,
    covariate_shift,
    smoothness,
    objective,
    full_normalization,
    perils,
    failing,
    depth,
    alternatives,
    machines,
    training_code,
    training_code_precision,
    convergence,
)

PREDICTIONS: dict[str, Prediction] = Names({each.name: each for chapter in _CHAPTERS for each in chapter.PREDICTIONS})
"""Every prediction by its name, in the order of the chapters."""

__all__ = ["PREDICTIONS", "Answered", "Prediction", "ask"]


def ask(name: str, **measured: Any) -> Answered:
    """Ask the prediction of this name, which the measured values decide.

    Raises:
        KeyError: there is no such prediction.
        TypeError: a value that the prediction needs is missing, or one is given that it does not use.
        ValueError: the values make no option right, or more than one.

    Example:
        >>> predictions.ask("other-samples", changed=0.8, tenths=8).right
        'More than half of them'
    """
    if name not in PREDICTIONS:
        raise KeyError(f"name must be one of {sorted(PREDICTIONS)}, got {name!r}{suggestion(name, PREDICTIONS)}")
    return PREDICTIONS[name].answered(**measured)
