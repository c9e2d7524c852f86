"""Checks of whether predictions depend on the other samples in the batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.mixed_batches import (
    eval_outputs_in_three_batches,
    eval_outputs_in_two_batches,
    outputs_in_two_batches,
)
from bnlib.doctor.norm_layers import is_norm_layer
from bnlib.doctor.report import Finding, make_finding


def batch_statistics_at_inference(measurements: Measurements) -> Iterator[Finding]:
    """Find layers that normalise by the batch at inference: in train mode, or without running statistics."""
    layers = measurements.norm_layers
    without = [name for name, layer in layers.items() if layer.running_mean is None]
    if not measurements.inference:
        for name in without:
            text = "This layer has no running statistics, so its outputs depend on the batch in eval mode, too."
            yield make_finding("no-running-statistics", name, "note", text)
        return
    in_train_mode = [name for name, on in measurements.instrumented.in_train_mode.items() if on and name not in without]
    for code, names, one, all_layers in (
        ("train-mode-at-inference", in_train_mode, "is in train mode", "are in train mode"),
        ("no-running-statistics", without, "has no running statistics", "have no running statistics"),
    ):
        consequence = _consequence(measurements) if names else ""
        if names and len(names) == len(layers):
            yield make_finding(code, "", "error", f"All norm layers ({len(names)}) {all_layers}{consequence}.")
            continue
        for name in names:
            yield make_finding(code, name, "error", f"This layer {one}{consequence}.")


def eval_mode_depends_on_batch(measurements: Measurements) -> Iterator[Finding]:
    """Find models whose predictions depend on the other samples in the batch even after ``model.eval()``.

    The model runs as it is, so this check also finds functions such as F.batch_norm and layers of unknown types. Batch
    statistics do not depend on the order of the other samples. If the order changes the outputs as much, the cause is
    something else: the model pairs samples, or the samples are steps in time. Rounding errors, about a millionth,
    depend on the batch as well.
    """
    layers = measurements.norm_layers
    # Layers without running statistics are another finding.
    if any(layer.running_mean is None for layer in layers.values()):
        return
    outputs = eval_outputs_in_two_batches(measurements)
    if outputs is None:
        measurements.skipped["whether predictions in eval mode depend on the batch"] = (
            "that needs eight samples in tensors with the samples as their first dimension, and outputs of that form"
        )
        return
    first, other = map(_as_rows, outputs)
    change = relative_change(first, other)
    if not change > max(1e-3, 10 * torch.finfo(outputs[0].dtype).eps):
        return
    _, other, reversed_other = map(_as_rows, eval_outputs_in_three_batches(measurements))
    if relative_change(other, reversed_other) > 0.1 * change:
        return
    back_in_train_mode = [name for name, layer in layers.items() if layer.training]
    unregistered = sorted(_unregistered_norm_layers(measurements.instrumented.model))
    made = [] if back_in_train_mode or unregistered else _called_but_not_registered(measurements)
    if back_in_train_mode:
        cause = f"These layers are in train mode although model.eval() was called: {', '.join(back_in_train_mode)}."
    elif unregistered:
        cause = f"model.eval() does not reach the norm layers in a plain list or dictionary: {', '.join(unregistered)}."
    elif made:
        cause = (
            f"The forward pass calls {made[0]} that is no submodule of the model, in train mode: forward makes a new "
            "layer at each call, or takes it from outside of the model. Its gamma and beta are not trained either. "
            "Make the layer in __init__, as an attribute of the module."
        )
    else:
        cause = "No registered norm layer is the cause, so look for a function such as F.batch_norm."
    text = (
        f"After model.eval(), the outputs for the same {_samples(len(first))} change by {change:.1%} of "
        f"{_unit(first)} if the other samples in the batch change. {cause}"
    )
    severity = "error" if back_in_train_mode or unregistered or made else "warning"
    yield make_finding("eval-depends-on-batch", "", severity, text)


def _consequence(measurements: Measurements) -> str:
    outputs = outputs_in_two_batches(measurements)
    if outputs is None:
        return ", so a prediction depends on the other samples in the batch"
    first, second = map(_as_rows, outputs)
    text = (
        f". If the other samples in the batch change, the outputs for the same {_samples(len(first))} change by "
        f"{relative_change(first, second):.1%} of {_unit(first)}"
    )
    if first.size(1) > 1 and measurements.has_loss and measurements.train_score.error is not None:
        changed = int((first.argmax(1) != second.argmax(1)).sum())
        text += f", and {changed} of the {len(first)} predicted classes change"
    return text


def _as_rows(outputs: Tensor) -> Tensor:
    """Return outputs as float64 on the CPU, shape (samples, values)."""
    return outputs.detach().cpu().double().reshape(len(outputs), -1)


def relative_change(first: Tensor, second: Tensor) -> float:
    """Return the root mean square difference of two outputs for the same samples, divided by ``_unit``."""
    size = (first - first.mean(0)).square().mean().sqrt() if len(first) > 1 else first.square().mean().sqrt()
    return float((first - second).square().mean().sqrt() / size.clamp(min=torch.finfo(torch.float32).tiny))


def _unit(outputs: Tensor) -> str:
    return "their standard deviation" if len(outputs) > 1 else "their root mean square"


def _samples(count: int) -> str:
    return f"{count} sample{'s' * (count > 1)}"


def _called_but_not_registered(measurements: Measurements) -> list[str]:
    """Return a description of each norm layer in train mode that a pass in eval mode calls and the model does not have.

    A hook for all modules sees the calls. PyTorch keeps such hooks for the process, so it is removed at once.
    """
    own, found = {id(module) for module in measurements.instrumented.model.modules()}, []

    def note(module: nn.Module, inputs: tuple) -> None:
        if id(module) not in own and module.training and is_norm_layer(module):
            found.append(f"a {type(module).__name__}({getattr(module, 'num_features', '')})")

    hook = register_module_forward_pre_hook(note)
    try:
        with measurements.domain_in_use():
            measurements.instrumented(measurements.batches[0], "as is")
    finally:
        hook.remove()
    return found


def _unregistered_norm_layers(model: nn.Module) -> Iterator[str]:
    """Yield the names of lists and dictionaries that hold norm layers but are no submodules."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            held = list(value.values()) if isinstance(value, dict) else value
            if key.startswith("_") or not isinstance(held, (list, tuple)):
                continue
            inside = [part for each in held if isinstance(each, nn.Module) for part in each.modules()]
            if any(map(is_norm_layer, inside)):
                yield f"{name}.{key}".lstrip(".")
