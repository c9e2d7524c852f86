"""Checks of batches in which samples or positions repeat, so that the statistics rest on fewer values than it seems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bnlib.doctor.batches import Batch
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import has_known_forward
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.structures import map_tensors, tensors

_FEW = 16
"""From so many samples on, batch statistics are good enough, see ``small_batches``."""


def repeated_samples(measurements: Measurements) -> Iterator[Finding]:
    """Find batches at least half of whose samples repeat others in the batch: copies, or samples that fill it up.

    Where the samples of all batches are the same few, as in a game with few states, the data are like that.
    """
    if measurements.inference:
        return
    inputs = _first_inputs([measurements.batches[number] for number in measurements.few])
    if inputs is None:
        return
    distinct = []
    for each in inputs:
        distinct.append(_distinct(each))
        if 2 * distinct[-1] > len(each):
            return
    mean = sum(distinct) / len(distinct)
    if len(inputs) > 1 and (not _alike(inputs) or _distinct(torch.cat(inputs)) < 1.5 * mean):
        return
    constant = sum(int((each == each[:, :1]).all(1).sum()) for each in inputs) / len(inputs)
    text = (
        f"A batch of {len(inputs[0])} samples holds {mean:.3g} different ones on average, so its statistics are as "
        "noisy as those of so few samples."
    )
    if constant > 1:
        text += f" {constant:.3g} samples have the same value everywhere, as samples have that only fill up a batch."
    yield make_finding("repeated-samples", "", "warning" if mean < _FEW else "note", text)


def padding_in_statistics(measurements: Measurements) -> Iterator[Finding]:
    """Find sequences and images whose padding enters the statistics of batch norm.

    Padding is looked for in inputs of shape (N, C, L) or (N, L, C): zeros in all features at the end, over lengths
    that differ; and in images (N, C, H, W), at the right and at the bottom. To see whether a layer takes them in, they
    are replaced by other values.
    """
    if measurements.inference:
        return
    batch = measurements.batches[0]
    inputs = _first_input(batch)
    if inputs is None or inputs.dim() not in (3, 4):
        return
    if inputs.dim() == 4:
        padded, what = _padding_of_images(inputs), "images"
    else:
        masks = (mask for mask in map(_padding, (inputs, inputs.transpose(1, 2))) if mask is not None)
        padded, what = next(masks, None), "sequences"
    if padded is None:
        return
    features_last = inputs.dim() == 3 and padded.shape[1] != inputs.size(2)
    mask = padded[:, :, None] if features_last else padded[:, None]
    other = torch.where(mask, inputs.std() + inputs.abs().max(), inputs)
    for name in _changed_layers(measurements, batch, inputs, other):
        if not _takes_all_positions(measurements, name, padded):
            continue
        share = float(padded.double().mean())
        text = (
            f"Of the positions of the {what} in a batch, {share:.0%} are padding, and this layer takes them into "
            f"its mean and variance. So these depend on how large the largest of the {what} is."
        )
        yield make_finding("padding-in-statistics", name, "warning" if share > 0.5 else "note", text)
        return


def _first_input(batch: Batch) -> Tensor | None:
    """Return the first input of the model if it is a tensor of floating-point numbers with a row for each sample."""
    found = next(iter(tensors(batch.inputs)), None)
    usable = batch.size and isinstance(found, Tensor) and found.is_floating_point() and found.dim() > 1
    return found.detach() if usable else None


def _first_inputs(batches: Sequence[Batch]) -> list[Tensor] | None:
    found = [_first_input(each) for each in batches]
    return None if any(each is None for each in found) else [each.flatten(1) for each in found]


def _alike(inputs: Sequence[Tensor]) -> bool:
    return all(each.shape[1:] == inputs[0].shape[1:] for each in inputs)


def _distinct(samples: Tensor) -> int:
    """Return the number of different rows; a few columns tell most rows apart."""
    few = samples[:, :: -(-samples.size(1) // 64)]
    count = len(few.unique(dim=0))
    return count if 2 * count > len(samples) else len(samples.unique(dim=0))


def _padding(sequences: Tensor) -> Tensor | None:
    """Return which positions are padding, shape (N, L); None if too few are.

    Arguments:
        sequences: shape (N, C, L).
    """
    zero = (sequences == 0).all(1)
    lengths = sequences.size(2) - zero.flip(1).long().cumprod(1).sum(1)
    if sequences.size(1) < 2 or len(lengths.unique()) < 3:
        return None
    padded = torch.arange(sequences.size(2), device=lengths.device) >= lengths[:, None]
    # Padding to the longest sequence leaves at least one without any.
    return padded if padded.double().mean() > 0.2 else None


def _padding_of_images(images: Tensor) -> Tensor | None:
    """Return which pixels are padding at the right and at the bottom, shape (N, H, W); None if too few are.

    Images with many other black pixels, such as drawings, are left alone, and so are those of one channel.

    Arguments:
        images: shape (N, C, H, W).
    """
    black = (images == 0).all(1)
    rows, columns = (black.all(dim).flip(1).long().cumprod(1).sum(1) for dim in (2, 1))
    height, width = black.shape[1:]
    if images.size(1) < 2 or len((rows * (width + 1) + columns).unique()) < 3:
        return None
    places = (torch.arange(size, device=images.device) for size in (height, width))
    below, right = (
        place >= (size - margin)[:, None]
        for place, size, margin in zip(places, (height, width), (rows, columns), strict=True)
    )
    padded = below[:, :, None] | right[:, None, :]
    inside = black & ~padded
    usual = float(inside.double().sum() / (~padded).double().sum().clamp(min=1)) < 0.05
    return padded if usual and padded.double().mean() > 0.2 else None


def _takes_all_positions(measurements: Measurements, name: str, padded: Tensor) -> bool:
    """Return whether a layer gets the positions of all samples, and no selection of them.

    Other values may change the selection, if the model itself looks for zeros. A ``forward`` of the user's may apply a
    mask.
    """
    (call, *_), layer = measurements.passes_by_batch[0].calls[name], measurements.norm_layers[name]
    whole = call.shape[0] == len(padded) if len(call.shape) > 2 else call.count == padded.numel()
    return whole and has_known_forward(layer)


def _changed_layers(measurements: Measurements, batch: Batch, old: Tensor, new: Tensor) -> Iterator[str]:
    """Yield the names of the layers whose statistics change if one input of a batch is replaced by another."""
    changed = map_tensors(lambda each: new if each is old or _same_memory(each, old) else each, batch.inputs)
    other = replace(batch, arguments=changed[0], keywords=changed[1])
    with measurements.domain_in_use():
        run = measurements.instrumented(other, "batch", record=True)
    for name, calls in measurements.passes_by_batch[0].calls.items():
        again = run.calls.get(name, ())
        if len(again) == len(calls) and not torch.allclose(calls[0].variance, again[0].variance, rtol=1e-4):
            yield name


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.data_ptr() == other.data_ptr()
