"""All experiments by name."""

from __future__ import annotations

from bnlib.experiments import full_norm_digits
from bnlib.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {module.EXPERIMENT.name: module.EXPERIMENT for module in (full_norm_digits,)}
