"""Adapt a trained network to a stream of unlabelled test images: BN statistics of the batch, mixed statistics, TENT.

TENT (Wang et al. 2021) normalises each batch with its own statistics and trains gamma and beta on the test images: each
batch is predicted, and then one step lowers the mean entropy of its predictions. All other weights stay the same.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.perils.train_mode_at_inference import trained

IMAGES = ("unchanged", "low contrast", "blurred", "noisy")
"""As in training; contrast reduced to a fifth; the mean of 3 x 3 pixels; normal noise of standard deviation 0.5."""
STREAMS = ("shuffled", "sorted", "one class frequent")
"""Order and class frequencies of the test images; in the last, nine in ten images belong to the class ``seed % 10``."""
BATCH_SIZES = (4, 16, 64, 256)
LEARNING_RATES = (0.0, 0.003, 0.01, 0.03, 0.1)
"""Of Adam. At a rate of 0 TENT only replaces the statistics by those of each batch."""
PRIOR = 16
"""How many images the training statistics count for when they are mixed with those of a batch."""
ARMS = ("training", "mixed", "batch", "tent")
STREAM_LENGTH, FREQUENT_SHARE = 1024, 0.9
SEEDS = {"quick": range(5), "paper": range(20)}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per kind of images."""
    return {(images,): SEEDS[scale] for images in IMAGES}


