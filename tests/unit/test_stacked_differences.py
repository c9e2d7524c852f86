"""Models that compute different functions of equal weights are told apart, whatever makes the difference."""

import functools
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib.stacked import can_stack, stack


class Settings:
    """An object that holds a number, as many programs keep their settings."""

    def __init__(self, value):
        self.value = value

    def multiply(self, output):
        """Return the product with the number."""
        return self.value * output


class Network(nn.Module):
    """A linear layer, followed by what ``act`` does with its output and ``setting``."""

    def __init__(self, setting, act=lambda output, setting: setting(output), name="setting"):
        super().__init__()
        self.linear, self.act, self.name = nn.Linear(3, 3), act, name
        setattr(self, name, setting)

    def forward(self, input):
        """Call ``act``."""
        return self.act(self.linear(input), getattr(self, self.name))


def scaled(output, factor):
    return output * torch.as_tensor(factor).to(output)


def multiplier(factor):
    return lambda output: factor * output


def held(setting):
    setting.itself = setting
    return setting


# How to make the setting of a model from a number.
KINDS = {
    "built-in functions": (lambda number: (torch.relu, torch.tanh)[number],),
    "functions": (lambda number: (F.silu, F.gelu)[number],),
    "code": (lambda number: (lambda x: x.exp(), lambda x: x.cos())[number],),
    "closures": (multiplier,),
    "defaults": (lambda number: lambda x, factor=number: factor * x,),
    "partial": (lambda number: functools.partial(F.leaky_relu, negative_slope=number),),
    "bound methods": (lambda number: Settings(number).multiply,),
    "array": (lambda number: np.full(3, number), scaled),
    "number of NumPy": (lambda number: np.int64(number), scaled),
    "tensor": (lambda number: torch.tensor([number]), scaled),
    "set": (lambda number: {number}, lambda output, numbers: output * sum(numbers)),
    "type": (lambda number: (torch.float32, torch.float64)[number], lambda output, kind: output.to(kind)),
    "nested": (lambda number: {"a": [(1, {"b": number})]}, lambda output, tree: output * tree["a"][0][1]["b"]),
    "object": (Settings, lambda output, settings: output * settings.value),
    "object that holds itself": (lambda number: held(Settings(number)), lambda output, each: output * each.value),
    "module outside of the tree": (
        lambda number: [nn.LeakyReLU(number)],
        lambda output, layers: layers[0](output),
    ),
}


@pytest.mark.parametrize("name", ["setting", "_setting"])
@pytest.mark.parametrize("kind", KINDS)
def test_models_with_other_settings_are_refused_and_with_the_same_stacked(kind, name):
    make, *act = KINDS[kind]
    same, other = ([Network(make(number), *act, name=name) for number in numbers] for numbers in ((1, 1), (1, 0)))
    with pytest.raises(ValueError, match=r"differ in (the attributes of their submodules|their layers)"):
        stack(other)
    x = torch.randn(2, 4, 3)
    expected = torch.stack([model(each) for model, each in zip(same, x, strict=True)])
    torch.testing.assert_close(stack(same)(x), expected)


def test_classes_of_one_name_are_told_apart():
    class ReLU(nn.Module):
        forward, __repr__ = staticmethod(torch.tanh), lambda self: "ReLU()"

    class Other(nn.Module):
        forward, __repr__ = staticmethod(torch.relu), lambda self: "ReLU()"

    with pytest.raises(ValueError, match="differ in their layers"):
        stack([nn.Sequential(nn.Linear(3, 3), each()) for each in (ReLU, Other)])


class Listed(nn.Module):
    """A network that keeps its parts in a list as well."""

    def __init__(self, of):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.parts = of(self)

    def forward(self, input):
        """Call the parts one after another."""
        for part in self.parts:
            input = part(input) if callable(part) else F.linear(input, part)
        return input


def test_a_list_of_submodules_is_followed_but_not_one_of_their_parameters():
    models = [Listed(lambda self: [self.first, self.second]) for _ in range(2)]
    x = torch.randn(2, 4, 3)
    expected = torch.stack([model(each) for model, each in zip(models, x, strict=True)])
    torch.testing.assert_close(stack(models)(x), expected)
    # Nothing replaces what such a list or function holds: the stack would use the weights of one model for all.
    for of in (
        lambda self: [self.first.weight],
        lambda self: [lambda x: self.first(x)],
    ):
        models = [Listed(of) for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        assert can_stack(models[0])  # one model alone does not show it
        with pytest.raises(ValueError, match=re.escape("differ in the attributes of their submodules")):
            stack(models)
