"""Running a copy of a model in which each norm layer normalises as it is told, and tells what it was given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from bnlib.norm import BatchRenorm, FullNorm
from bnlib.probes.stateless import stateless_call
from bnlib.probes.tensors import at_least_float32

NORMS = (_BatchNorm, BatchRenorm, FullNorm)
"""The layers that are looked at: those with statistics of batches."""

CORRECTED = (BatchRenorm, FullNorm)
"""Those whose train mode uses running statistics, too."""


@dataclass(frozen=True, eq=False)
class Call:
    """What a norm layer was given in one call.

    Attributes:
        count: values a channel.
        mean: of the values of each channel, shape (C,).
        variance: the biased one, shape (C,).
        samples: the mean of each sample's values, shape (n, C); None where it is unknown which values are a sample's.
    """

    count: int
    mean: Tensor
    variance: Tensor
    samples: Tensor | None


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of all values that a norm layer was given.

    Attributes:
        count: values a channel.
        mean: shape (C,).
        within: the average unbiased variance within a batch, which running averages of BN estimate; nan where each
            batch had one value a channel.
        total: the variance over all batches, what varies between them included.
    """

    count: int
    mean: Tensor
    within: Tensor
    total: Tensor


@dataclass
class Pass:
    """One run of the model on one batch.

    Attributes:
        outputs: of the model.
        calls: by the layer's name what its calls were given, in the order of first calls.
        gradients: by the layer's name the norm of the loss's gradient at its output, after a backward pass.
        below: by the layer's name the last module with parameters that was called before.
    """

    outputs: object = None
    calls: dict[str, list[Call]] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    below: dict[str, nn.Module | None] = field(default_factory=dict)


