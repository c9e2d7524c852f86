"""All experiments by name."""

from __future__ import annotations

from bnlib.experiments import (
    alternatives,
    alternatives_images,
    deep_linear_shift,
    digits_grid,
    full_norm_digits,
    gradient_shift,
    labels_per_batch,
    landscape_over_training,
    lian_figure_1,
    lian_figure_2,
    lian_figure_3,
    lian_figure_4,
    lian_figure_5,
    lian_figure_7,
    lian_figure_8,
    lian_figure_9,
    lower_layers,
    mcsgd_rates,
    noise_behind_bn,
    objective_and_evaluation,
    oracle_bias,
    stable_rates,
    strength,
    tracking,
)
from bnlib.experiments.experiment import Experiment
from bnlib.experiments.measurement import Measurement

_MODULES = (
    alternatives,
    alternatives_images,
    deep_linear_shift,
    digits_grid,
    full_norm_digits,
    gradient_shift,
    labels_per_batch,
    landscape_over_training,
    lian_figure_1,
    lian_figure_2,
    lian_figure_3,
    lian_figure_4,
    lian_figure_5,
    lian_figure_7,
    lian_figure_8,
    lian_figure_9,
    lower_layers,
    mcsgd_rates,
    noise_behind_bn,
    objective_and_evaluation,
    oracle_bias,
    stable_rates,
    strength,
    tracking,
)
EXPERIMENTS: dict[str, Experiment | Measurement] = {module.EXPERIMENT.name: module.EXPERIMENT for module in _MODULES}
