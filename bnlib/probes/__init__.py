"""Measurements on any model that leave its training as it was."""

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

__all__ = [
    "Distance",
    "LayerShift",
    "Moments",
    "activation_moments",
    "covariate_shift",
    "distance",
    "layer_groups",
    "moments",
    "next_parameters",
    "probe_step",
    "recording",
]