class Watch:
    """A copy of a model whose norm layers are watched; the model itself is never run.

    Arguments:
        model: any network.

    Attributes:
        model: the copy, in eval mode.
        norms: the norm layers of the copy by name.
        modes: whether each of them was in train mode.
        kept: those in eval mode although the model is in train mode, so that its training, too, runs on their running
            statistics.
        trained: the parameters of the copy that were to be trained.

    Raises:
        ValueError: the model cannot be copied, or has lazy layers that have seen no data.
    """

    def __init__(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
                raise ValueError(f"model must have seen data, but its layer {name!r} is lazy and has not")
        groups = [getattr(module, "process_group", None) for module in model.modules()]
        try:
            # A process group cannot be copied, and need not be.
            self.model = copy.deepcopy(model, {id(group): group for group in groups if group is not None})
        except Exception as error:
            raise ValueError(f"model must be a module that copy.deepcopy can copy: {error}") from error
        self.norms = {name: module for name, module in self.model.named_modules() if isinstance(module, NORMS)}
        self.modes = {name: layer.training for name, layer in self.norms.items()}
        self.kept = {name for name, on in self.modes.items() if model.training and not on}
        self.trained = {parameter for parameter in self.model.parameters() if parameter.requires_grad}
        self.model.eval()
        self._run, self._how, self._samples, self._given, self._last = Pass(), "running", 0, {}, None
        for name, layer in self.norms.items():
            layer.forward = partial(self._forward, name, layer, layer.forward)

    def __call__(self, inputs: object, how: str, given: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Pass:
        """Run the copy without gradients.

        Arguments:
            inputs: of the model.
            how: norm layers normalise by "batch", as BN's train mode does; as each does in "train" mode; by "running",
                as eval mode; as "handed", each in the mode it came in; by what is "given".
            given: mean and variance by the layer's name.
        """
        with torch.no_grad():
            return stateless_call(self.model, lambda model: self._pass(model, inputs, how, given))

    def with_gradients(self, inputs: object, loss: Callable[[object], Tensor]) -> Pass:
        """Run the copy as train mode does, and the loss of its outputs backwards; gradients are left on the copy."""
        self.model.requires_grad_(True).zero_grad()

        def both(model: nn.Module) -> Pass:
            run = self._pass(model, inputs, "batch", None)
            loss(run.outputs).backward()
            return run

        with torch.enable_grad():
            return stateless_call(self.model, both)

    def _pass(self, model: nn.Module, inputs: object, how: str, given) -> Pass:
        self._run, self._how, self._given, self._last = Pass(), how, given or {}, None
        self._samples = len(inputs) if isinstance(inputs, Tensor) and inputs.dim() else 0
        # Compiled, the model would not call the layers as they are now.
        with self._called(), torch.compiler.set_stance("force_eager"):
            self._run.outputs = model(inputs)
        return self._run

    @contextmanager
    def _called(self) -> Iterator[None]:
        """Keep track of the last module with parameters."""

        def note(module: nn.Module, inputs: tuple) -> None:
            self._last = module

        owners = [
            module
            for module in self.model.modules()
            if not isinstance(module, NORMS) and next(module.parameters(recurse=False), None) is not None
        ]
        hooks = [module.register_forward_pre_hook(note) for module in owners]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _forward(self, name: str, layer: nn.Module, original: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
        run = self._run
        call = measured(input.detach(), self._samples)
        run.calls.setdefault(name, []).append(call)
        run.below.setdefault(name, self._last)
        output = self._normalised(name, layer, original, input, call.count)
        if output.requires_grad:
            output.register_hook(partial(_keep_norm, run.gradients, name))
        return output

    def _normalised(self, name, layer, original, input: Tensor, count: int) -> Tensor:
        tracked = layer.running_mean is not None
        as_is = self.modes[name] if self._how == "handed" else self._how == "train" and _corrects(layer, input)
        as_is = as_is and name not in self.kept
        by_batch = not tracked or as_is or (self._how in ("batch", "train") and name not in self.kept)
        if self._how == "given" and name in self._given and name not in self.kept:
            kind = torch.promote_types(input.dtype, torch.float32)
            mean, variance = (each.to(kind).to(input.device) for each in self._given[name])
            return _scaled(layer, input, mean, variance)
        if by_batch and count == 1 and not (as_is and isinstance(layer, CORRECTED)):
            # torch.nn refuses. What train mode does with one value is a finding of its own; the layers after it are
            # to be looked at all the same.
            if self._how in ("batch", "train") and tracked:
                return original(input)
            return _scaled(layer, input - input, 0, 1)
        if as_is:
            before, layer.training = layer.training, True
            try:
                return original(input)
            finally:
                layer.training = before
        if by_batch and input.numel():
            kind = torch.promote_types(input.dtype, torch.float32)
            variance, mean = torch.var_mean(input.to(kind), _dims(input), correction=0)
            return _scaled(layer, input, mean, variance)
        return original(input)


def _corrects(layer: nn.Module, input: Tensor) -> bool:
    """Whether train mode gives something for this input, and not by the batch alone."""
    alone = getattr(layer, "oracle", "") == "leave_one_out" and len(input) == 1
    return isinstance(layer, CORRECTED) and not alone


def measured(input: Tensor, samples: int) -> Call:
    """The statistics of a layer's input, of which ``samples`` is the number of samples in the model's input."""
    values = at_least_float32(input)
    count = input.numel() // max(1, input.size(1))
    if input.numel() == 0:
        nothing = values.new_full((input.size(1),), float("nan"))
        return Call(0, nothing, nothing, None)
    variance, mean = torch.var_mean(values, _dims(input), correction=0)
    each = None
    if samples and len(input) % samples == 0:
        # A layer may take the time steps of a sample for more samples; then they are side by side.
        each = values.flatten(2).mean(2) if input.dim() > 2 else values
        each = each.unflatten(0, (samples, -1)).mean(1).cpu().double()
    return Call(count, mean.cpu().double(), variance.cpu().double(), each)


def pooled(calls: Sequence[Call]) -> Statistics | None:
    """The statistics of several calls together; None if they had no values."""
    calls = [call for call in calls if call.count]
    if not calls:
        return None
    counts = torch.tensor([float(call.count) for call in calls], dtype=torch.double)[:, None]
    means, variances = torch.stack([call.mean for call in calls]), torch.stack([call.variance for call in calls])
    mean = (counts * means).sum(0) / counts.sum()
    # 0/0 where each has a single value.
    within = (counts * variances).sum(0) / (counts - 1).sum()
    total = (counts * (variances + (means - mean).square())).sum(0) / counts.sum()
    return Statistics(int(counts.sum()), mean, within, total)


def default_loss(outputs: object, targets: object) -> Tensor | None:
    """Cross-entropy where outputs and targets are those of a classification, with classes in dimension 1 or last."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return None
    whole = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    if outputs.dim() < 2 or not outputs.is_floating_point() or not whole or not targets.numel():
        return None
    if outputs.dim() > 2 and outputs.shape[:-1] == targets.shape:
        outputs = outputs.movedim(-1, 1)
    if outputs.shape[:1] + outputs.shape[2:] != targets.shape:
        return None
    # Numbers that are no classes of these outputs are something else, as with a single output for two classes.
    if outputs.size(1) < 2 or targets.max() >= outputs.size(1) or targets[targets != -100].lt(0).any():
        return None
    # A half has too few digits for the differences that are looked for.
    return F.cross_entropy(at_least_float32(outputs), targets.long())


def _dims(input: Tensor) -> list[int]:
    return [dim for dim in range(input.dim()) if dim != 1]


def _scaled(layer: nn.Module, input: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    """Normalise by the formula; FullNorm has its eps as a least variance."""
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


def _keep_norm(found: dict[str, float], name: str, gradient: Tensor) -> None:
    # A layer that is called several times counts by the largest.
    found[name] = max(found.get(name, 0.0), float(at_least_float32(gradient).norm()))
