"""Cases for the rows about export, conversion and compilation, and layers that were built for them; see ``CASES``."""

import copy
import warnings
from types import SimpleNamespace

import numpy as np
import torch
from doctor_examples import batches, trained
from torch import nn
from torch.ao import quantization
from torch.nn import functional as F
from torch.nn.utils import fusion

from bnlib import models


class AfterTheActivation(nn.Module):
    """A quantised network with BN behind the ReLU, as eight bits or in float."""

    def __init__(self, in_float):
        super().__init__()
        self.quant, self.conv, self.relu = quantization.QuantStub(), nn.Conv2d(1, 4, 3), nn.ReLU()
        self.dequant, self.again = quantization.DeQuantStub(), quantization.QuantStub()
        self.norm, self.last, self.in_float = nn.BatchNorm2d(4), quantization.DeQuantStub(), in_float

    def forward(self, x):
        x = self.relu(self.conv(self.quant(x)))
        return self.last(self.again(self.norm(self.dequant(x))) if self.in_float else self.norm(x))


def quantised_behind_the_activation(in_float):
    """A network with BN behind the ReLU after quantisation."""
    network = AfterTheActivation(in_float).eval()
    network.qconfig = quantization.get_default_qconfig("x86")
    if in_float:
        network.norm.qconfig = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this kind of quantisation is deprecated
        quantization.prepare(network, inplace=True)
        network(torch.randn(2, 1, 8, 8))
        return quantization.convert(network, inplace=True)


def exported_graph(training):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(trained("mlp").train(training), (batches()[0][0],)).module()


def transposed(transpose):
    """A transposed convolution, a norm behind it, and a convolution with the norm folded into it."""
    convolution, norm = nn.ConvTranspose2d(4, 4, 3).eval(), nn.BatchNorm2d(4).eval()
    norm.running_var.copy_(torch.tensor([0.1, 1.0, 4.0, 9.0]))
    folded = fusion.fuse_conv_bn_eval(convolution, norm, transpose=transpose)
    return {"convolution": convolution, "norm": norm, "folded": folded, "values": torch.randn(2, 4, 5, 5)}


class WithActivation(nn.BatchNorm1d):
    """Batch norm and an activation in one layer, like timm's ``BatchNormAct2d``."""

    def forward(self, x):
        return F.silu(super().forward(x))


def synchronised(kind):
    """A network with such norms, and its copy with synchronised ones."""
    model = models.mlp((64, 32, 10), kind).eval()
    return {"model": model, "converted": nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))}


class FrozenNorm(nn.Module):
    """Frozen batch norm as in torchvision, whose early versions had no eps."""

    def __init__(self, eps):
        super().__init__()
        if eps is not None:
            self.eps = eps


def scaled_by(difference):
    """A norm whose weight is stored with a difference of 0 or of -1 from its gamma, and its expected output."""
    layer, values, gamma = nn.RMSNorm(6), torch.randn(4, 6), 1 + 0.1 * torch.randn(6)
    layer.weight.data.copy_(gamma + difference)
    return {"layer": layer, "values": values, "expected": gamma * F.rms_norm(values, (6,), eps=layer.eps)}


def without_gamma(beta):
    layer = nn.BatchNorm2d(3)
    layer.weight.data[1], layer.bias.data[1] = 0, beta
    return {"layer": layer}


def without_averages(state):
    return {key: value for key, value in state.items() if "running" not in key and "tracked" not in key}


ARRAYS = [np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)]

CASES_IN_EXPORTERS = {
    "quantised-norm-alone": tuple(
        lambda each=each: {"network": quantised_behind_the_activation(each)} for each in (False, True)
    ),
    "channels-unknown-to-the-exporter": (
        lambda: {"model": models.mlp((64, 32, 10), lambda width: nn.BatchNorm1d(width, affine=False))},
        dict,
    ),
    "averages-taken-for-parameters": tuple(
        lambda names=names: {"requires_grad": names} for names in (["bn1.weight", "bn1.running_var"], ["bn1.weight"])
    ),
    "exported-graph-stays-in-train-mode": tuple(
        lambda each=each: {"exported": exported_graph(each)} for each in (True, False)
    ),
    "folded-into-a-transposed-convolution": tuple(lambda each=each: transposed(each) for each in (False, True)),
    "compiled-differently": tuple(
        lambda error=error: {"compiled": lambda x: trained("mlp").double()(x) + error} for error in (0.1, 0)
    ),
    "norm-breaks-memory-format": tuple(
        lambda norm=norm: {
            "layer": norm, "values": torch.randn(2, 4, 5, 5).contiguous(memory_format=torch.channels_last),
        }
        for norm in (nn.InstanceNorm2d(4), nn.BatchNorm2d(4))
    ),
    "converted-without-its-activation": tuple(
        lambda kind=kind: synchronised(kind) for kind in (WithActivation, nn.BatchNorm1d)
    ),
    "batches-of-different-sizes": tuple(
        lambda version=version: {"version": version, "sizes": [90000, 250000]} for version in ((1, 5), (1, 6))
    ),
    "frozen-norm-without-eps": tuple(
        lambda eps=eps: {"frozen": FrozenNorm(eps), "layer": nn.BatchNorm2d(3)} for eps in (None, 1e-5)
    ),
    "checkpoint-never-had-averages": (
        lambda: {"checkpoint": without_averages(trained("mlp").state_dict())},
        lambda: {"checkpoint": trained("mlp").state_dict()},
    ),
    "stored-gamma-minus-one": tuple(lambda each=each: scaled_by(each) for each in (-1, 0)),
    "removed-channels-were-not-zero": tuple(lambda beta=beta: without_gamma(beta) for beta in (0.5, 0)),
    # Arrays as Keras and MXNet return them.
    "keras-arrays-differ": tuple(
        lambda saved=saved: {"layer": SimpleNamespace(get_weights=lambda: ARRAYS), "saved": saved}
        for saved in (ARRAYS[1:], ARRAYS)
    ),
    "global-statistics-in-mxnet": tuple(
        lambda mean=mean: {"moving": [(np.full(3, mean), np.ones(3)), (np.zeros(3), np.ones(3))]} for mean in (0, 0.2)
    ),
}  # fmt: skip
