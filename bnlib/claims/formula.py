"""Claims about the layer itself and about learning rates, tested in chapter 1."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch.nn import functional as F

from bnlib import datasets
from bnlib.claims.claim import Claim, Effects, Results, effects_with, final_values
from bnlib.claims.thresholds import EXACT, FAILS, WORKS
from bnlib.experiments.formula import sigmoid_networks
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _skewness_by_batch_size(results: Results) -> Effects:
    """Return the skewness of lognormal values before BN, and behind it in batches of 2 and in one of all."""

    def skewness(x):
        return (((x - x.mean()) / x.std(unbiased=False)) ** 3).mean().item()

    found: dict[str, list[float]] = {}
    for seed in range(5):
        values = torch.randn(1000, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()
        layer = BatchNorm(1, eps=1e-30, dtype=torch.float64)
        with torch.no_grad():
            pairs = torch.cat([layer(pair) for pair in values.split(2)])
            measured = {"before BN": values, "BN in one batch of 1000": layer(values), "BN in batches of 2": pairs}
        for name, each in measured.items():
            found.setdefault(f"skewness, {name}", []).append(skewness(each))
    return {name: np.array(each) for name, each in found.items()}


def _largest_working_learning_rates(results: Results) -> Effects:
    """Return for each seed the largest learning rate at batch size 32 that works with one of two initialisations."""
    found = {}
    for norm in ("batch norm", "without normalisation"):
        rates = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
        working = [
            np.where(100 * final_values(results(experiment, norm, 32, lr), "test_error") <= WORKS, lr, 0)
            for experiment in ("formula.training_curves", "formula.he_initialisation")
            for lr in rates
        ]
        found[f"largest learning rate with a test error of {WORKS:g} % or less, {norm}"] = np.max(working, 0)
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
    """Return the test errors of networks of sigmoid units, each at its best learning rate and initialisation."""
    found: Effects = {}
    for depth, norm in itertools.product(sigmoid_networks.DEPTHS, sigmoid_networks.NORMS):
        settings = itertools.product(sigmoid_networks.INITS, sigmoid_networks.LEARNING_RATES)
        errors = [
            100 * results("formula.sigmoid_networks", depth, init, norm, lr)["test_error"] for init, lr in settings
        ]
        found[f"test error, {depth} sigmoid layers, {norm}, %"] = min(errors, key=np.median)
    return found


def _working_rates_and_stuck_runs(results: Results) -> Effects:
    """Return what becomes of a network at all learning rates, by seed, with PyTorch's default initialisation."""
    found: Effects = {}
    for norm in ("batch norm", "without normalisation"):
        errors = {
            lr: 100 * final_values(results("formula.training_curves", norm, 32, lr), "test_error")
            for lr in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
        }
        found[f"learning rates of seven with an error of 6 % or less, {norm}"] = sum(
            each <= WORKS for each in errors.values()
        )
        found |= {f"test error, rate {lr:g}, {norm}, %": each for lr, each in errors.items()}
    return found


def _rates_beyond_plain(e: Effects) -> list[np.ndarray]:
    """Return the errors with BN at the rates at which its median works and that without normalisation does not."""
    pairs = [(e[name], e[name.replace("batch norm", "without normalisation")])
             for name in e if name.startswith("test error") and "batch norm" in name]  # fmt: skip
    return [bn for bn, plain in pairs if np.median(bn) <= WORKS < np.median(plain)]


def _stuck_runs_by_batch_size(results: Results) -> Effects:
    found: Effects = {}
    for b in (1, 2, 4, 8, 32):
        rows = [results("formula.training_curves", "batch norm", b, lr) for lr in (0.01, 0.03, 0.1, 0.3, 1.0)]
        errors = [100 * final_values(row, "test_error") for row in rows]
        found[f"test error at the best rate, batches of {b}, %"] = min(errors, key=np.median)
    return found


