"""Bring a state into the convention of a framework, and say what the framework cannot hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bnlib.arguments import check_integer, shown
from bnlib.port.conventions import Convention, convention
from bnlib.port.state import BatchNormState

SWITCHES = {
    "keras": ("scale", "center"),
    "flax": ("use_scale", "use_bias"),
    "nnx": ("use_scale", "use_bias"),
    "haiku": ("create_scale", "create_offset"),
    "chainer": ("use_gamma", "use_beta"),
}
"""The arguments with which a layer has no gamma, and no beta. The other frameworks have one switch for both."""


def converted(
    state: BatchNormState, framework: str, values_per_channel: int | None, without: Collection[str] = ()
) -> BatchNormState:
    """Return the state as a framework can hold it, with notes on what is lost; see ``write``.

    ``without`` has the parameters that the layer there lacks as well, ``"weight"`` or ``"bias"``.
    """
    target = convention(framework)
    notes: list[str] = []
    if values_per_channel is not None:
        state = state.with_variance(target.variance, values_per_channel)
    elif state.variance != target.variance:
        side = "larger" if target.variance == "unbiased" else "smaller"
        notes.append(
            f"running_var was copied as it is stored, {state.variance}, so outputs at inference stay the same; "
            f"training in {target.title} moves it to the {target.variance} one, {side} by n/(n - 1) for n values per "
            "channel"
        )
    axis = target.channel_axis
    if state.channel_axis != axis:
        notes.append(
            f"the layer had its channels on axis {state.channel_axis}, {target.title} has them on axis {axis} by "
            "default: transpose the activations, or set the axis where the layer has such an argument"
        )
    if state.momentum is None and "count" not in target.names:
        notes.append(
            f"momentum=None, a cumulative average, and its count of batches have no counterpart in {target.title}: "
            f"choose a {target.momentum_argument}"
        )
    if state.momentum is None and state.count is None and "count" in target.names:
        notes.append("momentum=None needs the number of batches seen, which is not known: set num_batches_tracked")
    state = _with_affine(state, target, notes, without)
    return replace(state, notes=(*state.notes, *notes))


def _with_affine(
    state: BatchNormState, target: Convention, notes: list[str], without: Collection[str]
) -> BatchNormState:
    """Add a gamma of 1 or a beta of 0 where a framework has both or neither."""
    if target.framework in SWITCHES:
        return state
    absent = [role for role in ("weight", "bias") if getattr(state, role) is None]
    if not absent or (len(absent) == 2 and target.framework != "onnx"):
        return state
    absent = [role for role in absent if role not in without]
    like = state.running_mean if len(absent) == 2 else state.weight if state.bias is None else state.bias
    filled: dict[str, Any] = {"weight": np.ones_like(like), "bias": np.zeros_like(like)}
    for role in absent:
        notes.append(
            f"the layer had no {role}; {target.title} gets one of {int(filled[role][0])} in each channel, "
            "which further training would change"
        )
    return replace(state, **{role: filled[role] for role in absent})


def arguments(state: BatchNormState, target: Convention) -> dict[str, Any]:
    """Return the arguments with which the framework makes the layer."""
    found: dict[str, Any] = {target.eps_argument: state.eps}
    if state.momentum is not None or "count" in target.names:
        found[target.momentum_argument] = target.momentum_for(state.momentum)
    if target.framework in SWITCHES:
        found |= dict(zip(SWITCHES[target.framework], (state.weight is not None, state.bias is not None), strict=True))
    elif target.framework == "torch":
        found = {"num_features": state.channels, **found, "affine": state.weight is not None}
    elif target.framework == "equinox":
        found = {"input_size": state.channels, **found, "channelwise_affine": state.weight is not None, "mode": "batch"}
    return found


def check_neutral(role: str, value: np.ndarray | None, neutral: float, layer: str) -> None:
    """Raise a ValueError if a layer without gamma or beta would have to hold one that changes the output."""
    if value is not None and not (value == neutral).all():
        raise ValueError(
            f"layer {layer} must have a {role} to hold the values of the state, got a layer without; make it with one"
        )


def values_of(values_per_channel: int | Mapping[str, int] | None, *names: str) -> int | None:
    """Return the number of values per channel of a layer, from one number or a mapping by name.

    Raises:
        KeyError: if a mapping does not have the layer.
    """
    if values_per_channel is None:
        return None
    if isinstance(values_per_channel, Mapping):
        known = [values_per_channel[name] for name in names if name in values_per_channel]
        if not known:
            raise ValueError(
                f"values_per_channel must have a number for layer {names[0]!r}, got {shown(list(values_per_channel))}"
            )
        values_per_channel = known[0]
    check_integer("values_per_channel", values_per_channel, 2)
    return values_per_channel
