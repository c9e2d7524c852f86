"""Trouble with what stands around a network: versions, files, optimisers, quantisers, exporters and explainers."""

from __future__ import annotations

from bnlib.doctor.advice_form import ALTERNATIVES, FAILING, FORMULA, PERILS, TRAINING, Advice

CAUSES_IN_TOOLS: dict[str, Advice] = {
    "fused-with-zero-gamma": Advice(
        group="error",
        symptom=(
            "Quantisation-aware training (QAT, `prepare_qat`): the loss is NaN, although training without "
            "quantisation works, even with fake quantisation switched off"
        ),
        cause=(
            "The fused layer of convolution and BN multiplies the weights by gamma and divides the output by gamma "
            "again. If a gamma is exactly 0, as after zero initialisation of residual branches or after pruning, this "
            "is 0 / 0."
        ),
        test="any((bn.weight == 0).any() for bn in bns)",
        remedy=(
            "Before you fuse, replace each gamma that is exactly 0 by a small number such as 0.001. Or set "
            "`_enable_slow_path_for_better_numerical_stability = True`, a private attribute, on the fused layers "
            "before the first batch."
        ),
        section=f"{FAILING}#gamma-is-zero",
    ),
    "norm-not-installed": Advice(
        group="error",
        symptom=(
            "The program stops with “module 'torch.nn' has no attribute 'RMSNorm'”, “LayerNorm.__init__() got an "
            "unexpected keyword argument 'bias'” or (Apex) “No module named 'fused_layer_norm_cuda'”"
        ),
        cause=(
            "The code is newer than the installed package: `nn.RMSNorm` exists since PyTorch 2.4, and the argument "
            "`bias` of LayerNorm since 2.1. Or Apex was installed without its CUDA extensions. Here `needed` is the "
            "version of PyTorch that the code needs, such as `(2, 4)`."
        ),
        test='tuple(map(int, torch.__version__.split(".")[:2])) < needed',
        remedy=(
            "Upgrade PyTorch, or write the norm yourself: `x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * "
            "weight`, with x in float32, is RMSNorm. Use `nn.LayerNorm` in place of Apex's FusedLayerNorm, or build "
            "Apex with `--cpp_ext` and `--cuda_ext`."
        ),
        section=f"{ALTERNATIVES}#can-rmsnorm-or-dynamic-tanh-replace-layer-norm",
    ),
    "old-weight-norm": Advice(
        group="error",
        symptom=(
            "With weight norm or spectral norm, `copy.deepcopy` (as for an EMA model) stops with “Only Tensors created "
            "explicitly by the user (graph leaves) support the deepcopy protocol”, or a checkpoint has other keys: "
            "“weight_g”, “weight_v”, “weight_orig”, “parametrizations.weight.original0”"
        ),
        cause=(
            "PyTorch has two forms of these norms. The old form, `nn.utils.weight_norm`, is deprecated: it puts a "
            "computed tensor in the place of the weight, which `deepcopy` refuses. The new form has other keys in the "
            "checkpoint. Here `network` is the model."
        ),
        test='any(hasattr(m, "weight_g") or hasattr(m, "weight_orig") for m in network.modules())',
        remedy=(
            "Use the new form: `nn.utils.parametrizations.weight_norm` or `spectral_norm`. The new weight norm also "
            "loads checkpoints of the old form. In the other cases, rename the keys."
        ),
        section="chapters/torch_parts.ipynb#what-is-copied-loaded-or-frozen",
    ),
    "pickled-by-another-version": Advice(
        group="error",
        symptom=(
            "After `torch.load`: AttributeError, “'BatchNorm2d' object has no attribute 'track_running_stats'” or "
            "“'num_batches_tracked'”"
        ),
        cause=(
            "The file holds a whole model (pickle) in place of a `state_dict`. Its layers have the attributes of the "
            "version of PyTorch that wrote the file, such as 0.3, and the installed version needs others: "
            "`num_batches_tracked` exists since 0.4.1. Here `layer` is the layer that stops."
        ),
        test='not hasattr(layer, "track_running_stats")',
        remedy=(
            "Build the model in the installed version, and copy what the file holds: "
            "`model.load_state_dict(loaded.state_dict(), strict=False)`. Save the `state_dict` from then on."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "update-bn-stopped": Advice(
        group="error",
        symptom=(
            "Recomputing the statistics with `update_bn` stops with “missing 1 required positional argument”, “must be "
            "Tensor, not dict” or “'dict' object has no attribute 'to'”"
        ),
        cause=(
            "`update_bn` passes the first element of each batch to the model, or the batch itself if it is no list. "
            "Dictionaries (Hugging Face) and models with several inputs need another call. After the error, the "
            "statistics are reset, and the momentum stays None."
        ),
        test="any(bn.momentum is None for bn in bns)",
        remedy=(
            'Load the model again, and pass tensors: `update_bn((batch["image"] for batch in loader), model)`. For '
            "several inputs, do its work yourself: call `reset_running_stats()` and set `momentum = None` on each BN "
            "layer, call the model on the batches in train mode, without gradients, and set the momentum back."
        ),
        section=f"{FAILING}#running-averages",
    ),
    "norm-keeps-its-input": Advice(
        group="error",
        symptom="Training stops with “CUDA out of memory” since batch norm, or another norm, was added to the network",
        cause=(
            "For the backward pass, a norm keeps its input. So a convolution, a norm and a ReLU keep two feature maps, "
            "where a convolution and a ReLU keep one. In eval mode, BN keeps its input as well. Here `kept` counts the "
            "bytes that a network keeps in a forward pass, and `plain` is the network without its norms."
        ),
        test="kept(network) > 1.5 * kept(plain)",
        remedy=(
            "Train with `torch.autocast`, recompute the blocks in the backward pass (`torch.utils.checkpoint`), or use "
            "InPlaceABN, which keeps the output only. Replace frozen BN by `torchvision.ops.FrozenBatchNorm2d`, or "
            "fold it into the convolutions. Predict inside `torch.no_grad()`. Smaller batches also save memory, but "
            "make the statistics noisier."
        ),
        section=f"{TRAINING}#gradient-checkpointing-updates-the-statistics-twice",
    ),
    "parameters-renamed": Advice(
        group="after",
        symptom=(
            "Hugging Face `from_pretrained` does not load parameters named gamma or beta, such as ConvNeXt's layer "
            "scale or those of a norm of your own: “Some weights were not initialized”"
        ),
        cause=(
            "For old checkpoints of BERT, transformers renamed every key that contains “gamma” or “beta” to “weight” "
            "or “bias”. Since 2025 it renames the keys of LayerNorm only. This rests on its public pull request 35615, "
            "not on an experiment of this book. Here `checkpoint` is the loaded dictionary."
        ),
        test='any("gamma" in key or "beta" in key for key in checkpoint)',
        remedy="Upgrade transformers, or give the parameters other names, such as `scale` and `shift`.",
        section="chapters/frameworks.ipynb#port-a-layer",
    ),
    "exported-in-half-precision": Advice(
        group="after",
        symptom=(
            "TensorRT or ONNX Runtime in FP16: wrong, constant or NaN outputs with InstanceNorm, GroupNorm or "
            "LayerNorm, and right ones in FP32 (“Running layernorm after self-attention in FP16 may cause overflow”)"
        ),
        cause=(
            "The engine computes the statistics of each input in float16, where squares from 256² on overflow. Batch "
            "norm in eval mode computes no statistics. This rests on public issues of TensorRT, torch2trt and ONNX "
            "Runtime, not on an experiment of this book. Here `half` and `single` are the engine in FP16 and in FP32."
        ),
        test="not torch.allclose(half(x), single(x), 0.05, 0.05)",
        remedy=(
            "Keep these norms, and the operations into which the exporter split them, in FP32, or export with ONNX "
            "opset 17 or later, in which LayerNorm is one operation."
        ),
        section=f"{TRAINING}#running-statistics-in-half-precision",
    ),
    "compared-in-two-modes": Advice(
        group="after",
        symptom=(
            "The same input, such as ones, gives other outputs in a new Keras (TensorFlow) layer than in a new PyTorch "
            "layer: about 1 and about 0, with the same epsilon and momentum"
        ),
        cause=(
            "A Keras layer that is called directly runs in inference mode, with mean 0 and variance 1. A new PyTorch "
            "layer is in train mode, and subtracts the mean of the batch, so equal values become 0. Here `layer` is "
            "the PyTorch layer, and `theirs` is the output of the Keras layer for `values`."
        ),
        test="torch.allclose(copy.deepcopy(layer).eval()(values), theirs, atol=1e-2) and layer.training",
        remedy=(
            "Compare in the same mode: Keras with `training=True` and PyTorch in train mode, or Keras with "
            "`training=False` and PyTorch after `layer.eval()`."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
    "explained-in-train-mode": Advice(
        group="batch",
        symptom=(
            "Saliency maps, Grad-CAM, Integrated Gradients or SHAP values (attribution, interpretability) change with "
            "the other images of the batch, or do not sum to the output (additivity)"
        ),
        cause=(
            "The model is in train mode, so the gradient at one image depends on the batch. In eval mode, the sum can "
            "still be wrong if the explainer has no rule for a layer: SHAP's public issues say so of its "
            "DeepExplainer and LayerNorm or GroupNorm."
        ),
        test="any(bn.training for bn in bns)",
        remedy=(
            "Call `model.eval()` before you explain predictions. For layers that DeepExplainer does not know, use an "
            "explainer that needs gradients only, such as `shap.GradientExplainer`."
        ),
        section=f"{PERILS}#predictions-in-train-mode",
    ),
    "decay-of-gamma": Advice(
        group="training",
        symptom=(
            "Weight decay pulls gamma and beta (scale, shift) of the norm layers to 0: is it harmful, and how do I "
            "exclude norm layers and biases from weight decay?"
        ),
        cause=(
            "`weight_decay` acts on all parameters that the optimiser gets. For the weights in front of BN, it only "
            "changes the effective learning rate. If another norm follows, one factor for all gammas and betas of a "
            "layer has no effect either. In the last norm and at the end of residual branches, weight decay changes "
            "what the network computes."
        ),
        test=(
            'any(group["weight_decay"] and any(p.ndim <= 1 for p in group["params"]) for group in '
            "optimiser.param_groups)"
        ),
        remedy=(
            "Give the optimiser two groups: `[{'params': [p for p in model.parameters() if p.ndim > 1]}, {'params': "
            "[p for p in model.parameters() if p.ndim <= 1], 'weight_decay': 0}]`. Many recipes do so. Compare both "
            "on your validation data."
        ),
        section="chapters/03_lipschitz_smoothness.ipynb#scale-invariance-and-the-effective-learning-rate",
    ),
    "runs-differ": Advice(
        group="training",
        symptom=(
            "Two runs with the same seed give different results on a GPU (not reproducible, nondeterministic), with "
            "convolutions and batch norm"
        ),
        cause=(
            "Some GPU kernels add numbers in another order in each run, or cuDNN chooses another algorithm, so the "
            "rounding errors differ, and training makes them grow. PyTorch's documentation names the operations; this "
            "book did not measure them. Here `run()` trains from the same seed and returns the loss."
        ),
        test="run() != run()",
        remedy=(
            "Set `torch.use_deterministic_algorithms(True)`, `torch.backends.cudnn.benchmark = False` and the "
            "environment variable `CUBLAS_WORKSPACE_CONFIG=:4096:8`, and seed the workers of the DataLoader. To judge "
            "a change of the network, compare several seeds."
        ),
        section="chapters/torch_parts.ipynb#what-changes-with-the-number-format",
    ),
}
"""Causes around the network, by a short name."""
