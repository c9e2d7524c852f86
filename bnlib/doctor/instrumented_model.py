"""Run a copy of a model whose norm layers record their inputs and normalise by chosen statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from bnlib.doctor.layer_statistics import CallStatistics, all_but_channels, call_statistics
from bnlib.norm import BatchRenorm, FullNorm
from bnlib.probes.stateless import stateless_call
from bnlib.probes.tensors import at_least_float32

NORM_TYPES = (_BatchNorm, BatchRenorm, FullNorm)
"""The norm layers that are checked: those that use batch statistics."""

CORRECTED_IN_TRAIN_MODE = (BatchRenorm, FullNorm)
"""Norm layers that use running averages in train mode as well."""


@dataclass
class Pass:
    """One run of the model on one batch.

    Attributes:
        outputs: the outputs of the model.
        calls: for each norm layer's name, the statistics of its input in each call; in the order of the first calls.
        gradients: for each norm layer's name, the norm of the loss's gradient at its output, after a backward pass. The
            largest, if the model calls the layer several times.
        module_below: for each norm layer's name, the last module with parameters that was called before the layer.
    """

    outputs: object = None
    calls: dict[str, list[CallStatistics]] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    module_below: dict[str, nn.Module | None] = field(default_factory=dict)


class InstrumentedModel:
    """A copy of a model that records what its norm layers do; the user's model itself is never run.

    Arguments:
        model: any network.

    Attributes:
        model: the copy, in eval mode.
        norm_layers: the norm layers of the copy by name.
        in_train_mode: for each norm layer's name, whether it was in train mode in the user's model.
        fixed_in_eval_mode: names of the norm layers in eval mode although the model is in train mode, so that training
            uses their running statistics.
        trainable: the parameters of the copy that require a gradient in the user's model.

    Raises:
        ValueError: the model cannot be copied, or has lazy layers without parameters yet.
    """

    def __init__(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
                raise ValueError(
                    f"model must have initialised parameters, but its layer {name!r} is lazy: run a batch first"
                )
        groups = [getattr(module, "process_group", None) for module in model.modules()]
        try:
            # A process group cannot be copied, so the copy shares it.
            self.model = copy.deepcopy(model, {id(group): group for group in groups if group is not None})
        except Exception as error:
            raise ValueError(
                f"model must be a module that copy.deepcopy can copy, but copying it failed: {error}"
            ) from error
        self.norm_layers = {
            name: module for name, module in self.model.named_modules() if isinstance(module, NORM_TYPES)
        }
        self.in_train_mode = {name: layer.training for name, layer in self.norm_layers.items()}
        self.fixed_in_eval_mode = {name for name, on in self.in_train_mode.items() if model.training and not on}
        self.trainable = {parameter for parameter in self.model.parameters() if parameter.requires_grad}
        self.model.eval()
        self._current_pass, self._normalise_by, self._substitutes = Pass(), "eval", {}
        self._batch_size, self._last_called = 0, None
        for name, layer in self.norm_layers.items():
            layer.forward = partial(self._forward, name, layer, layer.forward)

    def __call__(
        self, inputs: object, normalise_by: str, substitutes: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> Pass:
        """Run the copy without gradients.

        Arguments:
            inputs: the inputs of the model.
            normalise_by: what all norm layers do. ``"batch"``: normalise by the statistics of the batch, as BN does in
                train mode. ``"train"``: normalise as the layer does in train mode. ``"eval"``: normalise by the running
                statistics. ``"original"``: use the mode of the layer in the user's model. ``"substitute"``: normalise
                by ``substitutes``.
            substitutes: mean and variance, both of shape (C,), by the name of the layer.
        """
        with torch.no_grad():
            return stateless_call(self.model, lambda model: self._pass(model, inputs, normalise_by, substitutes))

    def with_gradients(self, inputs: object, loss: Callable[[object], Tensor]) -> Pass:
        """Run the copy in train mode, then the backward pass of the loss; the gradients stay on the copy."""
        self.model.requires_grad_(True).zero_grad()

        def forward_and_backward(model: nn.Module) -> Pass:
            run = self._pass(model, inputs, "batch", None)
            loss(run.outputs).backward()
            return run

        with torch.enable_grad():
            return stateless_call(self.model, forward_and_backward)

    def _pass(self, model: nn.Module, inputs: object, normalise_by: str, substitutes) -> Pass:
        self._current_pass, self._normalise_by, self._substitutes = Pass(), normalise_by, substitutes or {}
        self._last_called = None
        self._batch_size = len(inputs) if isinstance(inputs, Tensor) and inputs.dim() else 0
        # A compiled model would not call the instrumented layers.
        with self._track_last_called(), torch.compiler.set_stance("force_eager"):
            self._current_pass.outputs = model(inputs)
        return self._current_pass

    @contextmanager
    def _track_last_called(self) -> Iterator[None]:
        """Keep track of the last called module with parameters."""

        def note(module: nn.Module, inputs: tuple) -> None:
            self._last_called = module

        owners = [
            module
            for module in self.model.modules()
            if not isinstance(module, NORM_TYPES) and next(module.parameters(recurse=False), None) is not None
        ]
        hooks = [module.register_forward_pre_hook(note) for module in owners]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _forward(self, name: str, layer: nn.Module, original: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
        run = self._current_pass
        call = call_statistics(input.detach(), self._batch_size)
        run.calls.setdefault(name, []).append(call)
        run.module_below.setdefault(name, self._last_called)
        output = self._output(name, layer, original, input, call.count)
        if output.requires_grad:
            output.register_hook(partial(_record_gradient_norm, run.gradients, name))
        return output

    def _output(self, name, layer, original, input: Tensor, count: int) -> Tensor:
        by, has_running_statistics = self._normalise_by, layer.running_mean is not None
        fixed = name in self.fixed_in_eval_mode
        own_train_mode = self.in_train_mode[name] if by == "original" else by == "train" and _is_corrected(layer, input)
        own_train_mode = own_train_mode and not fixed
        by_batch = not has_running_statistics or own_train_mode or (by in ("batch", "train") and not fixed)
        if by == "substitute" and name in self._substitutes and not fixed:
            dtype = torch.promote_types(input.dtype, torch.float32)
            mean, variance = (each.to(dtype).to(input.device) for each in self._substitutes[name])
            return _normalise_with(layer, input, mean, variance)
        if by_batch and count == 1 and not (own_train_mode and isinstance(layer, CORRECTED_IN_TRAIN_MODE)):
            # torch.nn raises an error here. A check of its own reports single values; the pass goes on, so that the
            # layers after this one can be checked.
            if by in ("batch", "train") and has_running_statistics:
                return original(input)
            return _normalise_with(layer, input - input, 0, 1)
        if own_train_mode:
            before, layer.training = layer.training, True
            try:
                return original(input)
            finally:
                layer.training = before
        if by_batch and input.numel():
            dtype = torch.promote_types(input.dtype, torch.float32)
            variance, mean = torch.var_mean(input.to(dtype), all_but_channels(input), correction=0)
            return _normalise_with(layer, input, mean, variance)
        return original(input)


def _is_corrected(layer: nn.Module, input: Tensor) -> bool:
    """Return whether train mode normalises this input by batch statistics that are corrected by running averages."""
    alone = getattr(layer, "oracle", "") == "leave_one_out" and len(input) == 1
    return isinstance(layer, CORRECTED_IN_TRAIN_MODE) and not alone


def _normalise_with(layer: nn.Module, input: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    """Normalise by the formula of the layer: FullNorm takes eps as the smallest variance, other layers add it."""
    shape = (1, -1, *[1] * (input.dim() - 2))

    def channels(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, device=input.device).expand(input.size(1)).view(shape)

    variance = torch.as_tensor(variance, device=input.device)
    scale = variance.clamp(min=layer.eps) if isinstance(layer, FullNorm) else variance + layer.eps
    output = (input - channels(mean)) / channels(scale.sqrt())
    if layer.weight is not None:
        output = output * channels(layer.weight)
    if layer.bias is not None:
        output = output + channels(layer.bias)
    return output.to(input.dtype)


def _record_gradient_norm(found: dict[str, float], name: str, gradient: Tensor) -> None:
    # The largest counts if the layer is called several times.
    found[name] = max(found.get(name, 0.0), float(at_least_float32(gradient).norm()))
