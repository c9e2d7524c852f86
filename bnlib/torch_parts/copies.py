"""Parts that copy, load or create statistics, or that decide which layers are trained."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import update_bn

from bnlib.torch_parts.measuring import (
    BATCH,
    Measured,
    Numbers,
    Part,
    attempt,
    network,
    output,
    statistics,
    train,
    trained,
)


def deepcopied() -> Measured:
    """Copy a trained network with ``copy.deepcopy``, train the copy, and look at the original."""
    model = trained()
    train(copy.deepcopy(model))
    return Measured(statistics(trained()), statistics(model))


def kept_state() -> Measured:
    """Keep the state of the best network in a variable, and train on."""
    model, loaded, other = trained(), network(), network()
    best, copied = model.state_dict(), copy.deepcopy(model.state_dict())
    train(model)
    loaded.load_state_dict(best)
    other.load_state_dict(copied)
    return Measured(statistics(trained()), statistics(loaded), statistics(other))


def assigned() -> Measured:
    """Load the state of one network into another with ``assign=True``, train the other, and look at the first."""
    first, second = trained(), trained()
    for each, state in ((first, first.state_dict()), (second, copy.deepcopy(second.state_dict()))):
        other = network()
        other.load_state_dict(state, assign=True)
        train(other)
        each.other = other
    return Measured(statistics(trained()), statistics(first), statistics(second))


def _types(model: nn.Module) -> Numbers:
    return {"type of the running mean": str(model[1].running_mean.dtype)}


def assigned_half() -> Measured:
    """Load a checkpoint in half precision with ``assign=True``."""
    state = trained().half().state_dict()
    model, other = network(), network()
    model.load_state_dict(copy.deepcopy(state), assign=True)
    other.load_state_dict(state)
    return Measured(_types(network()), _types(model), _types(other))


def loaded_after_assigning() -> Measured:
    """Load one state with ``assign=True``, then as usual into two networks; train one of the two, look at the other."""
    results = []
    for own in (lambda state: state, copy.deepcopy):
        state, (first, second, third) = trained().state_dict(), (network() for _ in range(3))
        first.load_state_dict(own(state), assign=True)
        second.load_state_dict(state)
        third.load_state_dict(state)
        train(second)
        results.append(statistics(third))
    return Measured(statistics(trained()), *results)


def only_parameters() -> Measured:
    """Save the parameters of a network only, and load them with ``strict=False``."""
    model, loaded, other = trained(), network(), network()
    loaded.load_state_dict(dict(model.named_parameters()), strict=False)
    other.load_state_dict(model.state_dict())
    return Measured(statistics(model), statistics(loaded), statistics(other))


def without_a_counter() -> Measured:
    """Load a checkpoint without ``num_batches_tracked``, and train on with ``momentum=None``."""
    state = {name: value for name, value in trained_on_all().state_dict().items() if "tracked" not in name}
    results = []
    for counter in (None, 3):
        model = network(nn.BatchNorm1d(1, momentum=None))
        model.load_state_dict(state)
        if counter:
            model[1].num_batches_tracked.fill_(counter)
        results.append(train(model, batches=[2 * BATCH]))
    return Measured(train(trained_on_all(), batches=[2 * BATCH]), *results)


def trained_on_all() -> nn.Sequential:
    """Return the network after three batches with the mean over all of them."""
    model = network(nn.BatchNorm1d(1, momentum=None))
    train(model)
    return model


def built_without_memory() -> Measured:
    """Build a network on the meta device and give it memory; PyTorch is told to fill new memory with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.device("meta"):
            model = nn.BatchNorm1d(1)
        model.to_empty(device="cpu")
    finally:
        torch.use_deterministic_algorithms(before)
    found = _two(model)
    model.reset_parameters()
    return Measured(_two(nn.BatchNorm1d(1)), found, _two(model))


def _two(layer: nn.Module) -> Numbers:
    return {key: value for key, value in statistics(layer).items() if key != "batches"}


def lazy() -> Measured:
    """Give a lazy layer its size by a dry run on zeros."""
    layer, other = nn.LazyBatchNorm1d(), nn.LazyBatchNorm1d().eval()
    for each in (layer, other):
        each(torch.zeros(4, 1))
    return Measured(statistics(nn.BatchNorm1d(1)), statistics(layer), statistics(other))


def without_gradients() -> Measured:
    """Freeze all parameters by ``requires_grad_(False)``, and go on in train mode."""
    model, other = trained(), trained().eval()
    for each in (model, other):
        each.requires_grad_(False)
        for _ in range(3):
            each(BATCH)
    return Measured(statistics(trained()), statistics(model), statistics(other))


def pruned() -> Measured:
    """Prune the weights in front of a batch norm; its inputs change, its statistics do not."""
    inputs = torch.cat([BATCH, torch.tensor([[40.0], [40.0], [60.0], [60.0]])], dim=1)
    linear = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.1]]))
    model = nn.Sequential(linear, nn.BatchNorm1d(1, momentum=1.0))
    model(inputs)
    prune.l1_unstructured(linear, "weight", amount=1)
    found = _mean_output(model, inputs)
    update_bn([inputs], model)
    return Measured({"mean output": 0.0}, found, _mean_output(model, inputs))


def _mean_output(model: nn.Module, inputs: torch.Tensor) -> Numbers:
    return {"mean output": model.eval()(inputs).mean().item()}


