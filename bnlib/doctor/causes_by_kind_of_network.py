"""Trouble with single values, sparse inputs, sentences, noise levels and features without labels."""

from __future__ import annotations

from bnlib.doctor.advice_form import ALTERNATIVES, FORMULA, PERILS, TRAINING, Advice

CAUSES_BY_KIND_OF_NETWORK: dict[str, Advice] = {
    "running-average-of-an-empty-batch": Advice(
        group="error",
        symptom=(
            "The running mean is NaN after an empty batch (a detector without proposals, a mask that selects nothing), "
            "or batch norm stops with “CUDNN_STATUS_BAD_PARAM”"
        ),
        cause=(
            "The mean of no values is 0 / 0. Old versions of PyTorch, such as 1.3, wrote it into the running averages "
            "or stopped. PyTorch 2.13 on a CPU returns an empty output and leaves the averages as they are."
        ),
        test="min(len(x) for x, y in batches) == 0",
        remedy=(
            "Upgrade PyTorch, or skip the layer if the batch is empty (with SyncBatchNorm all processes must call it, "
            "so give it a dummy sample there). Then recompute the statistics: "
            "`torch.optim.swa_utils.update_bn(batches, model)`."
        ),
        section=f"{TRAINING}#one-bad-batch-and-eval-mode-is-nan",
    ),
    "one-active-site": Advice(
        group="error",
        symptom=(
            "Sparse convolutions (spconv, MinkowskiEngine, torchsparse, SparseConvNet): NaN in the running variance, "
            "or “Expected more than 1 value per channel when training”, when a batch has a single active site (voxel)"
        ),
        cause=(
            "Behind a sparse convolution, BN gets a matrix with one row per active site. In training with a single "
            "row, the unbiased variance is 0 / 0. PyTorch's layers expect more than one value per channel and raise "
            "the error, but `torch.batch_norm`, called directly, writes NaN into the running variance. Here `features` "
            "is that matrix."
        ),
        test="len(features) < 2",
        remedy=(
            "Put several scenes into a batch, crop so that enough sites remain, use fewer strides, or skip such "
            "batches. A norm of each site by itself, such as `nn.LayerNorm` over the features, has no such limit. If "
            "the variance is NaN already, recompute the statistics."
        ),
        section=f"{FORMULA}#convolutions",
    ),
    "average-keeps-the-graph": Advice(
        group="error",
        symptom=(
            "A batch norm of your own (custom layer) stops with “Trying to backward through the graph a second time”, "
            "or the memory grows with each training step"
        ),
        cause=(
            "The running mean was computed from the batch without `detach()`, so it keeps the graph of each step, and "
            "the next backward pass goes through the earlier steps as well. Here `network` is the model after a "
            "training step."
        ),
        test="any(buffer.grad_fn is not None for buffer in network.buffers())",
        remedy=(
            "Update the averages in place and without gradients: `with torch.no_grad(): self.running_mean.lerp_(mean, "
            "0.1)`, and the same for the variance."
        ),
        section=f"{FORMULA}#exercise-3-find-the-bug",
    ),
    "eps-of-zero": Advice(
        group="error",
        symptom=(
            "Since PyTorch 2.10 the model stops with “batch_norm eps must be positive, but got 0.0” or “batch_norm eps "
            "must be positive during training”, or on another runtime (NPU) a row of equal numbers becomes NaN in "
            "layer norm"
        ),
        cause=(
            "The layer has an eps of 0 (as in models converted from other frameworks) or a negative one. Earlier "
            "versions computed with it, and a constant channel became NaN. A runtime that reads eps as 0 also divides "
            "0 by 0 there. Here `layer` is the layer that stops, with the eps that the runtime uses."
        ),
        test="layer.eps <= 0",
        remedy=(
            "Set `layer.eps = 1e-5`. To keep the outputs of a trained layer with eps 0, also subtract 10⁻⁵ from its "
            "running variance where it is large enough. PyTorch 2.13 accepts an eps of 0 in eval mode."
        ),
        section=f"{FORMULA}#epsilon-and-features-that-hardly-vary",
    ),
    "activation-inside-the-norm": Advice(
        group="error",
        symptom=(
            "InPlaceABN (`inplace_abn`) stops with “one of the variables needed for gradient computation has been "
            "modified by an inplace operation” or “Unknown activation function relu”, or is bad with the weights of a "
            "network with BatchNorm"
        ),
        cause=(
            "`InPlaceABN` and `InPlaceABNSync` are norm and activation in one layer, by default leaky ReLU with slope "
            "0.01. To save memory, the layer overwrites its input and computes it again from its output. So nothing "
            "else may need the input, nothing may overwrite the output (as `out += residual` does), and ReLU, which "
            "has no inverse, is refused. It scales by |gamma| + eps, so a negative gamma changes its sign. This book "
            "has not tried it. Here `network` is the model."
        ),
        test='any(type(m).__name__.startswith("InPlaceABN") for m in network.modules())',
        remedy=(
            "Write `out = out + residual` in place of `out += residual`. "
            "Remove the activation behind the layer, and use `leaky_relu`, `elu` or `identity`. If a skip connection "
            "or another layer reads the input, pass `x.clone()`, or use the package's class `ABN`, which overwrites "
            "nothing. Weights of an ordinary network have to be fine-tuned."
        ),
        section=f"{TRAINING}#gradient-checkpointing-updates-the-statistics-twice",
    ),
    "one-noise-level": Advice(
        group="eval",
        symptom=(
            "A diffusion model with batch norm: the training loss is low and the samples are bad (why do diffusion "
            "models use GroupNorm?)"
        ),
        cause=(
            "A training batch mixes all noise levels, and the running averages describe the mixture. When one samples, "
            "all images of a step have the same noise level, so they fit neither the running averages nor, in train "
            "mode, the batches of training. This book trained no diffusion model. Here `denoiser` is the network, "
            "`noisy` is a batch at one noise level."
        ),
        test="(denoiser.train()(noisy) - denoiser.eval()(noisy)).abs().mean() > 0.5 * denoiser.train()(noisy).std()",
        remedy=(
            "Use GroupNorm, as most diffusion models do: its statistics are those of each image. If the samples of the "
            "EMA model only are bad, see the case about averaged weights."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "norm-sees-later-tokens": Advice(
        group="training",
        symptom=(
            "A transformer or language model with BatchNorm in place of LayerNorm: low training loss, but bad "
            "generated text, or worse than with LayerNorm. Why do transformers use layer norm instead of batch norm?"
        ),
        cause=(
            "BN's statistics are those of all tokens of all sentences in the batch. So in train mode, the output at a "
            "token depends on later tokens, in spite of the causal mask, and on padding and other sentences. When text "
            "is generated, these are missing. Layer norm uses one token only. Here `network` is a causal network in "
            "train mode without dropout, `tokens` are vectors of the shape (N, L, C)."
        ),
        test=(
            "not torch.allclose(network(tokens)[:, :4], network(torch.cat([tokens[:, :4], -tokens[:, 4:]], 1))[:, :4], "
            "atol=1e-3)"
        ),
        remedy=(
            "Use LayerNorm or RMSNorm. Where all sequences have the same length and every position may see all others, "
            "BN can work: in this book's small transformer on digits, it had the lowest error."
        ),
        section=f"{ALTERNATIVES}#exercise-4-sentences",
    ),
    "norm-gives-zeros": Advice(
        group="training",
        symptom=(
            "LayerNorm, GroupNorm or InstanceNorm returns only zeros (or its beta) for every input, without an error, "
            "and the network does not learn"
        ),
        cause=(
            "The layer normalises one value, or equal values, and a value minus its own mean is 0: LayerNorm over a "
            "last dimension of size 1, GroupNorm with one channel per group on feature maps of 1×1, or instance norm "
            "on maps that are constant, as behind a global pooling that was enlarged again. Here `layer` is the norm, "
            "`values` is its input."
        ),
        test="values.std() > 0.01 and layer(values).std() < 0.01",
        remedy=(
            "Print the shape of the input. Give LayerNorm the dimension of the features, GroupNorm fewer groups, or "
            "leave out the norm behind the global pooling."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "less-noise-than-batch-norm": Advice(
        group="training",
        symptom=(
            "Trained from scratch, a network with GroupNorm (LayerNorm, InstanceNorm) has a lower validation accuracy "
            "than with batch norm in large batches, or overfits more"
        ),
        cause=(
            "The noise of BN's statistics acts as a regulariser, and the other norms do not have it. Wu and He (2018) "
            "suppose so for ImageNet with 32 images per GPU, because GroupNorm had the lower training error and a "
            "slightly higher validation error. This book did not reproduce it. Often, too, learning rate and weight "
            "decay were tuned for BN. Here `group_loss` and `batch_loss` are the losses of both networks on training "
            "data in eval mode."
        ),
        test="group_loss <= 1.1 * batch_loss",
        remedy=(
            "If the test is true, regularise more: augmentation, dropout, weight decay. If it is false, the network is "
            "not trained well enough: tune the learning rate, and try another number of groups. With 16 samples or "
            "more per device, keep BN."
        ),
        section=f"{ALTERNATIVES}#which-one",
    ),
    "collapse-without-norm": Advice(
        group="training",
        symptom=(
            "BYOL or SimSiam (self-supervised training without negatives) without batch norm collapses: all images "
            "have the same features"
        ),
        cause=(
            "Without a norm, the constant solution is easy to reach. Whether BN is needed is disputed: a public "
            "replication of BYOL reports useless features without BN, and Richemond et al. (2020) report 73.9 % with "
            "GroupNorm and weight standardisation against 74.3 % with BN. This book did not reproduce it. Here "
            "`features` is a batch of features."
        ),
        test="F.normalize(features, dim=1).std(0).mean() < 0.1 / features.shape[1] ** 0.5",
        remedy=(
            "Put a norm into the projection and the prediction head, such as BN, or GroupNorm with weight "
            "standardisation. Make sure that no gradient flows into the target: `target(x).detach()`."
        ),
        section=f"{PERILS}#which-promise-was-broken",
    ),
    "negative-gamma": Advice(
        group="training",
        symptom="Some gammas (weights of BatchNorm) are negative: is this a fault?",
        cause=(
            "This is no fault. A negative gamma turns the sign of its channel. The layer in front with turned signs, "
            "and the running mean with a turned sign, give the same outputs with a positive gamma."
        ),
        test="any((bn.weight < 0).any() for bn in bns)",
        remedy=(
            "No cure is needed. Code that takes gamma for a size must use `bn.weight.abs()`, such as pruning by gamma. "
            "Layers that use |gamma|, such as InPlaceABN, cannot take over a negative gamma."
        ),
        section=f"{FORMULA}#three-consequences",
    ),
    "output-before-the-step": Advice(
        group="batch",
        symptom=(
            "Test-time adaptation (TENT): are the predictions those before or after the step? The paper and the code "
            "seem to disagree on the number of forward passes"
        ),
        cause=(
            "The public code returns the outputs that it computed before its step, so a step helps the next batch "
            "only. An early version of the paper counted a second forward pass. According to its authors, it changes "
            "little on a stream of many batches. Here `adapt(x)` makes one step on a copy of `model` and returns "
            "predictions."
        ),
        test="torch.allclose(adapt(x), model.train()(x), atol=1e-5)",
        remedy=(
            "For a stream, leave it as it is. If you adapt to a single batch, or reset the model for each batch, call "
            "the model once more after the step: otherwise the result is that of the statistics of the batch alone."
        ),
        section=f"{PERILS}#test-time-adaptation",
    ),
}
"""Causes that belong to one kind of network or input, by a short name."""
