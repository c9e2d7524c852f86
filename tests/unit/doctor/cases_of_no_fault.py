"""Cases for the rows about what is no fault, and about what comes from other frameworks; see ``CASES``."""

from types import SimpleNamespace

import numpy as np
import torch
from doctor_examples import batches, trained
from more_examples import RootMeanSquareNorm
from torch import nn
from torch.nn.utils import prune

from bnlib import models


def in_two_ways(modes):
    """The outputs of a network for two images: of a batch, and alone, in float64."""
    model = trained("mlp").double()
    one, other = (lambda x, mode=mode: model.train(mode)(x)[:2] for mode in modes)
    return {"one": one, "other": lambda x: other(x[:2])}


def layer_with_gradients(frozen):
    """A linear layer in front of BN in train mode, or in eval mode, after a backward pass."""
    model, ((x, y), *_) = trained("mlp").train(not frozen), batches()
    nn.functional.cross_entropy(model(x), y).backward()
    return {"layer": model[1]}


def pruned(share):
    """A trained network without the smallest of its weights."""
    model = trained("mlp")
    for layer in model:
        if isinstance(layer, nn.Linear) and share:
            prune.remove(prune.l1_unstructured(layer, "weight", share), "weight")
    return model


def ported(names):
    """A layer with the four arrays of another one, under these names, and what the other one computes."""
    source, layer, values = nn.BatchNorm1d(3), nn.BatchNorm1d(3), torch.randn(8, 3)
    for name, value in zip(("weight", "bias", "running_mean", "running_var"), (2.0, -1.0, 0.5, 4.0), strict=True):
        getattr(source, name).data.fill_(value)
    for name, value in zip(names, ("weight", "bias", "running_mean", "running_var"), strict=True):
        getattr(layer, name).data.copy_(getattr(source, value).data)
    return {"layer": layer, "values": values, "expected": source.eval()(values)}


def predicts(with_the_batch):
    """A model with the ``predict`` of Keras."""
    return SimpleNamespace(predict=lambda x: x - (x.mean(0) if with_the_batch else 0.5))


def from_memory(from_the_start):
    """A layer in train mode that reads a slice where the memory of the whole tensor begins, or where it should."""
    layer = nn.BatchNorm1d(3)
    return lambda x: layer(x.as_strided(x.shape, x.stride(), 0) if from_the_start else x)


IMAGES = np.arange(12.0).reshape(4, 3)
STEPS, MERGED = IMAGES[..., None], IMAGES.reshape(12, 1)  # four sequences of three steps

CASES_OF_NO_FAULT = {
    "not-trained-yet": (lambda: {"model": models.mlp((64, 32, 10), nn.BatchNorm1d)}, dict),
    "overfitting": tuple(lambda loss=loss: {"validation": loss} for loss in (1.5, 0.5)),
    "rounding": tuple(lambda modes=modes: in_two_ways(modes) for modes in ((False, False), (True, True))),
    "rounded-to-half-precision": tuple(
        lambda layer=layer: {"layer": layer, "values": torch.tensor([[300.0, -300.0, 100.0, 20.0]]).half()}
        for layer in (nn.LayerNorm(4).half(), RootMeanSquareNorm())
    ),
    "bias-without-gradient": tuple(lambda frozen=frozen: layer_with_gradients(frozen) for frozen in (False, True)),
    # The arrays of a layer of Keras that are not trained.
    "counted-as-non-trainable": tuple(
        lambda count=count: {"layer": SimpleNamespace(non_trainable_weights=[np.zeros(3)] * count)} for count in (2, 4)
    ),
    "small-last-batch": (lambda: {"batches": [*batches(), *batches(2, 1)]}, dict),
    "weights-changed-afterwards": tuple(lambda share=share: {"model": pruned(share)} for share in (0.8, 0)),
    "average-too-long": tuple(lambda decay=decay: {"decay": decay, "steps": 8370} for decay in (0.9998, 0.999)),
    "frozen-before-training": (
        lambda: {"model": models.mlp((64, 32, 10), nn.BatchNorm1d).eval()},
        lambda: {"model": trained("mlp").eval()},
    ),
    "converted-in-the-wrong-order": tuple(
        lambda names=names: ported(names)
        for names in (
            ("bias", "weight", "running_mean", "running_var"),
            ("weight", "bias", "running_mean", "running_var"),
        )
    ),
    # Arrays as Keras returns them.
    "training-written-into-the-call": tuple(
        lambda each=each: {"network": predicts(each), "images": IMAGES} for each in (True, False)
    ),
    "freeze-false-means-training": tuple(
        lambda each=each: {"network": predicts(each), "images": IMAGES} for each in (True, False)
    ),
    "eps-is-not-in-the-weights": tuple(lambda eps=eps: {"eps": eps} for eps in (1e-3, 1e-5)),
    "converted-in-training-mode": tuple(
        lambda each=each: {"network": predicts(False), "images": IMAGES, "converted": predicts(each).predict(IMAGES)}
        for each in (True, False)
    ),
    "replicas-keep-their-own-averages": tuple(
        lambda mean=mean: {"replicas": [np.zeros(3), np.full(3, mean)]} for mean in (0.2, 0)
    ),
    "momentum-of-the-other-convention": tuple(
        lambda momentum=momentum: {"layer": SimpleNamespace(momentum=momentum)} for momentum in (0.1, 0.9)
    ),
    "frozen-base-in-tensorflow-one": tuple(
        lambda each=each: {"in_training": predicts(each).predict(IMAGES), "in_inference": IMAGES - 0.5}
        for each in (True, False)
    ),
    "one-average-for-all-steps": tuple(
        lambda axes=axes: {"wrapped": STEPS - STEPS.mean(axes, keepdims=True), "single": MERGED - MERGED.mean(0)}
        for axes in (0, (0, 1))
    ),
    # The names of the axes around the call of a layer of Flax.
    "axis-without-name": tuple(
        lambda axes=axes: {"layer": SimpleNamespace(axis_name="batch"), "axes": axes} for axes in ([], ["batch"])
    ),
    "slices-on-mps": tuple(
        lambda each=each: {"result": from_memory(each), "values": torch.randn(8, 3, 4)[5:]} for each in (True, False)
    ),
    "too-large-for-cudnn": tuple(
        lambda each=each: {"works": lambda: not (each and torch.backends.cudnn.enabled)} for each in (True, False)
    ),
    "equinox-in-mode-ema": tuple(lambda mode=mode: {"layer": SimpleNamespace(mode=mode)} for mode in ("ema", "batch")),
}  # fmt: skip
