#!/usr/bin/env bash
# Equinox 0.13.8: BatchNorm(mode="batch") at inference divides its running variance by 1 - momentum^steps, the correction
# for an average that starts at 0. But this variance starts at 1. After one training step with values of variance 1, it
# takes 1 / (1 - 0.99) = 100 for the variance, so all outputs at inference are ten times too small.
# Expected: outputs of about the size that training mode gives, as with mode="ema".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check equinox==0.13.8 jax==0.10.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import equinox as eqx
import jax
import jax.numpy as jnp

x = jnp.array([[9.0], [11.0]] * 32)
found = {}
for mode in ("batch", "ema"):
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(1, axis_name="batch", mode=mode)
    apply = jax.vmap(norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    _, state = apply(x, state)
    output, _ = jax.vmap(eqx.nn.inference_mode(norm), axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
    found[mode] = float(jnp.abs(output).max())
    print(eqx.__version__, mode, "largest output at inference after one step:", round(found[mode], 3))
assert 0.09 < found["batch"] < 0.11 and 0.99 < found["ema"] < 1.01, found
PY
