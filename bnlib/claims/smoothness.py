"""Claims tested in chapter 3, Lipschitz smoothness."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import datasets, probes
from bnlib.claims.claim import Claim, Effects, Results
from bnlib.experiments.smoothness.landscape_over_training import (
    EARLY,
    median_over_probes,
    relative_beta_at_equal_loss,
)
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _effective_smoothness(results: Results) -> Effects:
    found: Effects = {}
    for init, norm in itertools.product(("He", "PyTorch default"), ("without normalisation", "batch norm")):
        row = results("smoothness.landscape_over_training", "mlp", init, norm, 64, 0.1)
        found[f"effective beta, steps 10 to 50, {init}, {norm}"] = median_over_probes(row["beta"], EARLY)
    for init, b, lr in [("He", 256, 0.1), ("PyTorch default", 16, 0.3)]:
        for norm in ("without normalisation", "batch norm"):
            row = results("smoothness.landscape_over_training", "mlp", init, norm, b, lr)
            found[f"relative beta at loss 0.3 to 0.6, {init}, batches of {b}, rate {lr}, {norm}"] = (
                relative_beta_at_equal_loss(row)
            )
    return found


def _is_smoother_with_bn(e: Effects, setting: str) -> bool:
    return np.median(e[f"{setting}, batch norm"]) < np.median(e[f"{setting}, without normalisation"])


def _largest_stable_rates(results: Results) -> Effects:
    cells = itertools.product(("He", "PyTorch default"), (2, 4, 8), ("batch norm", "without normalisation"))
    return {
        f"largest stable learning rate, {init}, {depth} hidden layers, {norm}": results(
            "smoothness.stable_learning_rates", init, norm, depth
        )["rate"]
        for init, depth, norm in cells
    }


def _stable_rate_is_larger_with_bn(e: Effects, init: str) -> bool:
    with_bn = [name for name in e if f", {init}," in name and name.endswith("batch norm")]
    return all(e[name].min() > e[name.replace("batch norm", "without normalisation")].max() for name in with_bn)


def _sides_of_theorem_4_1(results: Results) -> Effects:
    data = datasets.load("digits")
    x, y = data.train_x[:256].double(), data.train_y[:256]
    net = mlp((64, 100, 100, 100, 10), None, init=nn.init.kaiming_normal_, seed=0).double()
    with torch.no_grad():
        outputs = net[:2](x)

    def rest(activations):
        return F.cross_entropy(net[2:](activations), y)

    matched, unmatched = probes.theorem_4_1(rest, outputs), probes.theorem_4_1(rest, outputs, at=outputs)
    plain_gradient = torch.autograd.functional.jacobian(rest, outputs).square().sum(0)
    return {
        "largest relative difference of the two sides": (matched.slack / matched.right).abs().max().item(),
        "units where the bound fails with the plain network's gradient, %": 100
        * (unmatched.slack < 0).double().mean().item(),
        "units whose gradient norm is larger with BN than without, %": 100
        * (matched.left > plain_gradient).double().mean().item(),
    }


def _weight_growth_under_descent(results: Results) -> Effects:
    data = datasets.load("digits")
    net = mlp((64, 20, 10), BatchNorm, seed=0).double()
    net[2].eps = 1e-30
    x, y, weight = data.train_x[:64].double(), data.train_y[:64], net[1].weight
    norms, largest_difference = [weight.norm().item()], 0.0
    for _ in range(20):
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y), weight)
        expected = (weight.norm() ** 2 + 0.5**2 * gradient.norm() ** 2).sqrt().item()
        with torch.no_grad():
            weight.sub_(0.5 * gradient)
        norms.append(weight.norm().item())
        largest_difference = max(largest_difference, abs(norms[-1] - expected))
    return {
        "largest difference from the weight norm by Pythagoras in 20 steps": largest_difference,
        "final over initial weight norm": norms[-1] / norms[0],
    }


CLAIMS = (
    Claim(
        "kariya-smoother", "kariya2018", "back to the original question; figure 4 of Santurkar et al.",
        "BN makes the loss landscape smoother during training: the gradient changes less over a step.",
        "03_lipschitz_smoothness#the-landscape-on-the-way", _effective_smoothness,
        (("the median effective beta is smaller with BN: He, batches of 64, rate 0.1",
          lambda e: _is_smoother_with_bn(e, "effective beta, steps 10 to 50, He")),
         ("the same with PyTorch's default initialisation",
          lambda e: _is_smoother_with_bn(e, "effective beta, steps 10 to 50, PyTorch default")),
         ("the median relative beta at equal loss is smaller with BN: He, batches of 256, rate 0.1",
          lambda e: _is_smoother_with_bn(e, "relative beta at loss 0.3 to 0.6, He, batches of 256, rate 0.1")),
         ("the same with PyTorch's default initialisation, batches of 16, rate 0.3",
          lambda e: _is_smoother_with_bn(
              e, "relative beta at loss 0.3 to 0.6, PyTorch default, batches of 16, rate 0.3"))),
    ),
    Claim(
        "kariya-larger-rates", "kariya2018", "back to the original question",
        "Because the landscape is smoother, larger learning rates can be used with BN.",
        "03_lipschitz_smoothness", _largest_stable_rates,
        (("with He initialisation, the largest stable learning rate of full-batch gradient descent is larger with BN, "
          "at each depth and in every seed", lambda e: _stable_rate_is_larger_with_bn(e, "He")),
         ("the same with PyTorch's default initialisation",
          lambda e: _stable_rate_is_larger_with_bn(e, "PyTorch default"))),
        note="This does not test whether smoothness is the cause. With PyTorch's default initialisation, eight hidden "
        "layers without BN tolerate a learning rate of 10 because their output hardly depends on the input.",
    ),
    Claim(
        "santurkar-theorem", "santurkar2018", "Theorem 4.1",
        "At equal activations, the squared norm of the gradient before a BN layer is at most gamma²/variance times "
        "that after the layer, without two of its components.",
        "03_lipschitz_smoothness#the-theorem", _sides_of_theorem_4_1,
        (("the two sides are equal to 1e-10, which is more than the theorem states",
          lambda e: e["largest relative difference of the two sides"].max() < 1e-10),),
    ),
    Claim(
        "santurkar-theorem-gloss", "santurkar2018", "not in the paper: Theorem 4.1 without its condition",
        "Gradients have a smaller norm with BN than in the same network without BN.",
        "03_lipschitz_smoothness#the-theorem", _sides_of_theorem_4_1,
        (("the bound holds with the plain network's own gradient in every unit",
          lambda e: e["units where the bound fails with the plain network's gradient, %"].max() == 0),
         ("in more than half of the units the gradient norm is smaller with BN",
          lambda e: e["units whose gradient norm is larger with BN than without, %"].max() < 50)),
        verdict_if_refuted="wrong", note="A counterexample: one layer of one network with He initialisation, before "
        "training.",
    ),
    Claim(
        "kariya-trapped", "kariya2018", "back to the original question",
        "On the smoother landscape, larger steps carry no risk of getting trapped in a local minimum.",
        "03_lipschitz_smoothness#dissent",
        untestable_because="Neither this book nor the paper that the article summarises finds local minima, or counts "
        "the runs that are trapped in them.",
    ),
    Claim(
        "santurkar-lp", "santurkar2018", "section 3.3",
        "Networks train equally well if their activations are normalised by another Lp norm than the L2 norm.",
        "03_lipschitz_smoothness#dissent",
        untestable_because="bnlib has no layers that normalise by another Lp norm.",
    ),
    Claim(
        "vanlaarhoven-length", "vanlaarhoven2017", "section 2",
        "Gradient descent only increases the norm of weights before BN, and so lowers their effective learning rate.",
        "03_lipschitz_smoothness#scale-invariance-and-the-effective-learning-rate", _weight_growth_under_descent,
        (("the norm follows Pythagoras' theorem to 1e-9 in each of 20 steps",
          lambda e: e["largest difference from the weight norm by Pythagoras in 20 steps"].max() < 1e-9),
         ("the norm has grown", lambda e: e["final over initial weight norm"].min() > 1)),
    ),
)  # fmt: skip
