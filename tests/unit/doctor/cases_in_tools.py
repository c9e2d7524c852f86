"""Cases for the rows about versions, files, optimisers, exporters and explainers, and new ones; see ``CASES``."""

import copy
import itertools
import warnings

import torch
from doctor_examples import batches, displaced, trained
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm

from bnlib import models


def with_zero_gamma():
    model = trained("mlp")
    model[2].weight.data[3] = 0
    return model


def with_momentum(momentum):
    model = trained("mlp")
    model[2].momentum = momentum
    return model


def without_attribute():
    """A layer as PyTorch 0.3 pickled it."""
    layer = nn.BatchNorm2d(3)
    del layer.track_running_stats
    return layer


def kept(network):
    """The bytes that autograd keeps of a forward pass, without those of the parameters."""
    sizes, parameters = {}, {each.data_ptr() for each in network.parameters()}

    def pack(value):
        storage = value.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return value, outputs.append(value)

    outputs = []  # keeps the tensors, so that no two of them get the same address
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed[0]):
        network(torch.randn(8, 4, 16, 16, requires_grad=True))
    return sum(size for address, size in sizes.items() if address not in parameters)


def convolutions(norm=None):
    parts = [[nn.Conv2d(4, 4, 3, padding=1), *([norm(4)] if norm else []), nn.ReLU()] for _ in range(4)]
    return nn.Sequential(*itertools.chain(*parts))


def image_network(norm):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))


def image_of_two_halves():
    image = torch.randn(1, 1, 32, 32)
    image[..., 16:] += 5
    return image


def with_decay(groups):
    """An optimiser with weight decay, for all parameters or without those that have one dimension."""
    parameters = list(trained("mlp").parameters())
    split = [{"params": [p for p in parameters if p.ndim > 1]}]
    split.append({"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0})
    return {"optimiser": torch.optim.SGD(split if groups else parameters, lr=0.1, weight_decay=1e-4)}


def adapted(passes, lr=0.02):
    """A network adapted to blurred digits by the entropy of its predictions, in some passes over the batches."""
    model = trained("mlp")
    affine = [p for layer in model if isinstance(layer, nn.BatchNorm1d) for p in layer.parameters()]
    optimiser = torch.optim.Adam(affine, lr=lr)
    for x, _ in blurred() * passes:
        optimiser.zero_grad()
        logits = model(x)
        (-logits.softmax(1) * logits.log_softmax(1)).sum(1).mean().backward()
        optimiser.step()
    return model


def blurred():
    return batches(count=20, change=lambda x, y: (F.avg_pool2d(x, 3, 1, 1) + 0.3 * torch.randn_like(x), y))


def in_the_old_form():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old form is deprecated
        return {"network": nn.Sequential(weight_norm(nn.Linear(3, 3)))}


def own_layer_norm(inside):
    """Layer norm as a function, with eps under the root or beside it."""

    def layer(x):
        variance = x.var(-1, keepdim=True, unbiased=False)
        root = (variance + 1e-5).sqrt() if inside else variance.sqrt() + 1e-5
        return (x - x.mean(-1, keepdim=True)) / root

    return {"layer": layer, "row": torch.zeros(2, 4, requires_grad=True)}


def sync_norms():
    return {"model": nn.SyncBatchNorm.convert_sync_batchnorm(trained("mlp")).eval()}


VALUES = torch.ones(4, 3)

CASES_IN_TOOLS = {
    "fused-with-zero-gamma": (lambda: {"model": with_zero_gamma()}, dict),
    "norm-not-installed": (lambda: {"needed": (99, 0)}, lambda: {"needed": (2, 4)}),
    "old-weight-norm": (
        in_the_old_form,
        lambda: {"network": nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))},
    ),
    "pickled-by-another-version": (lambda: {"layer": without_attribute()}, lambda: {"layer": nn.BatchNorm2d(3)}),
    "update-bn-stopped": tuple(
        lambda momentum=momentum: {"model": with_momentum(momentum)} for momentum in (None, 0.1)
    ),
    "norm-keeps-its-input": tuple(
        lambda norm=norm: {"kept": kept, "network": convolutions(norm), "plain": convolutions()}
        for norm in (nn.BatchNorm2d, None)
    ),
    "parameters-renamed": (
        lambda: {"checkpoint": {"block.gamma": torch.ones(3)}},
        lambda: {"checkpoint": {"block.scale": torch.ones(3)}},
    ),
    "exported-in-half-precision": tuple(
        lambda factor=factor: {"single": lambda x: x.flatten(1), "half": lambda x: factor * x.flatten(1)}
        for factor in (float("inf"), 1.01)
    ),
    "compared-in-two-modes": tuple(
        lambda training=training: {"layer": nn.BatchNorm1d(3).train(training), "values": VALUES, "theirs": VALUES}
        for training in (True, False)
    ),
    "explained-in-train-mode": (dict, lambda: {"model": trained("mlp").eval()}),
    "decay-of-gamma": tuple(lambda groups=groups: with_decay(groups) for groups in (False, True)),
    "runs-differ": (
        lambda: {"run": lambda: torch.rand(1).item()},
        lambda: {"run": lambda: torch.rand(1, generator=torch.Generator().manual_seed(0)).item()},
    ),
    "group-norm-of-one-group": tuple(
        lambda shape=shape: {"values": torch.randn(shape)} for shape in ((2, 6, 4, 4), (2, 6))
    ),
    "root-of-zero": tuple(lambda inside=inside: own_layer_norm(inside) for inside in (False, True)),
    "instance-norm-on-other-axis": tuple(
        lambda values=values: {"layer": nn.InstanceNorm1d(3), "values": values}
        for values in (torch.randn(2, 8, 3), torch.randn(2, 3, 8))
    ),
    "recomputed-at-inference": (lambda: {"model": models.mlp((64, 32, 10), nn.LayerNorm)}, dict),
    "padding-in-each-sample": tuple(
        lambda norm=norm: {"network": norm, "values": torch.randn(2, 4, 10)}
        for norm in (nn.GroupNorm(1, 4), nn.BatchNorm1d(4))
    ),
    "statistics-of-each-tile": tuple(
        lambda norm=norm: {"network": image_network(norm), "image": image_of_two_halves()}
        for norm in (nn.InstanceNorm2d(4), nn.BatchNorm2d(4))
    ),
    "norm-behind-the-sum": tuple(
        lambda first=first: {"network": nn.TransformerEncoderLayer(8, 2, norm_first=first)} for first in (False, True)
    ),
    "one-set-of-averages-for-all-tasks": (lambda: {"model": displaced("mlp", "2")}, dict),
    "adapted-too-often": tuple(
        lambda passes=passes: {
            "once": copy.deepcopy(adapted(1)), "again": adapted(passes), "batches": blurred(),
        }
        for passes in (30, 1)
    ),
    "processes-wait": (
        sync_norms,
        lambda: sync_norms() | {"batches": batches(4)},
    ),
}  # fmt: skip