def copied_when_pruned() -> Measured:
    """Prune the weight of a batch norm, and copy the network."""
    results = []
    for removed in (False, True):
        model = trained()
        prune.random_unstructured(model[1], "weight", amount=0.0)
        if removed:
            prune.remove(model[1], "weight")
        results.append(attempt(lambda model=model: statistics(copy.deepcopy(model))))
    return Measured(statistics(trained()), *results)


class Shifted(nn.BatchNorm1d):
    """A batch norm with a forward pass of its own: it adds one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the normalised values plus one."""
        return super().forward(input) + 1


def converted() -> Measured:
    """Convert a network whose layer is a subclass; the remedy leaves subclasses as they are."""
    model = network(Shifted(1))
    train(model)
    expected = output(model.eval())
    found = output(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)))
    for name, child in model.named_children():
        if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            model.set_submodule(name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    return Measured(expected, found, output(model))


_FREEZE = "[chapter 11](11_training_code.ipynb#should-i-freeze-batch-norm-when-i-fine-tune)"
PARTS = [
    Part(
        "copy.deepcopy",
        "training a copy",
        deepcopied,
        "The copy has statistics of its own.",
        "There is no difference.",
        "Nothing.",
    ),
    Part(
        "state_dict",
        "kept in a variable as the best state",
        kept_state,
        "A `state_dict` holds the tensors of the network, not copies. So the best state goes on changing, and with the "
        "statistics also the weights.",
        "The kept state equals the newest one.",
        "Keep `copy.deepcopy(model.state_dict())`, or write it to a file.",
    ),
    Part(
        "load_state_dict",
        "`assign=True`, with the state of another network",
        assigned,
        "The two networks share their tensors from then on: training one moves the statistics of the other.",
        "`a.running_mean.data_ptr() == b.running_mean.data_ptr()`.",
        "Load `copy.deepcopy(state)`. A state that comes from a file is shared with nothing.",
    ),
    Part(
        "load_state_dict",
        "`assign=True`, with a checkpoint in half precision",
        assigned_half,
        "The running statistics take the type of the checkpoint; without `assign=True` they keep that of the network.",
        "`running_mean.dtype`.",
        "Load without `assign=True`, or call `layer.float()` on the batch norms.",
    ),
    Part(
        "load_state_dict",
        "as usual, after the same `state_dict` was loaded with `assign=True`",
        loaded_after_assigning,
        "The first call notes `assign=True` in the dictionary itself, so all later calls with it also assign, whatever "
        "they say. Two networks that were loaded one after the other share their tensors: training one moves the "
        "statistics (and weights) of the other. There is no message "
        "([issue 188166](https://github.com/pytorch/pytorch/issues/188166)).",
        "`a.running_mean.data_ptr() == b.running_mean.data_ptr()`.",
        "Use a dictionary for `assign=True` once: pass it `copy.deepcopy(state)`, or read the file again.",
    ),
    Part(
        "load_state_dict",
        "`strict=False`, with the parameters only",
        only_parameters,
        "`named_parameters()` has no buffers, so the statistics remain as initialised and eval mode is wrong.",
        "`load_state_dict` returns the missing names.",
        "Save `state_dict()`, and load with `strict=True`.",
    ),
    Part(
        "load_state_dict",
        "without `num_batches_tracked`, then `momentum=None`",
        without_a_counter,
        "The counter begins at 0 without an error, even with `strict=True`. With `momentum=None` the next batch gets "
        "all the weight, and the loaded statistics are gone.",
        "`num_batches_tracked` is 0 after loading.",
        "Set the counter to the number of batches behind the statistics, or use a number as momentum.",
    ),
    Part(
        "to_empty",
        "a network from the meta device",
        built_without_memory,
        "The statistics are whatever the memory held. (For this line PyTorch fills new memory with NaN.)",
        "Statistics that no training has produced: NaN, or a negative variance.",
        "Call `reset_parameters()` on each batch norm, or load a checkpoint.",
    ),
    Part(
        "LazyBatchNorm",
        "a dry run on zeros for the sizes",
        lazy,
        "The dry run counts as a batch, so the running variance moves towards 0.",
        "`num_batches_tracked` is 1 before training.",
        "Call `model.eval()` before the dry run and `model.train()` after it.",
    ),
    Part(
        "requires_grad_(False)",
        "three more batches in train mode",
        without_gradients,
        "Statistics are buffers, not parameters, so they move.",
        "`num_batches_tracked` grows.",
        f"Call `layer.eval()` after each `model.train()`: {_FREEZE}.",
    ),
    Part(
        "torch.nn.utils.prune",
        "the weights in front of a batch norm",
        pruned,
        "Pruning changes the inputs of the batch norm, but the running statistics still belong to the old weights.",
        "In eval mode the outputs of a batch norm do not have the mean β.",
        "Call `update_bn` after pruning.",
    ),
    Part(
        "torch.nn.utils.prune",
        "the weight of a batch norm, then `copy.deepcopy`",
        copied_when_pruned,
        "The pruned weight is the result of a product, which cannot be copied. `AveragedModel` copies, too.",
        "The error.",
        "Call `prune.remove` before you copy.",
    ),
    Part(
        "convert_sync_batchnorm",
        "a subclass with a forward pass of its own",
        converted,
        "The subclass becomes a plain `SyncBatchNorm`, and its forward pass is gone. There is no message. Statistics, "
        "parameters and hooks are kept.",
        "Compare the outputs in eval mode before and after.",
        "Convert layer by layer, where `type(layer)` is one of PyTorch's own classes.",
    ),
]
"""The parts of this file."""
