"""Matplotlib figures of the book in one style, one file for each chapter."""

from bnlib.experiments.framework.results import as_array as as_array  # described there
from bnlib.figures.alternatives import draw_alternatives, draw_kept, draw_sharing
from bnlib.figures.covariate_shift import (
    draw_deep_linear,
    draw_gradient_shift,
    draw_moving_activations,
    draw_noise,
    draw_shift_and_loss,
)
from bnlib.figures.curves import draw_curves
from bnlib.figures.depth import draw_depth, draw_gradients, draw_growth, draw_jitter, draw_variant
from bnlib.figures.failing import draw_gamma, draw_micro_batches, draw_own_and_dealt, draw_placement, draw_statistics
from bnlib.figures.formula import (
    draw_answers,
    draw_batch_noise,
    draw_error_maps,
    draw_gain,
    draw_running,
    draw_training,
)
from bnlib.figures.full_normalization import (
    draw_alpha,
    draw_composition,
    draw_labels,
    draw_oracle_bias,
    draw_rates,
    draw_tracking,
)
from bnlib.figures.machines import draw_local_statistics, draw_many_machines
from bnlib.figures.objective import (
    draw_absorbed,
    draw_errors_by_batch_size,
    draw_objective_and_evaluation,
    draw_surface,
)
from bnlib.figures.panels import Box, Layout, in_panels, lay_out
from bnlib.figures.perils import draw_discriminator, draw_in_use, draw_shifted, draw_towers
from bnlib.figures.picture import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    Picture,
    band,
    cleaned,
    new_figure,
    picture,
    plain_ticks,
    render,
    style,
)
from bnlib.figures.smoothness import draw_landscape, draw_smoothness_by_loss, draw_stable_rates, draw_step

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "PURPLE",
    "VERMILLION",
    "Box",
    "Layout",
    "Picture",
    "band",
    "cleaned",
    "draw_absorbed",
    "draw_alpha",
    "draw_alternatives",
    "draw_answers",
    "draw_batch_noise",
    "draw_composition",
    "draw_curves",
    "draw_deep_linear",
    "draw_depth",
    "draw_discriminator",
    "draw_error_maps",
    "draw_errors_by_batch_size",
    "draw_gain",
    "draw_gamma",
    "draw_gradient_shift",
    "draw_gradients",
    "draw_growth",
    "draw_in_use",
    "draw_jitter",
    "draw_kept",
    "draw_labels",
    "draw_landscape",
    "draw_local_statistics",
    "draw_many_machines",
    "draw_micro_batches",
    "draw_moving_activations",
    "draw_noise",
    "draw_objective_and_evaluation",
    "draw_oracle_bias",
    "draw_own_and_dealt",
    "draw_placement",
    "draw_rates",
    "draw_running",
    "draw_sharing",
    "draw_shift_and_loss",
    "draw_shifted",
    "draw_smoothness_by_loss",
    "draw_stable_rates",
    "draw_statistics",
    "draw_step",
    "draw_surface",
    "draw_towers",
    "draw_tracking",
    "draw_training",
    "draw_variant",
    "in_panels",
    "lay_out",
    "new_figure",
    "picture",
    "plain_ticks",
    "render",
    "style",
]
