"""A training with a monitor computes what it computes without one, bit for bit; copies of the model are not watched."""

import copy
import io
import pickle

import pytest
import torch
from monitored_networks import convolutional, perceptron, train
from torch import nn
from torch.utils.checkpoint import checkpoint

import bnlib
from bnlib import models


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.rest, self.reentrant = (
            nn.Linear(6, 8),
            nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3)),
            reentrant,
        )

    def forward(self, x):
        return checkpoint(self.rest, self.first(x), use_reentrant=self.reentrant)


def with_dropout():
    return nn.Sequential(perceptron(), nn.Dropout(0.5), nn.BatchNorm1d(3))


def frozen():
    model = perceptron()
    model[1].requires_grad_(False)
    return model


NETWORKS = {
    "perceptron": perceptron,
    "convolutional": convolutional,
    "dropout": with_dropout,
    "frozen": frozen,
    "full norm": lambda: models.mlp((6, 8, 3), "full_norm"),
    "batch renorm": lambda: models.mlp((6, 8, 3), "batch_renorm"),
    "no running statistics": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)),
    "cumulative average": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, momentum=None)),
    "checkpointed": lambda: Checkpointed(False),
    "reentrant": lambda: Checkpointed(True),
    "one layer": lambda: nn.BatchNorm1d(6),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("every", [1, 3])
def test_outputs_gradients_buffers_and_random_numbers_are_the_same(name, every):
    torch.manual_seed(3)
    one = NETWORKS[name]()
    other = copy.deepcopy(one)
    outputs = [train(one, steps=10)]
    with bnlib.Monitor(other, every=every, warn=False) as monitor:
        outputs.append(train(other, steps=10))
    assert monitor.step == 10 and monitor.log
    assert torch.equal(*outputs)
    assert all(torch.equal(one.state_dict()[key], value) for key, value in other.state_dict().items())
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert first.grad is second.grad is None or torch.equal(first.grad, second.grad)


def test_the_random_numbers_after_a_training_are_the_same():
    states = []
    for watched in (False, True):
        model = with_dropout()
        monitor = bnlib.Monitor(model, every=2) if watched else None
        train(model, steps=9)
        states.append(torch.random.get_rng_state())
        assert monitor is None or monitor.report() is not None
    assert torch.equal(*states)


def hooks(model):
    calls = [module._compiled_call_impl for module in model.modules() if module._compiled_call_impl is not None]
    return calls + [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_a_copy_of_the_model_is_not_watched(steps):
    model = perceptron()
    monitor = bnlib.Monitor(model, every=5, to=lambda scalars, step: None)  # neither pickled nor copied
    train(model, steps=steps)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    for each in copies:
        assert each.state_dict().keys() == perceptron().state_dict().keys()
        train(each, steps=6)
        assert monitor.step == steps
    train(model, steps=6)
    assert monitor.step == steps + 6


def test_a_saved_model_can_be_loaded_without_bnlib():
    model = perceptron()
    bnlib.Monitor(model)
    assert b"bnlib" not in pickle.dumps(model)


def test_the_state_dict_is_that_of_the_model_alone():
    model = perceptron()
    bnlib.Monitor(model)
    model.load_state_dict(perceptron().state_dict())


def test_after_remove_no_hook_is_left_whatever_the_moment():
    for steps in range(8):
        model = perceptron()
        monitor = bnlib.Monitor(model, every=5)
        train(model, steps=steps)
        monitor.remove()
        monitor.remove()
        assert not hooks(model)


def test_the_context_ends_at_an_error_of_the_training():
    model = perceptron()
    with pytest.raises(ZeroDivisionError), bnlib.Monitor(model):
        train(model, steps=1)
        raise ZeroDivisionError
    assert not hooks(model)


def test_two_monitors_of_one_model_do_not_disturb_each_other():
    model = perceptron()
    first, second = bnlib.Monitor(model, every=2), bnlib.Monitor(model, every=3)
    train(model, steps=5)
    first.remove()
    train(model, steps=5)
    assert (first.step, second.step) == (5, 10)


class WithOwnState(nn.Linear):
    def __getstate__(self):
        return self.__dict__


def test_a_copy_by_the_state_that_a_class_defines_is_not_watched():
    model = WithOwnState(6, 3)
    model.norm = nn.BatchNorm1d(3)
    monitor = bnlib.Monitor(model)
    for each in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert each._compiled_call_impl is None
        assert each(torch.ones(2, 6)).shape == (2, 3)
    assert monitor.step == 0
    model(torch.ones(2, 6))
    assert monitor.step == 1


class WithOwnCall(nn.Sequential):
    def __call__(self, x):
        return super().__call__(x) + 1


@pytest.mark.parametrize("own_call", [True, False])
def test_hooks_and_named_arguments_of_the_model_are_as_without_a_monitor(own_call):
    model, seen = (WithOwnCall if own_call else nn.Sequential)(nn.Linear(6, 4), nn.BatchNorm1d(4)), []
    model.register_forward_pre_hook(lambda module, arguments: seen.append("before") or (arguments[0] + 1,))
    model.register_forward_hook(lambda module, arguments, output: seen.append("after") or output * 2)
    x, twin = torch.randn(5, 6), copy.deepcopy(model)
    monitor = bnlib.Monitor(model, every=3, warn=False)
    for step in range(1, 8):
        assert torch.equal(model(x), twin(x)) and monitor.step == step
    assert seen == ["before", "after"] * 14
    named = perceptron()
    named.forward = lambda *, x: nn.Sequential.forward(named, x)
    with bnlib.Monitor(named, warn=False) as monitor:
        named(x=x)
    assert monitor.step == 1


def test_a_model_that_is_compiled_in_place_later_stays_so():
    model = perceptron()
    monitor = bnlib.Monitor(model, warn=False)
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    monitor.remove()
    assert model._compiled_call_impl is compiled
    with pytest.raises(ValueError, match=r"model.compile\(\) hides its calls"):
        bnlib.Monitor(model)
