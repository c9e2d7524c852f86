"""Watch the norm layers of a model while it trains."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import nn

from bnlib.arguments import check_flags, check_integer, check_usual, shown
from bnlib.doctor.report import Finding, Report
from bnlib.monitor.findings import Sign, signs
from bnlib.monitor.first_non_finite import FirstNonFinite
from bnlib.monitor.hooks import Hook, StepHook
from bnlib.monitor.layer_states import LayerState, Snapshot
from bnlib.monitor.quantities import Measured, measure
from bnlib.monitor.records import Records
from bnlib.monitor.watched_layers import layers_to_watch
from bnlib.monitor.window import Pass, Window

PASSES_PER_MEASUREMENT = 2
"""The number of training passes that a measurement compares with each other."""

_AVERAGED, _ENOUGH = 5, 3
_HIDDEN = (
    "But the running statistics have changed, so perhaps the model was compiled after the monitor was made. Use "
    "model = torch.compile(model), and then Monitor(model)."
)


class Monitor:
    """Watch the layers with batch statistics of a model while it trains, and warn when something goes wrong.

    Make a monitor before the training; nothing has to be called in the training loop. The training computes exactly
    what it computes without the monitor. The training passes are counted: the calls of the model in train mode with
    gradients. So evaluation in eval mode does not count, and each micro-batch of an accumulated gradient
    does. If only parts of the model are called, the calls of the first norm layer count.

    At every ``every``-th pass, the monitor measures two passes that follow each other. From the running statistics
    before and after a pass it computes the statistics of the batch, so it does not read the activations. Layers that do
    not tell them, such as layers in eval mode, ``FullNorm`` or layers without running statistics, are measured at their
    input. ``QUANTITIES`` names the numbers. In between, one number per step tells at which step the running statistics
    became nan or infinite.

    A finding has a code and the advice of the doctor. ``bnlib.diagnose`` takes a model and batches and checks more, for
    example the loss in eval mode.

    Copies of the model (``copy.deepcopy``, ``torch.save``) are not watched, and the ``state_dict`` is that without a
    monitor. Call ``remove`` before ``torch.jit.script``. With ``torch.compile``, watch the compiled model:
    ``model = torch.compile(model)`` and then ``Monitor(model)``. Then the monitor sees what the running statistics of
    PyTorch's layers tell, but not the calls and the inputs of layers. It does not see passes that are replayed as a
    CUDA graph.

    Arguments:
        model: any network with layers that normalise by batch statistics.
        every: number of training passes from one measurement to the next. ``benchmarks/monitor.py`` measures what this
            costs: with the default on a CPU, a step takes at most 2 % longer, most where a step takes 0.5 ms or less.
        to: where the numbers of each measurement go: a function that takes the dictionary of ``scalars`` and the step,
            or an object with a method ``add_scalar``, such as TensorBoard's ``SummaryWriter``.
        warn: whether a finding that is more than a note is also a Python warning, once per layer and code.

    Attributes:
        every: as passed.
        step: number of the current training pass, from 1. Set it to continue with the number of a checkpoint.
        log: a dictionary per measurement and layer, with the keys ``step``, ``layer`` and those of ``QUANTITIES``; nan
            where a number is unknown. ``pandas.DataFrame`` and ``csv.DictWriter`` take it.
        findings: what was found so far, in the order in which it was first seen; see ``bnlib.doctor.Finding``.
        first_steps: the step that first showed each finding, by its code and its layer.

    Raises:
        ValueError: the model has no layer with batch statistics, or has lazy layers without parameters, or was compiled
            by ``model.compile()``, which hides the calls of the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        >>> with bnlib.Monitor(model, every=10, warn=False) as monitor:
        ...     for step in range(100):
        ...         x = torch.randn(32, 3)
        ...         x[0, 0] = torch.inf if step == 49 else 0  # an overflow in the batch of step 50
        ...         loss = model(x).square().mean()
        ...         loss.backward()
        >>> for finding in monitor.findings:
        ...     print(finding.code, "in layer", finding.layer, "|", finding.evidence[:14])
        non-finite-values in layer 1 | Since step 50,
    """

    def __init__(
        self,
        model: nn.Module,
        every: int = 1000,
        to: Callable[[dict[str, float], int], Any] | Any = None,
        warn: bool = True,
    ) -> None:
        check_usual(model=model)
        check_integer("every", every)
        check_flags(warn=warn)
        if to is not None and not callable(to) and not hasattr(to, "add_scalar"):
            raise TypeError(
                f"to must be a function of a dictionary and a step, a SummaryWriter or None, got {shown(to)}"
            )
        self.every, self._to, self._warn = every, to, warn
        self._layers, self._hidden = layers_to_watch(model)
        self._records, self._window = Records(warn), None
        self._by_input: set[str] = set()
        self._begun, self._checked = 0, 0
        self._bad: set[str] = set()
        self._last: dict[str, Pass] = {}
        self._earlier: dict[str, LayerState] = {}
        self._shares: dict[str, list[float]] = {}
        self._counter = StepHook(self._on_model, self._on_other_pass)
        self._counter.after_step = self._after_quiet_step
        self._watch_last_layer(list(self._layers))
        self._handles = [self._counter.register(model)]
        states = Snapshot(self._layers).states()
        self._initial = {name: state.batches for name, state in states.items()}
        self._report_non_finite(states)
        # Until it is known whether the training calls the model as a whole.
        self._searching = [
            layer.register_forward_pre_hook(Hook(self._on_first_layer))
            for name, layer in self._layers.items()
            if name not in self._hidden and layer is not model
        ]

    @property
    def step(self) -> int:
        """Number of the current training pass, from 1."""
        return self._counter.step

    @step.setter
    def step(self, step: int) -> None:
        check_integer("step", step, at_least=0)
        self._counter.step = step

    @property
    def _passes(self) -> int:
        """The number of training passes that have begun."""
        return self._begun - self._counter.quiet_steps

    @property
    def log(self) -> list[dict[str, float | int | str]]:
        """The measurements."""
        return self._records.log

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, in the order in which it was first seen; see ``bnlib.doctor.Finding``."""
        self._check_finite()
        return self._records.findings()

    @property
    def first_steps(self) -> dict[tuple[str, str], int]:
        """The step that first showed each finding, by its code and its layer."""
        return self._records.first_steps()

    def scalars(self) -> dict[str, float]:
        """Return the numbers of the newest measurement by ``batch_norm_QUANTITY/LAYER``; empty before the first one."""
        return self._records.scalars()

    def report(self) -> Report:
        """Return the findings as a report of the doctor, the most severe first; print it to read it."""
        return Report(self.findings, self._remarks())

    def plot(self, quantities: Sequence[str] = ("distance", "drift", "variance_over_eps", "gamma")):
        """Draw the log: a panel per quantity, a line per layer, and a dotted line where a finding was first seen.

        Arguments:
            quantities: keys of ``QUANTITIES``, or one of them.

        Returns:
            A ``bnlib.figures.Picture``, which a notebook shows; its ``svg`` is text for a file.

        Raises:
            ValueError: a quantity has no such key, or nothing was measured yet.
        """
        from bnlib import figures  # needs matplotlib
        from bnlib.figures.monitor import draw_monitor, size_of

        self._finish()
        names = (quantities,) if isinstance(quantities, str) else tuple(quantities)
        return figures.picture(draw_monitor, self, names, size=size_of(names))

    def remove(self) -> None:
        """End the monitor: take the hooks off the model and evaluate the last passes. The log stays."""
        self._finish()
        for handle in (*self._handles, *self._searching):
            handle.remove()
        self._handles, self._searching = [], []
        if self._warn and not self._passes and self._batches() != self._initial:
            warnings.warn(f"bnlib.Monitor saw no training pass. {_HIDDEN}", UserWarning, stacklevel=2)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Monitor of {len(self._layers)} norm layers, every={self.every}, at step {self.step}>"

    def _on_model(self, module: nn.Module, arguments: tuple | None) -> None:
        if self._searching:
            self._end_search()
        self._begin_step(module, arguments)

    def _after_quiet_step(self, step: int) -> None:
        self._first_non_finite.note(step)
        self._counter.watched = self._first_non_finite.watched

    def _on_other_pass(self, module: nn.Module) -> None:
        if self._window is not None:
            self._window.begin_other_pass(module.training)

    def _on_first_layer(self, layer: nn.Module, arguments: tuple) -> None:
        """Take a layer as the one whose calls count, because it is called although the model was not."""
        if self._searching:
            self._end_search()
            self._handles[0].remove()
            self._handles[0] = self._counter.register(layer)
            self._counter(layer, arguments)

    def _end_search(self) -> None:
        for handle in self._searching:
            handle.remove()
        self._searching = []

    def _begin_step(self, module: nn.Module, arguments: tuple | None) -> None:
        passes = self._passes
        if passes:
            self._first_non_finite.note(self.step)
        if self._window is not None and self._window.length >= min(PASSES_PER_MEASUREMENT, self.every):
            self._measure()
        begins = passes % self.every == 0
        self._begun += 1
        self.step += 1
        if begins:
            self._window = Window(self._layers, self._hidden, self._by_input)
        if self._window is not None:
            self._window.begin_pass(self.step)
            if begins and arguments is not None:
                # Hooks of this call run already, so the window's own hook is called from the next call on.
                for name in (name for name, layer in self._layers.items() if layer is module):
                    self._window.note_call(name, module, arguments)
        else:
            quiet = self.every - 1 - passes % self.every
            self._begun += quiet
            self._counter.begin_quiet_steps(quiet)
            self._counter.watched = self._first_non_finite.watched

    def _finish(self) -> None:
        """Measure what is there, after the last pass."""
        self._first_non_finite.note(self.step)
        if self._window is not None:
            self._measure()
        self._check_finite()

    def _measure(self) -> None:
        with np.errstate(all="ignore"):
            self._measure_window()

    def _measure_window(self) -> None:
        window, self._window = self._window, None
        without_gradients, passes = window.other_passes, window.passes()
        step = next(iter(passes.values()))[-1].step
        measured = {
            name: measure(self._layers[name], each, self._last.get(name), self._earlier.get(name))
            for name, each in passes.items()
        }
        for name, each in passes.items():
            self._last[name], self._earlier[name] = each[-1], each[-1].after
            if measured[name].below_resolution:
                del self._last[name]  # its statistics are not known well enough to be compared with others
            several = any(one.calls is not None and len(one.calls.counts) != 1 for one in each)
            if several or measured[name].below_resolution:
                self._by_input.add(name)
            share = measured[name].values.get("between_batches")
            if share is not None:
                self._shares[name] = [*self._shares.get(name, []), share][-_AVERAGED:]
        self._report_non_finite({name: each[-1].after for name, each in passes.items()})
        self._records.add_numbers(step, measured)
        self._records.add_signs(step, self._signs(measured, without_gradients))
        if self._passes <= PASSES_PER_MEASUREMENT:
            self._watch_last_layer(list(passes))
        if self._to is not None:
            send(self._to, self.scalars(), step)

    def _signs(self, measured: dict[str, Measured], without_gradients: int) -> Iterator[Sign]:
        means = {name: sum(each) / len(each) for name, each in self._shares.items() if len(each) >= _ENOUGH}
        return signs(self._layers, measured, without_gradients, means)

    def _check_finite(self) -> None:
        self._first_non_finite.note(self.step)
        self._report_non_finite(Snapshot(self._layers).states())

    def _report_non_finite(self, states: dict[str, LayerState]) -> None:
        """Report the layers whose running statistics are not finite any more, with the step of the first one."""
        new = [name for name, state in states.items() if not state.is_finite and name not in self._bad]
        if new:
            step, since = self._when(self._first_non_finite.first())
            self._bad |= set(new)
            self._by_input |= self._bad  # such running statistics no longer tell those of a batch
            self._records.add_signs(step, (_non_finite(name, since, states[name]) for name in new))
        self._first_non_finite.clear(self.step)
        self._checked = self.step

    def _when(self, first: int | None) -> tuple[int, str]:
        """Return a step and a text for the step that ``FirstNonFinite`` found."""
        if not self._passes:
            return self.step, "From the beginning"
        if first is not None and first > self._checked:
            return first, f"Since step {first}"
        if self._checked < self.step:
            return self.step, f"After a step from {self._checked + 1} to {self.step}"
        return self.step, f"After step {self.step}"

    def _batches(self) -> dict[str, int | None]:
        return {name: state.batches for name, state in Snapshot(self._layers).states().items()}

    def _watch_last_layer(self, order: list[str]) -> None:
        kept = [name for name in order if self._layers[name].running_var is not None]
        self._first_non_finite = FirstNonFinite(
            self._layers[kept[-1]] if kept else None, self.every + 3, self._check_finite
        )
        self._first_non_finite.clear(self.step)
        self._counter.watched = self._first_non_finite.watched

    def _remarks(self) -> list[str]:
        if self._passes:
            remarks = [
                f"The monitor saw {self._passes} training passes up to step {self.step} and measured "
                f"{self._records.measurements} times. bnlib.diagnose(model, batches) checks more."
            ]
        else:
            remarks = ["The monitor saw no training pass, which is a call of the model in train mode with gradients."]
            if self._batches() != self._initial:
                remarks.append(_HIDDEN)
        if self._hidden:
            remarks.append(
                f"{len(self._hidden)} of {len(self._layers)} norm layers are compiled, so their calls are unknown."
            )
        return remarks


def _non_finite(name: str, since: str, state: LayerState) -> Sign:
    counts = state.non_finite_channels()
    where = " and ".join(f"{key} in {count} of {len(state.mean)} channels" for key, count in counts.items())
    return Sign("non-finite-values", name, "error", f"{since}, values are nan or infinite: {where}.")


def send(to: Any, scalars: dict[str, float], step: int) -> None:
    """Hand numbers to a function or to a ``SummaryWriter``."""
    if hasattr(to, "add_scalar"):
        for name, value in scalars.items():
            to.add_scalar(name, value, step)
    else:
        to(scalars, step)
