"""Checks of what goes through the layers: signals that are lost, and gradients that grow."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bnlib.doctor.exam import Exam
from bnlib.doctor.report import Finding, finding


def zero_gamma(exam: Exam) -> Iterator[Finding]:
    """Channels that are multiplied by 0, and that nothing will bring back.

    A gradient of exactly 0 tells them from a residual branch that starts at 0 on purpose. relu'(0) = 0 in torch, so
    that behind gamma = beta = 0 not even gamma itself gets one.
    """
    for name, dead in exam.dead.items():
        zero, channels = int((exam.watch.norms[name].weight == 0).sum()), len(dead)
        # A few are what pruning or a strong decay leaves. Where others of the layer do get a gradient, these may have
        # none because the next ReLU is off for this batch.
        if dead.sum() < zero or zero < 0.1 * channels:
            continue
        text = f"Gamma is 0 in {zero} of {channels} channels, and so is its gradient, exactly: they will never learn."
        yield finding("zero-gamma", name, "error" if zero == channels else "warning", text)


def variance_near_eps(exam: Exam) -> Iterator[Finding]:
    """Channels that vary less than eps does, so that they come out smaller than gamma says, or amplified noise.

    At a variance of eps the output has a variance of 1/2. Single channels like this are common: constant pixels, dead
    units. Where they are most, the layer does not normalise.
    """
    for name, data in exam.statistics.items():
        layer = exam.watch.norms[name]
        variance = data.total[data.total.isfinite()]
        small = int((variance < layer.eps).sum())
        if 2 * small > len(variance) and data.count > 1 and name not in exam.silent:
            constant = int((variance == 0).sum())
            text = (
                f"In {small} of {len(variance)} channels the variance is below eps = {layer.eps:g}, in {constant} of "
                f"them it is 0; the median is {float(variance.median()):.2g}."
            )
            yield finding("variance-near-eps", name, "warning", text)


def explosion(exam: Exam) -> Iterator[Finding]:
    """Gradients that grow from layer to layer on their way down.

    At initialisation a layer of linear, BN and ReLU multiplies the norm by sqrt(pi / (pi - 1)) = 1.21 or more, and
    networks train to about 40 such layers (Yang et al. 2019), where it has grown 2000-fold.
    """
    run = exam.gradients
    # With one value a channel there is no gradient, which is another finding.
    if run is None or any(call.count < 2 for calls in run.calls.values() for call in calls):
        return
    names = [name for name in run.calls if run.gradients.get(name, 0.0) != 0]
    norms = np.array([run.gradients[name] for name in names])
    if len(norms) < 10:
        return
    if not np.isfinite(norms).all():
        text = "The gradient at its output is not finite."
        yield finding("gradient-explosion", names[int(np.argmin(np.isfinite(norms)))], "error", text)
        return
    # A line through all logarithms, because single layers differ by their width.
    growth = math.exp(-np.polyfit(np.arange(len(norms)), np.log(norms), 1)[0])
    whole = growth ** (len(norms) - 1)
    if whole > 1e3:
        text = (
            f"The norm of the gradient grows by a factor of {growth:.2f} per norm layer on its way down, over "
            f"{len(norms)} layers from {norms[-1]:.2g} to {norms[0]:.2g}."
        )
        yield finding("gradient-explosion", names[0], "error" if whole > 1e6 else "warning", text)


CHECKS = (zero_gamma, variance_near_eps, explosion)
