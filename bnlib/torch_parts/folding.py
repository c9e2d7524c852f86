"""Parts that fold a batch norm into the layer in front of it, and quantisation-aware training, which does so, too."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn.intrinsic import qat
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from bnlib.torch_parts.measuring import BATCH, Measured, Numbers, Part, attempt, statistics

IMAGES = BATCH[:, :, None, None]
"""The batch as images of one pixel."""


def _pair(convolution: nn.Module) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a convolution and a batch norm of 4 channels with statistics of their own, and images."""
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(0, 5)
    norm.running_var.uniform_(0.1, 5)
    return convolution.eval(), norm.eval(), torch.randn(2, 4, 6, 6)


def _difference(found: Tensor, expected: Tensor) -> Numbers:
    """Return the largest difference of two outputs, in standard deviations."""
    return {"largest difference (standard deviations)": ((found - expected).abs().max() / expected.std()).item()}


_NONE: Numbers = {"largest difference (standard deviations)": 0.0}


def folded_in_half_precision() -> Measured:
    """Fold in float16: the folded layer is compared with convolution and batch norm in float32."""
    convolution, norm, x = _pair(nn.Conv2d(4, 4, 3))
    expected = norm(convolution(x))
    half = fuse_conv_bn_eval(convolution.half(), norm.half())
    return Measured(_NONE, _difference(half(x.half()).float(), expected))


def folded_transposed() -> Measured:
    """Fold into a transposed convolution, without and with ``transpose=True``."""
    convolution, norm, x = _pair(nn.ConvTranspose2d(4, 4, 3))
    expected = norm(convolution(x))
    found, remedied = (
        _difference(fuse_conv_bn_eval(convolution, norm, transpose=each)(x), expected) for each in (False, True)
    )
    return Measured(_NONE, found, remedied)


def folded_transposed_groups() -> Measured:
    """Fold into a transposed convolution with two groups; the remedy folds each group by itself."""
    convolution, norm, x = _pair(nn.ConvTranspose2d(4, 4, 3, groups=2))
    expected = norm(convolution(x))
    found = attempt(lambda: _difference(fuse_conv_bn_eval(convolution, norm, transpose=True)(x), expected))
    tensors = (convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    pieces = [
        fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, gamma, beta, transpose=True)
        for weight, bias, mean, variance, gamma, beta in zip(*(each.chunk(2) for each in tensors), strict=True)
    ]
    folded = copy.deepcopy(convolution)
    folded.weight, folded.bias = (nn.Parameter(torch.cat(each)) for each in zip(*pieces, strict=True))
    return Measured(_NONE, found, _difference(folded(x), expected))


def _convolutional() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.zero_()
    return model


def _prepared(model: nn.Sequential) -> nn.Module:
    """Return a network that is prepared for quantisation-aware training."""
    wrapped = nn.Sequential(quantization.QuantStub(), *model, quantization.DeQuantStub())
    fused = quantization.fuse_modules_qat(wrapped.train(), [["1", "2", "3"]])
    fused.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(fused)


def _run(model: nn.Module, times: int = 3) -> Numbers:
    for _ in range(times):
        model(IMAGES)
    return statistics(model)


def prepared() -> Measured:
    """Train three batches, prepare for quantisation, and train three more."""
    plain, model = _convolutional(), _convolutional()
    _run(model)
    return Measured(_run(plain, 6), _run(_prepared(model)))


def frozen_in_training() -> Measured:
    """Freeze the statistics of a prepared network by ``eval``; the remedy is ``freeze_bn_stats``."""
    results = []
    for freeze in (lambda layer: isinstance(layer, nn.BatchNorm2d) and layer.eval(), qat.freeze_bn_stats):
        model = _convolutional()
        _run(model)
        model = _prepared(model)
        model.apply(freeze)
        model.eval()
        model.train()
        results.append(_run(model))
    return Measured(_run(_convolutional()), *results)


_FOLD = "[chapter 11](11_training_code.ipynb#folding-batch-norm-into-the-convolution)"
PARTS = [
    Part(
        "fuse_conv_bn_eval",
        "in float16",
        folded_in_half_precision,
        "The folded layer has the type of the convolution, and differs by rounding.",
        "Compare the outputs with those in float32.",
        f"Fold in float32, and convert afterwards: {_FOLD}.",
        tolerance=0.01,
    ),
    Part(
        "fuse_conv_bn_eval",
        "a transposed convolution",
        folded_transposed,
        "Without `transpose=True` the scales of the output channels multiply the input channels. If there are as "
        "many of both, no error is raised.",
        "Compare the outputs before and after.",
        "Pass `transpose=True`.",
    ),
    Part(
        "fuse_conv_bn_eval",
        "a transposed convolution with two groups, `transpose=True`",
        folded_transposed_groups,
        "The channels of the groups are not told apart, so shapes do not fit "
        "([issue 180995](https://github.com/pytorch/pytorch/issues/180995)).",
        "The error.",
        "Fold each group by itself with `fuse_conv_bn_weights(..., transpose=True)`, and join the results.",
    ),
    Part(
        "torch.ao.quantization.prepare_qat",
        "three batches before it and three after",
        prepared,
        "The fused layer takes the statistics over and goes on with them. It sees the outputs of rounded weights, so "
        "they differ a little.",
        "There is no difference.",
        "Nothing.",
        tolerance=0.01,
    ),
    Part(
        "torch.ao.quantization.prepare_qat",
        "a batch norm that is frozen by `eval()`, and then `model.train()`",
        frozen_in_training,
        "`model.train()` puts the layer back into train mode, so its statistics move.",
        "`num_batches_tracked` grows.",
        "Call `model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)`, which `train()` respects.",
    ),
]
"""The parts of this file."""
