"""Measure properties of any PyTorch model without changing the model or its training."""

from bnlib.probes.activation_shift import (
    ChannelStatistics,
    StatisticsDistance,
    activation_statistics,
    channel_statistics,
    record_activation_statistics,
    statistics_distance,
)
from bnlib.probes.consistency import batch_dependence, relative_difference, train_eval_difference
from bnlib.probes.gradient_growth import LayerGradientNorms, gradient_norms_by_layer, growth_per_layer
from bnlib.probes.gradient_landscape import LandscapeAlongGradient, landscape_along_gradient, step_sizes
from bnlib.probes.gradient_shift import (
    LayerGradientShift,
    internal_covariate_shift,
    internal_covariate_shift_of_step,
    parameters_after_step,
)
from bnlib.probes.hessian import Sharpness, sharpness
from bnlib.probes.layer_parameters import parameters_by_layer
from bnlib.probes.loss_surfaces import LossSurface, filter_normalised_direction, loss_surface
from bnlib.probes.recomputed_statistics import with_recomputed_statistics
from bnlib.probes.santurkar_theorems import Inequality, theorem_4_1, theorem_4_2, theorem_4_4
from bnlib.probes.stable_learning_rate import (
    LearningRateScan,
    StableLearningRate,
    largest_stable_learning_rate,
    scan_learning_rates,
)
from bnlib.probes.weight_scale import (
    ScaleInvariance,
    SphericalStep,
    effective_learning_rate,
    scale_invariance,
    spherical_step,
    weight_decay_equilibrium,
)

__all__ = [
    "ChannelStatistics",
    "Inequality",
    "LandscapeAlongGradient",
    "LayerGradientNorms",
    "LayerGradientShift",
    "LearningRateScan",
    "LossSurface",
    "ScaleInvariance",
    "Sharpness",
    "SphericalStep",
    "StableLearningRate",
    "StatisticsDistance",
    "activation_statistics",
    "batch_dependence",
    "channel_statistics",
    "effective_learning_rate",
    "filter_normalised_direction",
    "gradient_norms_by_layer",
    "growth_per_layer",
    "internal_covariate_shift",
    "internal_covariate_shift_of_step",
    "landscape_along_gradient",
    "largest_stable_learning_rate",
    "loss_surface",
    "parameters_after_step",
    "parameters_by_layer",
    "record_activation_statistics",
    "relative_difference",
    "scale_invariance",
    "scan_learning_rates",
    "sharpness",
    "spherical_step",
    "statistics_distance",
    "step_sizes",
    "theorem_4_1",
    "theorem_4_2",
    "theorem_4_4",
    "train_eval_difference",
    "weight_decay_equilibrium",
    "with_recomputed_statistics",
]
