"""What looks like a fault of batch norm and is none: rounding, and what follows from the formula."""

from __future__ import annotations

from bnlib.doctor.advice_form import FAILING, FORMULA, TRAINING, Advice

CAUSES_THAT_ARE_NO_FAULT: dict[str, Advice] = {
    "not-trained-yet": Advice(
        group="eval",
        symptom=(
            "A new, untrained network with batch norm gives completely different outputs for the same input in "
            "`train()` and in `eval()` mode"
        ),
        cause=(
            "This difference is expected. Train mode normalises with the statistics of the batch, and eval mode with "
            "the running averages, which start at mean 0 and variance 1."
        ),
        test="all(bn.num_batches_tracked < 10 for bn in bns)",
        remedy=(
            "No cure is needed. Train first, then compare the losses of both modes on large batches. If you want to "
            "use the network without training, call it on some batches in train mode first."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "overfitting": Advice(
        group="eval",
        symptom="The validation loss is much higher than the training loss",
        cause=(
            "The network overfits, and BN is not the cause, if eval mode has a low loss on the training data, too. "
            "Here `batches` holds training data, and `validation` is the validation loss."
        ),
        test='loss["eval"] < 1.5 * loss["train"] and validation > 1.5 * loss["eval"]',
        remedy=(
            "Use more data, augmentation or stronger regularisation. If eval mode has a high loss on the training "
            "data, too, BN is the cause: compare the four losses."
        ),
        section=f"{FAILING}#four-numbers",
    ),
    "rounding": Advice(
        group="batch",
        symptom=(
            "After `model.eval()` the outputs change slightly (by 1e-3 or less) with the batch size on the GPU, or "
            "there is a small numerical difference between CPU and GPU, with and without `torch.compile`, or with "
            "another memory format (channels_last)"
        ),
        cause=(
            "Another batch size, device or compiler computes the sums in another order, or with fewer digits (TF32 on "
            "NVIDIA GPUs), so the rounding errors differ. A BN layer with a small running variance multiplies them by "
            "up to 316. Here `one` and `other` are the two ways to compute the outputs, both in float64 "
            "(`model.double()`)."
        ),
        test="torch.allclose(one(x.double()), other(x.double()), atol=1e-6)",
        remedy=(
            "If the difference disappears in float64, no cure is needed. For smaller errors in float32, switch off "
            "TF32: `torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False`. MPS (Apple) has "
            "no float64, and larger differences there can be a bug: see the case about MPS."
        ),
        section="chapters/torch_parts.ipynb#what-changes-with-the-number-format",
    ),
    "rounded-to-half-precision": Advice(
        group="after",
        symptom=(
            "LayerNorm, RMSNorm or another norm gives slightly different outputs in float16 or bfloat16 (half "
            "precision, AMP) than in float32, or in a fused version (Apex, Triton, Transformer Engine) than in the "
            "reference"
        ),
        cause=(
            "This difference is rounding. Numbers in float16 have about 3 decimal digits, and in bfloat16 between 2 "
            "and 3, so each layer rounds its inputs and outputs, and the errors of many layers add up. Two versions of "
            "one norm also differ if one rounds before the multiplication by the weight, and the other rounds after "
            "it. PyTorch's own norms compute in float32 inside (`nn.RMSNorm` not yet in its first version, PyTorch "
            "2.4). Here `layer` is the norm, `values` is its input in half precision."
        ),
        test="torch.allclose(layer(values).float(), copy.deepcopy(layer).float()(values.float()), 0.02, 0.02)",
        remedy=(
            "If the test is true, no cure is needed. If it is false, see the case about overflow in float16. For "
            "equal outputs, use the version with which the model was trained. For outputs that are closer to float32, "
            "keep the weights in float32 and use `torch.autocast`: according to its documentation, it runs "
            "`layer_norm` in float32 on GPUs."
        ),
        section=f"{TRAINING}#running-statistics-in-half-precision",
    ),
    "bias-without-gradient": Advice(
        group="training",
        symptom=(
            "The bias of a convolution or linear layer before batch norm does not learn: its gradient is zero, or "
            "about 1e-8"
        ),
        cause=(
            "This is expected. BN subtracts the mean of the batch, and the bias with it, so the bias does not change "
            "the loss in train mode. Its gradient is zero up to rounding. Here `layer` is the layer before BN."
        ),
        test="layer.bias.grad.abs().max() < 1e-4 * layer.weight.grad.abs().max()",
        remedy="No cure is needed. Build the layer with `bias=False`, because BN's beta does its work.",
        section=f"{FORMULA}#three-consequences",
    ),
    "counted-as-non-trainable": Advice(
        group="after",
        symptom=(
            "Half of the parameters of batch norm are “non-trainable” in Keras's `summary()`, or the running averages "
            "are missing in PyTorch's `parameters()`: is the layer frozen?"
        ),
        cause=(
            "This is expected. Of the four arrays, gamma and beta are trained by gradients. The two moving averages "
            "are only updated in train mode, so Keras counts them as non-trainable, and PyTorch keeps them as buffers. "
            "Here `layer` is the layer in Keras."
        ),
        test="len(layer.non_trainable_weights) == 2",
        remedy=(
            "No cure is needed. A frozen layer (`trainable=False`) has four non-trainable arrays. When you save or "
            "average a PyTorch model, use `state_dict()`, which has the buffers."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "processes-wait": Advice(
        group="devices",
        symptom="Training with SyncBatchNorm is slower than with BatchNorm (DistributedDataParallel, DDP)",
        cause=(
            "This is expected. In each pass, every SyncBatchNorm layer waits until all processes have sent their "
            "statistics, so the slowest process and the network between them set the pace. Here `x` is the batch of "
            "one device."
        ),
        test="any(isinstance(bn, nn.SyncBatchNorm) for bn in bns) and len(x) >= 16",
        remedy=(
            "If the test is true, each device has enough samples of its own: use BatchNorm. Otherwise synchronise the "
            "devices of one machine only, with the argument `process_group`."
        ),
        section="chapters/10_many_machines.ipynb#what-it-costs",
    ),
}
"""Causes that need no cure, by a short name."""
