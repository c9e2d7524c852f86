"""Diagnose what cannot be taken apart: TorchScript modules and exported programs. Less can be said about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnlib.doctor.batches import Batch
from bnlib.doctor.checks.batch_dependence import relative_change
from bnlib.doctor.losses import Loss, main_output, score
from bnlib.doctor.report import Finding, Report, make_finding
from bnlib.doctor.structures import join, sample_count, sample_shapes, select


def is_exported(model: object) -> bool:
    """Return whether a model is a TorchScript module, an exported program, or its module."""
    if isinstance(model, (torch.jit.ScriptModule, torch.export.ExportedProgram)):
        return True
    # The export gives such a module methods train() and eval() of its own, which refuse to work.
    return isinstance(model, torch.fx.GraphModule) and "train" in vars(model)


def as_module(model: nn.Module | torch.export.ExportedProgram) -> nn.Module:
    """Return a module that can be called; it is the model itself unless it is an exported program."""
    return model.module() if isinstance(model, torch.export.ExportedProgram) else model


def diagnose_exported(model: nn.Module, batches: Sequence[Batch], loss: Loss | None, inference: bool) -> Report:
    """Check the stored statistics, and whether predictions depend on the other samples in the batch.

    Arguments:
        model: as ``as_module`` returns it.
        batches, loss, inference: see ``diagnose``.
    """
    findings, remarks = list(_stored_values(model)), [_what_is_not_checked(model)]
    with torch.no_grad(), _in_eval_mode_and_unchanged(model):
        change = _change_by_other_samples(model, batches)
        outputs = [model(*batch.arguments, **batch.keywords) for batch in batches]
    if change is None:
        remarks.append("Not checked: whether predictions depend on the batch, because that needs eight samples.")
    elif change > 1e-3:
        text = (
            f"The outputs for the same samples change by {change:.1%} of their standard deviation if the other samples "
            "in the batch change. The model was traced or exported in train mode, or has no running statistics; "
            "eval() does not change that."
        )
        findings.append(make_finding("train-mode-at-inference", "", "error" if inference else "warning", text))
    found = score(loss, outputs, batches)
    if found is not None:
        remarks.append(f"The loss is {found}.")
    return Report(findings, remarks)


@contextmanager
def _in_eval_mode_and_unchanged(model: nn.Module) -> Iterator[None]:
    """Restore modes and buffers at the end of a ``with`` block; only TorchScript has modes."""
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    modes = {module: module.training for module in model.modules()}
    if isinstance(model, torch.jit.ScriptModule):
        model.eval()
    try:
        yield
    finally:
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
        for module, mode in modes.items():
            if module.training != mode:
                module.training = mode


def _stored_values(model: nn.Module) -> Iterator[Finding]:
    buffers = dict(model.named_buffers())
    for name, value in buffers.items():
        layer, _, kind = name.rpartition(".")
        if value.is_floating_point() and not value.isfinite().all():
            text = f"{kind} has nan or infinite values in {int((~value.isfinite()).sum())} of {value.numel()} channels."
            yield make_finding("non-finite-values", layer, "error", text)
        mean = buffers.get(name.removesuffix("running_var") + "running_mean")
        if kind == "running_var" and mean is not None and (mean == 0).all() and (value == 1).all():
            text = "The running statistics still have their initial values, mean 0 and variance 1."
            yield make_finding("running-statistics-never-updated", layer, "warning", text)


def _change_by_other_samples(model: nn.Module, batches: Sequence[Batch]) -> float | None:
    """Return how much the outputs for the same samples change; None if there are too few samples."""
    first = batches[0]
    alike = [each for each in batches if each.size and sample_shapes(each.inputs) == sample_shapes(first.inputs)]
    if not alike:
        return None
    pool, size = join([each.inputs for each in alike]), first.size
    # An exported program may take batches of one size only.
    total, kept = sample_count(pool), max(1, size // 2)
    if size < 4 or total < size + kept:
        if size < 8:
            return None
        # With one batch, other samples are the same ones in another order and number.
        mixed = select(pool, torch.cat([torch.arange(kept), torch.zeros(size - kept, dtype=torch.long)]))
    else:
        mixed = join([select(pool, slice(0, kept)), select(pool, slice(total - (size - kept), total))])
    results = []
    for arguments, keywords in (select(pool, slice(0, size)), mixed):
        output = main_output(model(*arguments, **keywords))
        if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != size:
            return None
        results.append(output[:kept].double().reshape(kept, -1))
    return relative_change(*results)


def _what_is_not_checked(model: nn.Module) -> str:
    kind = "a TorchScript module" if isinstance(model, torch.jit.ScriptModule) else "an exported program"
    return (
        f"The model is {kind}, so its layers can be neither observed nor given other statistics. Checked: its stored "
        "values, and whether predictions depend on the batch. Not checked: losses in train mode, running statistics "
        "against the data, gradients, and the batches. For these, diagnose the model from which it was made."
    )
