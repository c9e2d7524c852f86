"""Insert BN without changing what a network computes, and compare gradients and sharpness with respect to the weights.

A BN layer whose gamma and beta are the standard deviation and the mean of its inputs changes nothing on this batch. So
the two networks have the same weights, the same activations and the same loss, and their gradients can be compared.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.experiments.smoothness.stable_learning_rates import INITS, network, samples
from bnlib.probes import sharpness, theorem_4_4

HIDDEN = 3
MOMENTS = ("before training", "after training")
LEARNING_RATES = {"He": 0.05, "PyTorch default": 0.3}
TARGET, MOST_STEPS = 0.5, 2000
SEEDS = {"quick": range(5), "paper": range(20)}
Batch = tuple[Tensor, Tensor]


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return both initialisations, before training and once the loss is below ``TARGET``."""
    return {setting: SEEDS[scale] for setting in itertools.product(INITS, MOMENTS)}


def plain_network(init: str, seed: int) -> nn.Sequential:
    """Build a network without normalisation, with three hidden layers of 100 units, in float64."""
    return network(init, "without normalisation", HIDDEN, seed).double()


def train(model: nn.Module, batch: Batch, lr: float) -> None:
    """Run full-batch gradient descent until the loss is below ``TARGET``.

    Raises:
        RuntimeError: the loss is not below ``TARGET`` after ``MOST_STEPS`` steps.
    """
    x, y = batch
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(MOST_STEPS):
        loss = F.cross_entropy(model(x), y)
        if loss < TARGET:
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    raise RuntimeError(f"the loss must be below {TARGET} after {MOST_STEPS} steps, got {loss:.3g}")


def with_batch_norm(model: nn.Sequential, x: Tensor, layers: Iterable[int]) -> nn.Sequential:
    """Copy a network and insert BN after some hidden linear layers, such that its activations on ``x`` stay the same.

    Arguments:
        model: linear layers and activations, without normalisation.
        x: the batch, shape (N, features).
        layers: numbers of the hidden linear layers, from 0.
    """
    chosen, result, number = set(layers), nn.Sequential(), -1
    with torch.no_grad():
        for layer in copy.deepcopy(model):
            result.append(layer)
            x = layer(x)
            number += isinstance(layer, nn.Linear)
            if isinstance(layer, nn.Linear) and number in chosen:
                norm = BatchNorm(x.size(1), eps=1e-10).to(x)
                norm.weight.copy_((x.var(0, correction=0) + norm.eps).sqrt())
                norm.bias.copy_(x.mean(0))
                result.append(norm)
    return result


def hidden_weights(model: nn.Sequential) -> dict[str, Tensor]:
    """Return the weight matrices of the hidden layers by name."""
    found = {f"{name}.weight": layer.weight for name, layer in model.named_children() if isinstance(layer, nn.Linear)}
    return dict(list(found.items())[:HIDDEN])


def weight_gradients(model: nn.Sequential, batch: Batch) -> tuple[Tensor, ...]:
    """Return the gradients of the loss with respect to the weight matrices of the hidden layers."""
    return torch.autograd.grad(F.cross_entropy(model(batch[0]), batch[1]), list(hidden_weights(model).values()))


def centred(plain: nn.Sequential, batch: Batch, layer: int) -> float:
    """Return the ratio of the norms of a layer's weight gradients if only the mean over the batch is removed.

    The gradient of the weights is that of the layer's outputs, transposed, times the layer's inputs.
    """
    x, y = batch
    with torch.no_grad():
        inputs = plain[: 2 * layer + 1](x)
        outputs = plain[2 * layer + 1](inputs)
    gradient = torch.autograd.functional.jacobian(
        lambda activations: F.cross_entropy(plain[2 * layer + 2 :](activations), y), outputs
    )
    return (((gradient - gradient.mean(0)).T @ inputs).norm() / (gradient.T @ inputs).norm()).item()


