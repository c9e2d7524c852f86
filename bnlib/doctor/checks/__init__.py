"""The checks of ``diagnose``: each is a function that takes ``Measurements`` and yields findings."""

from bnlib.doctor.checks import (
    batch_composition,
    batch_dependence,
    batch_size,
    gradients,
    layer_settings,
    running_statistics,
    shared_statistics,
    train_eval_gap,
    whole_model,
)

CHECKS = (
    whole_model.running_statistics_raise_loss,
    layer_settings.non_finite_values,
    layer_settings.half_precision_statistics,
    layer_settings.unusual_momentum,
    layer_settings.frozen_layer_updates_statistics,
    batch_size.one_value_per_channel,
    batch_size.small_batches,
    batch_dependence.batch_statistics_at_inference,
    batch_dependence.eval_mode_depends_on_batch,
    batch_composition.batches_not_representative,
    train_eval_gap.batch_composition_memorised,
    running_statistics.never_updated,
    running_statistics.mismatch,
    shared_statistics.layer_shared_by_different_inputs,
    train_eval_gap.relies_on_batch_statistics,
    shared_statistics.domain_statistics_differ,
    gradients.zero_gamma,
    gradients.variance_below_eps,
    gradients.gradient_explosion,
)
