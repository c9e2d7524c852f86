"""Figure of Appendix C: what the same momentum does in two conventions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bnlib.figures.picture import BLUE, VERMILLION

_LOOKS = {"weight of the new batch": (BLUE, "-"), "weight of the old average": (VERMILLION, "--")}


def draw_momentum_conventions(figure: Figure, data: Mapping[str, np.ndarray], momentum: float) -> str:
    """Draw a running mean over steps by what ``momentum`` is the weight of; see ``frameworks.both_averages``."""
    axes, told = figure.subplots(), []
    for convention, mean in data.items():
        color, ls = _LOOKS[convention]
        axes.plot(range(len(mean) + 1), [0, *mean], color=color, ls=ls, lw=2, label=convention)
        reached = int(np.argmax(mean >= 0.9)) + 1 if mean.max() >= 0.9 else None
        steps = f"{reached} step{'s' * (reached > 1)}" if reached else f"more than {len(mean)} steps"
        spread = np.std(mean[len(mean) // 2 :])
        told.append(f"{convention}, {steps}, and {spread:.2g} in the second half")
    axes.axhline(1, color="black", lw=0.8, ls=":")
    axes.set(xlabel="steps", ylabel="running mean", xlim=(0, len(mean)), ylim=(0, 1.6))
    figure.legend(loc="outside lower center", ncols=2)
    return (
        f"Momentum {momentum:g}. Steps in which a running mean gets from 0 to 90 % of the data's, "
        f"and its standard deviation: {'; '.join(told)}."
    )