def worst_case(plain: nn.Sequential, batch: Batch, layer: int) -> float:
    """Return the ratio of the norms that Theorem 4.4 bounds, with BN over without, for the units of a layer."""
    x, y = batch
    first, rest = plain[: 2 * layer + 2], plain[2 * layer + 2 :]
    with torch.no_grad():
        outputs = first(x)

    def loss(activations: Tensor) -> Tensor:
        return F.cross_entropy(rest(activations), y)

    deviation, mean = outputs.std(0, correction=0), outputs.mean(0)
    found = theorem_4_4(loss, outputs, deviation, mean)
    without = torch.autograd.functional.jacobian(loss, outputs).square().sum()
    return (found.left.sum() / without).sqrt().item()


def measure(init: str, moment: str, *, seed: int, device: str) -> dict[str, Any]:
    """Compare a network without normalisation with networks that have the same weights and BN.

    Returns:
        ``sharpness``, with BN after every hidden layer over without, with respect to the weight matrices of the hidden
        layers; and one number per hidden layer: ratios of gradient norms, with BN over without.

        - ``worst_case``: in the worst case over the inputs of the layer, as in Theorem 4.4; BN after this layer.
        - ``one``: of the weights, with the real inputs; BN after this layer.
        - ``centred``: the same, if of BN's two projections only the one that removes the mean were applied.
        - ``all``: as ``one``; BN after every hidden layer.
        - ``larger``: percentage of units whose weights have a larger gradient norm with BN after this layer.
        - ``standard``: of the weights; BN after every hidden layer with gamma 1 and beta 0, other activations.
    """
    batch = x, y = (samples(device)[0].double(), samples(device)[1])
    plain = plain_network(init, seed).to(device)
    if moment == "after training":
        train(plain, batch, LEARNING_RATES[init])
    without = weight_gradients(plain, batch)
    everywhere = with_batch_norm(plain, x, range(HIDDEN))
    standard = copy.deepcopy(everywhere)
    for layer in standard:
        if isinstance(layer, BatchNorm):
            layer.reset_parameters()
    found: dict[str, Any] = {"worst_case": [worst_case(plain, batch, layer) for layer in range(HIDDEN)]}
    found |= {"centred": [centred(plain, batch, layer) for layer in range(HIDDEN)], "one": [], "larger": []}
    for layer in range(HIDDEN):
        gradient = weight_gradients(with_batch_norm(plain, x, [layer]), batch)[layer]
        found["one"].append((gradient.norm() / without[layer].norm()).item())
        longer = gradient.norm(dim=1) > without[layer].norm(dim=1) * (1 + 1e-6)
        found["larger"].append(100 * longer.double().mean().item())
    for name, model in (("all", everywhere), ("standard", standard)):
        gradients = weight_gradients(model, batch)
        found[name] = [(a.norm() / b.norm()).item() for a, b in zip(gradients, without, strict=True)]
    tops = [
        sharpness(model, lambda each: F.cross_entropy(each(x), y), list(hidden_weights(model)), tolerance=3e-2).value
        for model in (everywhere, plain)
    ]
    return found | {"sharpness": (tops[0] / tops[1]).item()}


EXPERIMENT = Measurement(
    name="smoothness.weight_gradients",
    question="Does BN shrink the gradient of the weights of a network that computes the same without it?",
    source="Santurkar et al. 2018, Theorem 4.4",
    axes=("init", "moment"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result: numbers of shape (seeds,) or (seeds, hidden layers)."""
    return EXPERIMENT.load("quick")


def ratios() -> dict[str, dict[str, np.ndarray]]:
    """Return the committed ratios with BN over without, by network and by what is compared, one number per seed.

    Those of the three hidden layers are averaged, as a geometric mean.
    """

    def over_layers(values: np.ndarray) -> np.ndarray:
        return np.exp(np.log(values).mean(1))

    return {
        f"{init}, {moment}": {
            "worst case of Theorem 4.4": over_layers(row["worst_case"]),
            "real inputs, only the mean taken out": over_layers(row["centred"]),
            "real inputs": over_layers(row["one"]),
            "real inputs, BN after every layer": over_layers(row["all"]),
            "γ = 1 and β = 0": over_layers(row["standard"]),
            "sharpness": row["sharpness"],
        }
        for (init, moment), row in load().items()
    }
