"""Trouble with export, conversion and compilation, and with layers that were built for them."""

from __future__ import annotations

from bnlib.doctor.advice_form import ALTERNATIVES, FAILING, FORMULA, TRAINING, Advice

CAUSES_IN_EXPORTERS: dict[str, Advice] = {
    "quantised-norm-alone": Advice(
        group="error",
        symptom=(
            "Export of a quantised model (QAT or `prepare`) to ONNX stops with “Exporting the operator "
            "'quantized::batch_norm2d' to ONNX opset version 14 is not supported”"
        ),
        cause=(
            "A BN layer stands alone, without a convolution directly in front of it, or was not fused with it. So "
            "`convert` made a quantised BN layer of it, and the exporter knows no such operation. Here `network` is "
            "the converted model."
        ),
        test='any("quantized" in type(m).__module__ and "BatchNorm" in type(m).__name__ for m in network.modules())',
        remedy=(
            "Fuse each BN layer with the convolution in front of it before you prepare the model: `fuse_modules_qat` "
            "(QAT, train mode) or `fuse_modules` (eval mode). If there is a ReLU between them, put BN in front of the "
            "ReLU and train again, or keep BN in float: `bn.qconfig = None`, between a `DeQuantStub` and a "
            "`QuantStub`."
        ),
        section="chapters/torch_parts.ipynb#when-can-batch-norm-be-folded-or-quantised",
    ),
    "channels-unknown-to-the-exporter": Advice(
        group="error",
        symptom=(
            "Export to ONNX (`torch.onnx.export`) stops with “Unsupported: ONNX export of batch_norm for unknown "
            "channel size”"
        ),
        cause=(
            "The exporter for TorchScript (`dynamo=False`) loses the number of channels at some operations, such as an "
            "assignment to a part of a tensor. It reads the number from gamma, and a layer with `affine=False` has "
            "none."
        ),
        test="any(not bn.affine for bn in bns)",
        remedy=(
            "Build the layers with `affine=True`, load the weights with `strict=False`, and call "
            "`requires_grad_(False)` on gamma and beta: with gamma 1 and beta 0 the layer computes the same. Or give "
            "the tensor its shape again with `reshape` in front of the layer."
        ),
        section="chapters/torch_parts.ipynb#what-do-compilers-and-exporters-keep",
    ),
    "averages-taken-for-parameters": Advice(
        group="error",
        symptom=(
            "ONNX Runtime training (`generate_artifacts`) stops with “failed to find NodeArg by name "
            "bn1.running_var_grad”"
        ),
        cause=(
            "The list of the parameters to be trained contains BN's running averages. They are arrays of the file like "
            "gamma and beta, but they have no gradient. This rests on an answer of ONNX Runtime's maintainers, not on "
            "an experiment of this book. Here `requires_grad` is that list of names."
        ),
        test='any(name.endswith(("running_mean", "running_var")) for name in requires_grad)',
        remedy=(
            "Leave the names that end with `running_mean` and `running_var` out of `requires_grad`, and put them into "
            "`frozen_params`."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "exported-graph-stays-in-train-mode": Advice(
        group="after",
        symptom=(
            "Quantisation-aware training of an exported model (`torch.export`, PT2E): after the conversion the "
            "accuracy is that of guessing, in a network whose BN layers are not all behind a convolution (DenseNet)"
        ),
        cause=(
            "An exported graph keeps the mode in which it was exported, and `eval()` is refused (“Calling eval() is "
            "not supported yet”). A BN layer behind a convolution is folded. A BN layer that stands alone keeps train "
            "mode, unless you switch it. Here `exported` is the exported model."
        ),
        test='any("batch_norm" in str(node.target) and node.args[5] is True for node in exported.graph.nodes)',
        remedy=(
            "Switch the graph to eval mode before you convert or measure: `allow_exported_model_train_eval(exported)` "
            "of `torchao.quantization.pt2e`, then `exported.eval()`; before torchao, "
            "`torch.ao.quantization.move_exported_model_to_eval(exported)` of PyTorch 2.2 or later. For quantisation "
            "after training, call `model.eval()` before the export."
        ),
        section="chapters/torch_parts.ipynb#what-do-compilers-and-exporters-keep",
    ),
    "folded-into-a-transposed-convolution": Advice(
        group="after",
        symptom=(
            "After BN was folded (fused) into a transposed convolution (`ConvTranspose2d`, decoder, generator), the "
            "outputs are wrong without an error, or folding stops with “The size of tensor a must match the size of "
            "tensor b”"
        ),
        cause=(
            "In a transposed convolution, the output channels are the second dimension of the weight, not the first. "
            "If both dimensions are equal, the wrong one is scaled without an error. Here `convolution` and `norm` are "
            "the two layers, `folded` is the new layer, `values` is its input."
        ),
        test="not torch.allclose(folded(values), norm.eval()(convolution(values)), atol=1e-3)",
        remedy=(
            "Call `torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, norm, transpose=True)`. With `groups` above 1 "
            "this function stops, so leave BN there as it is."
        ),
        section=f"{TRAINING}#folding-batch-norm-into-the-convolution",
    ),
    "compiled-differently": Advice(
        group="batch",
        symptom=(
            "With `torch.compile` (Inductor) the outputs or the loss differ a lot from those without it (eager), in a "
            "network with batch norm, group norm or layer norm"
        ),
        cause=(
            "If the two agree in float64, the difference is rounding. A norm multiplies rounding errors by up to 316 "
            "where its input is constant, and logarithms, divisions or many training steps make them larger still. If "
            "they differ in float64 too, the compiler computes something else, or the two runs have different modes. "
            "Here `compiled` and `model` are both in float64."
        ),
        test="not torch.allclose(compiled(x.double()), model.double()(x.double()), atol=1e-6)",
        remedy=(
            "Set the mode before you compile. If the test is true, find the part at fault with the backends `eager`, "
            "`aot_eager`, `aot_eager_decomp_partition` and `inductor`, one after the other, leave the layer out with "
            "`torch.compiler.disable`, and upgrade PyTorch. If it is false, look for a norm with constant inputs, and "
            "see the case about rounding."
        ),
        section="chapters/torch_parts.ipynb#what-changes-with-the-number-format",
    ),
    "norm-breaks-memory-format": Advice(
        group="training",
        symptom=(
            "With `channels_last` (NHWC, `channels_last_3d`) a network with InstanceNorm (nnU-Net) or GroupNorm is "
            "slower than in the default format, or the output of the norm is not `channels_last` any more"
        ),
        cause=(
            "PyTorch's instance norm copies its input into the default format and returns that format, so the format "
            "is converted at each norm and each convolution. On a CPU, batch norm and group norm keep the format. "
            "Public issues report that group norm did not on GPUs in 2023. Here `layer` is the norm, `values` is its "
            "input in `channels_last`."
        ),
        test="not layer(values).is_contiguous(memory_format=torch.channels_last)",
        remedy=(
            "Measure both formats, and stay with the default one if it is faster. `nn.GroupNorm(channels, channels)` "
            "computes what instance norm does and has the same weights, but it can be slower on a GPU with one group "
            "per channel."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "converted-without-its-activation": Advice(
        group="devices",
        symptom=(
            "After `convert_sync_batchnorm` the network computes something else or does not train (timm's "
            "`BatchNormAct2d`, a subclass of BatchNorm), or a norm is not synchronised"
        ),
        cause=(
            "PyTorch replaces each subclass of BatchNorm by a plain SyncBatchNorm, so an activation or a `forward` of "
            "the subclass is lost without a warning. It does not find calls of `F.batch_norm`, layers in a plain list, "
            "and norms of a class of their own. Here `converted` is the converted copy of `model`."
        ),
        test="not torch.allclose(converted.eval()(x), model.eval()(x), atol=1e-3)",
        remedy=(
            "With timm, call `timm.layers.convert_sync_batchnorm`. Otherwise put the activation into a layer of its "
            "own. Compare the outputs in eval mode before and after, and use the model that the function returns, "
            "before you wrap it in DDP."
        ),
        section="chapters/10_many_machines.ipynb#joining-the-batches",
    ),
    "batches-of-different-sizes": Advice(
        group="devices",
        symptom=(
            "With SyncBatchNorm and images of different sizes (multi-scale training), or different numbers of samples "
            "on the GPUs, training is worse, or the running variance differs between the ranks (old PyTorch)"
        ),
        cause=(
            "Up to version 1.5, PyTorch's SyncBatchNorm computed the gradient as if all processes had the same number "
            "of values, says Detectron2's source code. Later versions weight each process by its number. This book did "
            "not try the old versions. Here `version` is PyTorch's, such as `(1, 5)`, and `sizes` holds the number of "
            "values per channel of each process."
        ),
        test="version < (1, 6) and len(set(sizes)) > 1",
        remedy=(
            "Upgrade PyTorch, or give all processes batches of the same size. In Detectron2, `NaiveSyncBatchNorm` with "
            '`stats_mode="N"` weights by the number of samples.'
        ),
        section="chapters/10_many_machines.ipynb#joining-the-batches",
    ),
    "frozen-norm-without-eps": Advice(
        group="after",
        symptom=(
            "Frozen batch norm (`FrozenBatchNorm2d` of torchvision or maskrcnn-benchmark) gives other outputs than "
            "batch norm with the same arrays, or inf or NaN, above all in half precision"
        ),
        cause=(
            "Early versions of this class add no eps to the variance, and torchvision still sets eps to 0 in detectors "
            "with its first weights (`COCO_V1`). A channel with a tiny variance is then divided by almost 0, and "
            "float16 rounds variances below 3·10⁻⁸ to 0. Here `frozen` and `layer` are the two layers."
        ),
        test='getattr(frozen, "eps", 0) != layer.eps',
        remedy=(
            "Give both layers the same eps: `frozen.eps = layer.eps`. Weights that were trained with eps 0 need eps 0: "
            "keep these layers in float32. If you replace batch norm by `FrozenBatchNorm2d`, copy eps as well."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
    "checkpoint-never-had-averages": Advice(
        group="after",
        symptom=(
            "A pretrained checkpoint has gamma and beta but no running averages (“Missing key(s) in state_dict: "
            "bn1.running_mean, bn1.running_var”), and with `strict=False` the model guesses"
        ),
        cause=(
            "The network was trained with `track_running_stats=False`, its authors left the averages out of the file, "
            "or they folded them into gamma and beta (Detectron's Caffe2 models). Layers that are built with averages "
            "then keep mean 0 and variance 1. Here `checkpoint` is the loaded dictionary."
        ),
        test='any(bn.running_mean is not None for bn in bns) and not any("running_mean" in key for key in checkpoint)',
        remedy=(
            "Find out how the network was used. If it normalised with the batch at inference as well, build it with "
            "`track_running_stats=False`. Otherwise compute the averages on training data: "
            "`torch.optim.swa_utils.update_bn(batches, model)`. If they were folded, mean 0 and variance 1 are right, "
            "and BN must stay frozen."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "stored-gamma-minus-one": Advice(
        group="after",
        symptom=(
            "A converted RMSNorm (Gemma, Qwen3-Next) or conditional batch norm (BigGAN) gives garbage, such as the "
            "same word without end, or outputs near 0, and its stored weights lie around 0"
        ),
        cause=(
            "Some models store gamma minus 1 and multiply by `1 + weight`. A layer that multiplies by `weight` then "
            "shrinks its output to almost nothing. Here `layer` is the new RMSNorm with the stored weight, `values` is "
            "its input, and `expected` is the output of the original layer."
        ),
        test=(
            "torch.allclose(layer(values) + F.rms_norm(values, values.shape[-1:], eps=layer.eps), expected, atol=1e-3)"
        ),
        remedy=(
            "Add 1 to the weights of these norms once, when you convert the file, or multiply by `1 + weight`. In "
            "training with weight decay, the two forms differ, because the decay pulls the stored number to 0."
        ),
        section="chapters/frameworks.ipynb#port-a-layer",
    ),
    "removed-channels-were-not-zero": Advice(
        group="after",
        symptom="Channel pruning (network slimming): the outputs change when channels with gamma 0 are removed",
        cause=(
            "A channel with gamma 0 still has the constant output beta, which passes a ReLU if it is positive, and the "
            "next layer uses it. Here `layer` is the BN layer."
        ),
        test="((layer.weight == 0) & (layer.bias != 0)).any()",
        remedy=(
            "Before you remove a channel, add what its constant contributes to the bias of the next layer (at the "
            "border of a convolution with padding, the result is not exact), or set beta to 0 as well and fine-tune. "
            "Then recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)`."
        ),
        section=f"{FAILING}#gamma-is-zero",
    ),
    "keras-arrays-differ": Advice(
        group="error",
        symptom=(
            "Keras: loading stops at a BatchNormalization layer with “expected 4 variables, but received 0 variables "
            "during loading” or “expects 4 weights, but the saved weights have 6 elements”"
        ),
        cause=(
            "The layer has four arrays (gamma, beta, moving mean, moving variance), and three with `scale=False` or "
            "`center=False`. Keras assigns arrays by the order or the names of layers, so a model built by another "
            "version of its code gets those of another layer. A layer that its parent does not know has none in the "
            "file. This rests on public issues, not on an experiment of this book. Here `layer` is the layer, `saved` "
            "holds its arrays in the file."
        ),
        test="[each.shape for each in layer.get_weights()] != [each.shape for each in saved]",
        remedy=(
            "Build the model with the code and the version of Keras that saved it. Create the sublayers of your own "
            "layers in `__init__` or `build`, as attributes, and save again. If only some layers fit, load by name."
        ),
        section="chapters/frameworks.ipynb#port-a-layer",
    ),
    "global-statistics-in-mxnet": Advice(
        group="training",
        symptom=(
            "MXNet (Gluon): with `use_global_stats=True` the network does not learn, and every moving mean is 0 and "
            "every moving variance 1"
        ),
        cause=(
            "With this option BN normalises with the moving averages in training as well and does not update them, so "
            "a new network is not normalised. The option is meant for pretrained networks whose statistics stay "
            "frozen. This rests on MXNet's sources and issues, not on an experiment of this book. Here `moving` holds "
            "the two averages of each layer, as arrays."
        ),
        test="all((mean == 0).all() and (variance == 1).all() for mean, variance in moving)",
        remedy=(
            "To train from scratch, leave `use_global_stats` at False. To freeze the statistics of a pretrained "
            "network, set it to True after the network has its moving averages."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
}
"""Causes on the way of a network to another program, by a short name."""
