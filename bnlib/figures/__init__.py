"""Matplotlib figures of the book in one style, one file for each chapter."""

from bnlib.experiments.framework.results import as_array as as_array  # described there
from bnlib.figures.alternatives import draw_batch_sizes, draw_norm_properties, draw_normalisation_groups
from bnlib.figures.convergence import draw_convergence_rates, draw_estimator_errors, draw_nested_averages
from bnlib.figures.covariate_shift import (
    draw_deep_linear,
    draw_gradient_shift,
    draw_moving_activations,
    draw_noisy_batch_norm,
    draw_shift_and_loss,
)
from bnlib.figures.curves import draw_curves
from bnlib.figures.depth import draw_depth, draw_gradients, draw_growth, draw_jitter, draw_variant
from bnlib.figures.failing import (
    draw_evaluation_statistics,
    draw_fixed_batches,
    draw_initial_gamma,
    draw_micro_batches,
    draw_placement,
)
from bnlib.figures.formula import (
    draw_batch_noise,
    draw_error_heatmaps,
    draw_pixel_gains,
    draw_predictions,
    draw_running_mean,
    draw_training_curves,
)
from bnlib.figures.full_normalization import (
    draw_errors_by_alpha,
    draw_labels_per_batch,
    draw_lag_and_noise,
    draw_lian_figures,
    draw_mcsgd_paths,
    draw_oracle_bias,
    draw_what_oracles_see,
)
from bnlib.figures.machines import draw_label_skew, draw_local_statistics
from bnlib.figures.objective import (
    draw_absorption,
    draw_errors_by_batch_size,
    draw_objective_and_evaluation,
    draw_objective_surface,
)
from bnlib.figures.panels import Box, Layout, in_panels, lay_out
from bnlib.figures.perils import (
    draw_discriminator,
    draw_distribution_shift,
    draw_train_mode_at_inference,
    draw_two_towers,
)
from bnlib.figures.picture import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    Picture,
    band,
    new_figure,
    picture,
    plain_ticks,
    render,
    style,
    svg_elements,
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
    "draw_absorption",
    "draw_batch_noise",
    "draw_batch_sizes",
    "draw_convergence_rates",
    "draw_curves",
    "draw_deep_linear",
    "draw_depth",
    "draw_discriminator",
    "draw_distribution_shift",
    "draw_error_heatmaps",
    "draw_errors_by_alpha",
    "draw_errors_by_batch_size",
    "draw_estimator_errors",
    "draw_evaluation_statistics",
    "draw_fixed_batches",
    "draw_gradient_shift",
    "draw_gradients",
    "draw_growth",
    "draw_initial_gamma",
    "draw_jitter",
    "draw_label_skew",
    "draw_labels_per_batch",
    "draw_lag_and_noise",
    "draw_landscape",
    "draw_lian_figures",
    "draw_local_statistics",
    "draw_mcsgd_paths",
    "draw_micro_batches",
    "draw_moving_activations",
    "draw_nested_averages",
    "draw_noisy_batch_norm",
    "draw_norm_properties",
    "draw_normalisation_groups",
    "draw_objective_and_evaluation",
    "draw_objective_surface",
    "draw_oracle_bias",
    "draw_pixel_gains",
    "draw_placement",
    "draw_predictions",
    "draw_running_mean",
    "draw_shift_and_loss",
    "draw_smoothness_by_loss",
    "draw_stable_rates",
    "draw_step",
    "draw_train_mode_at_inference",
    "draw_training_curves",
    "draw_two_towers",
    "draw_variant",
    "draw_what_oracles_see",
    "in_panels",
    "lay_out",
    "new_figure",
    "picture",
    "plain_ticks",
    "render",
    "style",
    "svg_elements",
]
