"""Claims tested in chapter 8, deep stacks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch.nn import functional as F

from bnlib import probes
from bnlib.claims.claim import Claim, Effects, Results, Row
from bnlib.claims.smoothness import stable_rate_borders
from bnlib.claims.thresholds import CALM, ROUGH, TIMES
from bnlib.experiments.depth import descent, gradient_growth
from bnlib.models import deep_stack
from bnlib.norm import BatchNorm


def roughness(row: Row) -> np.ndarray:
    """Return sum of |change of the loss| / |total change| per seed; 1 for a loss that only decreases."""
    change = row["loss_changes"]
    return np.abs(change).sum(1) / np.abs(change.sum(1))


def jitter(row: Row) -> np.ndarray:
    """Return the mean |change of the loss| per step over the second half of a run, in nats, per seed."""
    return np.abs(row["loss_changes"][:, row["loss_changes"].shape[1] // 2 :]).mean(1)


def final_loss(row: Row) -> np.ndarray:
    """Return the last loss per seed, in nats; infinite where a run diverged."""
    return np.nan_to_num(row["initial_loss"] + row["loss_changes"].sum(1), nan=np.inf)


def _descent(results: Results, variant: str, lr: float, depth: int = 100) -> Row:
    return results("depth.descent", variant, depth, lr)


def _roughness_with_and_without_bn(results: Results) -> Effects:
    return {
        "roughness with BN": roughness(_descent(results, "batch norm", 1e-4)),
        "roughness without": roughness(_descent(results, "without normalisation", 1e-4)),
    }


def _roughness_by_depth(results: Results) -> Effects:
    return {f"roughness, {d} layers": roughness(_descent(results, "batch norm", 1e-4, d)) for d in (10, 20, 40)}


def _roughness_by_learning_rate(results: Results) -> Effects:
    return {
        "roughness at 0.0001": roughness(_descent(results, "batch norm", 1e-4)),
        "roughness at 0.4": roughness(_descent(results, "batch norm", 0.4)),
    }


def _jitter_and_loss_at_rate_10(results: Results) -> Effects:
    return {
        "jitter at 10, nats": jitter(_descent(results, "batch norm", 10.0)),
        "jitter at 0.4, nats": jitter(_descent(results, "batch norm", 0.4)),
        "loss at the end at 10, nats": final_loss(_descent(results, "batch norm", 10.0)),
        "loss at the end at 0.4, nats": final_loss(_descent(results, "batch norm", 0.4)),
        "loss after 300 steps at 10, nats": results("depth.longer_descent", 10.0)["loss"][:, -1],
    }


def _difference_of_equal_runs(results: Results) -> Effects:
    found = []
    for seed in range(3):
        first, second = (list(itertools.islice(descent.descend("batch norm", 100, 1e-4, seed), 3)) for _ in range(2))
        found.append(np.abs(np.subtract(first, second)).max())
    return {"largest difference of two equal runs, nats": np.array(found)}


def _jitter_by_precision_and_eps(results: Results) -> Effects:
    names = {"float64": "batch norm", "float32": "float32"}
    found = {f"jitter in {kind}, nats": jitter(_descent(results, name, 1e-4)) for kind, name in names.items()}
    return found | {"roughness with eps 0.1": roughness(_descent(results, "eps 0.1", 1e-4))}


def _stable_rates(results: Results) -> Effects:
    bn, plain = (stable_rate_borders(results, "He", norm, 8) for norm in ("batch norm", "without normalisation"))
    return {
        "smallest unstable rate, 8 layers, BN": bn["first_unstable"],
        "largest stable rate, 8 layers, without normalisation": plain["last_stable"],
    }


def _roughness_in_train_mode(results: Results) -> Effects:
    return {"roughness with BN, never in eval mode": roughness(_descent(results, "batch norm", 1e-4))}


def _gradient_growth_by_batch_size(results: Results) -> Effects:
    return {
        f"growth per layer, batch of {n}": results("depth.gradient_growth", "batch norm", n, 63)["growth"][:, 0]
        for n in (5, 16, 50)
    }


def _gradient_growth_with_and_without_relu(results: Results) -> Effects:
    return {
        f"growth of the gradient per layer, {name}": results("depth.gradient_growth", name, 50, 256)["growth"][:, 0]
        for name in ("batch norm", "linear")
    }


def _gradient_growth_over_theory(results: Results) -> Effects:
    found: Effects = {}
    for n, width in ((5, 63), (50, 63), (50, 256)):
        measured = results("depth.gradient_growth", "batch norm", n, width)["growth"][:, 0]
        found[f"growth over theory, batch of {n}, {width} units"] = measured / gradient_growth.theory("batch norm", n)
    return found


def _gradient_growth_by_activation(results: Results) -> Effects:
    names = {"ReLU": "batch norm", "tanh": "tanh", "linear": "linear"}
    return {
        f"growth per layer, {title}": results("depth.gradient_growth", name, 50, 256)["growth"][:, 0]
        for title, name in names.items()
    }


def _gradient_growth_after_one_step(results: Results) -> Effects:
    characters, following = descent.sentence()

    def loss(model):
        return F.cross_entropy(model(characters), following)

    def growth(net):
        found = probes.gradient_norms_by_layer(net, loss)[5:55]
        return float(probes.growth_per_layer([each.gradient_norm for each in found])), found

    before, after = [], []
    for seed in range(3):
        net = deep_stack(60, 63, BatchNorm, seed=seed).double()
        first, layers = growth(net)
        weights = [net.get_submodule(each.layer).weight for each in layers]
        gradients = torch.autograd.grad(loss(net), weights)
        with torch.no_grad():
            torch._foreach_sub_(weights, gradients, alpha=1e3)
        before.append(first)
        after.append(growth(net)[0])
    return {"growth per layer before": np.array(before), "growth per layer after one long step": np.array(after)}


def _least_loss_by_depth(results: Results) -> Effects:
    found: Effects = {}
    for depth in (10, 100):
        ends = []
        for lr in descent.LEARNING_RATES:
            row = results("depth.descent", "batch norm", depth, lr)
            ends.append(np.nan_to_num(row["initial_loss"] + row["loss_changes"].sum(1), nan=np.inf))
        found[f"least loss over six rates after 60 steps, {depth} layers, nats"] = np.min(ends, axis=0)
    found["least loss in 300 steps at 0.4, 100 layers, nats"] = results("depth.longer_descent", 0.4)["lowest_loss"]
    return found


def _gradient_growth_with_small_gamma(results: Results) -> Effects:
    return {
        f"growth per layer, {name}": results("depth.gradient_growth", name, 50, 63)["growth"][:, 0]
        for name in ("tanh", "tanh, gamma 0.1")
    }


CLAIMS = (
    Claim(
        "kari-noise", "kari2018", "question",
        "Under full-batch descent a stack of 100 layers fluctuates with BN, and without it the error falls steadily.",
        "08_deep_stacks", _roughness_with_and_without_bn,
        (("with BN the roughness is above 2 in every seed", lambda e: e["roughness with BN"].min() > ROUGH),
         ("without it is below 1.2", lambda e: e["roughness without"].max() < CALM)),
        quantifier="tendency",
        stand_in="stacks of linear layers and ReLU in place of LSTMs",
    ),
    Claim(
        "kari-ten-layers", "kari2018", "question",
        "With BN about ten layers can be stacked before the noise becomes hard to control.",
        "08_deep_stacks", _roughness_by_depth,
        (("ten layers have a roughness below 1.2 in every seed", lambda e: e["roughness, 10 layers"].max() < CALM),
         ("forty have one above 10 in every seed", lambda e: e["roughness, 40 layers"].min() > 10)),
        quantifier="tendency",
        stand_in="stacks of linear layers and ReLU in place of LSTMs",
    ),
    Claim(
        "kari-smaller-rate", "kari2018", "question",
        "A smaller learning rate makes the relative fluctuation larger: 0.0001 is worse than 0.4.",
        "08_deep_stacks#nothing-is-random", _roughness_by_learning_rate,
        (("the median roughness at 0.0001 is more than three times that at 0.4",
          lambda e: np.median(e["roughness at 0.0001"]) > 3 * np.median(e["roughness at 0.4"])),),
        quantifier="tendency",
        stand_in="stacks of linear layers and ReLU in place of LSTMs",
        note="This holds for learning rates of practical size. At rates as small as 10⁻²⁰ the loss falls in every "
        "step.",
    ),
    Claim(
        "kari-rate-of-ten", "kari2018", "question, edit",
        "With 100 layers a learning rate of 10 is less noisy than smaller ones, and it works.",
        "08_deep_stacks#exercise-2-one-over-the-learning-rate", _jitter_and_loss_at_rate_10,
        (("the median jitter at 10 is below that at 0.4",
          lambda e: np.median(e["jitter at 10, nats"]) < np.median(e["jitter at 0.4, nats"])),
         ("the median loss at 10 ends below that at 0.4",
          lambda e: np.median(e["loss at the end at 10, nats"]) < np.median(e["loss at the end at 0.4, nats"])),
         ("after 300 steps at 10 the loss is below that of a constant prediction, ln 50, in some seed",
          lambda e: e["loss after 300 steps at 10, nats"].min() < math.log(50) - 0.01)),
        quantifier="tendency",
        stand_in="stacks of linear layers and ReLU in place of LSTMs",
    ),
    Claim(
        "kari-stochastic", "kari2018", "title and question",
        "BN adds stochasticity to full-batch descent.",
        "08_deep_stacks#nothing-is-random", _difference_of_equal_runs,
        (("two equal runs in float64 differ at all",
          lambda e: e["largest difference of two equal runs, nats"].max() > 0),),
        quantifier="always",
        note="The loss does fluctuate, but two equal runs fluctuate in the same way.",
    ),
    Claim(
        "kari-numerical", "kari2018", "first answer",
        "The fluctuation of deep stacks with BN is numerical instability, of epsilon perhaps, which adds up over many "
        "small steps.",
        "08_deep_stacks#the-suspects-one-by-one", _jitter_by_precision_and_eps,
        (("in float32 the jitter is more than twice that in float64",
          lambda e: np.median(e["jitter in float32, nats"]) > TIMES * np.median(e["jitter in float64, nats"])),
         ("an epsilon of 0.1 brings the roughness below 2", lambda e: e["roughness with eps 0.1"].max() < ROUGH)),
        quantifier="always",
    ),
    Claim(
        "kari-explosion", "kari2018", "second answer",
        "BN should allow higher learning rates.",
        "08_deep_stacks#the-suspects-one-by-one", _stable_rates,
        (("with eight layers the smallest unstable rate with BN is above the largest stable one without, in every seed",
          lambda e: e["smallest unstable rate, 8 layers, BN"].min()
          > e["largest stable rate, 8 layers, without normalisation"].max()),),
        quantifier="tendency",
        note="With He initialisation. In a stack of 100 layers with BN, no learning rate of practical size is stable.",
    ),
    Claim(
        "kari-explosion-reason", "kari2018", "second answer",
        "BN should allow higher learning rates because it combats the explosion of scales that they cause.",
        "08_deep_stacks#the-suspects-one-by-one",
        quantifier="always",
        untested_because="It would take the scales of the activations during steps at high rates, with BN and without.",
    ),
    Claim(
        "kari-inference", "kari2018", "third answer",
        "The fluctuation comes from the difference between training and inference, where moving averages stand for the "
        "batch.",
        "08_deep_stacks#the-suspects-one-by-one", _roughness_in_train_mode,
        (("the roughness of the training loss, in train mode, is below 2",
          lambda e: e["roughness with BN, never in eval mode"].max() < ROUGH),),
        quantifier="always",
        note="Kari writes that no inference takes place, and that with a full batch there is nothing to average.",
    ),
    Claim(
        "kari-small-batches", "kari2018", "third answer",
        "The smaller the mini-batch, the worse BN gets with depth.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_by_batch_size,
        (("the growth of the gradient falls from batches of 5 to 16 and to 50, in every seed",
          lambda e: e["growth per layer, batch of 5"].min() > e["growth per layer, batch of 16"].max()
          and e["growth per layer, batch of 16"].min() > e["growth per layer, batch of 50"].max()),),
        quantifier="tendency",
        stand_in="the growth of the gradient before training in place of the performance after it",
    ),
    Claim(
        "ioffe-jacobian", "ioffe2015", "section 3.3, a conjecture",
        "BN may lead the layers' Jacobians to have singular values close to 1, which preserves the gradient.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_with_and_without_relu,
        (("with ReLU and BN the gradient changes by less than 5 % per layer before training, in some seed",
          lambda e: e["growth of the gradient per layer, batch norm"].min() < 1.05),),
        quantifier="sometimes",
        note="Batches of 50, 256 units. Without an activation it is nearly so: 1.01.",
    ),
    Claim(
        "yang-growth", "yang2019", "gradient explosion, ReLU",
        "In a wide random ReLU network with BN the gradient grows by a factor per layer that depends only on the batch "
        "size.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_over_theory,
        (("with batches of 50 the median is within 2 % of theory, with 63 and 256 units",
          lambda e: max(abs(np.median(v) - 1) for n, v in e.items() if "of 50" in n) < 0.02),
         ("with batches of 5 within 6 %",
          lambda e: abs(np.median(e["growth over theory, batch of 5, 63 units"]) - 1) < 0.06)),
        quantifier="always",
    ),
    Claim(
        "yang-linear", "yang2019", "gradient explosion",
        "In a random network with BN the gradient grows with every non-linear activation, and least without one.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_by_activation,
        (("with ReLU and tanh it grows by more than 5 % per layer in every seed",
          lambda e: min(e["growth per layer, ReLU"].min(), e["growth per layer, tanh"].min()) > 1.05),
         ("without an activation by less than in both", lambda e: e["growth per layer, linear"].max()
          < min(e["growth per layer, ReLU"].min(), e["growth per layer, tanh"].min()))),
        quantifier="always",
    ),
    Claim(
        "yang-one-step", "yang2019", "figure 3",
        "After one large step the gradients of all layers have similar norms.",
        "08_deep_stacks#exercise-2-one-over-the-learning-rate", _gradient_growth_after_one_step,
        (("before it they grow by more than 1.15 per layer", lambda e: e["growth per layer before"].min() > 1.15),
         ("after it by less than 5 %, up or down",
          lambda e: abs(e["growth per layer after one long step"] - 1).max() < 0.05)),
        quantifier="tendency",
        note="The lengths of the weights hide it: at w/|w| the gradient grows as before.",
    ),
    Claim(
        "yang-depth", "yang2019", "trainable depth",
        "ReLU networks with BN that are much deeper than 50 layers cannot be trained.",
        "08_deep_stacks", _least_loss_by_depth,
        (("100 layers stay above 2 nats for 60 steps at each of six rates, in every seed",
          lambda e: e["least loss over six rates after 60 steps, 100 layers, nats"].min() > 2),
         ("they also stay there for 300 steps at 0.4",
          lambda e: e["least loss in 300 steps at 0.4, 100 layers, nats"].min() > 2),
         ("ten layers get below 0.1", lambda e: e["least loss over six rates after 60 steps, 10 layers, nats"].max()
          < 0.1)),
        quantifier="tendency",
        note="Full-batch descent on 50 samples, without skip connections. Training is slow and noisy, but the loss "
        "still falls.",
    ),
    Claim(
        "cooijmans-gamma", "cooijmans2017", "section 4",
        "With tanh a small gamma at the start, 0.1, helps the gradient on its way.",
        "08_deep_stacks#exercise-1-a-gamma-that-does-nothing", _gradient_growth_with_small_gamma,
        (("in 100 layers the gradient grows by less than 2 % per layer with gamma 0.1",
          lambda e: e["growth per layer, tanh, gamma 0.1"].max() < 1.02),
         ("without, it grows by more than 5 % per layer", lambda e: e["growth per layer, tanh"].min() > 1.05)),
        quantifier="tendency",
        stand_in="feed-forward stacks in place of recurrent networks",
        note="In the recurrent networks of the paper gradients vanish rather than explode.",
    ),
)  # fmt: skip
