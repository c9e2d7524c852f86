"""What is asked in the same words of both interfaces of Flax."""

from __future__ import annotations

from importlib.metadata import version

import jax.numpy as jnp
import numpy as np
import protocol


def versions() -> dict[str, str]:
    """Return the versions of Flax and of JAX."""
    return {name: version(name) for name in ("flax", "jax")}


def half_precision(layer: type) -> dict[str, str]:
    """Return the types of outputs and statistics for inputs in bfloat16, and for a layer that computes in bfloat16."""
    half = jnp.bfloat16
    situations = {
        "input bfloat16": {},
        "dtype=bfloat16": {"dtype": half},
        "dtype=bfloat16, param_dtype=bfloat16": {"dtype": half, "param_dtype": half},
    }
    found = {}
    for name, options in situations.items():
        norm = layer(1, **options)
        output = norm.train(jnp.asarray(protocol.FOUR, half if not options else None))
        found[name] = output.dtype, norm.statistics()[0].dtype
    return protocol.types(found)


def offset_with_slow_variance(layer: type) -> float:
    """Return the largest output for the values 9,999 and 10,001, which should be 1, without the fast variance."""
    x = np.array([[9_999.0], [10_001.0]] * 32, np.float32)
    return protocol.rounded(float(np.abs(layer(1, use_fast_variance=False).train(x)).max()))
