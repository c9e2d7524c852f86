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
        "roughness without normalisation": roughness(_descent(results, "without normalisation", 1e-4)),
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
    return {"largest difference between two runs from one seed, nats": np.array(found)}


def _jitter_by_precision_and_eps(results: Results) -> Effects:
    names = {"float64": "batch norm", "float32": "float32"}
    found = {f"jitter in {kind}, nats": jitter(_descent(results, name, 1e-4)) for kind, name in names.items()}
    return found | {"roughness with eps 0.1": roughness(_descent(results, "eps 0.1", 1e-4))}


def _stable_rates(results: Results) -> Effects:
    bn, plain = (stable_rate_borders(results, "He", norm, 8) for norm in ("batch norm", "without normalisation"))
    return {
        "smallest unstable learning rate, 8 layers, BN": bn["first_unstable"],
        "largest stable learning rate, 8 layers, without normalisation": plain["last_stable"],
    }


def _roughness_in_train_mode(results: Results) -> Effects:
    return {"roughness of the training loss in train mode": roughness(_descent(results, "batch norm", 1e-4))}


def _gradient_growth_by_batch_size(results: Results) -> Effects:
    return {
        f"growth per layer, batch of {n}": results("depth.gradient_growth", "batch norm", n, 63)["growth"][:, 0]
        for n in (5, 16, 50)
    }


def _gradient_growth_with_and_without_relu(results: Results) -> Effects:
    return {
        f"growth per layer, {title}": results("depth.gradient_growth", name, 50, 256)["growth"][:, 0]
        for title, name in (("BN and ReLU", "batch norm"), ("BN, no activation", "linear"))
    }


def _gradient_growth_over_theory(results: Results) -> Effects:
    found: Effects = {}
    for n, width in ((5, 63), (50, 63), (50, 256)):
        measured = results("depth.gradient_growth", "batch norm", n, width)["growth"][:, 0]
        name = f"growth per layer over theory, batch of {n}, {width} units"
        found[name] = measured / gradient_growth.theory("batch norm", n)
    return found


def _gradient_growth_by_activation(results: Results) -> Effects:
    names = {"ReLU": "batch norm", "tanh": "tanh", "no activation": "linear"}
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
        found[f"lowest loss after 60 steps at six learning rates, {depth} layers, nats"] = np.min(ends, axis=0)
    found["lowest loss in 300 steps at 0.4, 100 layers, nats"] = results("depth.longer_descent", 0.4)["lowest_loss"]
    return found


def _gradient_growth_with_small_gamma(results: Results) -> Effects:
    return {
        f"growth per layer, {name}": results("depth.gradient_growth", name, 50, 63)["growth"][:, 0]
        for name in ("tanh", "tanh, gamma 0.1")
    }


