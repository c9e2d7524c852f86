"""Copies of a network: in memory, in files, on the meta device, and averages of its weights."""

from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from bnlib.compatibility.networks import Maker, batch, check_equal, network, train


def _goes_on_as(model: nn.Module, twin: nn.Module) -> None:
    """Check that a copy has the state of a network and that further training changes both in the same way."""
    before = copy.deepcopy(model.state_dict())
    check_equal(twin.state_dict(), before, 0)
    train(twin, (7, 8))
    check_equal(model.state_dict(), before, 0)
    train(model, (7, 8))
    check_equal(twin.state_dict(), model.state_dict(), 0)
    check_equal(twin.eval()(batch(9)), model.eval()(batch(9)), 0)


def deepcopy(make: Maker) -> None:
    """Train a network, copy it with ``copy.deepcopy``, and train both further."""
    model = network(make)
    train(model)
    _goes_on_as(model, copy.deepcopy(model))


def pickled(make: Maker) -> None:
    """Train a network, pickle it, and train both further."""
    model = network(make)
    train(model)
    _goes_on_as(model, pickle.loads(pickle.dumps(model)))


def state_dict(make: Maker) -> None:
    """Train a network, load its stored ``state_dict`` into a new one, and train both further."""
    model, file = network(make), io.BytesIO()
    train(model)
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = network(make)
    twin.load_state_dict(torch.load(file, weights_only=True))
    _goes_on_as(model, twin)


def meta(make: Maker) -> None:
    """Build a network on the meta device, load a ``state_dict`` with ``assign=True``, and train it further."""
    model = network(make)
    train(model)
    twin = network(make, device="meta")
    assert twin(batch(0).to("meta")).shape == (6, 2)
    twin.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    _goes_on_as(model, twin)


def averaged(make: Maker) -> None:
    """Average the weights of a network with ``AveragedModel``, with the buffers of the newest one."""
    model = network(make)
    average, seen = AveragedModel(model), []
    for step in range(3):
        train(model, [step])
        average.update_parameters(model)
        seen.append([value.detach().clone() for value in model.parameters()])
    means = [torch.stack(values).mean(0) for values in zip(*seen, strict=True)]
    check_equal(list(average.module.parameters()), means)
    check_equal(dict(average.module.named_buffers()), dict(model.named_buffers()), 0)


def updated(make: Maker) -> None:
    """Compute the running statistics anew with ``update_bn``: they are the averages over its batches."""
    model = network(make)
    train(model)
    linear, layer = model[0], model[1]
    layer = layer.domains[layer.domain] if hasattr(layer, "domains") else layer
    update_bn([batch(seed) for seed in (11, 12)], model)
    inputs = torch.cat([linear(batch(seed)) for seed in (11, 12)]).detach()
    if hasattr(layer, "running_mean"):
        check_equal(layer.running_mean, inputs.mean(0))
    if hasattr(layer, "running_mean_square"):
        check_equal(layer.running_mean_square, inputs.square().mean(0))
