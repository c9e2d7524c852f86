"""Figures of federated averaging: test errors by normalisation, and by the number of local steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.methods import method_color
from bnlib.figures.picture import GREY, plain_ticks

# BN and its variants share a colour: marks and dashes tell them apart. An open mark: the worker's own test images.
_LOOKS: dict[str, dict[str, Any]] = {
    "BN": {"marker": "o", "ls": "-"},
    "BN, recomputed": {"marker": "v", "ls": ":"},
    "FixBN": {"marker": "D", "ls": "--"},
    "group norm": {"marker": "s", "ls": "-"},
    "layer norm": {"marker": "^", "ls": ":"},
    "without normalisation": {"marker": "s", "ls": "-"},
    "FedBN": {"marker": "X", "ls": ""},
    "FedBN, own images": {"marker": "o", "ls": "-.", "mfc": "none"},
}
_LEAST = 0.4
"""Per cent; smaller errors are drawn here, because the axis is logarithmic."""
_WORDS = {"labels": "label skew", "images": "image skew"}


def draw_local_steps(
    figure: Figure, data: Mapping[str, Mapping[int, np.ndarray]], kind: str, skew: float, local_steps: int
) -> str:
    """Draw the errors by arm for one number of local steps, and by local steps; see ``machines.local_steps.lookup``."""
    left, right = figure.subplots(1, 2)
    for place, (arm, look) in enumerate(_LOOKS.items()):
        color = method_color(arm)
        chosen = np.sort(data[arm][local_steps]).clip(_LEAST)
        left.plot(chosen[[0, -1]], [place, place], color=color, lw=1.5)
        left.plot(np.median(chosen), place, color=color, ms=7, **{**look, "ls": ""})
        if f"{arm}, your run" in data:
            left.plot(data[f"{arm}, your run"][local_steps].clip(_LEAST), [place], "x", color=color, ms=9, mew=2)
        if look["ls"]:
            medians = [np.median(errors).clip(_LEAST) for errors in data[arm].values()]
            right.plot(list(data[arm]), medians, color=color, lw=1.5, ms=6, label=arm, **look)
    right.axvline(local_steps, color=GREY, ls=":", lw=1)
    steps = f"{local_steps} local step{'s' * (local_steps > 1)}"
    left.set(xscale="log", xlim=(0.35, 110), xlabel="test error (%)", title=steps)
    left.set_yticks(range(len(_LOOKS)), list(_LOOKS))
    left.invert_yaxis()
    right.set(xscale="log", yscale="log", ylim=(0.35, 110), title="medians", xlabel="local steps between averages")
    right.set_ylabel("test error (%)")
    plain_ticks(right.xaxis, list(data["BN"]))
    for axis in (left.xaxis, right.yaxis):
        plain_ticks(axis, (1, 3, 10, 30, 100))
    figure.legend(loc="outside lower center", ncols=4)
    told = [f"{arm} {np.median(data[arm][local_steps]):.1f}" for arm in _LOOKS]
    live = ". Crosses: your run" if any("your run" in name for name in data) else ""
    return f"{_WORDS[kind]} {skew:g}, {steps}. Median test errors in per cent: {', '.join(told)}{live}."
