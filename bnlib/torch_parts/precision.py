"""Parts that change the number format: autocast, the gradient scaler, half precision, and inference mode."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bnlib.torch_parts.measuring import (
    BATCH,
    Measured,
    Numbers,
    Part,
    attempt,
    copied_buffers,
    network,
    output,
    statistics,
    train,
    trained,
)


def under_autocast() -> Measured:
    """Train under autocast to bfloat16."""
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        found = train(model)
    return Measured(train(network()), found)


def skipped_step() -> Measured:
    """Train with a gradient scaler that skips the second of three steps, because of an infinite value."""
    bad = BATCH.clone()
    bad[3] = float("inf")
    return Measured(train(network(), batches=[BATCH, BATCH]), _scaled(bad, False), _scaled(bad, True))


def _scaled(bad: torch.Tensor, restore: bool) -> Numbers:
    model, scaler = network(), torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    for x in (BATCH, bad, BATCH):
        before, scale = copied_buffers(model), scaler.get_scale()
        optimiser.zero_grad()
        scaler.scale(model(x).square().sum()).backward()
        scaler.step(optimiser)
        scaler.update()
        if restore and scaler.get_scale() < scale:
            model.load_state_dict(before, strict=False)
    return statistics(model)


def half_precision() -> Measured:
    """Convert a network to bfloat16, and average over 1,500 batches with the momentum 0.001."""
    results = []
    for kind in ("float32", "bfloat16", "batch norm in float32"):
        model = network(nn.BatchNorm1d(1, momentum=0.001))
        dtype = torch.float32 if kind == "float32" else torch.bfloat16
        model.to(dtype)
        if kind == "batch norm in float32":
            model[1].float()
        with torch.no_grad():
            for _ in range(1500):
                model(BATCH.to(dtype))
        results.append(statistics(model))
    return Measured(*results)


def large_variance() -> Measured:
    """Convert a network to float16, and give it inputs with a variance above 65,504."""
    results = []
    for kind in ("float32", "float16", "batch norm in float32"):
        layer = nn.BatchNorm1d(1, momentum=1.0)
        layer = layer.half() if kind == "float16" else layer
        x = 300 * (BATCH - 10)
        x = x if kind == "float32" else x.half()
        layer(x)
        results.append({"running variance": layer.running_var.item()} | output(layer.eval(), x))
    return Measured(*results)


def without_gradients() -> Measured:
    """Run three batches in train mode under ``torch.inference_mode``."""
    model, other = trained(), trained().eval()
    for each in (model, other):
        with torch.inference_mode():
            for _ in range(3):
                each(BATCH)
    return Measured(statistics(trained()), statistics(model), statistics(other))


def built_in_inference_mode() -> Measured:
    """Copy a network under ``torch.inference_mode``, and train the copy afterwards."""
    model = network()
    results = []
    for context in (torch.inference_mode, torch.no_grad):
        with context():
            twin = copy.deepcopy(model)
        results.append(attempt(lambda twin=twin: train(twin)))
    return Measured(train(network()), *results)


def channels_last() -> Measured:
    """Train on images in channels-last layout."""
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        layer = nn.BatchNorm2d(2)
        x = torch.cat([BATCH, 2 * BATCH], dim=1)[:, :, None, None].expand(4, 2, 3, 3)
        x = x.contiguous(memory_format=memory_format)
        for _ in range(3):
            layer(x)
        means = layer.running_mean.tolist()
        results.append({"running mean, channel 1": means[0], "running mean, channel 2": means[1]})
    return Measured(*results)


_HALF = "[chapter 11](11_training_code.ipynb#running-statistics-in-half-precision)"
_SKIPPED = "[chapter 11](11_training_code.ipynb#one-bad-batch-and-eval-mode-is-nan)"
PARTS = [
    Part(
        "torch.autocast",
        "to bfloat16, on the CPU",
        under_autocast,
        "The statistics stay in float32, and are those of float32 (up to rounding of the inputs).",
        "There is no difference.",
        "Nothing.",
    ),
    Part(
        "torch.amp.GradScaler",
        "a step that it skips, because the batch has an infinite value",
        skipped_step,
        "The weights stay, but the forward pass has already moved the statistics: the mean is infinite, the variance "
        "NaN, and both for good.",
        "`layer.running_var.isfinite().all()` is false; eval mode gives NaN.",
        f"If a step was skipped, load the buffers from before it: {_SKIPPED}.",
    ),
    Part(
        "model.bfloat16()",
        "1,500 batches with the momentum 0.001",
        half_precision,
        "The running statistics become bfloat16, too. The mean stops at 4, because further steps are rounded away.",
        "`running_mean.dtype`; eval mode is far worse than train mode.",
        f"Convert the batch norms back with `layer.float()`: {_HALF}.",
    ),
    Part(
        "model.half()",
        "inputs with a variance above 65,504",
        large_variance,
        "The running variance overflows to infinity, so in eval mode the channel outputs the constant β. No value is "
        "NaN.",
        "`layer.running_var.isfinite().all()` is false.",
        f"Convert the batch norms back with `layer.float()`: {_HALF}.",
    ),
    Part(
        "torch.inference_mode",
        "three batches in train mode",
        without_gradients,
        "Gradients are off, but the statistics move. The same holds for `torch.no_grad`.",
        "`num_batches_tracked` grows during validation.",
        "Call `model.eval()` before you validate.",
    ),
    Part(
        "torch.inference_mode",
        "a network that is copied inside, and trained later",
        built_in_inference_mode,
        "Tensors that are made inside can't be trained outside. An error also follows if a network is built or "
        "converted to another type inside.",
        "The error.",
        "Use `torch.no_grad` in place of `torch.inference_mode` where networks are made.",
    ),
    Part(
        "torch.channels_last",
        "three batches of images",
        channels_last,
        "The statistics are those of the contiguous layout.",
        "There is no difference.",
        "Nothing.",
    ),
]
"""The parts of this file."""
