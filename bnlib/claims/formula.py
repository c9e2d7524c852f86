"""Claims about the layer itself and about learning rates, tested in chapter 1."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import datasets
from bnlib.claims.claim import Claim, Effects, Results, final_values
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _skewness_and_recovery_error(results: Results) -> Effects:
    values = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    layer = BatchNorm(1, eps=1e-30, dtype=torch.float64)
    out = layer(values).detach()
    with torch.no_grad():
        layer.weight.copy_(values.std(0, unbiased=False))
        layer.bias.copy_(values.mean(0))

    def skewness(x):
        return (((x - x.mean()) / x.std(unbiased=False)) ** 3).mean().item()

    return {
        "change of the skewness": abs(skewness(out) - skewness(values)),
        "largest difference from the input after gamma and beta undo BN": (layer(values) - values).abs().max().item(),
    }


def _largest_working_learning_rate(results: Results) -> Effects:
    found = {}
    for norm in ("batch norm", "without normalisation"):
        working = [
            lr
            for experiment in ("formula.training_curves", "formula.he_initialisation")
            for lr in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
            if np.median(final_values(results(experiment, norm, 32, lr), "test_error")) <= 0.06
        ]
        found[f"largest learning rate with a median test error of 6 % or less, {norm}"] = max(working, default=0)
    return found


def _effect_of_weight_scale(results: Results) -> Effects:
    data = datasets.load("digits")
    net = mlp((64, 20, 10), BatchNorm, seed=0).double()
    net[2].eps = 1e-30
    weight = net[1].weight
    loss = F.cross_entropy(net(data.train_x[:64].double()), data.train_y[:64])
    (before,) = torch.autograd.grad(loss, weight)
    with torch.no_grad():
        weight.mul_(10)
    scaled = F.cross_entropy(net(data.train_x[:64].double()), data.train_y[:64])
    (after,) = torch.autograd.grad(scaled, weight)
    return {
        "change of the loss when the weights are multiplied by 10": (loss - scaled).abs().item(),
        "gradient norm before / gradient norm after": (before.norm() / after.norm()).item(),
    }


def _sigmoid_network_errors(results: Results) -> Effects:
    data, found = datasets.load("digits"), {}
    for name, norm in (("BN", BatchNorm), ("without normalisation", None)):
        net = mlp((64, 50, 50, 50, 10), norm, activation=nn.Sigmoid, seed=0)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(8):
            for index in torch.randperm(1437, generator=generator).split(32):
                optimiser.zero_grad()
                F.cross_entropy(net(data.train_x[index]), data.train_y[index]).backward()
                optimiser.step()
        with torch.no_grad():
            wrong = net.eval()(data.test_x).argmax(1) != data.test_y
        found[f"test error, three sigmoid layers, {name}, %"] = 100 * wrong.double().mean().item()
    return found


CLAIMS = (
    Claim(
        "failing-distribution", "failing2025", "placement",
        "Normalising before a non-linearity can destroy the distribution.",
        "01_the_formula#scale-and-shift", _skewness_and_recovery_error,
        (("the skewness of a channel changes", lambda e: e["change of the skewness"].max() > 1e-6),
         ("gamma and beta cannot restore the values",
          lambda e: e["largest difference from the input after gamma and beta undo BN"].max() > 1e-6)),
        verdict_if_refuted="wrong", note="Within a channel, BN applies one shift and one scale to the whole batch.",
    ),
    Claim(
        "ioffe-rates", "ioffe2015", "abstract and section 3.3",
        "BN allows much higher learning rates.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate", _largest_working_learning_rate,
        (("the largest learning rate that works at batch size 32 is at least ten times as large with BN",
          lambda e: e["largest learning rate with a median test error of 6 % or less, batch norm"][0]
          >= 10 * e["largest learning rate with a median test error of 6 % or less, without normalisation"][0] > 0),),
        note="Each network has the better of two initialisations, PyTorch's default and that of He et al.",
    ),
    Claim(
        "ioffe-scale", "ioffe2015", "section 3.3",
        "The scale of the weights before BN does not change the output, and larger weights get smaller gradients.",
        "01_the_formula#backward-down-to-one-line", _effect_of_weight_scale,
        (("with weights ten times as large the loss changes by less than 1e-9",
          lambda e: e["change of the loss when the weights are multiplied by 10"].max() < 1e-9),
         ("the gradient norm is one tenth, to 1e-6",
          lambda e: abs(e["gradient norm before / gradient norm after"] - 10).max() < 1e-5)),
    ),
    Claim(
        "ioffe-saturating", "ioffe2015", "abstract",
        "BN makes it possible to train with saturating non-linearities.",
        "01_the_formula#scale-and-shift", _sigmoid_network_errors,
        (("with BN, three sigmoid layers have a test error below 10 % after eight epochs at a learning rate of 0.3",
          lambda e: e["test error, three sigmoid layers, BN, %"].max() < 10),
         ("without normalisation it is above 50 %",
          lambda e: e["test error, three sigmoid layers, without normalisation, %"].min() > 50)),
        note="One seed, PyTorch's default initialisation, computed on demand.",
    ),
    Claim(
        "ioffe-inception", "ioffe2015", "section 4.2",
        "An Inception network reaches the same accuracy on ImageNet in 14 times fewer steps.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate",
        untestable_because="Training on ImageNet needs more computing power than this book has.",
    ),
)  # fmt: skip
