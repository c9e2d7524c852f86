"""All experiments by name."""

from __future__ import annotations

from bnlib.experiments import (
    digits_grid,
    full_norm_digits,
    lian_figure_1,
    lian_figure_2,
    lian_figure_3,
    lian_figure_4,
    lian_figure_5,
    lian_figure_7,
    lian_figure_8,
    lian_figure_9,
    noise_behind_bn,
)
from bnlib.experiments.experiment import Experiment

_MODULES = (
    digits_grid,
    full_norm_digits,
    lian_figure_1,
    lian_figure_2,
    lian_figure_3,
    lian_figure_4,
    lian_figure_5,
    lian_figure_7,
    lian_figure_8,
    lian_figure_9,
    noise_behind_bn,
)
EXPERIMENTS: dict[str, Experiment] = {module.EXPERIMENT.name: module.EXPERIMENT for module in _MODULES}