def measure(images: str, *, seed: int, device) -> dict[str, list]:
    """Train on the digits, then predict each of ``STREAMS`` batch by batch.

    Returns:
        for each stream the accuracy in eval mode with the ``training`` statistics; at each of ``BATCH_SIZES`` with
        ``mixed`` statistics; and with ``tent`` also at each of ``LEARNING_RATES``. ``tent_per_class`` and
        ``training_per_class`` are means over the classes of the accuracy on the images of each class.
    """
    data, model = datasets.load("digits").to(device), trained("fully connected", seed, device)
    rows = [_accuracies(model, data, images, stream, seed) for stream in STREAMS]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _accuracies(model: nn.Module, data: datasets.Dataset, images: str, stream: str, seed: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    index = draw_stream(data.test_y.cpu(), stream, seed, generator)
    x, y = changed(data.test_x[index], images, generator), data.test_y[index]
    rightly = model.eval()(x).argmax(1) == y
    mixed = [
        torch.cat([mixed_statistics_outputs(model, batch) for batch in x.split(size)]).argmax(1) == y
        for size in BATCH_SIZES
    ]
    tent = [[tent_outputs(model, x, size, lr).argmax(1) == y for lr in LEARNING_RATES] for size in BATCH_SIZES]
    return {
        "training": rightly.float().mean().item(),
        "training_per_class": mean_over_classes(rightly, y),
        "mixed": [each.float().mean().item() for each in mixed],
        "tent": [[each.float().mean().item() for each in row] for row in tent],
        "tent_per_class": [[mean_over_classes(each, y) for each in row] for row in tent],
    }


def draw_stream(labels: Tensor, stream: str, seed: int, generator: torch.Generator) -> Tensor:
    """Draw the indices of a stream of images with replacement."""
    weights = torch.ones(len(labels))
    if stream == "one class frequent":
        ours = labels == seed % 10
        weights = torch.where(ours, FREQUENT_SHARE / ours.sum(), (1 - FREQUENT_SHARE) / (~ours).sum())
    index = torch.multinomial(weights, STREAM_LENGTH, replacement=True, generator=generator)
    return index[labels[index].argsort(stable=True)] if stream == "sorted" else index


def changed(x: Tensor, images: str, generator: torch.Generator) -> Tensor:
    """Change images of shape (N, 1, 8, 8) as ``IMAGES`` says."""
    if images == "low contrast":
        return 0.5 + 0.2 * (x - 0.5)
    if images == "blurred":
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return x + 0.5 * torch.randn(x.shape, generator=generator).to(x) if images == "noisy" else x


@torch.no_grad()
def mixed_statistics_outputs(model: nn.Sequential, x: Tensor, prior: int = PRIOR) -> Tensor:
    """Return the outputs for one batch, with averages of the running statistics and those of the batch in each BN.

    The statistics of a batch of n images have the weight n / (n + ``prior``) (Schneider et al. 2020).
    """
    weight = len(x) / (len(x) + prior)
    for layer in model:
        if isinstance(layer, BatchNorm):
            mean = layer.running_mean.lerp(x.mean(0), weight)
            variance = layer.running_var.lerp(x.var(0, correction=0), weight)
            x = F.batch_norm(x, mean, variance, layer.weight, layer.bias, eps=layer.eps)
        else:
            x = layer(x)
    return x


def tent_outputs(model: nn.Module, x: Tensor, batch_size: int, lr: float) -> Tensor:
    """Predict batch after batch with TENT, which trains a copy of the model, and return all outputs."""
    model, outputs = copy.deepcopy(model).train().requires_grad_(False), []
    affine = [p for layer in model.modules() if isinstance(layer, BatchNorm) for p in (layer.weight, layer.bias)]
    optimiser = torch.optim.Adam([p.requires_grad_() for p in affine], lr=lr)
    for batch in x.split(batch_size):
        logits = model(batch)
        outputs.append(logits.detach())
        if lr > 0:
            optimiser.zero_grad()
            entropy(logits).mean().backward()
            optimiser.step()
    return torch.cat(outputs)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each prediction in nats, from logits of shape (N, classes)."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def mean_over_classes(right: Tensor, labels: Tensor) -> float:
    """Return the mean over the classes of the share of right answers among the samples of each class."""
    return float(np.mean([right[labels == each].float().mean().item() for each in labels.unique()]))


EXPERIMENT = Measurement(
    name="perils.adaptation_at_test_time",
    question="When does it help to adapt BN to the test images, and when does it hurt?",
    source="Wang et al. 2021; Schneider et al. 2020",
    axes=("images",),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def best_rate(batch_size: int) -> float:
    """Return the learning rate at which TENT is most accurate on changed images in shuffled batches of this size.

    The rate 0 counts, too. The choice needs the labels of the test images, so it favours TENT.
    """
    place = BATCH_SIZES.index(batch_size)
    rows = [load()[images,]["tent"][:, STREAMS.index("shuffled"), place] for images in IMAGES[1:]]
    return LEARNING_RATES[int(np.mean(rows, axis=(0, 1)).argmax())]


def accuracies(arm: str, images: str, stream: str, batch_size: int, *, per_class: bool = False) -> np.ndarray:
    """Return the committed accuracies of one of ``ARMS``, one per seed; of ``tent`` at the best rate above 0.

    Arguments:
        per_class: average over the classes, not over the images; not for ``mixed``.
    """
    place, found = BATCH_SIZES.index(batch_size), load()[images,]
    row = {name: values[:, STREAMS.index(stream)] for name, values in found.items()}
    kind = "_per_class" if per_class else ""
    if arm == "training":
        return row["training" + kind]
    if arm == "mixed":
        return row["mixed"][:, place]
    rate = 0.0 if arm == "batch" else tent_rate(batch_size)
    return row["tent" + kind][:, place, LEARNING_RATES.index(rate)]


def tent_rate(batch_size: int) -> float:
    """Return the learning rate at which texts show TENT: the best one above 0."""
    best = best_rate(batch_size)
    return best if best > 0 else LEARNING_RATES[1]


def lookup(images: str) -> dict[str, dict[str, np.ndarray]]:
    """Return for each stream the committed accuracies of ``ARMS``, of shape (seeds, batch sizes)."""
    return {
        stream: {arm: np.stack([accuracies(arm, images, stream, size) for size in BATCH_SIZES], 1) for arm in ARMS}
        for stream in STREAMS
    }


def accuracy_rows(batch_sizes: Sequence[int] = (4, 64)) -> list[dict]:
    """Return accuracies (%) for ``tables.Table``: all ``IMAGES`` shuffled, then unchanged images in other streams."""
    titles = {"mixed": "mixed", "batch": "of the batch", "tent": "TENT"}
    settings = [(images, "shuffled") for images in IMAGES] + [("unchanged", stream) for stream in STREAMS[1:]]
    return [
        {
            "images": f"{images}, {stream}",
            "statistics of training": 100 * accuracies("training", images, stream, batch_sizes[0]),
        }
        | {
            (f"batches of {size}", title): 100 * accuracies(arm, images, stream, size)
            for size in batch_sizes
            for arm, title in titles.items()
        }
        for images, stream in settings
    ]


def tent_rows(batch_size: int = 4) -> list[dict]:
    """Return accuracies (%) of TENT on unchanged images for ``tables.Table``, a row per learning rate."""
    place, found = BATCH_SIZES.index(batch_size), load()["unchanged",]
    frequent = "one class frequent"
    columns = {
        "shuffled": ("tent", "shuffled"),
        (frequent, "all images"): ("tent", frequent),
        (frequent, "mean over classes"): ("tent_per_class", frequent),
    }
    return [
        {"learning rate": f"{lr:g}"}
        | {title: 100 * found[name][:, STREAMS.index(stream), place, n] for title, (name, stream) in columns.items()}
        for n, lr in enumerate(LEARNING_RATES)
    ]
