"""Measurements on any model that leave its training as it was."""

from bnlib.probes.contracts import batch_independence, relative_change, train_equals_test
from bnlib.probes.depth import LayerGradient, gradient_by_layer, growth_per_layer
from bnlib.probes.hessian import Sharpness, sharpness
from bnlib.probes.landscape import (
    AlongGradient,
    Stable,
    Surface,
    along_gradient,
    filter_normalised_direction,
    largest_stable,
    loss_surface,
    step_lengths,
)
from bnlib.probes.scale import (
    ScaleInvariance,
    SphericalStep,
    effective_learning_rate,
    equilibrium,
    scale_invariance,
    spherical_step,
)
from bnlib.probes.shift import (
    Distance,
    LayerShift,
    Moments,
    activation_moments,
    covariate_shift,
    distance,
    layer_groups,
    moments,
    next_parameters,
    probe_step,
    recording,
)
from bnlib.probes.smoothness import Inequality, theorem_4_1, theorem_4_2
from bnlib.probes.statistics import with_statistics_of

__all__ = [
    "AlongGradient",
    "Distance",
    "Inequality",
    "LayerGradient",
    "LayerShift",
    "Moments",
    "ScaleInvariance",
    "Sharpness",
    "SphericalStep",
    "Stable",
    "Surface",
    "activation_moments",
    "along_gradient",
    "batch_independence",
    "covariate_shift",
    "distance",
    "effective_learning_rate",
    "equilibrium",
    "filter_normalised_direction",
    "gradient_by_layer",
    "growth_per_layer",
    "largest_stable",
    "layer_groups",
    "loss_surface",
    "moments",
    "next_parameters",
    "probe_step",
    "recording",
    "relative_change",
    "scale_invariance",
    "sharpness",
    "spherical_step",
    "step_lengths",
    "theorem_4_1",
    "theorem_4_2",
    "train_equals_test",
    "with_statistics_of",
]
