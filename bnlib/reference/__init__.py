"""Reference implementations of the layers in NumPy, in float64; the tests compare the layers to them.

Inputs have the shape ``(N, C)`` or ``(N, C, *spatial)``. ``weight`` and ``bias`` are the gamma and beta of the papers,
shape (C,). Batch and Full Normalization compute the statistics of each of the C channels over all other dimensions; the
norms of one sample compute them for each sample.
"""

from bnlib.reference.batch_norm import (
    Cache,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_statistics,
    ghost_batch_norm_backward,
    ghost_batch_norm_forward,
    update_running,
)
from bnlib.reference.full_norm import ORACLES, Estimates, FullNormCache, full_norm_backward, full_norm_forward
from bnlib.reference.one_sample import (
    dynamic_tanh_backward,
    dynamic_tanh_forward,
    evonorm_s0_backward,
    evonorm_s0_forward,
    filter_response_norm_backward,
    filter_response_norm_forward,
    rms_norm_backward,
    rms_norm_forward,
)
from bnlib.reference.over_batches import (
    CrossIterationCache,
    Iteration,
    MovingAverageCache,
    MovingAverages,
    OnlineState,
    cross_iteration_backward,
    cross_iteration_forward,
    moving_average_backward,
    moving_average_forward,
    online_norm_backward,
    online_norm_forward,
)

__all__ = [
    "ORACLES",
    "Cache",
    "CrossIterationCache",
    "Estimates",
    "FullNormCache",
    "Iteration",
    "MovingAverageCache",
    "MovingAverages",
    "OnlineState",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "batch_statistics",
    "cross_iteration_backward",
    "cross_iteration_forward",
    "dynamic_tanh_backward",
    "dynamic_tanh_forward",
    "evonorm_s0_backward",
    "evonorm_s0_forward",
    "filter_response_norm_backward",
    "filter_response_norm_forward",
    "full_norm_backward",
    "full_norm_forward",
    "ghost_batch_norm_backward",
    "ghost_batch_norm_forward",
    "moving_average_backward",
    "moving_average_forward",
    "online_norm_backward",
    "online_norm_forward",
    "rms_norm_backward",
    "rms_norm_forward",
    "update_running",
]
