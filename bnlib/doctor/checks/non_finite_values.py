"""Check of values that are nan or infinite: in the layers, and in what single batches give them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from bnlib.doctor.batches import Batch
from bnlib.doctor.losses import main_output
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import batches_tracked, eps
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.structures import tensors


def non_finite_values(measurements: Measurements) -> Iterator[Finding]:
    """Find nan and infinite values in layers and losses, and batches that would bring them into the layers.

    A loss that is nan has no order among the losses of the modes, so no other check would see it.
    """
    order = list(measurements.passes_by_batch[0].calls)
    counts = {name: _counts(layer) for name, layer in measurements.norm_layers.items()}
    affected = [name for name in order if counts[name]]
    for name, found in counts.items():
        if found:
            layer = measurements.norm_layers[name]
            where = ", ".join(f"{key} in {count} of {channels} channels" for key, (count, channels) in found.items())
            text = f"This layer has nan or infinite values: {where}."
            if affected and name == affected[0]:
                text += _origin(measurements, name, order)
            if "running_mean" not in found and set(found) == {"running_var"} and bool(layer.running_var.isinf().any()):
                text += " The mean is finite, so the variance of a batch overflowed; in eval mode the output is beta."
            yield make_finding("non-finite-values", name, "error", text)
    poisonous = [] if measurements.inference else list(_poisonous_batches(measurements))
    yield from poisonous
    if not poisonous and not any(counts.values()):
        yield from _non_finite_results(measurements)


def _origin(measurements: Measurements, name: str, order: list[str]) -> str:
    """Return what can be told about where the values came from, for the first affected layer of the network."""
    text = " It is the first such layer in the network."
    before = order[: order.index(name)]
    if before:
        text += f" The {len(before)} norm layer{'s' * (len(before) > 1)} before it stayed finite."
    parameters = measurements.instrumented.model.parameters()
    if all(bool(value.isfinite().all()) for value in parameters if value.is_floating_point()):
        counted = batches_tracked(measurements.norm_layers[name])
        text += (
            " All parameters of the model are finite, so the optimiser made no step from that batch, as when "
            "GradScaler skips a step."
        )
        if counted:
            which = f"one of the {counted} batches counted so far" if counted > 1 else "the only batch counted so far"
            text += f" Averages that are nan once stay nan, so it was {which}."
    return text


def _poisonous_batches(measurements: Measurements) -> Iterator[Finding]:
    """Find the batches that give a layer nan or infinite values, or a variance that overflows, on the copy."""
    # Sums keep nan and infinity, so the statistics of all batches together tell whether a look is needed.
    if all(math.isfinite(each.mean.sum() + each.total_variance.sum()) for each in measurements.statistics.values()):
        return
    for number, run in enumerate(measurements.passes_by_batch):
        previous = None
        for name, calls in run.calls.items():
            values = [value for call in calls if call.count for value in (call.mean, call.variance)]
            if all(bool(value.isfinite().all()) for value in values):
                previous = name
                continue
            text = (
                f"In train mode, batch {number} gives this layer nan, infinite or overflowing values, which stay in "
                "the running statistics for good."
            )
            if not _has_finite_inputs(measurements.batches[number]):
                text += " The inputs of the model have them."
            elif previous is not None and (lost := _lost_eps(measurements, previous, run.calls[previous])):
                yield make_finding("non-finite-values", previous, "error", f"Batch {number}: {lost}")
                return
            yield make_finding("non-finite-values", name, "error", text)
            return


def _non_finite_results(measurements: Measurements) -> Iterator[Finding]:
    """Find losses, or without a loss outputs, that are not finite although all values of the norm layers are."""
    passes, batches = measurements.passes_by_batch, measurements.batches
    if measurements.has_loss:
        finite = measurements.losses("batch", range(len(batches))).isfinite().tolist()
        what = "the loss in train mode is nan or infinite"
    else:
        outputs = [main_output(each.outputs) for each in passes]
        finite = [not isinstance(each, Tensor) or not bool(each.isnan().any()) for each in outputs]
        what = "the outputs hold nan"
    bad = [number for number, good in enumerate(finite) if not good and _has_finite_inputs(batches[number])]
    if not bad:
        return
    named = measurements.instrumented.model.named_parameters()
    names = [name for name, value in named if value.is_floating_point() and not bool(value.isfinite().all())]
    text = (
        f"In {len(bad)} of {len(batches)} batches, such as batch {bad[0]}, {what}, although all that the norm layers "
        "get and hold is finite. "
    )
    if names:
        text += f"Parameters with nan or infinite values: {', '.join(names[:8])}{', ...' * (len(names) > 8)}."
        remedy = (
            "Load weights from before these parameters became nan or infinite, and train with a lower learning rate."
        )
    else:
        text += "All parameters are finite."
        remedy = "Look for the cause behind the last norm layer, in the targets and in the loss."
    yield replace(make_finding("non-finite-values", "", "error", text), remedy=remedy)


def _has_finite_inputs(batch: Batch) -> bool:
    return all(bool(each.isfinite().all()) for each in tensors(batch.inputs) if each.is_floating_point())


def _lost_eps(measurements: Measurements, name: str, calls: list) -> str:
    """Return whether a layer divides by 0, because its eps is 0 in the precision of the layer."""
    layer = measurements.norm_layers[name]
    dtype = _precision(layer)
    constant = sum(int((call.variance == 0).sum()) for call in calls if call.count)
    if not constant or float(torch.tensor(eps(layer), dtype=dtype)) > 0:
        return ""
    return (
        f"{constant} channels of this layer are constant, and its eps, {eps(layer):g}, is 0 in {dtype}, so it divides "
        "0 by 0."
    )


def _precision(layer: nn.Module) -> torch.dtype:
    values = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    return next((each.dtype for each in values if each.is_floating_point()), torch.float32)


def _counts(layer: nn.Module) -> dict[str, tuple[int, int]]:
    """Return how many values are nan or infinite, and how many there are, by the name of the tensor."""
    own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
    own |= {key: value for key, value in vars(layer).items() if isinstance(value, Tensor)}
    own = {key: value for key, value in own.items() if value.is_floating_point()}
    counts = {key: (int((~value.isfinite()).sum()), value.numel()) for key, value in own.items()}
    return {key: count for key, count in counts.items() if count[0]}
