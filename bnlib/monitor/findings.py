"""What the monitor finds: which numbers are a sign of a fault, in the words and with the advice of the doctor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from bnlib.doctor.norm_layers import eps
from bnlib.doctor.report import Finding
from bnlib.doctor.running_averages import MISMATCH, batches_needed
from bnlib.doctor.symptoms import all_advice
from bnlib.monitor.quantities import Measured, samples
from bnlib.norm import FullNorm

BETWEEN_BATCHES = 0.2
"""From this share of the variance between batches on, a batch holds one kind of sample, as for the doctor."""


@dataclass(frozen=True)
class Sign:
    """A sign of a fault in one layer and one window.

    Attributes:
        code: the kind of finding, a key of ``doctor.all_advice()``.
        layer: name of the layer; "" if it concerns the whole model.
        severity: as of a ``doctor.Finding``.
        evidence: what was measured, a full sentence.
    """

    code: str
    layer: str
    severity: str
    evidence: str


def finding(sign: Sign, evidence: str) -> Finding:
    """Return the finding of the doctor for a sign, with the advice for its code as plain text."""
    advice = all_advice()[sign.code]
    return Finding(sign.code, sign.layer, sign.severity, evidence, advice.remedy.replace("`", ""), advice.section)


def signs(
    layers: Mapping[str, nn.Module],
    measured: Mapping[str, Measured],
    passes_without_gradients: int,
    shares_between: Mapping[str, float],
) -> Iterator[Sign]:
    """Yield all signs of faults in a window, apart from values that are not finite.

    Arguments:
        layers: the norm layers by name.
        measured: what the window tells about each layer, in the order of the calls.
        passes_without_gradients: calls of the model in train mode without gradients in the window.
        shares_between: for each layer, its mean share of the variance between batches over several windows.
    """
    for name, found in measured.items():
        layer = layers[name]
        if found.values.get("non_finite"):
            continue
        for check in (_mismatch, _variance_below_eps, _updates, _few_values, _frozen, _shared, _zero_gamma):
            for code, severity, evidence in check(layer, found):
                yield Sign(code, name, severity, evidence)
    if passes_without_gradients and any(each.values.get("updates", 1) > 1 for each in measured.values()):
        text = (
            f"Between two training steps the model was called {passes_without_gradients} times in train mode without "
            "gradients, and each call updated the running statistics."
        )
        yield Sign("train-mode-at-inference", "", "warning", text)
    yield from _kinds_of_batches(layers, measured, shares_between)


def _mismatch(layer: nn.Module, found: Measured) -> Iterator[tuple[str, str, str]]:
    gap, batches = found.distance, found.batches
    averaged = found.passes[0].before.batches
    if found.values.get("values_per_channel") == 1:  # a finding of its own, and no statistics
        return
    if gap is None or (averaged is not None and averaged < batches_needed(layer)):
        return
    # The statistics of the few values of a small batch are far from those of the data by chance.
    if gap.value > MISMATCH + 2 * (batches.count or math.inf) ** -0.5:
        mode = "" if layer.training else " The layer is in eval mode, so they do not follow the data."
        text = f"Running statistics and the statistics of the current batches differ: {gap}.{mode}"
        yield "running-statistics-mismatch", "warning", text


def _variance_below_eps(layer: nn.Module, found: Measured) -> Iterator[tuple[str, str, str]]:
    share = found.values.get("below_eps", 0.0)
    if share > 0.5 and found.values.get("values_per_channel") != 1:
        text = f"The variance of the layer's input is below eps = {eps(layer):g} in {share:.0%} of its channels" + (
            f", and 0 in {found.values['dead']:.0%} of them." if "dead" in found.values else "."
        )
        yield "variance-below-eps", "warning", text


def _updates(layer: nn.Module, found: Measured) -> Iterator[tuple[str, str, str]]:
    before, after = found.passes[0].before, found.passes[-1].after
    if before.mean is None:
        return
    called = any(each.calls is None or each.calls.counts for each in found.passes)
    still = bool((before.mean == after.mean).all() and (before.variance == after.variance).all())
    if layer.training and called and still:
        text = (
            f"The layer is in train mode, but {len(found.passes)} training step(s) did not change its running "
            "statistics."
        )
        yield "running-statistics-never-updated", "warning", text
    repeated = sum(each.calls.repeated for each in found.passes if each.calls is not None)
    if repeated and found.values.get("updates", 0) > 1:
        text = (
            f"One training step updated the running statistics {found.values['updates']:g} times: the backward pass "
            "calls the layer again, for gradient checkpointing."
        )
        yield "gradient-checkpointing", "note", text


def _few_values(layer: nn.Module, found: Measured) -> Iterator[tuple[str, str, str]]:
    count = found.values.get("values_per_channel")
    if count is None or isinstance(layer, FullNorm) or not layer.training:
        return
    if count == 1:
        text = "A batch gives this layer one value per channel. That value is its own mean, so the output is beta."
        yield "one-value-per-channel", "error", text
    elif count < 16:
        text = (
            f"A batch gives this layer {count:.0f} values per channel. By chance alone, the mean of a batch is off by "
            f"{count**-0.5:.0%} of the standard deviation."
        )
        yield "small-batches", "warning" if count < 4 else "note", text


def _frozen(layer: nn.Module, found: Measured) -> Iterator[tuple[str, str, str]]:
    parameters = list(layer.parameters(recurse=False))
    if parameters and layer.training and not any(each.requires_grad for each in parameters):
        if found.values.get("updates"):
            text = (
                "The parameters of this layer have requires_grad=False, but each step updates its running statistics."
            )
            yield "frozen-layer-updates-statistics", "warning", text


def _shared(layer: nn.Module, found: Measured) -> Iterator[tuple[str, str, str]]:
    apart = found.calls_differ
    # The running statistics are between those of the calls, so half the distance matters, as for the doctor.
    if apart is not None and layer.training and apart.value > MISMATCH / 2:
        text = f"The model calls this layer several times in one step. For the two calls that differ most, {apart}."
        yield "shared-layer", "warning", text


def _zero_gamma(layer: nn.Module, found: Measured) -> Iterator[tuple[str, str, str]]:
    first, last = found.passes[0].before.gamma, found.passes[-1].after.gamma
    weight = getattr(layer, "weight", None)
    if first is None or last is None or not weight.requires_grad:
        return
    # A residual branch may begin with gamma 0, but its gradient moves gamma in the first step.
    zero = int(((first == 0) & (last == 0)).sum())
    if zero >= 0.1 * len(last) and zero:
        text = f"Gamma is 0 in {zero} of {len(last)} channels, and {len(found.passes)} step(s) did not change it."
        yield "zero-gamma", "error" if zero == len(last) else "warning", text


def _kinds_of_batches(
    layers: Mapping[str, nn.Module], measured: Mapping[str, Measured], shares: Mapping[str, float]
) -> Iterator[Sign]:
    name = next(iter(measured), None)
    if name is None or isinstance(layers[name], FullNorm) or not shares.get(name, 0.0) > BETWEEN_BATCHES:
        return
    size = samples(measured[name].passes)
    text = (
        f"Of the variance of this layer's input, {shares[name]:.0%} is between batches of {size} samples; in random "
        "batches this is 0 %. Each batch holds one kind of sample."
    )
    yield Sign("batches-not-representative", name, "warning", text)
