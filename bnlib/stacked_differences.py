"""What models differ in besides the values of their parameters and buffers, so that they cannot be stacked."""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

_OF_EACH_MODULE = {"training", "_conversion", *vars(nn.Module())}
"""Attributes that are compared elsewhere or that no output depends on."""
_OF_RECURRENT = {"_flat_weights", "_flat_weight_refs"}
"""Lists of parameters that ``nn.RNNBase`` itself keeps up to date."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), Enum, slice, range, set, frozenset, np.generic)
_PLAIN += (torch.dtype, torch.device, torch.layout, torch.memory_format)


def difference(models: Sequence[nn.Module]) -> str:
    """Return in words what the models differ in, or an empty text if nothing keeps them from being stacked.

    Example:
        >>> from bnlib.stacked_differences import difference
        >>> difference([nn.Dropout(0.1), nn.Dropout(0.1)]), difference([nn.Dropout(0.1), nn.Dropout(0.2)])
        ('', 'their layers')
    """
    for what, aspect in _ASPECTS.items():
        first = aspect(models[0])
        if any(aspect(model) != first for model in models[1:]):
            return what
    if any(not _Comparison(models[0], model).settings_are_equal() for model in models[1:]):
        return "the attributes of their submodules"
    return ""


def ties(model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Return the first name of each parameter and each buffer that has a further name, by the further name.

    Example:
        >>> from bnlib.stacked_differences import ties
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> second.bias = first.bias
        >>> ties(nn.Sequential(first, second))
        ({'1.bias': '0.bias'}, {})
    """
    found = []
    for named in (model.named_parameters, model.named_buffers):
        first: dict[int, str] = {}
        names = [(name, first.setdefault(id(value), name)) for name, value in named(remove_duplicate=False)]
        found.append({name: other for name, other in names if name != other})
    return found[0], found[1]


class _Comparison:
    """A comparison of the attributes of two models, whose submodules are those of each other by their names."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        self.models = first, second
        self.modules = [{id(module): name for name, module in model.named_modules()} for model in self.models]
        self.tensors = {
            id(value) for model in self.models for value in itertools.chain(model.parameters(), model.buffers())
        }
        # With the values, because another value can get the address of one that is gone.
        self.seen: dict[tuple[int, int], tuple[Any, Any]] = {}

    def settings_are_equal(self) -> bool:
        pairs = zip(*[model.modules() for model in self.models], strict=True)
        return all(self.same(_settings(first), _settings(second)) for first, second in pairs)

    def same(self, first: Any, second: Any) -> bool:
        """Return whether two values mean the same to a module; False if that is not known."""
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            # A stack replaces a parameter in its module, not in an attribute that holds it as well.
            own = id(first) in self.tensors or id(second) in self.tensors
            alike = first.shape == second.shape and first.dtype is second.dtype
            return not own and alike and (first is second or torch.equal(first, second))
        if isinstance(first, types.FunctionType) and isinstance(second, types.FunctionType):
            return self._same_function(first, second)
        if isinstance(first, _PLAIN):
            return type(first) is type(second) and bool(first == second or (first != first and second != second))
        if first is second:
            return True
        if type(first) is not type(second):
            return False
        if (id(first), id(second)) in self.seen:  # an object that contains itself
            return True
        self.seen[id(first), id(second)] = first, second
        return self._same_parts(first, second)

    def _same_parts(self, first: Any, second: Any) -> bool:
        if isinstance(first, dict):
            return first.keys() == second.keys() and all(self.same(value, second[key]) for key, value in first.items())
        if isinstance(first, (list, tuple)):
            return len(first) == len(second) and all(map(self.same, first, second))
        if isinstance(first, nn.Module):
            names = [modules.get(id(module)) for modules, module in zip(self.modules, (first, second), strict=True)]
            return names[0] == names[1] if any(name is not None for name in names) else self._same_state(first, second)
        if isinstance(first, np.ndarray):
            return first.dtype == second.dtype and np.array_equal(first, second)
        if isinstance(first, torch.Generator):
            return torch.equal(first.get_state(), second.get_state())
        if isinstance(first, functools.partial):
            parts = [(each.func, each.args, each.keywords) for each in (first, second)]
            return self.same(*parts)
        if isinstance(first, types.MethodType):
            return first.__func__ is second.__func__ and self.same(first.__self__, second.__self__)
        if callable(first) and not hasattr(first, "__dict__"):  # functions of C, such as torch.tanh
            return False
        return self._same_state(first, second)

    def _same_state(self, first: Any, second: Any) -> bool:
        """Return whether two objects of one class have the same attributes; without attributes they are the same."""
        return self.same(getattr(first, "__dict__", {}), getattr(second, "__dict__", {}))

    def _same_function(self, first: types.FunctionType, second: types.FunctionType) -> bool:
        both = first, second
        cells = [[cell.cell_contents for cell in each.__closure__ or ()] for each in both]
        # A copy of a model has the same functions, and these use the module of the model that was copied.
        if any(id(value) in (*self.modules[0], *self.modules[1], *self.tensors) for value in itertools.chain(*cells)):
            return False
        parts = [(each.__defaults__, each.__kwdefaults__, own) for each, own in zip(both, cells, strict=True)]
        return first.__code__ == second.__code__ and self.same(*parts)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that its output may depend on."""
    left_out = _OF_EACH_MODULE | _OF_RECURRENT if isinstance(module, nn.RNNBase) else _OF_EACH_MODULE
    return {name: value for name, value in vars(module).items() if name not in left_out}


def _class(module: nn.Module) -> type:
    """Return the class of a module; a parametrised one has a class of its own, derived from it."""
    return type(module).__mro__[1] if is_parametrized(module) else type(module)


_ASPECTS: dict[str, Callable[[nn.Module], Any]] = {
    "their layers": lambda model: (repr(model), [_class(module) for module in model.modules()]),
    "which of their tensors are tied": ties,
    "the shapes or types of their tensors": lambda model: [
        (name, *value.shape, str(value.dtype)) for name, value in (*model.named_parameters(), *model.named_buffers())
    ],
    "which parameters require a gradient": lambda model: [value.requires_grad for value in model.parameters()],
    "the train or eval modes of their submodules": lambda model: [module.training for module in model.modules()],
}
"""What must be equal in all models of a stack, by its name in words; and their attributes must be equal, too."""
