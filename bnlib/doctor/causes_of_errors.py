"""Error messages about batch norm, and NaN at once: causes that ``bnlib.diagnose`` does not look for."""

from __future__ import annotations

from bnlib.doctor.advice_form import FORMULA, TRAINING, Advice

CAUSES_OF_ERRORS: dict[str, Advice] = {
    "overflow-in-half-precision": Advice(
        group="error",
        symptom=(
            "NaN in train mode as soon as autocast, AMP, float16 (fp16) or Keras's `mixed_float16` is on: the loss is "
            "NaN, and `running_mean` or `running_var` is NaN or inf, after the first batches"
        ),
        cause=(
            "The layer in front of BN computes in float16, where values above 65,504 become infinite. One infinite "
            "value makes the whole channel NaN. BN itself computes in float32, but this does not help, because its "
            "input is already infinite."
        ),
        test="model(x).isfinite().all() and torch.autocast(x.device.type, torch.float16)(model)(x).isnan().any()",
        remedy=(
            "Scale the inputs to a variance near 1, use bfloat16, or compute this layer and BN in float32 "
            "(`torch.autocast(..., enabled=False)` and `x.float()`; Keras: build both with `dtype='float32'`, which "
            "also helps if a plugin such as DirectML computes BN itself in float16). Then recompute the running "
            "statistics."
        ),
        section=f"{TRAINING}#one-bad-batch-and-eval-mode-is-nan",
    ),
    "number-types-differ": Advice(
        group="error",
        symptom=(
            "The model stops with “mat1 and mat2 must have the same dtype”, “Input type and bias type should be the "
            "same”, “mixed dtype: expect parameter to have scalar type of Float”, “expected scalar type Half but found "
            "Float”, “\"batch_norm\" not implemented for 'Byte'” or “'Half'”, “\"LayerNormKernelImpl\" not implemented "
            "for 'Half'”, or (SyncBatchNorm, FSDP) “Expected counts to have type Half but got Float”"
        ),
        cause=(
            "The model and its input have different number formats, for example after `model.half()`. A BN layer in "
            "float32 accepts inputs in half precision, but a BN layer in half precision accepts no float32 inputs. Old "
            "versions of PyTorch compute no half precision on the CPU, and stop in the backward pass of a frozen BN "
            "layer in float32 whose input is in half precision. No BN layer accepts complex numbers or integers (Byte, "
            "Long), such as images as they are loaded."
        ),
        test="any(x.dtype != next(model.parameters()).dtype for x, y in batches)",
        remedy=(
            "Train with `torch.autocast` in place of `model.half()`. For a model in half precision, convert the inputs "
            "as well, and keep BN in float32: `bn.float()`; in old versions, use `bn.eval().half()` for frozen BN. On "
            "a CPU, upgrade PyTorch or use float32. Convert images: `x.float() / 255`."
        ),
        section=f"{TRAINING}#running-statistics-in-half-precision",
    ),
    "counter-in-checkpoint": Advice(
        group="error",
        symptom=(
            "Loading a checkpoint fails with “Unexpected key(s)” or “Missing key(s) in state_dict: "
            "bn1.num_batches_tracked”: after an update of PyTorch, old saved models do not load"
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
            "While gradients are synchronised, DDP overwrites BN's running averages with those of process 0 at the "
            "beginning of each forward pass. Autograd keeps them for the backward pass of the earlier forward pass, "
            "and notices the change. PyTorch 2.13 no longer raises the error. Here `ddp` is the wrapped network."
        ),
        test="ddp.broadcast_buffers and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in ddp.modules())",
        remedy=(
            "Call `backward()` before the next forward pass, or pass both batches through the network in one call, or "
            "use `DistributedDataParallel(..., broadcast_buffers=False)`. Each process then keeps its own running "
            "averages."
        ),
        section="chapters/10_many_machines.ipynb#whose-statistics",
    ),
    "number-of-dimensions": Advice(
        group="error",
        symptom=(
            "The model stops with “expected 4D input (got 3D input)”, “expected 4D input (got 2D input)”, “expected 2D "
            "or 3D input (got 4D input)” or “expected 5D input”, also inside `vmap`"
        ),
        cause=(
            "BatchNorm1d takes inputs with 2 or 3 dimensions (samples, channels, positions), BatchNorm2d takes 4 "
            "(images), and BatchNorm3d 5 (volumes). SyncBatchNorm takes any number from 2 on, so code that was "
            "written for it can stop once BatchNorm2d takes its place on one GPU. Inside `torch.func.vmap`, a layer "
            "sees one sample, without the dimension of the batch. Here `layer` is the layer that stops, `values` is "
            "its input."
        ),
        test=(
            'values.dim() not in {"BatchNorm1d": (2, 3), "BatchNorm2d": (4,), "BatchNorm3d": '
            "(5,)}[type(layer).__name__]"
        ),
        remedy=(
            "Use BatchNorm1d behind Linear and Conv1d, BatchNorm2d behind Conv2d, and BatchNorm3d behind Conv3d. If "
            "the input is a single image without the dimension of the batch, pass `x[None]`. Inside `vmap`, call "
            "`model.eval()` first, and use `lambda x: model(x[None])[0]` in place of `model`."
        ),
        section=f"{FORMULA}#convolutions",
    ),
    "fused-in-train-mode": Advice(
        group="error",
        symptom=(
            "Quantisation-aware training: `fuse_modules` stops with “Fusion only for eval!” or “Conv and BN both must "
            "be in the same mode (train or eval)”"
        ),
        cause=(
            "`fuse_modules` folds BN's running averages into the layer in front, so the result is right in eval "
            "mode only. With the second message, one of the two layers is frozen by `eval()`. Here `parts` are the "
            "layers that you fuse."
        ),
        test="any(part.training for part in parts)",
        remedy=(
            "For quantisation-aware training, call `torch.ao.quantization.fuse_modules_qat` in train mode, which keeps "
            "BN, then `prepare_qat`. To freeze BN, call `model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)` after "
            "that. For quantisation after training, call `model.eval()` before `fuse_modules`."
        ),
        section=f"{TRAINING}#folding-batch-norm-into-the-convolution",
    ),
    "too-large-for-cudnn": Advice(
        group="error",
        symptom=(
            "Batch norm on an NVIDIA GPU stops with “cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if "
            "you passed in a non-contiguous input” or “CUDNN_STATUS_INTERNAL_ERROR” when the batch or the input is "
            "very large; or becomes many times "
            "slower; small batches work"
        ),
        cause=(
            "PyTorch's public issues report this error for batches above 65,535 samples in eval mode (PyTorch 1.0 to "
            "1.3) and above 131,070 in train mode (PyTorch 0.2), and for a tensor of more than 2 billion values "
            "(PyTorch 1.7). vLLM reports the same limit for many image patches. Between 120,000 and "
            "140,000 rows, a report of 2018 finds BatchNorm1d eight times slower. "
            "This book did not reproduce it. Here `works()` calls the model, and returns False if it stops."
        ),
        test="not works() and torch.backends.cudnn.flags(enabled=False)(works)()",
        remedy=(
            "Upgrade PyTorch, split the batch, or run the model without cuDNN: `with "
            "torch.backends.cudnn.flags(enabled=False):`. If the input is not contiguous, try `x.contiguous()` first."
        ),
        section="chapters/torch_parts.ipynb#what-was-not-measured",
    ),
    "features-differ": Advice(
        group="error",
        symptom=(
            "The model stops with “running_mean should contain 256 elements not 512”, “weight should contain 256 "
            "elements not 512”, “Expected weight to be a vector of size equal to the number of channels in input” or "
            "(loading a checkpoint) “size mismatch for bn1.running_mean: copying a param with shape [512]”"
        ),
        cause=(
            "The layer was built for another number of channels (512) than its input has (256). The same holds for a "
            "checkpoint of a wider, or not pruned, network. If the input has the shape (N, L, C), BatchNorm1d takes L "
            "for the number of channels. Here `layer` is the layer that stops, `values` is its input."
        ),
        test="values.shape[1] != len(layer.weight)",
        remedy=(
            "Build the layer for the channels of its input, `nn.BatchNorm2d(256)`, or use `nn.LazyBatchNorm2d()`, "
            "which reads their number from the first batch. With the shape (N, L, C), call `layer(values.transpose(1, "
            "2)).transpose(1, 2)`."
        ),
        section=f"{FORMULA}#convolutions",
    ),
    "plain-tensor-statistics": Advice(
        group="error",
        symptom=(
            "A batch norm of your own (custom layer) stops with “Expected all tensors to be on the same device”, or "
            "the checkpoint lacks its running mean"
        ),
        cause=(
            "The running averages are plain tensors, such as `self.running_mean = torch.zeros(n)`. Plain tensors do "
            "not follow `model.to(device)`, and `state_dict()` does not contain them."
        ),
        test="any(torch.is_tensor(value) for m in model.modules() for value in vars(m).values())",
        remedy=(
            'Register them as buffers in `__init__`: `self.register_buffer("running_mean", torch.zeros(n))`, and '
            "change them in place, for example with `lerp_`."
        ),
        section=f"{FORMULA}#exercise-3-find-the-bug",
    ),
    "functional-transform": Advice(
        group="error",
        symptom=(
            "With `torch.func` (functorch), `grad`, `vmap` or per-sample gradients stop at batch norm, with “attempted "
            "to call in-place operation … that would mutate a captured Tensor” or “Batch norm got a batched tensor as "
            "input while the running_mean or running_var, which will be updated in place”"
        ),
        cause=(
            "In train mode, BN updates its running averages in place, and a function under `grad` or `vmap` must not "
            "change tensors that are not its arguments."
        ),
        test="any(bn.training and bn.track_running_stats for bn in bns)",
        remedy=(
            "For gradients of single samples, call `model.eval()`: in train mode a single sample has no gradient of "
            "its own. Otherwise pass the buffers to the function as an argument and return the new ones, or, if you "
            "need no running averages, call `torch.func.replace_all_batch_norm_modules_(model)`."
        ),
        section="chapters/torch_parts.ipynb#what-do-functional-transforms-do",
    ),
}
"""Causes of errors and of NaN in the first steps, by a short name."""
