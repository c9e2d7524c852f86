"""Claims tested in chapter 3, Lipschitz smoothness."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import datasets, probes
from bnlib.claims.claim import Claim, Effects, Results
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _effective_smoothness(results: Results) -> Effects:
    found: Effects = {}
    for init, norm in itertools.product(("He", "PyTorch default"), ("without normalisation", "batch norm")):
        row = results("smoothness.landscape_over_training", "mlp", init, norm, 64, 0.1)
        found[f"effective beta, steps 10 to 50, {init}, {norm}"] = np.median(row["beta"][:, 1:6], 1)
    for init, b, lr in [("He", 256, 0.1), ("PyTorch default", 16, 0.3)]:
        for norm in ("without normalisation", "batch norm"):
            row = results("smoothness.landscape_over_training", "mlp", init, norm, b, lr)
            found[f"relative beta at loss 0.3 to 0.6, {init}, batches of {b}, rate {lr}, {norm}"] = (
                _relative_beta_at_equal_loss(row)
            )
    return found


def _relative_beta_at_equal_loss(row) -> np.ndarray:
    """Of each seed, the median over the moments with such a loss."""
    inside = (row["loss"] > 0.3) & (row["loss"] < 0.6)
    return np.array([np.median(v[i]) for v, i in zip(row["relative_beta"], inside, strict=True) if i.any()])


def _smoother_with_bn(e: Effects, setting: str) -> bool:
    return np.median(e[f"{setting}, batch norm"]) < np.median(e[f"{setting}, without normalisation"])


def _largest_stable_rates(results: Results) -> Effects:
    cells = itertools.product(("He", "PyTorch default"), (2, 4, 8), ("batch norm", "without normalisation"))
    return {
        f"largest stable rate, {init}, {depth} layers, {norm}": results(
            "smoothness.stable_learning_rates", init, norm, depth
        )["rate"]
        for init, depth, norm in cells
    }


def _stable_rate_larger_with_bn(e: Effects, init: str) -> bool:
    names = [n for n in e if f", {init}," in n and n.endswith("batch norm")]
    return all(e[n].min() > e[n.replace("batch norm", "without normalisation")].max() for n in names)


def _sides_of_theorem_4_1(results: Results) -> Effects:
    data = datasets.load("digits")
    x, y = data.train_x[:256].double(), data.train_y[:256]
    net = mlp((64, 100, 100, 100, 10), None, init=nn.init.kaiming_normal_, seed=0).double()
    with torch.no_grad():
        outputs = net[:2](x)

    def rest(activations):
        return F.cross_entropy(net[2:](activations), y)

    matched, own = probes.theorem_4_1(rest, outputs), probes.theorem_4_1(rest, outputs, at=outputs)
    plain = torch.autograd.functional.jacobian(rest, outputs).square().sum(0)
    return {
        "left over right side, largest distance from 1": (matched.slack / matched.right).abs().max().item(),
        "units where the bound fails with the plain network's gradient, %": 100
        * (own.slack < 0).double().mean().item(),
        "units whose gradient is longer with BN than without, %": 100 * (matched.left > plain).double().mean().item(),
    }


def _weight_growth_under_descent(results: Results) -> Effects:
    data = datasets.load("digits")
    net = mlp((64, 20, 10), BatchNorm, seed=0).double()
    net[2].eps = 1e-30
    x, y, weight = data.train_x[:64].double(), data.train_y[:64], net[1].weight
    lengths, off = [weight.norm().item()], 0.0
    for _ in range(20):
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y), weight)
        expected = (weight.norm() ** 2 + 0.5**2 * gradient.norm() ** 2).sqrt().item()
        with torch.no_grad():
            weight.sub_(0.5 * gradient)
        lengths.append(weight.norm().item())
        off = max(off, abs(lengths[-1] - expected))
    return {
        "largest distance from Pythagoras in 20 steps": off,
        "length at the end over start": lengths[-1] / lengths[0],
    }


CLAIMS = (
    Claim(
        "kariya-smoother", "kariya2018", "back to the original question; figure 4 of Santurkar et al.",
        "BN makes the landscape along the training smoother: the gradient changes less over a step.",
        "03_lipschitz_smoothness#the-landscape-on-the-way", _effective_smoothness,
        (("the median effective beta is smaller with BN: He, batches of 64, rate 0.1",
          lambda e: _smoother_with_bn(e, "effective beta, steps 10 to 50, He")),
         ("so it is with PyTorch's default initialisation",
          lambda e: _smoother_with_bn(e, "effective beta, steps 10 to 50, PyTorch default")),
         ("at equal loss and relative to the weights it is: He, batches of 256, rate 0.1",
          lambda e: _smoother_with_bn(e, "relative beta at loss 0.3 to 0.6, He, batches of 256, rate 0.1")),
         ("and: PyTorch default, batches of 16, rate 0.3",
          lambda e: _smoother_with_bn(
              e, "relative beta at loss 0.3 to 0.6, PyTorch default, batches of 16, rate 0.3"))),
    ),
    Claim(
        "kariya-larger-rates", "kariya2018", "back to the original question",
        "Because of this, larger learning rates can be used with BN.",
        "03_lipschitz_smoothness", _largest_stable_rates,
        (("with He initialisation the largest stable rate of full-batch descent is larger with BN, at each "
              "depth, in every "
          "seed", lambda e: _stable_rate_larger_with_bn(e, "He")),
         ("so it is with PyTorch's default initialisation",
          lambda e: _stable_rate_larger_with_bn(e, "PyTorch default"))),
        note="That smoothness is the cause is not tested by this. With PyTorch's default initialisation eight "
              "plain layers tolerate a "
        "rate of 10, for they compute nothing.",
    ),
    Claim(
        "santurkar-theorem", "santurkar2018", "Theorem 4.1",
        "At matched activations the squared gradient in front of BN is at most gamma²/variance times that behind it, "
        "less two components.",
        "03_lipschitz_smoothness#the-theorem", _sides_of_theorem_4_1,
        (("both sides agree to 1e-10, which is more than was promised",
          lambda e: e["left over right side, largest distance from 1"].max() < 1e-10),),
    ),
    Claim(
        "santurkar-theorem-gloss", "santurkar2018", "not theirs: Theorem 4.1 without its condition",
        "So gradients are shorter with BN than in the network without it.",
        "03_lipschitz_smoothness#the-theorem", _sides_of_theorem_4_1,
        (("the bound holds with the plain network's own gradient in every unit",
          lambda e: e["units where the bound fails with the plain network's gradient, %"].max() == 0),
         ("in more than half of the units the gradient is shorter with BN",
          lambda e: e["units whose gradient is longer with BN than without, %"].max() < 50)),
        verdict_if_refuted="wrong", note="One layer of one network with He initialisation, before training: a "
              "counterexample.",
    ),
    Claim(
        "kariya-trapped", "kariya2018", "back to the original question",
        "On the smoother landscape larger steps can be made without fear of getting trapped in a local minimum.",
        "03_lipschitz_smoothness#dissent",
        untestable_because="Nothing here, nor in the paper that it summarises, finds local minima or counts who is "
        "trapped in them.",
    ),
    Claim(
        "santurkar-lp", "santurkar2018", "section 3.3",
        "Normalising by other norms of the activations than the second trains as well.",
        "03_lipschitz_smoothness#dissent",
        untestable_because="bnlib has no such layers; it would be a good exercise.",
    ),
    Claim(
        "vanlaarhoven-length", "vanlaarhoven2017", "section 2",
        "Steps of gradient descent only make weights in front of BN longer, and so lower their effective rate.",
        "03_lipschitz_smoothness#scale-invariance-and-the-effective-learning-rate", _weight_growth_under_descent,
        (("the length follows Pythagoras to 1e-9 in each of 20 steps",
          lambda e: e["largest distance from Pythagoras in 20 steps"].max() < 1e-9),
         ("it has grown", lambda e: e["length at the end over start"].min() > 1)),
    ),
)  # fmt: skip
