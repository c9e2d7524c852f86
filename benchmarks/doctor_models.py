"""Small networks of many kinds, and faults of their batch norm, with which ``doctor_cost`` measures the doctor.

``MODELS`` holds the networks by name, ``FAULTS`` what is done to a trained one. The data are random samples around one
mean for each class, so that a few steps of training lower the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnlib
from bnlib import models

CLASSES, BATCHES = 10, 12


class DepthwiseBlock(nn.Sequential):
    """The block of MobileNetV2: 1 x 1, depthwise 3 x 3, 1 x 1, with a skip connection where the shapes allow it."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        inside = 4 * fan_in
        super().__init__(
            nn.Conv2d(fan_in, inside, 1, bias=False), nn.BatchNorm2d(inside), nn.ReLU6(),
            nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False), nn.BatchNorm2d(inside), nn.ReLU6(),
            nn.Conv2d(inside, fan_out, 1, bias=False), nn.BatchNorm2d(fan_out),
        )  # fmt: skip
        self.skips = stride == 1 and fan_in == fan_out

    def forward(self, input: Tensor) -> Tensor:
        """Return the output, plus the input where there is a skip connection."""
        return super().forward(input) + (input if self.skips else 0)


class UNet(nn.Module):
    """A U-Net of two levels for segmentation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.low = convolution_block(3, width), convolution_block(width, 2 * width)
        self.last, self.head = convolution_block(3 * width, width), nn.Conv2d(width, CLASSES, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits of each pixel."""
        high = self.first(input)
        low = F.interpolate(self.low(F.max_pool2d(high, 2)), scale_factor=2)
        return self.head(self.last(torch.cat([high, low], 1)))


class DenseNet(nn.Module):
    """Layers that each take the outputs of all layers before."""

    def __init__(self, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(3 + k * growth), nn.ReLU(), nn.Conv2d(3 + k * growth, growth, 3, padding=1, bias=False)
            )
            for k in range(depth)
        )
        self.head = nn.Linear(3 + depth * growth, CLASSES)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits."""
        for layer in self.layers:
            input = torch.cat([input, layer(input)], 1)
        return self.head(input.mean((2, 3)))


class Recurrent(nn.Module):
    """A GRU between two batch norms over the features of all time steps."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.BatchNorm1d(features), nn.BatchNorm1d(width)
        self.gru, self.head = nn.GRU(features, width, batch_first=True), nn.Linear(width, CLASSES)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits, from an input of shape (N, time, features)."""
        states, _ = self.gru(self.before(input.transpose(1, 2)).transpose(1, 2))
        return self.head(self.after(states.transpose(1, 2)).mean(2))


class BatchNormReLU(nn.BatchNorm2d):
    """A subclass with a ``forward`` of its own, such as timm's ``BatchNormAct2d``."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input after ReLU."""
        return F.relu(super().forward(input))


class OwnBatchNorm(nn.Module):
    """A batch norm as a user writes it, with tensors ``running_mean`` and ``running_var``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps, self.momentum = 1e-5, 0.1

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, of shape (N, C, H, W)."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            variance, mean = torch.var_mean(input, (0, 2, 3), correction=0)
            with torch.no_grad():
                self.running_mean += self.momentum * (mean - self.running_mean)
                self.running_var += self.momentum * (variance - self.running_var)
        scale = self.weight / (variance + self.eps).sqrt()
        return (input - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


class WithItsLoss(nn.Module):
    """A model that takes the labels and returns its loss beside its logits, as those of transformers do."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the logits, and the loss if there are labels."""
        logits = self.inside(pixels)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def convolution_block(fan_in: int, fan_out: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    """Return a convolution, a norm and ReLU."""
    return nn.Sequential(nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), norm(fan_out), nn.ReLU())


def convolutional(norm: Callable[[int], nn.Module], width: int = 16) -> nn.Sequential:
    """Return four convolutions with a pooling after each two."""
    return nn.Sequential(
        convolution_block(3, width, norm), convolution_block(width, width, norm), nn.MaxPool2d(2),
        convolution_block(width, 2 * width, norm), convolution_block(2 * width, 2 * width, norm),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, CLASSES),
    )  # fmt: skip


