"""Claims about covariate shift and smoothness: the GO-JEK article and the paper that it summarises."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import datasets, probes
from bnlib.claims.claim import Claim, Effects, Rows, last
from bnlib.experiments.covariate_shift import activation_shift, gradient_shift, noisy_batch_norm
from bnlib.models import mlp

BLOG, PAPER, SHIFT = "kariya2018", "santurkar2018", "02_internal_covariate_shift"
SETTINGS = tuple(itertools.product(("torch", "He"), (0.1, 0.3)))
PLAIN, NOISY = (0.0, 1.0), noisy_batch_norm.PUBLISHED


def noise_ends(rows: Rows, norm: str, init: str, lr: float, curve: str = "train_loss") -> np.ndarray:
    """The ends of nine layers; with the published noise if the name of the norm says so."""
    strength = NOISY if "noise" in norm else PLAIN
    return last(rows("covariate_shift.noisy_batch_norm", "9 layers", init, lr, norm, *strength), curve)


def losses(rows: Rows, *norms: str) -> Effects:
    """Training losses of nine layers at both initialisations and rates."""
    return {f"{norm}, {init}, rate {lr}: training loss, nats": noise_ends(rows, norm, init, lr)
            for init, lr in SETTINGS for norm in norms}  # fmt: skip


def loss_of(e: Effects, norm: str, init: str, lr: float) -> np.ndarray:
    """One of ``losses``."""
    return e[f"{norm}, {init}, rate {lr}: training loss, nats"]


def _noisy(rows: Rows) -> Effects:
    return losses(rows, "BN, noise") | {
        f"BN, noise less BN, {init}, rate {lr}: median test errors, points": 100
        * (np.median(noise_ends(rows, "BN, noise", init, lr, "test_error"))
           - np.median(noise_ends(rows, "BN", init, lr, "test_error")))
        for init, lr in SETTINGS
    }  # fmt: skip


def _moments(rows: Rows) -> Effects:
    found = losses(rows, "BN, noise")
    for name in ("batch norm", "noisy batch norm"):
        path = activation_shift.whole(name, 0.1, steps=8, every=1, seed=0)
        for layer in (1, 8):
            found[f"movement in a step, layer {layer}, {name}, standard deviations"] = np.median(
                [path.moved(layer, k, k + 1) for k in range(8)]
            )
    return found


def _standard(rows: Rows) -> Effects:
    return losses(rows, "BN, noise", "none")


def _prevented(rows: Rows) -> Effects:
    return {n: v for n, v in losses(rows, "none", "noise").items() if "He" in n}


def _shift(rows: Rows) -> Effects:
    found: Effects = {}
    for init, b, lr in [("torch", 64, 0.1), ("He", 64, 0.1), ("He", 256, 0.3), ("He", 4, 0.1)]:
        for norm in gradient_shift.NORMS:
            row = rows("covariate_shift.gradient_shift", "mlp", init, norm, b, lr)
            found[f"relative shift, {init}, batches of {b}, rate {lr}, {norm}"] = np.median(row["relative_ics"], 1)
    return found


def _more(e: Effects, setting: str) -> bool:
    return np.median(e[f"relative shift, {setting}, batch norm"]) > np.median(e[f"relative shift, {setting}, no norm"])


def _deep_linear(rows: Rows) -> Effects:
    found: Effects = {}
    for lr, norm in itertools.product((1e-4, 1e-3), ("no norm", "batch norm")):
        row = rows("covariate_shift.deep_linear_network", norm, lr, 300)
        found[f"cosine, median over layers, rate {lr:g}, {norm}"] = np.median(row["cosine"], 1)
        found[f"loss at the end, rate {lr:g}, {norm}"] = row["loss"][:, -1]
    return found


def _landscape(rows: Rows) -> Effects:
    found: Effects = {}
    for init, norm in itertools.product(("He", "torch"), ("no norm", "batch norm")):
        row = rows("smoothness.landscape_over_training", "mlp", init, norm, 64, 0.1)
        found[f"effective beta, steps 10 to 50, {init}, {norm}"] = np.median(row["beta"][:, 1:6], 1)
    for init, b, lr in [("He", 256, 0.1), ("torch", 16, 0.3)]:
        for norm in ("no norm", "batch norm"):
            row = rows("smoothness.landscape_over_training", "mlp", init, norm, b, lr)
            found[f"relative beta at loss 0.3 to 0.6, {init}, batches of {b}, rate {lr}, {norm}"] = _at_loss(row)
    return found


def _at_loss(row) -> np.ndarray:
    """Of each seed, the median over the moments with such a loss."""
    inside = (row["loss"] > 0.3) & (row["loss"] < 0.6)
    return np.array([np.median(v[i]) for v, i in zip(row["relative_beta"], inside, strict=True) if i.any()])


def _smoother(e: Effects, setting: str) -> bool:
    return np.median(e[f"{setting}, batch norm"]) < np.median(e[f"{setting}, no norm"])


def _stable(rows: Rows) -> Effects:
    cells = itertools.product(("He", "torch"), (2, 4, 8), ("batch norm", "no norm"))
    return {
        f"largest stable rate, {init}, {depth} layers, {norm}": rows(
            "smoothness.stable_learning_rates", init, norm, depth
        )["rate"]
        for init, depth, norm in cells
    }


def _tolerates(e: Effects, init: str) -> bool:
    names = [n for n in e if f", {init}," in n and n.endswith("batch norm")]
    return all(e[n].min() > e[n.replace("batch norm", "no norm")].max() for n in names)


def _theorem(rows: Rows) -> Effects:
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


CLAIMS = (
    Claim(
        "kariya-noisy", BLOG, "is internal covariate shift important; figure 2 of Santurkar et al.",
        "With noise behind BN that shifts and scales every activation anew in each step, BN does about as well.",
        f"{SHIFT}#noise-on-demand", _noisy,
        (("with noise it trains to below 0.2 nats in every seed, at both initialisations and rates",
          lambda e: max(v.max() for n, v in e.items() if n.startswith("BN, noise,")) < 0.2),
         ("its median test error is within 2 points of BN's in all four settings",
          lambda e: max(abs(v).max() for n, v in e.items() if "less BN" in n) < 2)),
        note="Nine layers on digits for VGG on CIFAR-10.",
    ),
    Claim(
        "kariya-not-moments", BLOG, "is internal covariate shift important, second conclusion",
        "BN does not owe its success to keeping mean and variance of layer inputs still.",
        f"{SHIFT}#first-definition-distributions-that-move", _moments,
        (("with noise the means move more than ten times as far in a step as with BN, in hidden layers 1 and 8",
          lambda e: all(e[f"movement in a step, layer {n}, noisy batch norm, standard deviations"]
                        > 10 * e[f"movement in a step, layer {n}, batch norm, standard deviations"] for n in (1, 8))),
         ("with noise it trains to below 0.2 nats in every seed, at both initialisations and rates",
          lambda e: max(v.max() for n, v in e.items() if n.startswith("BN, noise,")) < 0.2)),
        note="What it rules out is stability from step to step; shifts that add up are another matter.",
    ),
    Claim(
        "kariya-standard-worse", BLOG, "is internal covariate shift important",
        "The network without BN does not do as well as even the one with BN and noise.",
        SHIFT, _standard,
        tuple((f"the median loss without BN is above that of noisy BN: {init}, rate {lr}",
               lambda e, i=init, r=lr: np.median(loss_of(e, "none", i, r)) > np.median(loss_of(e, "BN, noise", i, r)))
              for init, lr in SETTINGS),
        note="With He's start and a rate of 0.1 the plain network is the best of all.",
    ),
    Claim(
        "kariya-noise-prevents", BLOG, "is internal covariate shift important",
        "The same noise prevents the network without BN from training entirely.",
        f"{SHIFT}#noise-on-demand", _prevented,
        tuple((f"with noise the median loss stays above 2 nats: He, rate {lr}",
               lambda e, r=lr: np.median(loss_of(e, "noise", "He", r)) > 2) for lr in (0.1, 0.3)),
        note="With torch's start nine layers do not train without the noise either. In units of the activations the "
        "noise does less harm still.",
    ),
    Claim(
        "kariya-gradient-shift", BLOG, "expanding the scope; figure 3 of Santurkar et al.",
        "By the change of gradients BN does not reduce internal covariate shift, and often increases it.",
        f"{SHIFT}#second-definition-gradients-that-turn", _shift,
        tuple((f"the median shift is larger with BN: {setting}", lambda e, s=setting: _more(e, s))
              for setting in ("torch, batches of 64, rate 0.1", "He, batches of 64, rate 0.1",
                              "He, batches of 256, rate 0.3", "He, batches of 4, rate 0.1")),
        note="In units of the gradient, where the source has the bare norm. With torch's start the plain network has "
        "hardly any shift because it does not learn.",
    ),
    Claim(
        "santurkar-deep-linear", PAPER, "section 2.2, figure 3",
        "In 25 linear layers the gradients hardly turn without BN and are nearly unrelated with it; BN learns faster "
        "all the same.",
        f"{SHIFT}#the-linear-network-of-25-layers", _deep_linear,
        (("at 0.0001 the cosine is above 0.9 without BN and below 0.5 with it, in the median",
          lambda e: np.median(e["cosine, median over layers, rate 0.0001, no norm"]) > 0.9
          and np.median(e["cosine, median over layers, rate 0.0001, batch norm"]) < 0.5),
         ("at 0.001, which should be the published rate, it is above 0.9 without BN",
          lambda e: np.median(e["cosine, median over layers, rate 0.001, no norm"]) > 0.9),
         ("at both rates the median loss ends lower with BN",
          lambda e: all(np.median(e[f"loss at the end, rate {lr}, batch norm"])
                        < np.median(e[f"loss at the end, rate {lr}, no norm"]) for lr in ("0.0001", "0.001")))),
        note="At 0.0001 BN's steps are several times as long.",
    ),
    Claim(
        "kariya-smoother", BLOG, "back to the original question; figure 4 of Santurkar et al.",
        "BN makes the landscape along the training smoother: the gradient changes less over a step.",
        "03_lipschitz_smoothness#the-landscape-on-the-way", _landscape,
        (("the median effective beta is smaller with BN: He, batches of 64, rate 0.1",
          lambda e: _smoother(e, "effective beta, steps 10 to 50, He")),
         ("so it is with torch's start", lambda e: _smoother(e, "effective beta, steps 10 to 50, torch")),
         ("at equal loss and relative to the weights it is: He, batches of 256, rate 0.1",
          lambda e: _smoother(e, "relative beta at loss 0.3 to 0.6, He, batches of 256, rate 0.1")),
         ("and: torch, batches of 16, rate 0.3",
          lambda e: _smoother(e, "relative beta at loss 0.3 to 0.6, torch, batches of 16, rate 0.3"))),
    ),
    Claim(
        "kariya-larger-rates", BLOG, "back to the original question",
        "Because of this, larger learning rates can be used with BN.",
        "03_lipschitz_smoothness", _stable,
        (("with He's start the largest stable rate of full-batch descent is larger with BN, at each depth, in every "
          "seed", lambda e: _tolerates(e, "He")),
         ("so it is with torch's", lambda e: _tolerates(e, "torch"))),
        note="That smoothness is the cause is not tested by this. With torch's start eight plain layers tolerate a "
        "rate of 10, for they compute nothing.",
    ),
    Claim(
        "santurkar-theorem", PAPER, "Theorem 4.1",
        "At matched activations the squared gradient in front of BN is at most gamma²/variance times that behind it, "
        "less two components.",
        "03_lipschitz_smoothness#the-theorem", _theorem,
        (("both sides agree to 1e-10, which is more than was promised",
          lambda e: e["left over right side, largest distance from 1"].max() < 1e-10),),
    ),
    Claim(
        "santurkar-theorem-gloss", PAPER, "not theirs: Theorem 4.1 without its condition",
        "So gradients are shorter with BN than in the network without it.",
        "03_lipschitz_smoothness#the-theorem", _theorem,
        (("the bound holds with the plain network's own gradient in every unit",
          lambda e: e["units where the bound fails with the plain network's gradient, %"].max() == 0),
         ("in more than half of the units the gradient is shorter with BN",
          lambda e: e["units whose gradient is longer with BN than without, %"].max() < 50)),
        refuted="wrong", note="One layer of one network with He's start, before training: a counterexample.",
    ),
    Claim(
        "kariya-trapped", BLOG, "back to the original question",
        "On the smoother landscape larger steps can be made without fear of getting trapped in a local minimum.",
        "03_lipschitz_smoothness#dissent",
        why_not="Nothing here, nor in the paper that it summarises, finds local minima or counts who is trapped in "
        "them.",
    ),
    Claim(
        "santurkar-lp", PAPER, "section 3.3",
        "Normalising by other norms of the activations than the second trains as well.",
        "03_lipschitz_smoothness#dissent",
        why_not="bnlib has no such layers; it would be a good exercise.",
    ),
    Claim(
        "santurkar-vgg", PAPER, "section 2, figure 1",
        "A VGG network on CIFAR-10 trains faster with BN, and to a higher accuracy.",
        SHIFT,
        why_not="The runs at that size are in the book as commands; no result of ours exists, for want of a GPU.",
    ),
)  # fmt: skip