CLAIMS = (
    Claim(
        "failing-distribution", "failing2025", "placement",
        "Normalising before a non-linearity can destroy the distribution of the values.",
        "01_the_formula#scale-and-shift", _skewness_by_batch_size,
        (("BN of one batch of 1,000 values changes the skewness of a channel by more than 1 %",
          lambda e: (abs(e["skewness, BN in one batch of 1000"] / e["skewness, before BN"] - 1) > 0.01).all()),
         ("BN in batches of 2 leaves less than 1 % of the skewness",
          lambda e: (abs(e["skewness, BN in batches of 2"] / e["skewness, before BN"]) < 0.01).all())),
        quantifier="sometimes",
        note="Within a channel, BN applies one shift and one scale to the whole batch, which destroys nothing in a "
        "large batch. In batches of 2, every value becomes 1 or -1.",
    ),
    Claim(
        "ioffe-rates", "ioffe2015", "abstract and section 3.3",
        "BN allows much higher learning rates.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate", _largest_working_learning_rates,
        (("with batches of 32 digits, the median of the largest learning rate with a test error of 6 % or less is at "
          "least ten times as large with BN as without",
          lambda e: np.median(e[f"largest learning rate with a test error of {WORKS:g} % or less, batch norm"])
          >= 10 * np.median(e[f"largest learning rate with a test error of {WORKS:g} % or less, without normalisation"])
          > 0),),
        quantifier="tendency",
        note="Each network has the better of two initialisations, PyTorch's default and He initialisation.",
    ),
    Claim(
        "ioffe-scale", "ioffe2015", "section 3.3",
        "The scale of the weights before BN does not change the output, and larger weights have smaller gradients.",
        "01_the_formula#backward-down-to-one-line", _effect_of_weight_scale,
        (("with weights ten times as large, the loss changes by less than 10⁻⁹",
          lambda e: e["change of the loss when the weights are multiplied by 10"].max() < EXACT),
         ("with weights ten times as large, the gradient norm is one tenth, to within 10⁻⁶",
          lambda e: abs(e["gradient norm before / gradient norm after"] - 10).max() < 1e-5)),
        exact_because="both are identities, true of all weights and inputs",
        quantifier="always",
    ),
    Claim(
        "ioffe-saturating", "ioffe2015", "abstract",
        "BN makes it possible to train networks with saturating non-linearities.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate", _sigmoid_network_errors,
        (("with BN, networks of three and of six sigmoid layers have a median test error of at most 6 % after ten "
          "epochs",
          lambda e: all(np.median(e[f"test error, {depth} sigmoid layers, batch norm, %"]) <= WORKS
                        for depth in sigmoid_networks.DEPTHS)),
         ("without normalisation, both networks have a median test error above 50 %",
          lambda e: all(np.median(e[f"test error, {depth} sigmoid layers, without normalisation, %"]) > FAILS
                        for depth in sigmoid_networks.DEPTHS))),
        quantifier="tendency",
        note="Each network has the best of six learning rates and two initialisations, PyTorch's default and "
        "Xavier's. Without normalisation, three layers reach 47 %.",
    ),
    Claim(
        "ioffe-inception", "ioffe2015", "section 4.2",
        "With BN, an Inception network reaches the same accuracy on ImageNet in 14 times fewer steps.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate",
        quantifier="tendency",
        untestable_because="Training on ImageNet needs more computing power than any experiment of this book can have.",
    ),
    Claim(
        "kariya-trapped", "kariya2018", "back to the original question",
        "With BN, one can take larger steps without the risk of getting trapped in a local minimum or on a plateau.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate", _working_rates_and_stuck_runs,
        (("at the learning rates at which the median run works with BN and not without, no run with BN is stuck (test "
          "error above 50 %)",
          lambda e: bool(_rates_beyond_plain(e)) and max(v.max() for v in _rates_beyond_plain(e)) < FAILS),),
        quantifier="always",
        note="A run works if its test error is at most 6 %. We count every run above 50 % as stuck, whatever the "
        "cause. At a learning rate of 10, all runs are stuck, with and without BN.",
    ),
    Claim(
        "kariya-less-sensitive", "kariya2018", "back to the original question",
        "With BN, training is less sensitive to the choice of hyperparameters.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate",
        effects_with(_working_rates_and_stuck_runs, "learning rates of seven"),
        (("with batches of 32 digits, more of seven learning rates lead to a test error of 6 % or less with BN than "
          "without, for every seed",
          lambda e: (e["learning rates of seven with an error of 6 % or less, batch norm"]
                     > e["learning rates of seven with an error of 6 % or less, without normalisation"]).all()),),
        quantifier="tendency",
        note="We varied the learning rate only, with PyTorch's default initialisation.",
    ),
    Claim(
        "failing-poor-minima", "failing2025", "small batch sizes",
        "The noisy statistics of small batches can make a network with BN get stuck in a poor local minimum or fail "
        "to learn.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate", _stuck_runs_by_batch_size,
        tuple((f"with batches of {b} digits, some run with BN has a test error above 50 % at its best learning rate",
               lambda e, b=b: e[f"test error at the best rate, batches of {b}, %"].max() > FAILS)
              for b in (2, 4, 8)),
        quantifier="sometimes",
        note="No run with batches of 2 or more fails. With batches of one sample, the layers after BN learn nothing "
        "about the inputs, but not because of noise: the output of BN is beta for every input.",
    ),
)  # fmt: skip
