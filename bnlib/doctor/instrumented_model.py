"""Run a copy of a model whose norm layers record their inputs and normalise by chosen statistics."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from bnlib.doctor.batches import Batch, Forward
from bnlib.doctor.layer_modes import (
    by_batch,
    follows_running_statistics,
    in_mode,
    normalised_input,
    stores_its_statistics,
    values_per_channel,
    with_its_statistics,
)
from bnlib.doctor.layer_statistics import CallStatistics, call_statistics
from bnlib.doctor.norm_layers import CORRECTED_IN_TRAIN_MODE, has_known_forward, is_norm_layer
from bnlib.probes.stateless import devices_with_generators, probe_is_running
from bnlib.probes.tensors import at_least_float32


@dataclass
class Pass:
    """One run of the model on one batch.

    Attributes:
        outputs: the outputs of the model.
        calls: for each norm layer's name, the statistics of its input in each call; in the order of the first calls.
        gradients: for each norm layer's name, the norm of the loss's gradient at its output, after a backward pass. The
            largest, if the model calls the layer several times.
        module_below: for each norm layer's name, the last module with parameters that was called before the layer;
            None in a model whose parameters can all be trained.
        calls_in_backward: for each norm layer's name, how often the backward pass called it, as gradient checkpointing
            does.
    """

    outputs: object = None
    calls: dict[str, list[CallStatistics]] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    module_below: dict[str, nn.Module | None] = field(default_factory=dict)
    calls_in_backward: dict[str, int] = field(default_factory=dict)


class InstrumentedModel:
    """A copy of a model that records what its norm layers do; the user's model itself is never run.

    The layers of the copy run the user's ``forward``; only their mode and their running statistics are changed.

    Arguments:
        model: any network.
        forward: see ``diagnose``.

    Attributes:
        model: the copy, in eval mode.
        norm_layers: the norm layers of the copy by name.
        in_train_mode: for each norm layer's name, whether it was in train mode in the user's model.
        fixed: names of the norm layers whose running statistics training uses: those in eval mode although the model is
            in train mode and, once a pass called them, those that do not look at the batch in train mode either.
        updating: names of the layers whose running statistics changed when they were called in train mode.
        trainable: the parameters of the copy that require a gradient in the user's model.

    Raises:
        ValueError: the model cannot be copied, has lazy layers without parameters yet, or is on the meta device.
    """

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        for name, module in model.named_modules():
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
                raise ValueError(
                    f"model must have initialised parameters, but its layer {name!r} is lazy: run a batch first"
                )
        tensors = (*model.named_parameters(), *model.named_buffers())
        if empty := [name for name, value in tensors if value.is_meta]:
            raise ValueError(
                f"model must have values in its tensors, but {empty[0]!r} is on the meta device: load the weights first"
            )
        groups = [getattr(module, "process_group", None) for module in model.modules()]
        try:
            # A process group cannot be copied, so the copy shares it.
            shared = {id(group): group for group in groups if group is not None}
            self.model = copy.deepcopy(model, shared | _copies_of_empty_dictionaries(model) | _copies_of_results(model))
        except Exception as error:
            raise ValueError(
                f"model must be a module that copy.deepcopy can copy, but copying it failed: {error}"
            ) from error
        self.norm_layers = {name: module for name, module in self.model.named_modules() if is_norm_layer(module)}
        self.in_train_mode = {name: layer.training for name, layer in self.norm_layers.items()}
        self.fixed = {name for name, on in self.in_train_mode.items() if model.training and not on}
        self.updating: set[str] = set()
        self.trainable = {parameter for parameter in self.model.parameters() if parameter.requires_grad}
        self.model.eval()
        self._devices, self._device_kind = devices_with_generators(self.model)
        # Only layers without trainable parameters are asked for the module below.
        self._notes_module_below = len(self.trainable) < sum(1 for _ in self.model.parameters())
        self._forward_of_user = forward
        self._current_pass, self._normalise_by, self._substitutes = Pass(), "eval", {}
        self._batch_size, self._last_called, self._known = 0, None, set()
        self._records = self._runs_backward = False
        self._buffers = [
            _Buffer(module, name, value, value.clone())
            for module in self.model.modules()
            for name, value in module._buffers.items()
            if value is not None
        ]
        for name, layer in self.norm_layers.items():
            layer.forward = partial(self._forward, name, layer, layer.forward)

    def __call__(
        self,
        batch: Batch,
        normalise_by: str,
        substitutes: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        record: bool = False,
    ) -> Pass:
        """Run the copy without gradients.

        Arguments:
            batch: the batch.
            normalise_by: what all norm layers do. ``"batch"``: normalise by the statistics of the batch, as BN does in
                train mode. ``"train"``: normalise as the layer does in train mode. ``"eval"``: normalise by the running
                statistics. ``"as is"``: follow the mode that the model leaves the layer in after ``model.eval()``.
                ``"original"``: use the mode of the layer in the user's model. ``"substitute"``: normalise by
                ``substitutes``, and by the running statistics in other layers.
            substitutes: mean and variance, both of shape (C,), by the name of the layer.
            record: record the calls of the norm layers, not only the outputs.
        """
        with torch.no_grad(), self._side_effects_undone():
            return self._pass(batch, normalise_by, substitutes, record)

    def with_gradients(self, batch: Batch, loss: Callable[[object], Tensor]) -> Pass:
        """Run the copy in train mode, then the backward pass of the loss; the gradients stay on the copy."""
        self.model.requires_grad_(True).zero_grad()
        with torch.enable_grad(), self._side_effects_undone():
            run = self._pass(batch, "batch", None, record=False)
            self._runs_backward = True
            try:
                loss(run.outputs).backward()
            finally:
                self._runs_backward = False
            return run

    def call_is_guessed(self, batch: Batch) -> bool:
        """Return whether the call is a guess: the batch is neither a tensor nor a pair, and there is no forward=."""
        whole = batch.whole if isinstance(batch.whole, (tuple, list)) else [batch.whole]
        plain = len(whole) <= 2 and all(isinstance(each, Tensor) for each in whole) and len(batch.arguments) == 1
        return self._forward_of_user is None and not plain

    def train_other_modules(self) -> None:
        """Put all modules but norm layers and dropout into train mode, because only then a detector has a loss."""
        for module in self.model.modules():
            if not is_norm_layer(module) and "drop" not in type(module).__name__.lower():
                module.training = True

    def _pass(self, batch: Batch, normalise_by: str, substitutes, record: bool) -> Pass:
        self._current_pass, self._normalise_by, self._substitutes = Pass(), normalise_by, substitutes or {}
        self._last_called, self._records, self._batch_size = None, record, batch.size or 0
        tracking = self._track_last_called() if record and self._notes_module_below else nullcontext()
        with tracking, _without_compilation():
            if self._forward_of_user is None:
                self._current_pass.outputs = self.model(*batch.arguments, **batch.keywords)
            else:
                self._current_pass.outputs = self._forward_of_user(self.model, *batch.arguments)
        return self._current_pass

    @contextmanager
    def _side_effects_undone(self) -> Iterator[None]:
        """Give buffers and random number generators their old values at the end of a ``with`` block."""
        token = probe_is_running.set(True)
        try:
            with torch.random.fork_rng(self._devices, device_type=self._device_kind):
                yield
        finally:
            probe_is_running.reset(token)
            with torch.no_grad():
                for each in self._buffers:
                    each.restore()

    @contextmanager
    def _track_last_called(self) -> Iterator[None]:
        """Keep track of the last called module with parameters."""

        def note(module: nn.Module, inputs: tuple) -> None:
            self._last_called = module

        owners = [
            module
            for module in self.model.modules()
            if not is_norm_layer(module) and next(module.parameters(recurse=False), None) is not None
        ]
        hooks = [module.register_forward_pre_hook(note) for module in owners]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _forward(self, name: str, layer: nn.Module, original: Callable[..., object], *arguments, **keywords):
        run, below = self._current_pass, self._last_called
        input = next((each for each in (*arguments, *keywords.values()) if isinstance(each, Tensor)), None)
        call = partial(original, *arguments, **keywords)
        if self._runs_backward:
            run.calls_in_backward[name] = run.calls_in_backward.get(name, 0) + 1
        if input is None:
            return call()
        if self._records:
            output, values = self._recorded(name, layer, call, input)
            if values is not None:
                run.calls.setdefault(name, []).append(values)
                run.module_below.setdefault(name, below)
        else:
            output = self._output(name, layer, call, input)
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(partial(_record_gradient_norm, run.gradients, name))
        return output

    def _recorded(self, name: str, layer: nn.Module, call: Callable[[], object], input: Tensor):
        """Run a layer, and return its output and the statistics of what it normalises."""
        # What the values of single samples are is asked of the first layer only.
        samples = 0 if self._current_pass.calls else self._batch_size
        by_batch = self._normalise_by == "batch" and name not in self.fixed
        if by_batch and not has_known_forward(layer) and values_per_channel(input) > 1:
            return self._learn(name, layer, call, input)
        if by_batch and stores_its_statistics(layer, input):
            self.updating |= {name} if layer.momentum != 0 else set()
            return with_its_statistics(layer, call, input, samples)
        return self._output(name, layer, call, input), call_statistics(layer, input, samples)

    def _output(self, name: str, layer: nn.Module, call: Callable[[], object], input: Tensor):
        """Run the layer as ``_normalise_by`` says."""
        by, fixed = self._normalise_by, name in self.fixed
        own_train_mode = self.in_train_mode[name] if by == "original" else by == "train" and _is_corrected(layer, input)
        if by == "as is":
            return call()
        if own_train_mode and not fixed and isinstance(layer, CORRECTED_IN_TRAIN_MODE):
            with in_mode(layer, training=True):
                return call()
        if by == "substitute" and name in self._substitutes and not fixed and layer.running_mean is not None:
            with in_mode(layer, False, self._substitutes[name]):
                return call()
        by_statistics_of_batch = by in ("batch", "train") or (by == "original" and own_train_mode)
        if not fixed and (by_statistics_of_batch or layer.running_mean is None):
            return self._by_batch(name, layer, call, input)
        with in_mode(layer, training=False):
            return call()

    def _by_batch(self, name: str, layer: nn.Module, call: Callable[[], object], input: Tensor):
        if not self._records or layer.running_mean is None or isinstance(layer, CORRECTED_IN_TRAIN_MODE):
            return by_batch(layer, call, input)
        before = layer.running_mean.detach().clone()
        output = by_batch(layer, call, input)
        if not torch.equal(before, layer.running_mean):
            self.updating.add(name)
        return output

    def _learn(self, name: str, layer: nn.Module, call: Callable[[], object], input: Tensor):
        """Run a layer with a ``forward`` of the user's in train mode, and see what it normalises and by what."""
        if name not in self._known:
            self._known.add(name)
            if follows_running_statistics(layer, call):
                self.fixed.add(name)
                return self._output(name, layer, call, input), call_statistics(layer, input, self._batch_size)
        output, normalised = normalised_input(layer, lambda: self._by_batch(name, layer, call, input), input)
        return output, call_statistics(layer, normalised, self._batch_size)