CLAIMS = (
    Claim(
        "kari-noise", "kari2018", "question",
        "With full-batch gradient descent, the error of a stack of 100 layers fluctuates with BN and falls steadily "
        "without BN.",
        "08_deep_stacks", _roughness_with_and_without_bn,
        (("with BN, the total movement of the loss is more than twice its net change (roughness above 2) for every "
          "seed", lambda e: e["roughness with BN"].min() > ROUGH),
         ("without normalisation, the roughness is below 1.2 for every seed",
          lambda e: e["roughness without normalisation"].max() < CALM)),
        quantifier="tendency",
        note="The learning rate is 0.0001.",
        stand_in="stacks of fully connected layers with ReLU in place of LSTMs",
    ),
    Claim(
        "kari-ten-layers", "kari2018", "question",
        "With BN, about ten layers can be stacked before the fluctuation of the loss becomes hard to control.",
        "08_deep_stacks", _roughness_by_depth,
        (("with 10 layers, the total movement of the loss is less than 1.2 times its net change (roughness below 1.2) "
          "for every seed", lambda e: e["roughness, 10 layers"].max() < CALM),
         ("with 40 layers, the roughness is above 10 for every seed", lambda e: e["roughness, 40 layers"].min() > 10)),
        quantifier="tendency",
        stand_in="stacks of fully connected layers with ReLU in place of LSTMs",
    ),
    Claim(
        "kari-smaller-rate", "kari2018", "question",
        "In deep stacks with BN, a smaller learning rate makes the relative fluctuation larger: 0.0001 is worse than "
        "0.4.",
        "08_deep_stacks#nothing-is-random", _roughness_by_learning_rate,
        (("with 100 layers, the median roughness (total movement of the loss over its net change) at 0.0001 is more "
          "than three times that at 0.4",
          lambda e: np.median(e["roughness at 0.0001"]) > 3 * np.median(e["roughness at 0.4"])),),
        quantifier="tendency",
        stand_in="stacks of fully connected layers with ReLU in place of LSTMs",
        note="This holds for learning rates of practical size. At 10⁻²⁰, the loss falls in every "
        "step.",
    ),
    Claim(
        "kari-rate-of-ten", "kari2018", "question, edit",
        "With 100 layers and BN, training at a learning rate of 10 works and is less noisy than at smaller rates.",
        "08_deep_stacks#exercise-2-one-over-the-learning-rate", _jitter_and_loss_at_rate_10,
        (("the median jitter (mean change of the loss per step in the second half of the run) is smaller at 10 than "
          "at 0.4",
          lambda e: np.median(e["jitter at 10, nats"]) < np.median(e["jitter at 0.4, nats"])),
         ("the median final loss is lower at 10 than at 0.4",
          lambda e: np.median(e["loss at the end at 10, nats"]) < np.median(e["loss at the end at 0.4, nats"])),
         ("after 300 steps at 10, the loss is below ln 50, the loss of a constant prediction, for some seed",
          lambda e: e["loss after 300 steps at 10, nats"].min() < math.log(50) - 0.01)),
        quantifier="tendency",
        stand_in="stacks of fully connected layers with ReLU in place of LSTMs",
    ),
    Claim(
        "kari-stochastic", "kari2018", "title and question",
        "BN adds stochasticity to full-batch gradient descent.",
        "08_deep_stacks#nothing-is-random", _difference_of_equal_runs,
        (("two runs from the same seed differ in float64",
          lambda e: e["largest difference between two runs from one seed, nats"].max() > 0),),
        quantifier="always",
        note="With 100 layers, the loss does fluctuate, but two runs from the same seed fluctuate in exactly the same "
        "way.",
    ),
    Claim(
        "kari-numerical", "kari2018", "first answer",
        "The loss of deep stacks with BN fluctuates because of numerical instability, perhaps because of epsilon, "
        "which adds up over many small steps.",
        "08_deep_stacks#the-suspects-one-by-one", _jitter_by_precision_and_eps,
        (("the median jitter (mean change of the loss per step) in float32 is more than twice that in float64",
          lambda e: np.median(e["jitter in float32, nats"]) > TIMES * np.median(e["jitter in float64, nats"])),
         ("with an epsilon of 0.1, the total movement of the loss is less than twice its net change (roughness below "
          "2) for every seed", lambda e: e["roughness with eps 0.1"].max() < ROUGH)),
        quantifier="always",
    ),
    Claim(
        "kari-explosion", "kari2018", "second answer",
        "BN should allow higher learning rates.",
        "08_deep_stacks#the-suspects-one-by-one", _stable_rates,
        (("with eight hidden layers, the smallest unstable learning rate with BN is above the largest stable one "
          "without BN, for every seed",
          lambda e: e["smallest unstable learning rate, 8 layers, BN"].min()
          > e["largest stable learning rate, 8 layers, without normalisation"].max()),),
        quantifier="tendency",
        note="Tested with He initialisation. In a stack of 100 layers with BN, no learning rate of practical size is "
        "stable.",
    ),
    Claim(
        "kari-explosion-reason", "kari2018", "second answer",
        "BN should allow higher learning rates because it counteracts the explosion of scales that such rates cause.",
        "08_deep_stacks#the-suspects-one-by-one",
        quantifier="always",
        untested_because="A test would have to measure the scales of the activations during steps at high learning "
        "rates, with and without BN.",
    ),
    Claim(
        "kari-inference", "kari2018", "third answer",
        "The loss of deep stacks with BN fluctuates because of the difference between training and inference, where "
        "moving averages replace the batch statistics.",
        "08_deep_stacks#the-suspects-one-by-one", _roughness_in_train_mode,
        (("in the training loss, which is measured in train mode, the total movement is less than twice its net "
          "change (roughness below 2) for every seed",
          lambda e: e["roughness of the training loss in train mode"].max() < ROUGH),),
        quantifier="always",
        note="Kari writes that there is no inference in the experiment, and nothing to average in a full batch.",
    ),
    Claim(
        "kari-small-batches", "kari2018", "third answer",
        "The smaller the mini-batch, the worse BN performs as the depth grows.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_by_batch_size,
        (("the growth of the gradient per layer falls from batches of 5 to batches of 16, and further to batches of "
          "50, for every seed",
          lambda e: e["growth per layer, batch of 5"].min() > e["growth per layer, batch of 16"].max()
          and e["growth per layer, batch of 16"].min() > e["growth per layer, batch of 50"].max()),),
        quantifier="tendency",
        stand_in="the growth of the gradient before training in place of the performance after training",
    ),
    Claim(
        "ioffe-jacobian", "ioffe2015", "section 3.3, a conjecture",
        "BN may lead the Jacobians of the layers to have singular values close to 1, which preserves the gradient.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_with_and_without_relu,
        (("with ReLU and BN, the gradient grows by less than 5 % per layer before training, for some seed",
          lambda e: e["growth per layer, BN and ReLU"].min() < 1.05),),
        quantifier="sometimes",
        note="Tested with batches of 50 and 256 units per layer. Without an activation, the gradient grows by only 1 "
        "% per layer.",
    ),
    Claim(
        "yang-growth", "yang2019", "gradient explosion, ReLU",
        "In a wide random ReLU network with BN, the gradient grows by a factor per layer that depends only on the "
        "batch size.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_over_theory,
        (("with batches of 50, the median factor is within 2 % of the theory, with 63 and with 256 units per layer",
          lambda e: max(abs(np.median(v) - 1) for n, v in e.items() if "of 50" in n) < 0.02),
         ("with batches of 5 and 63 units per layer, the median factor is within 6 % of the theory",
          lambda e: abs(np.median(e["growth per layer over theory, batch of 5, 63 units"]) - 1) < 0.06)),
        quantifier="always",
    ),
    Claim(
        "yang-linear", "yang2019", "gradient explosion",
        "In a random network with BN, the gradient grows from layer to layer with every non-linear activation, and "
        "grows least without one.",
        "08_deep_stacks#why-the-gradient-grows", _gradient_growth_by_activation,
        (("with ReLU and with tanh, the gradient grows by more than 5 % per layer, for every seed",
          lambda e: min(e["growth per layer, ReLU"].min(), e["growth per layer, tanh"].min()) > 1.05),
         ("without an activation, the gradient grows less than with ReLU and with tanh",
          lambda e: e["growth per layer, no activation"].max()
          < min(e["growth per layer, ReLU"].min(), e["growth per layer, tanh"].min()))),
        quantifier="always",
    ),
    Claim(
        "yang-one-step", "yang2019", "figure 3",
        "After one large step, the gradients of all layers of a deep random network with BN have similar norms.",
        "08_deep_stacks#exercise-2-one-over-the-learning-rate", _gradient_growth_after_one_step,
        (("before the step, the gradient grows by more than 15 % per layer",
          lambda e: e["growth per layer before"].min() > 1.15),
         ("after the step, the gradient changes by less than 5 % per layer, up or down",
          lambda e: abs(e["growth per layer after one long step"] - 1).max() < 0.05)),
        quantifier="tendency",
        note="The norms of the weights hide the growth: at w/|w|, the gradient grows per layer as before the step.",
    ),
    Claim(
        "yang-depth", "yang2019", "trainable depth",
        "ReLU networks with BN that are much deeper than 50 layers cannot be trained.",
        "08_deep_stacks", _least_loss_by_depth,
        (("with 100 layers, the loss after 60 steps is above 2 nats at each of six learning rates, for every seed",
          lambda e: e["lowest loss after 60 steps at six learning rates, 100 layers, nats"].min() > 2),
         ("with 100 layers, the loss also stays above 2 nats for 300 steps at a learning rate of 0.4",
          lambda e: e["lowest loss in 300 steps at 0.4, 100 layers, nats"].min() > 2),
         ("with ten layers, the loss falls below 0.1 nats",
          lambda e: e["lowest loss after 60 steps at six learning rates, 10 layers, nats"].max()
          < 0.1)),
        quantifier="tendency",
        note="Tested with full-batch descent on 50 samples, without skip connections. With 100 layers, training is "
        "slow and noisy, but the loss still falls.",
    ),
    Claim(
        "cooijmans-gamma", "cooijmans2017", "section 4",
        "In networks with tanh and BN, a small initial gamma such as 0.1 helps the gradient to pass through the "
        "layers.",
        "08_deep_stacks#exercise-1-a-gamma-that-does-nothing", _gradient_growth_with_small_gamma,
        (("with 100 layers, tanh and gamma 0.1, the gradient grows by less than 2 % per layer",
          lambda e: e["growth per layer, tanh, gamma 0.1"].max() < 1.02),
         ("with 100 layers, tanh and gamma 1, the gradient grows by more than 5 % per layer",
          lambda e: e["growth per layer, tanh"].min() > 1.05)),
        quantifier="tendency",
        stand_in="feed-forward stacks in place of recurrent networks",
        note="In the recurrent networks of the paper, gradients vanish rather than explode.",
    ),
)  # fmt: skip
