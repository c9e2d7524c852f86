"""Trouble with layer, group and instance norm, or a norm of one's own: ``bnlib.diagnose`` does not look for it."""

from __future__ import annotations

from bnlib.doctor.advice_form import ALTERNATIVES, FORMULA, TRAINING, Advice

CAUSES_ABOUT_OTHER_NORMS: dict[str, Advice] = {
    "one-position-per-channel": Advice(
        group="error",
        symptom=(
            "Instance norm stops with “Expected more than 1 spatial element when training, got input size [32, 512, 1, "
            "1]”"
        ),
        cause=(
            "Instance norm normalises each channel of each image over its positions, and here the feature map has "
            "shrunk to one position (1×1), a single spatial element. Larger batches do not help, and `eval()` helps "
            "only with `track_running_stats=True`. Here `values` is the input of the layer."
        ),
        test="values.shape[2:].numel() == 1",
        remedy=(
            "Leave out the norm there, use larger images or fewer strides and poolings, or normalise over the channels "
            "as well: `nn.GroupNorm(1, channels)`."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "layer-norm-with-channels-first": Advice(
        group="error",
        symptom=(
            "LayerNorm stops with “Given normalized_shape=[256], expected input with shape [*, 256], but got input of "
            "size [32, 256, 128, 128]”"
        ),
        cause=(
            "LayerNorm normalises over the last dimension, and the channels of an image are the second one in PyTorch. "
            "If the width is equal to the number of channels, there is no error, and the layer normalises over the "
            "width. Here `layer` is the LayerNorm, `values` is its input."
        ),
        test="values.dim() > 2 and values.shape[1:2] == layer.normalized_shape",
        remedy=(
            "Move the channels to the end and back: `layer(values.movedim(1, -1)).movedim(-1, 1)`. It normalises each "
            "position by itself. `nn.GroupNorm(1, channels)` takes channels first, but it is another norm: it has one "
            "mean and one variance for all positions of an image together."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "groups-do-not-divide-channels": Advice(
        group="error",
        symptom=(
            "GroupNorm stops with “num_channels must be divisible by num_groups” or “num_channels (48) must be "
            "divisible by num_groups (32)”; Keras: “Number of groups (32) must be a multiple of the number of channels "
            "(48)”; Flax: “Number of groups (32) does not divide the number of channels (48)”"
        ),
        cause=(
            "GroupNorm splits the channels into groups of the same size, so the number of groups must divide the "
            "number of channels. Here `channels` and `groups` are the two numbers."
        ),
        test="channels % groups != 0",
        remedy=(
            "Use a number that divides all widths of the network, such as 8, or `math.gcd(32, channels)` groups in "
            "each layer."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "one-value-per-group": Advice(
        group="training",
        symptom=(
            "After BatchNorm1d was replaced by GroupNorm, as by Opacus's `ModuleValidator.fix`, the model gives the "
            "same output for every input, and the loss stays at that of guessing"
        ),
        cause=(
            "Behind a linear layer, a group holds very few values. A single value minus its own mean is 0, and two "
            "values become -1 and 1, so most of the input is lost. Here `layer` is the GroupNorm, `values` is its "
            "input."
        ),
        test="values[0].numel() <= 2 * layer.num_groups",
        remedy="Use fewer groups, such as `nn.GroupNorm(1, features)`, or LayerNorm.",
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "instance-norm-tracks": Advice(
        group="eval",
        symptom=(
            "Style transfer or image translation with InstanceNorm and `track_running_stats=True` is good in train "
            "mode and bad after `eval()`: the sample images of training and those of the test script differ"
        ),
        cause=(
            "In train mode, instance norm normalises each image by itself. With this option, eval mode uses running "
            "averages, the same for each image, as batch norm does. So the two modes differ."
        ),
        test=(
            "any(isinstance(m, nn.modules.instancenorm._InstanceNorm) and m.track_running_stats for m in "
            "model.modules())"
        ),
        remedy=(
            "Build the layers with `track_running_stats=False`, the default, and load the checkpoint without the keys "
            "of the running averages."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "droplets": Advice(
        group="training",
        symptom=(
            "StyleGAN, CycleGAN or another generator with instance norm (AdaIN): droplets, blobs or coloured spots "
            "(artefacts) in the generated images"
        ),
        cause=(
            "Instance norm removes the strength of a feature map. According to the paper of StyleGAN2 (Karras et al., "
            "2020), StyleGAN's generator learns to keep the strength by one huge spike: the spike dominates the "
            "statistics, and the rest of the map stays small. This book did not reproduce it. Here `values` is the "
            "input of an instance norm layer."
        ),
        test="((size := values.abs().flatten(2)).amax(2) > 20 * size.mean(2)).any()",
        remedy=(
            "In that paper, the droplets disappear without the norm. StyleGAN2 divides the weights of the convolution "
            "by a norm of their own (weight demodulation), which does not depend on the feature map. For CycleGAN, "
            "try the generator without instance norm in some layers."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "instance-norm-buffers": Advice(
        group="error",
        symptom=(
            "Loading a checkpoint fails with “Unexpected running stats buffer(s) … for InstanceNorm2d with "
            "track_running_stats=False” or “Unexpected key(s) in state_dict: running_mean, running_var”"
        ),
        cause=(
            "The checkpoint has running averages, and the layers of the model keep none (`track_running_stats=False`). "
            "Here `checkpoint` is the loaded dictionary."
        ),
        test='any(key.endswith("running_mean") for key in checkpoint.keys() - model.state_dict().keys())',
        remedy=(
            "If the network was used in eval mode with these averages, build the layers with "
            "`track_running_stats=True`. If it was used in train mode, as many instance norms were, delete the keys."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "own-norm-overflows": Advice(
        group="error",
        symptom=(
            "LayerNorm, RMSNorm (as in T5) or a custom norm gives NaN, inf, only zeros or wrong answers in float16 "
            "(fp16, half precision), perhaps only for rows of zeros (padding), or after `nn.RMSNorm` replaced "
            "`LlamaRMSNorm`"
        ),
        cause=(
            "In float16, the square of a value from 256 on is infinite (overflow), and an eps of 10⁻¹² is 0, so a row "
            "of equal values becomes 0 / 0. The first `nn.RMSNorm` (new in PyTorch 2.4, fault "
            "reported in August 2024) squared in float16, too. Since then, PyTorch's norms compute in float32 inside, "
            "so only an infinite input gives NaN. Here `layer` is the norm, `values` is its input in float16."
        ),
        test=("not torch.allclose(layer(values).float(), copy.deepcopy(layer).float()(values.float()), atol=0.05)"),
        remedy=(
            "If the norm is `nn.RMSNorm` in a PyTorch of 2024, update PyTorch. In a norm of your own, compute the mean "
            "and the variance in float32 (`x.float()`), and convert the result back. If the input is infinite, use "
            "bfloat16, or compute the layer in front in float32."
        ),
        section=f"{TRAINING}#running-statistics-in-half-precision",
    ),
    "root-of-zero": Advice(
        group="error",
        symptom=(
            "A layer norm or batch norm of your own: the loss or the gradients become NaN after the first backward "
            "pass, also in float32, with padding (rows of zeros), a mask or constant inputs"
        ),
        cause=(
            "The norm divides by `var.sqrt() + eps`. If all values are equal, the variance is 0, and the derivative of "
            "its root is infinite. The forward pass shows nothing. Here `layer` is the norm, and `row` is a constant "
            "input, such as `torch.zeros(2, 4, requires_grad=True)`."
        ),
        test="torch.autograd.grad(layer(row).sum(), row)[0].isnan().any()",
        remedy="Add eps under the root: divide by `(var + eps).sqrt()`, as PyTorch's norms do.",
        section=f"{FORMULA}#forward",
    ),
    "instance-norm-on-other-axis": Advice(
        group="training",
        symptom=(
            "InstanceNorm1d warns “input's size at dim=1 does not match num_features” (or dim=0), or stops with "
            "“expected input's size at dim=1 to match num_features”, and the network hardly learns"
        ),
        cause=(
            "InstanceNorm1d takes inputs of the shape (N, C, L). With (N, L, C), it normalises each position over the "
            "features, and with (N, C), each sample over the features. Without `affine=True`, that is only a warning. "
            "Here `layer` is the layer, and `values` is its input."
        ),
        test="values.dim() < 3 or values.shape[1] != layer.num_features",
        remedy=(
            "Put the channels in dimension 1: `layer(values.transpose(1, 2)).transpose(1, 2)`. Inputs of the shape "
            "(N, C) have one value per channel, so instance norm cannot be used: take LayerNorm or BatchNorm1d."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "norm-replaced": Advice(
        group="after",
        symptom=(
            "I replaced BatchNorm by GroupNorm, LayerNorm or InstanceNorm in a pretrained network, and the accuracy "
            "fell, in the worst case to that of guessing (random)"
        ),
        cause=(
            "The pretrained weights expect BN's running statistics, which are the same for all images. The other norm "
            "divides each image by its own statistics. Here `replaced` is the new network in eval mode."
        ),
        test="F.cross_entropy(replaced(x), y) > 1.5 * F.cross_entropy(model.eval()(x), y)",
        remedy=(
            "Keep BN, and freeze it if your batches are small. Or train the new network: copying gamma and beta is not "
            "enough."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
    "group-norm-of-one-group": Advice(
        group="after",
        symptom=(
            "GroupNorm with one group in place of LayerNorm gives other outputs (ConvNeXt, PoolFormer, LayerNorm2d)"
        ),
        cause=(
            "On images, GroupNorm with one group has one mean and one variance for all channels and all positions of a "
            "sample. LayerNorm over the channels has one of each for every position. On vectors, the two are equal. "
            "Here `values` is the input, channels in dimension 1."
        ),
        test=(
            "not torch.allclose(nn.GroupNorm(1, values.shape[1])(values), "
            "nn.LayerNorm(values.shape[1])(values.movedim(1, -1)).movedim(-1, 1), atol=1e-3)"
        ),
        remedy=(
            "Use the norm with which the weights were trained. For LayerNorm over the channels of an image, move them "
            "to the end and back, as in the test. The weights of the two norms have the same names and shapes, so "
            "loading them does not tell."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "own-norm-differs": Advice(
        group="after",
        symptom=(
            "My own (manual) batch norm does not match PyTorch: the outputs are slightly different, or with momentum=1 "
            "the outputs of train mode and eval mode differ; on images it stops with “The size of tensor a must match "
            "the size of tensor b”"
        ),
        cause=(
            "PyTorch divides by the biased variance of the batch (divided by N) and stores the unbiased one (divided "
            "by N - 1). It adds eps under the square root. Here `own` is your function, `values` is a batch of vectors."
        ),
        test="not torch.allclose(own(values), nn.BatchNorm1d(values.shape[1])(values), atol=1e-4)",
        remedy=(
            "In train mode, use `(x - x.mean(0)) / (x.var(0, unbiased=False) + eps).sqrt()`. Store `x.var(0)` in "
            "`running_var`. For images, take the mean and the variance over `(0, 2, 3)` with `keepdim=True`: without "
            "it, they are subtracted along the width."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "recomputed-at-inference": Advice(
        group="after",
        symptom=(
            "With GroupNorm, LayerNorm or InstanceNorm in place of batch norm, the model is slower at inference "
            "(latency, frames per second, FPS)"
        ),
        cause=(
            "At inference, BN has fixed statistics, so it can be folded into the convolution in front of it, and then "
            "it costs nothing. The other norms compute a mean and a variance for each input, also at inference."
        ),
        test=(
            "any(isinstance(m, (nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)) for m in "
            "model.modules())"
        ),
        remedy=(
            "If speed counts, keep BN, and fold it for inference: `torch.nn.utils.fusion.fuse_conv_bn_eval`. If your "
            "batches are small, use SyncBatchNorm or frozen BN."
        ),
        section=f"{TRAINING}#folding-batch-norm-into-the-convolution",
    ),
    "padding-in-each-sample": Advice(
        group="batch",
        symptom=(
            "In eval mode, the output for a sequence (speech, audio, Conformer) depends on how much padding it got in "
            "its batch, with GroupNorm or InstanceNorm"
        ),
        cause=(
            "These norms compute the statistics of each sequence over all its positions, and the padding counts, too. "
            "Convolutions also carry padding that is not 0 into the last real positions. Here `network` returns "
            "sequences of the shape (N, C, L), and `values` is a batch of sequences without padding."
        ),
        test=(
            "not torch.allclose(network.eval()(F.pad(values, (0, 9)))[..., : values.shape[2]], network(values), "
            "atol=1e-3)"
        ),
        remedy=(
            "Use LayerNorm, which normalises each position by itself, or BN, which has fixed statistics in eval mode. "
            "Set the padding to 0 before each convolution, or put sequences of the same length into a batch."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "statistics-of-each-tile": Advice(
        group="batch",
        symptom=(
            "Prediction in tiles (patches, sliding window) with InstanceNorm or GroupNorm: seams between the tiles, or "
            "tiles of different brightness"
        ),
        cause=(
            "These norms compute the statistics of each tile, so the same pixels get other outputs in a tile with "
            "other content, even far from its border. Here `network` returns images, and `image` is one large image."
        ),
        test="not torch.allclose(network.eval()(image)[..., :4], network(image[..., :16])[..., :4], atol=1e-2)",
        remedy=(
            "Predict the whole image, or use larger tiles that overlap, and average them. If you train again, use BN "
            "with many tiles in each batch: in eval mode, it has the same statistics for all tiles."
        ),
        section=f"{ALTERNATIVES}#which-values-are-normalised-together",
    ),
    "norm-behind-the-sum": Advice(
        group="training",
        symptom=(
            "A transformer with LayerNorm diverges or does not learn without a warm-up of the learning rate, above all "
            "a deep one (post-norm, post-LN)"
        ),
        cause=(
            "The norm stands behind the sum of branch and skip connection, as in PyTorch's default "
            "`norm_first=False`. According to Xiong et al. (2020), the gradients near the output are then large at the "
            "beginning, and they are small if the norm stands at the beginning of the branch (pre-norm). This book did "
            "not reproduce it. Here `network` is the transformer."
        ),
        test="any(not m.norm_first for m in network.modules() if isinstance(m, nn.TransformerEncoderLayer))",
        remedy=(
            "Build the layers with `norm_first=True`, and put one more norm behind the last of them. Or raise the "
            "learning rate slowly from 0 (warm-up)."
        ),
        section=f"{ALTERNATIVES}#can-rmsnorm-or-dynamic-tanh-replace-layer-norm",
    ),
}
"""Causes with other norms, or norms of one's own, by a short name."""