def mobile_net() -> nn.Sequential:
    """Return a small MobileNetV2."""
    plan = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 32, 1)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))
    return nn.Sequential(convolution_block(3, 16), *(DepthwiseBlock(*each) for each in plan), *head)


def in_one_dimension(width: int = 48) -> nn.Sequential:
    """Return a network for signals in time."""
    parts = []
    for fan_in in (3, width, width, width):
        parts += [nn.Conv1d(fan_in, width, 7, 2, 3, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def in_three_dimensions(width: int = 12) -> nn.Sequential:
    """Return a network for videos."""
    parts = []
    for fan_in, stride in ((3, 1), (width, 2), (width, 2)):
        parts += [nn.Conv3d(fan_in, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def discriminator(width: int = 16) -> nn.Sequential:
    """Return the discriminator of DCGAN, for images of 32 x 32."""
    parts = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for k in (1, 2):
        parts += [nn.Conv2d(k * width, 2 * k * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * k * width)]
        parts += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*parts, nn.Conv2d(4 * width, 1, 4), nn.Flatten(0))


@dataclass(frozen=True)
class Case:
    """A network with its data.

    Attributes:
        make: builds the network.
        shape: of one sample.
        size: of a batch.
        form: takes inputs and labels, and returns the batch.
        loss: what ``diagnose`` gets as ``loss``.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 16, 16)
    size: int = 32
    form: Callable[[Tensor, Tensor], object] = field(default=lambda x, y: (x, y))
    loss: Callable[[Tensor, Tensor], Tensor] | None = None


MODELS = {
    "MLP": Case(lambda: models.mlp((256, 256, 256, CLASSES), nn.BatchNorm1d), (256,), 128),
    "MLP of 20 layers": Case(lambda: models.mlp((64, *[96] * 20, CLASSES), nn.BatchNorm1d), (64,), 128),
    "convolutional": Case(lambda: convolutional(nn.BatchNorm2d)),
    "ResNet-18": Case(lambda: models.resnet18(in_channels=3, norm=nn.BatchNorm2d, width=8)),
    "VGG-11": Case(lambda: models.vgg(in_channels=3, norm=nn.BatchNorm2d, depth=11, width=8), (3, 32, 32), 16),
    "MobileNetV2": Case(mobile_net),
    "DenseNet": Case(lambda: DenseNet(8, 8)),
    "1-d convolutions": Case(in_one_dimension, (3, 128)),
    "3-d convolutions": Case(in_three_dimensions, (3, 8, 8, 8), 16),
    "U-Net": Case(lambda: UNet(8), form=lambda x, y: (x, y[:, None, None].expand(-1, *x.shape[2:]))),
    "recurrent": Case(lambda: Recurrent(24, 48), (20, 24)),
    "discriminator": Case(
        discriminator,
        (3, 32, 32),
        form=lambda x, y: (x, (y % 2).to(x.dtype)),
        loss=F.binary_cross_entropy_with_logits,
    ),
    "subclass of BatchNorm2d": Case(lambda: convolutional(BatchNormReLU)),
    "own batch norm": Case(lambda: convolutional(OwnBatchNorm)),
    "FullNorm": Case(lambda: convolutional(bnlib.FullNorm)),
    "with its own loss": Case(
        lambda: WithItsLoss(convolutional(nn.BatchNorm2d)), form=lambda x, y: {"pixels": x, "labels": y}
    ),
}


def data(case: Case, order: Callable[[Tensor], Tensor] = lambda y: torch.arange(len(y))) -> list:
    """Return the batches of a case; ``order`` takes the labels of all samples and returns the order of the samples."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, *case.shape, generator=generator)
    y = torch.randint(CLASSES, (BATCHES * case.size,), generator=generator)
    x = 0.3 * means[y] + torch.randn(len(y), *case.shape, generator=generator)
    index = order(y)
    pairs = zip(x[index].split(case.size), y[index].split(case.size), strict=True)
    return [case.form(*each) for each in pairs]


def outputs_and_loss(model: nn.Module, case: Case, batch: object) -> Tensor:
    """Return the loss of a batch as the training computes it."""
    if isinstance(batch, dict):
        return model(**batch)["loss"]
    return (case.loss or F.cross_entropy)(model(batch[0]), batch[1])


def trained(case: Case, epochs: int = 2) -> nn.Module:
    """Return a network after a few steps, with running statistics of its last weights, in train mode."""
    torch.manual_seed(0)
    model = case.make().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = data(case)
    for _ in range(epochs):
        for batch in batches:
            optimiser.zero_grad()
            outputs_and_loss(model, case, batch).backward()
            optimiser.step()
    with torch.no_grad():
        for batch in batches * 4:
            outputs_and_loss(model, case, batch)
    return model


def norms(model: nn.Module) -> list[nn.Module]:
    """Return the norm layers."""
    return [each for each in model.modules() if hasattr(each, "running_var")]


def displaced(model: nn.Module, batches: list) -> tuple[nn.Module, list, dict]:
    """Move the running means of a layer in the middle by three standard deviations."""
    layer = norms(model)[len(norms(model)) // 2]
    with torch.no_grad():
        layer.running_mean += 3 * layer.running_var.sqrt()
    return model.eval(), batches, {}


def small_errors_everywhere(model: nn.Module, batches: list) -> tuple[nn.Module, list, dict]:
    """Make each running variance 3.5 times as large."""
    with torch.no_grad():
        for layer in norms(model):
            layer.running_var *= 3.5
    return model.eval(), batches, {}


def young(model: nn.Module, batches: list) -> tuple[nn.Module, list, dict]:
    """Give all layers the running statistics of three batches."""
    for layer in norms(model):
        layer.running_mean.zero_()
        layer.running_var.fill_(1)
        if hasattr(layer, "num_batches_tracked"):
            layer.num_batches_tracked.zero_()
    with torch.no_grad():
        for batch in batches[:3]:
            model(**batch) if isinstance(batch, dict) else model(batch[0])
    return model.eval(), batches, {}


def without_gamma(model: nn.Module, batches: list) -> tuple[nn.Module, list, dict]:
    """Set all gammas and betas of the last layer to 0."""
    with torch.no_grad():
        norms(model)[-1].weight.zero_()
        norms(model)[-1].bias.zero_()
    return model, batches, {}


def without_targets(model: nn.Module, batches: list) -> tuple[nn.Module, list, dict]:
    """Leave the targets out, and displace a layer."""
    displaced(model, batches)
    inputs = [{"pixels": each["pixels"]} if isinstance(each, dict) else each[0] for each in batches]
    return model, inputs, {}


FAULTS: dict[str, Callable[[nn.Module, list], tuple[nn.Module, list, dict]]] = {
    "healthy": lambda model, batches: (model, batches, {}),
    "healthy, at inference": lambda model, batches: (model.eval(), batches, {"inference": True}),
    "displaced statistics": displaced,
    "small errors in all layers": small_errors_everywhere,
    "statistics of three batches": young,
    "gamma of 0": without_gamma,
    "train mode at inference": lambda model, batches: (model.train(), batches, {"inference": True}),
    "no targets": without_targets,
    "sorted batches": lambda model, batches: (model, batches, {}),
    "untrained": lambda model, batches: (model, batches, {}),
}
"""By name, what changes a trained model and its batches; the result also has the arguments of ``diagnose``."""


def situation(case: Case, fault: str, model: nn.Module) -> tuple[nn.Module, list, dict]:
    """Return a model with a fault, the batches and the arguments of ``diagnose``.

    Arguments:
        case: the network and its data.
        fault: a key of ``FAULTS``.
        model: the trained network, which stays as it is.
    """
    batches = data(case, torch.argsort) if fault == "sorted batches" else data(case)
    if fault == "untrained":
        torch.manual_seed(0)
        model = case.make()
    options = {} if case.loss is None or fault == "no targets" else {"loss": case.loss}
    model, batches, others = FAULTS[fault](copy.deepcopy(model), batches)
    return model, batches, options | others
