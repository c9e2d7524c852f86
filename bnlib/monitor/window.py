"""Measure all norm layers over two training passes that follow each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnlib.doctor.layer_modes import values_per_channel
from bnlib.doctor.layer_statistics import call_statistics, pool_statistics, running_variance_target
from bnlib.monitor.hooks import Hook, is_repeated_pass, is_transformed_pass
from bnlib.monitor.layer_states import BatchStatistics, LayerState, Snapshot, batch_between, reveals_its_batch


@dataclass
class Calls:
    """The calls of one layer in one pass.

    Attributes:
        counts: number of values per channel of each call in the forward pass.
        samples: length of the first dimension of the first input; None if the layer was not called.
        repeated: number of calls in the backward pass, for gradient checkpointing.
        reveals_batch: whether the running statistics tell the statistics of the batch.
        statistics: of each call in the forward pass, where they were computed from the input.
    """

    counts: list[int] = field(default_factory=list)
    samples: int | None = None
    repeated: int = 0
    reveals_batch: bool = False
    statistics: list[BatchStatistics] = field(default_factory=list)


@dataclass(frozen=True)
class Pass:
    """What one layer did in one step.

    Attributes:
        step: number of the step.
        calls: the calls of the layer; None if hooks cannot see them, because the layer is compiled.
        before, after: the states of the layer around the step.
        batches: the statistics of the layer's input in each call; without those that are unknown or not finite.
    """

    step: int
    calls: Calls | None
    before: LayerState
    after: LayerState
    batches: list[BatchStatistics]

    @property
    def updates(self) -> int | None:
        """How often the step updated the running statistics; None if the layer does not count."""
        if self.before.batches is None or self.after.batches is None:
            return None
        return self.after.batches - self.before.batches


class Window:
    """Records a few passes in a row.

    Arguments:
        layers: the norm layers by name.
        hidden: names of the layers whose calls hooks cannot see.
        by_input: names of the layers whose statistics must be computed from the input.

    Attributes:
        order: names of the layers in the order of their first calls; first those that hooks can see.
        other_passes: number of passes in train mode that are no training passes, as those without
            gradients.
    """

    def __init__(self, layers: Mapping[str, nn.Module], hidden: Collection[str], by_input: Collection[str]) -> None:
        self._layers, self._hidden, self._by_input = layers, hidden, by_input
        self._snapshots: list[Snapshot] = []
        self._calls: list[dict[str, Calls]] = []
        self._steps: list[int] = []
        self._handles: list[RemovableHandle] = []
        self._called: dict[str, None] = {}
        self.other_passes, self._in_training_pass = 0, False

    @property
    def length(self) -> int:
        """Number of passes that have begun."""
        return len(self._steps)

    @property
    def order(self) -> list[str]:
        """Names of the layers in the order of their first calls, then those that were not called."""
        return list(dict.fromkeys([*self._called, *self._layers]))

    def begin_pass(self, step: int) -> None:
        """Begin a pass; the one before is complete."""
        self._snapshots.append(Snapshot(self._layers))
        if not self._steps:
            for name, layer in self._layers.items():
                if name not in self._hidden:
                    hook = Hook(lambda layer, arguments, name=name: self.note_call(name, layer, arguments))
                    self._handles.append(layer.register_forward_pre_hook(hook))
        self._in_training_pass = True
        self._steps.append(step)
        self._calls.append({})

    def begin_other_pass(self, training: bool) -> None:
        """Begin a pass that is no training pass; its calls are not recorded.

        Arguments:
            training: whether the pass is in train mode.
        """
        self.other_passes += training
        self._in_training_pass = False

    def note_call(self, name: str, layer: nn.Module, arguments: tuple) -> None:
        """Record a call of a layer."""
        if is_transformed_pass() or not (self._in_training_pass or is_repeated_pass()):
            return
        calls = self._calls[-1].setdefault(name, Calls())
        self._called[name] = None
        if is_repeated_pass():
            calls.repeated += 1
            return
        input = arguments[0] if arguments else None
        if not isinstance(input, Tensor) or input.dim() < 2:
            return
        calls.counts.append(values_per_channel(input))
        calls.samples = calls.samples or input.size(0)
        calls.reveals_batch = name not in self._by_input and reveals_its_batch(layer, input)
        if not calls.reveals_batch:
            found = _from_input(layer, input)
            if found is not None:
                calls.statistics.append(found)

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def passes(self) -> dict[str, list[Pass]]:
        """End the window; return for each layer what it did in each pass. This waits for the devices."""
        self.close()
        states = [each.states() for each in (*self._snapshots, Snapshot(self._layers))]
        return {name: [self._pass(name, number, states) for number in range(self.length)] for name in self.order}

    def _pass(self, name: str, number: int, states: list[dict[str, LayerState]]) -> Pass:
        layer, before, after = self._layers[name], states[number][name], states[number + 1][name]
        calls = None if name in self._hidden else self._calls[number].get(name, Calls())
        found = [] if calls is None else calls.statistics
        known = reveals_its_batch(layer, None) if calls is None else calls.reveals_batch and len(calls.counts) == 1
        if known and not found:
            batch = batch_between(layer, before, after, calls.counts[0] if calls else None)
            found = [] if batch is None else [batch]
        found = [each for each in found if math.isfinite(each.variance.sum())]
        return Pass(self._steps[number], calls, before, after, found)


def _from_input(layer: nn.Module, input: Tensor) -> BatchStatistics | None:
    pooled = pool_statistics([each for each in [call_statistics(layer, input, 0)] if each is not None])
    if pooled is None:
        return None
    return BatchStatistics(pooled.count, pooled.mean.numpy(), running_variance_target(pooled, layer).numpy())
