"""Error messages about batch norm, and NaN at once: causes that ``bnlib.diagnose`` does not look for."""

from __future__ import annotations

from bnlib.doctor.advice_form import FORMULA, TRAINING, Advice

CAUSES_OF_ERRORS: dict[str, Advice] = {
    "overflow-in-half-precision": Advice(
        group="error",
        symptom=(
            "NaN in train mode as soon as autocast, AMP or float16 (fp16) is on: the loss is NaN, and `running_mean` "
            "or `running_var` is NaN or inf, after the first batches"
        ),
        cause=(
            "The layer in front of BN computes in float16, where values above 65,504 become infinite. One infinite "
            "value makes the whole channel NaN. BN itself computes in float32, but this does not help, because its "
            "input is already infinite."
        ),
        test="model(x).isfinite().all() and torch.autocast(x.device.type, torch.float16)(model)(x).isnan().any()",
        remedy=(
            "Scale the inputs to a variance near 1, use bfloat16, or compute this layer and BN in float32 "
            "(`torch.autocast(..., enabled=False)` and `x.float()`). Then recompute the running statistics."
        ),
        section=f"{TRAINING}#one-bad-batch-and-eval-mode-is-nan",
    ),
    "number-types-differ": Advice(
        group="error",
        symptom=(
            "The model stops with “mat1 and mat2 must have the same dtype”, “Input type and bias type should be the "
            "same”, “mixed dtype: expect parameter to have scalar type of Float”, or “expected scalar type Half but "
            "found Float”"
        ),
        cause=(
            "The model and its input have different number formats, for example after `model.half()`. A BN layer in "
            "float32 accepts inputs in half precision, but a BN layer in half precision accepts no float32 inputs."
        ),
        test="any(x.dtype != next(model.parameters()).dtype for x, y in batches)",
        remedy=(
            "Train with `torch.autocast` in place of `model.half()`. For a model in half precision, convert the "
            "inputs as well, and keep BN in float32: `bn.float()`."
        ),
        section=f"{TRAINING}#running-statistics-in-half-precision",
    ),
    "counter-in-checkpoint": Advice(
        group="error",
        symptom=(
            "Loading a checkpoint fails with “Unexpected key(s)” or “Missing key(s) in state_dict: "
            "bn1.num_batches_tracked”"
        ),
        cause=(
            "Only the model or only the checkpoint has BN's counter of batches. The other one has frozen layers of a "
            "class such as `FrozenBatchNorm2d`, or lost its counters, or is a model in PyTorch before 0.4.1. Here "
            "`checkpoint` is the loaded dictionary."
        ),
        test=(
            '{key.split(".")[-1] for key in model.state_dict().keys() ^ checkpoint.keys()} == {"num_batches_tracked"}'
        ),
        remedy=(
            "If no other key differs, load with `strict=False`. The counter matters with `momentum=None` only. If "
            "`running_mean` is also missing, the statistics are lost: recompute them."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "two-passes-in-ddp": Advice(
        group="error",
        symptom=(
            "Training stops with “one of the variables needed for gradient computation has been modified by an inplace "
            "operation” with DistributedDataParallel (DDP), as in a GAN whose discriminator sees real and fake images "
            "one after the other"
        ),
        cause=(
            "Before each forward pass, DDP overwrites BN's running averages with those of process 0. Autograd keeps "
            "them for the backward pass of the earlier forward pass, and notices the change. PyTorch 2.13 no longer "
            "raises the error. Here `ddp` is the wrapped network."
        ),
        test="ddp.broadcast_buffers and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in ddp.modules())",
        remedy=(
            "Call `backward()` before the next forward pass, or pass both batches through the network in one call, or "
            "use `DistributedDataParallel(..., broadcast_buffers=False)`. Each process then keeps its own running "
            "averages."
        ),
        section="chapters/10_many_machines.ipynb#whose-statistics",
    ),
    "immutable-statistics": Advice(
        group="error",
        symptom=(
            "Flax (JAX): ModifyScopeVariableError, “Cannot update variable "
            "mean … because collection batch_stats is immutable”"
        ),
        cause=(
            "In train mode, BN updates its running statistics, the collection `batch_stats`, but `apply` was not told "
            "that this collection may change. Here `mutable` is the argument of `apply`, by default False."
        ),
        test='"batch_stats" not in (mutable or [])',
        remedy=(
            'In training, call `y, new = model.apply(variables, x, mutable=["batch_stats"])`, and keep '
            '`new["batch_stats"]` for the next step. For predictions, use `use_running_average=True`.'
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
}
"""Causes of errors and of NaN in the first steps, by a short name."""
