"""Questions that are asked of one framework only, written from its documentation alone; ``again.py`` asks them."""

from __future__ import annotations

import numpy as np

TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)
FAR = np.array([[9_999.0], [10_001.0]] * 32, np.float32)


def slow_variance_of_linen():
    """flax.linen with ``use_fast_variance=False``: the largest output, which should be 1."""
    import flax.linen as nn
    import jax

    layer = nn.BatchNorm(use_running_average=False, use_fast_variance=False)
    return float(np.abs(layer.init_with_output(jax.random.key(0), FAR)[0]).max())


def slow_variance_of_nnx():
    """flax.nnx with ``use_fast_variance=False``: the same."""
    from flax import nnx

    return float(np.abs(nnx.BatchNorm(1, use_fast_variance=False, rngs=nnx.Rngs(0))(FAR)).max())


def haiku_after_init():
    """Haiku: mean and variance that ``init`` stores, which calls the layer in training mode, by the batch it gets."""
    import haiku
    import jax

    net = haiku.transform_with_state(lambda x: haiku.BatchNorm(True, True, 0.9)(x, is_training=True))
    found = {}
    for name, batch in (("mean 10, variance 1", TEN), ("zeros", np.zeros_like(TEN))):
        _, state = net.init(jax.random.key(0), batch)
        averages = {key: float(np.ravel(each["average"])[0]) for key, each in state.items()}
        found[name] = [next(value for key, value in averages.items() if kind in key) for kind in ("mean", "var")]
    return found


QUESTIONS = {
    "flax-linen": {"offset of 10,000 with use_fast_variance=False": slow_variance_of_linen},
    "flax-nnx": {"offset of 10,000 with use_fast_variance=False": slow_variance_of_nnx},
    "haiku": {"running statistics after init with a batch": haiku_after_init},
}
"""Questions by framework."""
