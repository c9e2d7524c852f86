"""Parts that average weights or recompute statistics: ``AveragedModel`` and ``update_bn``."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from bnlib.torch_parts.measuring import BATCH, Measured, Numbers, Part, network, statistics, train, trained


def _without_counter(model: nn.Module) -> Numbers:
    return {name: value for name, value in statistics(model).items() if name != "batches"}


def averaged(use_buffers: bool) -> Measured:
    """Average networks with the weights 1, 2 and 3, each with exact statistics; the average has the weight 2."""
    model = network(nn.BatchNorm1d(1, momentum=1.0))
    average = AveragedModel(model, use_buffers=use_buffers)
    for weight in (1.0, 2.0, 3.0):
        with torch.no_grad():
            model[0].weight.fill_(weight)
        model(BATCH)
        average.update_parameters(model)
    found = _without_counter(average)
    update_bn([BATCH], average)
    return Measured(train_on_doubled(), found, _without_counter(average))


def train_on_doubled() -> Numbers:
    """Return the exact statistics of the network whose weight is 2."""
    model = network(nn.BatchNorm1d(1, momentum=1.0))
    model(2 * BATCH)
    return _without_counter(model)


def averaged_copies() -> Measured:
    """Average three networks, and copy the statistics of the newest one, the default."""
    return averaged(use_buffers=False)


def averaged_buffers() -> Measured:
    """Average three networks and their statistics."""
    return averaged(use_buffers=True)


def averaged_from_the_start() -> Measured:
    """Average a network and its statistics exponentially over its first 20 steps, with a decay of 0.99."""
    model = network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    for _ in range(20):
        model(BATCH)
        average.update_parameters(model)
    found = statistics(average)
    update_bn([BATCH] * 20, average)
    other = network(nn.BatchNorm1d(1, momentum=None))
    return Measured(train(other, batches=[BATCH] * 20), found, statistics(average))


def _updated(batches: list[Tensor]) -> Numbers:
    """Return what ``update_bn`` leaves of a trained network."""
    model = trained().eval()
    try:
        update_bn(batches, model)
        raised = "no"
    except ValueError:
        raised = "yes"
    layer = model[1]
    mean = {"running mean": layer.running_mean.item()}
    return {"error": raised} | mean | {"momentum": str(layer.momentum), "mode": "train" if layer.training else "eval"}


def last_batch_of_one() -> Measured:
    """Recompute statistics with a last batch of one sample."""
    expected = {"error": "no", "running mean": 10.0, "momentum": "0.1", "mode": "eval"}
    return Measured(expected, _updated([BATCH, BATCH, BATCH[:1]]), _updated([BATCH, BATCH]))


def small_last_batch() -> Measured:
    """Recompute statistics with a last batch that is smaller than the others and has another mean."""
    data = torch.cat([BATCH, BATCH, BATCH, torch.tensor([[99.0], [101.0]])])
    expected = {"running mean": data.mean().item()}
    means = []
    for size in (4, 2):
        model = network()
        update_bn(data.split(size), model)
        means.append({"running mean": model[1].running_mean.item()})
    return Measured(expected, *means)


def sorted_data() -> Measured:
    """Recompute statistics with data that are sorted, and with the same data in random order."""
    data = torch.cat([BATCH.repeat(50, 1), BATCH.repeat(50, 1) + 90])
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    found = []
    for each in (data, data[order]):
        model = network()
        update_bn(each.split(100), model)
        found.append({"running variance": model[1].running_var.item()})
    return Measured({"running variance": data.var().item()}, *found)


def frozen_layers() -> Measured:
    """Recompute the statistics of a network whose batch norm is frozen in eval mode."""
    model, other = trained(), trained()
    for each in (model, other):
        each.eval().requires_grad_(False)
    update_bn([BATCH + 5], model)
    kept = copy.deepcopy(other[1].state_dict())
    update_bn([BATCH + 5], other)
    other[1].load_state_dict(kept)
    return Measured(statistics(trained()), statistics(model), statistics(other))


_AVERAGED = "[chapter 11](11_training_code.ipynb#which-statistics-belong-to-averaged-weights)"
PARTS = [
    Part(
        "AveragedModel",
        "weights 1, 2 and 3, statistics copied (the default)",
        averaged_copies,
        "The average has the weight 2 and the statistics of the newest network, whose weight is 3.",
        "Eval mode of the average is worse than that of the network.",
        f"Call `update_bn` before you evaluate or save the average: {_AVERAGED}.",
    ),
    Part(
        "AveragedModel",
        "weights 1, 2 and 3, `use_buffers=True`",
        averaged_buffers,
        "The averaged mean is right, but the averaged variance is too large, because a variance grows with the square "
        "of the weight.",
        "Eval mode of the average is worse than that of the network.",
        "Call `update_bn`.",
    ),
    Part(
        "AveragedModel",
        "EMA with decay 0.99 and `use_buffers=True`, the first 20 steps",
        averaged_from_the_start,
        "The average still contains the statistics of the first steps. The counter is averaged and rounded down, so it "
        "does not move.",
        "`num_batches_tracked` of the average is far below the number of steps.",
        f"Call `update_bn`, or let the decay grow: {_AVERAGED}.",
    ),
    Part(
        "update_bn",
        "a last batch of one sample",
        last_batch_of_one,
        "The last batch raises an error. If a program catches it, the network stays in train mode and with "
        "`momentum=None`, so all later statistics are means over everything since.",
        "`layer.momentum is None`.",
        "Give it a loader with `drop_last=True`.",
    ),
    Part(
        "update_bn",
        "a smaller last batch with another mean",
        small_last_batch,
        "Each batch counts the same, so the samples of a small batch count more.",
        "Compare with the mean of all data.",
        "Give it batches of equal size (`drop_last=True`), in random order.",
    ),
    Part(
        "update_bn",
        "data that are sorted, for example by class",
        sorted_data,
        "The running variance is the mean of the variances within the batches. If batches differ in their means, it "
        "is too small.",
        "Eval mode is bad, although the statistics were recomputed on the right data.",
        "Give it a loader with `shuffle=True` and large batches.",
        tolerance=0.02,
    ),
    Part(
        "update_bn",
        "a network with a frozen batch norm",
        frozen_layers,
        "`update_bn` resets and recomputes every batch norm of the model, also those in eval mode and those without "
        "gradients.",
        "The statistics of the frozen layers change.",
        "Keep a copy of the `state_dict` of the frozen layers, and load it afterwards.",
    ),
]
"""The parts of this file."""
