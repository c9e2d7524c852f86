"""Forward hooks that do nothing in a copy of the model, and the passes that count as steps of a training.

The call of a module that has hooks takes longer, by 1 % of the time of a step of a small network. So on the CPU the
calls of a model are counted in the attribute that ``module.compile()`` uses: what is there, PyTorch calls in place of
the module, and leaves out of copies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from bnlib.probes.stateless import probe_is_running

NOTHING_WATCHED = {}, None, int, 0, (0.0,)
"""What ``FirstNonFinite`` watches if there is nothing to watch."""

# The running backward pass (-1: none), and the transformations of torch.func. PyTorch has no public functions for them.
_backward_pass = torch._C._current_graph_task_id
_is_transformed = torch._C._are_functorch_transforms_active
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
        begin_step: called with the module and its arguments, at the beginning of the step after ``quiet_steps`` ones;
            None stands for the arguments if the hooks of this call have not run yet.
        other_pass: called with the module at the beginning of a pass that is no training pass.

    Attributes:
        quiet_steps: the number of passes that are only counted, before the next call of ``begin_step``.
        after_step: called with the number of the step before, at the beginning of each of these passes; it is not
            called if ``watched`` tells that nothing has happened.
        watched: see ``FirstNonFinite``.
    """

    def __init__(
        self, begin_step: Callable[[nn.Module, tuple | None], None], other_pass: Callable[[nn.Module], None]
    ) -> None:
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

    def register(self, module: nn.Module) -> RemovableHandle | CountedCall:
        """Count the calls of a module; the method ``remove`` of the result ends it."""
        if CountedCall.is_possible(module):
            return CountedCall(self, module)
        return module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, arguments: tuple | None) -> None:
        """Count a training pass, or call ``begin_step`` or ``other_pass``."""
        if _is_compiling():
            return
        counts = module.training and _has_gradients() and _backward_pass() == -1
        if not counts or _is_transformed() or _is_probe():
            self._other_pass(module)
        elif quiet := self.quiet_steps:
            holder, variance, pointer, address, memory = self.watched
            if holder.get("running_var") is not variance or pointer() != address or memory[0] - memory[0] != 0.0:
                self.after_step(self._last_quiet_step - quiet)
            self.quiet_steps = quiet - 1
        else:
            self._begin_step(module, arguments)


class CountedCall:
    """The call of a module, counted: a function in the attribute of the module that ``module.compile()`` uses.

    Arguments:
        counter: what counts.
        module: the module; see ``is_possible``.
    """

    def __init__(self, counter: StepHook, module: nn.Module) -> None:
        self._module, self._function = module, _counted(counter, module)
        module._compiled_call_impl = self._function

    @staticmethod
    def is_possible(module: nn.Module) -> bool:
        """Return whether PyTorch looks at the attribute, nothing else uses it, and no copy will have it.

        ``DataParallel``, which copies modules to several GPUs, would copy it.
        """
        return (
            type(module).__call__ is nn.Module.__call__
            and type(module).__getstate__ is nn.Module.__getstate__
            and module._compiled_call_impl is None
            and not isinstance(module, torch.jit.ScriptModule)
            and all(value.is_cpu for value in (*module.parameters(), *module.buffers()))
        )

    def remove(self) -> None:
        """Let PyTorch call the module itself."""
        if self._module._compiled_call_impl is self._function:
            self._module._compiled_call_impl = None


def _counted(counter: StepHook, module: nn.Module) -> Callable:
    """Return a function that counts a call and calls the module.

    It decides itself what most calls are, the quiet steps, and leaves all others to the counter. Between the operations
    of a training, an attribute takes much longer than a variable.
    """
    call, own, state = module._call_impl, vars(module), vars(counter)
    has_gradients, backward_pass, is_transformed = _has_gradients, _backward_pass, _is_transformed
    is_probe, is_compiling = _is_probe, _is_compiling

    def counted(*args: Any, **kwargs: Any) -> Any:
        holder, variance, pointer, address, memory = state["watched"]
        if (
            (quiet := state["quiet_steps"])
            and own.get("training")
            and holder.get("running_var") is variance
            and pointer() == address
            and (value := memory[0]) - value == 0.0
            and has_gradients()
            and backward_pass() == -1
            and not (is_transformed() or is_probe() or is_compiling())
        ):
            state["quiet_steps"] = quiet - 1
        else:
            counter(module, None)
        return call(*args, **kwargs)

    counted.counts_calls = True
    return counted


def is_transformed_pass() -> bool:
    """Return whether a module is called by a probe of bnlib or in a transformation of ``torch.func``."""
    return _is_transformed() or _is_probe()


def is_repeated_pass() -> bool:
    """Return whether a module is called in a backward pass, which repeats a forward pass for gradient checkpointing."""
    return _backward_pass() != -1


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``torch.compile`` or ``module.compile()`` runs this module, so that no hooks inside run."""
    # torch.compile imports this file of PyTorch, which takes long, when it is first used.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return is_compiled_in_place(module) or (dynamo and isinstance(module, dynamo.OptimizedModule)) is True


def is_compiled_in_place(module: nn.Module) -> bool:
    """Return whether ``module.compile()`` was called."""
    call = module._compiled_call_impl
    return call is not None and not getattr(call, "counts_calls", False)