def _copies_of_results(model: nn.Module) -> dict[int, Tensor]:
    """Return detached copies of the tensors with a graph that modules hold, which ``copy.deepcopy`` refuses to copy.

    A hook has computed them in the last forward pass, as those of ``torch.nn.utils.prune`` do, and does so in the next.
    """
    held = (each for module in model.modules() for each in vars(module).values())
    return {id(each): each.detach().clone() for each in held if isinstance(each, Tensor) and not each.is_leaf}


def _copies_of_empty_dictionaries(model: nn.Module) -> dict[int, dict]:
    """Return new dictionaries for the empty ones of all modules, by their ``id``, as ``copy.deepcopy`` keeps them.

    Each module has about ten, for hooks. Copying these takes a third or more of the time of copying a small model.
    """
    held = (each for module in model.modules() for each in vars(module).values())
    return {id(each): type(each)() for each in held if type(each) in (dict, OrderedDict) and not each}


@dataclass(frozen=True, eq=False)
class _Buffer:
    """A buffer of a module, and a copy of its values."""

    owner: nn.Module
    name: str
    value: Tensor
    copy: Tensor

    def restore(self) -> None:
        """Give the buffer its old values. Whether they changed is unknown: batch norm does not raise the version."""
        self.value.copy_(self.copy)
        if self.owner._buffers.get(self.name) is not self.value:
            self.owner._buffers[self.name] = self.value


@contextmanager
def _without_compilation() -> Iterator[None]:
    """Run compiled models as they were written, because a compiled one would not call the instrumented layers."""
    # Setting the stance takes a second if nothing has been compiled so far.
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with stance:
        yield


def _is_corrected(layer: nn.Module, input: Tensor) -> bool:
    """Return whether train mode normalises this input by batch statistics that are corrected by running averages."""
    alone = getattr(layer, "oracle", "") == "leave_one_out" and len(input) == 1
    return isinstance(layer, CORRECTED_IN_TRAIN_MODE) and not alone


def _record_gradient_norm(found: dict[str, float], name: str, gradient: Tensor) -> None:
    # The largest counts if the layer is called several times.
    found[name] = max(found.get(name, 0.0), float(at_least_float32(gradient).norm()))
