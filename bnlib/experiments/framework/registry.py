"""The registry of all experiments: every module below ``bnlib.experiments`` that defines ``EXPERIMENT``."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from bnlib import experiments
from bnlib.arguments import Names
from bnlib.experiments.framework.experiment import Experiment
from bnlib.experiments.framework.measurement import Measurement

CHAPTERS = (
    "formula",
    "covariate_shift",
    "smoothness",
    "objective",
    "full_normalization",
    "perils",
    "failing",
    "depth",
    "alternatives",
    "machines",
    "training_code",
    "convergence",
)
"""The folders of ``bnlib/experiments`` and ``data/results``, in the order of the chapters."""


def find() -> dict[str, Experiment | Measurement]:
    """Import the modules in the folders of the chapters and collect their ``EXPERIMENT`` constants.

    Returns:
        The experiments by name, in the order of the chapters and, within a chapter, in alphabetical order.

    Raises:
        ValueError: if the name of an experiment is not that of its folder and file.
    """
    found: dict[str, Experiment | Measurement] = {}
    for chapter in CHAPTERS:
        folder = import_module(f"{experiments.__name__}.{chapter}")
        for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            experiment = getattr(import_module(module.name), "EXPERIMENT", None)
            if experiment is None:
                continue
            name = module.name.removeprefix(f"{experiments.__name__}.")
            if experiment.name != name:
                raise ValueError(f"name of EXPERIMENT in {module.name} must be {name!r}, got {experiment.name!r}")
            found[name] = experiment
    return found


EXPERIMENTS: dict[str, Experiment | Measurement] = Names(find())
"""All experiments by their names, ``CHAPTER.FILE``."""
