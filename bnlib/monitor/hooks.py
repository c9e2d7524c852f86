"""Forward hooks that do nothing in a copy of the model, and the passes that count as steps of a training."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import nn

from bnlib.probes.stateless import probe_is_running

NOTHING_WATCHED = {}, None, (0.0,)
"""What ``FirstNonFinite`` watches if there is nothing to watch."""

# The running backward pass (-1: none), and the transformations of torch.func. PyTorch has no public functions for them.
_backward_pass = torch._C._current_graph_task_id
_transformations = torch._C._functorch.peek_interpreter_stack
_has_gradients, _is_compiling, _is_probe = torch.is_grad_enabled, torch.compiler.is_compiling, probe_is_running.get


class Hook:
    """A forward pre-hook that a copy of the model does not have.

    ``copy.deepcopy`` and ``pickle`` put the method ``get`` of an empty dictionary in its place. Called with a module
    and its arguments, this method returns the arguments, so it changes nothing. A model that was pickled with a hook
    can be loaded where bnlib is not installed.

    Arguments:
        function: takes the module and its positional arguments. While ``torch.compile`` traces the module, it is not
            called.
    """

    def __init__(self, function: Callable[[nn.Module, tuple], None]) -> None:
        self._function = function

    def __call__(self, module: nn.Module, arguments: tuple) -> None:
        """Call the function, unless ``torch.compile`` traces the module."""
        if not _is_compiling():
            self._function(module, arguments)

    def __deepcopy__(self, memo: dict) -> Callable:
        return {}.get

    def __reduce__(self) -> tuple:
        return getattr, ({}, "get")


class StepHook(Hook):
    """A hook that counts training passes: calls in train mode with gradients, outside of a backward pass.

    The calls of the probes of bnlib and those in a transformation of ``torch.func`` are not training passes.

    This code runs in each step, so it is one function with few attributes: in a network of two small layers, each call
    of another one takes about 0.2 % of the time of a step.

    Arguments:
        begin_step: called with the module and its arguments, at the beginning of the step after ``quiet_steps`` ones.
        other_pass: called with the module at the beginning of a pass that is no training pass.

    Attributes:
        quiet_steps: the number of passes that are only counted, before the next call of ``begin_step``.
        after_step: called with the number of the step before, at the beginning of each of these passes; it is not
            called if ``watched`` tells that nothing has happened.
        watched: see ``FirstNonFinite``.
    """

    def __init__(self, begin_step: Callable[[nn.Module, tuple], None], other_pass: Callable[[nn.Module], None]) -> None:
        self._begin_step, self._other_pass = begin_step, other_pass
        self.quiet_steps, self.after_step, self.watched = 0, None, NOTHING_WATCHED
        self._last_quiet_step = 0

    @property
    def step(self) -> int:
        """Number of the current training pass."""
        return self._last_quiet_step - self.quiet_steps

    @step.setter
    def step(self, step: int) -> None:
        self._last_quiet_step = step + self.quiet_steps

    def begin_quiet_steps(self, count: int) -> None:
        """Only count the next passes."""
        self._last_quiet_step, self.quiet_steps = self.step + count, count

    def __call__(self, module: nn.Module, arguments: tuple) -> None:
        """Count a training pass, or call ``begin_step`` or ``other_pass``."""
        if _is_compiling():
            return
        counts = module.training and _has_gradients() and _backward_pass() == -1
        if not counts or _transformations() is not None or _is_probe():
            self._other_pass(module)
        elif quiet := self.quiet_steps:
            holder, variance, memory = self.watched
            if holder.get("running_var") is not variance or memory[0] - memory[0] != 0.0:
                self.after_step(self._last_quiet_step - quiet)
            self.quiet_steps = quiet - 1
        else:
            self._begin_step(module, arguments)


def is_transformed_pass() -> bool:
    """Return whether a module is called by a probe of bnlib or in a transformation of ``torch.func``."""
    return _transformations() is not None or _is_probe()


def is_repeated_pass() -> bool:
    """Return whether a module is called in a backward pass, which repeats a forward pass for gradient checkpointing."""
    return _backward_pass() != -1


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``torch.compile`` or ``module.compile()`` runs this module, so that no hooks inside run."""
    # torch.compile imports this file of PyTorch, which takes long, when it is first used.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return module._compiled_call_impl is not None or (dynamo and isinstance(module, dynamo.OptimizedModule)) is True
