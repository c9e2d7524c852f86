"""Test the claims of chapter 4, the objective that training with BN minimises."""

from __future__ import annotations

import math

import numpy as np
import torch

from bnlib import datasets, objective
from bnlib.claims.claim import Claim, Effects, Results, effects_with, final_values
from bnlib.claims.thresholds import COMPARABLE, EXACT, FAR
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _best_weight_by_batch_size(results: Results) -> Effects:
    x, y = torch.tensor([[0.0, 1.0, 3.0, 7.0], [0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    return {f"best weight of a regression on four samples, batches of {b}": _best_weight(x, y, b) for b in (2, 3, 4)}


def _best_weight(x: torch.Tensor, y: torch.Tensor, batch_size: int) -> float:
    """Return equation (4.6) of the book: the weight that minimises the objective over all subsets of a size."""
    batches = objective.all_batches(len(x), batch_size)
    inputs, targets = x[batches], y[batches]
    hat = (inputs - inputs.mean(1, keepdim=True)) / inputs.std(1, correction=0, keepdim=True)
    return (hat * targets).mean(1).mean().item()


def _eight_samples(seed: int) -> torch.Tensor:
    """Return eight inputs and noisy targets, (2, 8)."""
    x, noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack((x, x + 0.5 * noise))


def _weights_by_batch_size_and_errors(results: Results) -> Effects:
    """Return the best weight of a regression behind BN, for all subsets of eight samples, and test errors on digits."""
    found: Effects = {}
    for b in (2, 3, 4, 8):
        found[f"best weight, batches of {b}"] = np.array([_best_weight(*_eight_samples(seed), b) for seed in range(5)])
    for norm in ("batch norm", "without normalisation"):
        rows = [results("formula.he_initialisation", norm, 32, lr) for lr in (0.01, 0.03, 0.1, 0.3, 1.0)]
        errors = [100 * final_values(row, "test_error") for row in rows]
        found[f"test error at the best rate, {norm}, %"] = min(errors, key=np.median)
    return found


def _condition_numbers(results: Results) -> Effects:
    """Return for a linear model the condition number of the Hessian with normalised inputs over that without.

    The Hessian of the mean squared error is that of the inputs' products, with a bias. Digits are those of 500 random
    pictures each, without the pixels that are constant in them. A condition number is that of the directions in which
    the error is not flat: in one draw of the digits two pixels vary together.
    """

    def condition_number(x: np.ndarray) -> float:
        inputs = np.column_stack((x, np.ones(len(x))))
        values = np.linalg.svd(inputs, compute_uv=False)
        return (values[0] / values[np.linalg.matrix_rank(inputs) - 1]) ** 2

    found: dict[str, list[float]] = {}
    for seed in range(5):
        draw = np.random.default_rng(seed)
        digits = datasets.load("digits").train_x.flatten(1).double().numpy()[draw.permutation(1437)[:500]]
        mixing = np.eye(10) + 0.3 * draw.standard_normal((10, 10))
        equal = draw.standard_normal((500, 10)) @ mixing / np.sqrt((mixing**2).sum(0))
        for name, x in (
            ("digits", digits[:, digits.std(0) > 0]),
            ("inputs of different scales and means", draw.normal(3, 10.0 ** draw.uniform(-1, 1, 10), (500, 10))),
            ("correlated inputs of different scales", equal * 10.0 ** draw.uniform(-1, 1, 10)),
            ("correlated inputs of equal scale", equal),
        ):
            ratio = condition_number((x - x.mean(0)) / x.std(0)) / condition_number(x)
            found.setdefault(f"condition number with BN over without, {name}", []).append(ratio)
    return {name: np.array(each) for name, each in found.items()}


def _absorption_error(results: Results) -> Effects:
    net = mlp((5, 8, 8, 3), BatchNorm, seed=0).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, BatchNorm):
                layer.weight.uniform_(0.5, 2, generator=generator)
                layer.bias.normal_(generator=generator)
        plain = objective.absorb_batch_norm(net, x)
        return {"largest difference of outputs, full batch": (net(x) - plain(x)).abs().max().item()}


def _accuracy_in_own_and_new_batches(results: Results) -> Effects:
    found: Effects = {}
    for norm in ("batch norm", "without normalisation"):
        row = results("objective.objective_and_evaluation", "random", "fixed", 16, norm)
        for name, evaluation in (("in fixed batches", "objective"), ("in reshuffled batches", "reshuffled")):
            found[f"random labels predicted {name}, {norm}, %"] = 100 * (1 - row[evaluation][:, 1])
    return found


def _errors_in_one_label_batches(results: Results) -> Effects:
    found = {}
    for name, evaluation in (("in train mode", "objective"), ("in eval mode", "evaluation")):
        found[f"errors {name}, one label, batches of 64, %"] = (
            100 * results("objective.objective_and_evaluation", "true", "one label", 64, "batch norm")[evaluation][:, 1]
        )
    return found


def _figure_1_losses(results: Results) -> Effects:
    row = results("objective.lian_figure_1", "BN, algorithm 1")
    return {
        "initial training loss, nats": row["train_loss"][:, 0],
        "final training loss, nats": final_values(row, "train_loss"),
        "final over initial test loss": final_values(row, "test_loss") / row["test_loss"][:, 0],
    }


def _figure_2_errors(results: Results) -> Effects:
    return {
        f"test error with BN, batches of {b}, learning rate {lr}, %": 100
        * final_values(results("objective.lian_figure_2", "BN", b, lr), "test_error")
        for lr in (0.01, 0.1)
        for b in (2, 128)
    }


def _figure_3_errors(results: Results) -> Effects:
    rows = {
        "BN first": results("objective.lian_figure_3", "BN", 0.1),
        "BN last": results("objective.lian_figure_3_norm_last", 0.1),
        "without normalisation": results("objective.lian_figure_3", "without normalisation", 0.1),
    }
    return {
        f"{curve.replace('_', ' ')}, {name}, %": 100 * final_values(row, curve)
        for name, row in rows.items()
        for curve in ("train_error", "test_error")
    }


def _larger_error_than_without(e: Effects, name: str) -> bool:
    """Whether the test error with BN is above that without, and not comparable with it."""
    return np.median(e[f"test error, {name}, %"]) > np.median(e["test error, without normalisation, %"]) + COMPARABLE


def _errors_in_unshuffled_batches(results: Results) -> Effects:
    return {
        f"test error, {construction}, batches of {b}, {norm}, %": 100
        * results("objective.objective_and_evaluation", "true", construction, b, norm)["test"][:, 1]
        for b in (16, 64)
        for construction in ("shuffled", "one label")
        for norm in ("batch norm", "without normalisation")
    }


def _cost_of_one_label(e: Effects, b: int, norm: str) -> float:
    one, shuffled = (e[f"test error, {kind}, batches of {b}, {norm}, %"] for kind in ("one label", "shuffled"))
    return float(np.median(one) - np.median(shuffled))


CLAIMS = (
    Claim(
        "lian-objective", "lian2019", "section 4",
        "Training with BN minimises an objective of its own, which differs from batch size to batch size.",
        "04_the_objective#two-operators-two-objectives", _best_weight_by_batch_size,
        (("in a regression on four samples, the best weight differs between batches of 2, 3 and 4 by more than 0.01",
          lambda e: np.diff(np.concatenate(list(e.values()))).min() > 0.01),),
        quantifier="always",
        exact_because="all batches are enumerated",
    ),
    Claim(
        "lian-absorb", "lian2019", "section 4, objectives (3) and (5)",
        "Full-batch BN does not reduce what a network can express: its statistics can be absorbed into the weights.",
        "04_the_objective#what-the-full-batch-can-reach", _absorption_error,
        (("with the statistics absorbed into its weights, a network without BN has the same outputs to within 10⁻⁹",
          lambda e: e["largest difference of outputs, full batch"].max() < EXACT),),
        quantifier="always",
        exact_because="it is an identity, true of all weights and inputs",
        note="This needs a bias, or gamma and beta. Without them, a network of linear layers, BN and ReLU can express "
        "less.",
    ),
    Claim(
        "lian-companies", "lian2019", "introduction",
        "A network with BN can overfit predefined batches.",
        "04_the_objective#objective-and-evaluation", _accuracy_in_own_and_new_batches,
        (("with BN, more than 90 % of random labels are predicted in the fixed training batches and fewer than half "
          "in reshuffled batches, for every seed, while reshuffling costs less than 2 points without BN",
          lambda e: e["random labels predicted in fixed batches, batch norm, %"].min() > 90
          and e["random labels predicted in reshuffled batches, batch norm, %"].max() < 50
          and np.median(e["random labels predicted in fixed batches, without normalisation, %"])
          - np.median(e["random labels predicted in reshuffled batches, without normalisation, %"]) < COMPARABLE),),
        quantifier="sometimes",
    ),
    Claim(
        "lian-trust", "lian2019", "introduction",
        "BN is not always reliable, for example if the batches are not drawn at random.",
        "04_the_objective#objective-and-evaluation", _errors_in_one_label_batches,
        (("with BN and batches of one label, the error is below 20 % in train mode and above 70 % in eval mode, for "
          "every seed",
          lambda e: e["errors in train mode, one label, batches of 64, %"].max() < 20
          and e["errors in eval mode, one label, batches of 64, %"].min() > 70),),
        quantifier="sometimes",
    ),
    Claim(
        "lian-converges", "lian2019", "introduction",
        "Training with BN always converges.",
        "04_the_objective#what-the-objective-does-not-say",
        quantifier="always",
        untestable_because="The paper neither proves this nor says for which learning rates it holds. At too large a "
        "learning rate, every network diverges, and no finite run can show that training converges at falling ones.",
    ),
    Claim(
        "lian-conditioned", "lian2019", "section 4",
        "In general, normalisation reduces the condition number of the objective.",
        "04_the_objective#what-the-full-batch-can-reach", _condition_numbers,
        tuple(("BN in front of a linear model with squared errors makes the condition number smaller for every seed: "
               f"{kind}", lambda e, k=kind: (e[f"condition number with BN over without, {k}"] < 1).all())
              for kind in ("digits", "inputs of different scales and means", "correlated inputs of different scales",
                           "correlated inputs of equal scale")),
        quantifier="tendency",
        note="Tested on linear models only; inputs of equal scale gain nothing. In deeper networks with BN, the "
        "objective has flat directions and so no condition number, because weights before BN have no scale.",
    ),
    Claim(
        "lian-figure-1", "lian2019", "figure 1",
        "If a network with BN is trained on three samples with batches of one sample, the test loss rises.",
        "04_the_objective#batches-of-one-sample", effects_with(_figure_1_losses, "test loss"),
        (("the median ratio of the final to the initial test loss is above 1",
          lambda e: np.median(e["final over initial test loss"]) > 1),),
        quantifier="tendency",
        scale="paper",
        note="Tested with the running variance of the paper's Algorithm 1 and a learning rate of 0.1. For some seeds, "
        "the test loss ends below its start.",
    ),
    Claim(
        "lian-figure-1-train", "lian2019", "figure 1",
        "If a network with BN is trained on three samples with batches of one sample, the training loss decreases.",
        "04_the_objective#batches-of-one-sample", effects_with(_figure_1_losses, "training loss"),
        (("the median training loss is lower at the end than at the start",
          lambda e: np.median(e["final training loss, nats"])
          < np.median(e["initial training loss, nats"])),),
        quantifier="tendency",
        scale="paper",
        note="Whether the loss starts above or below ln 3, the loss of predicting the class frequencies, it ends a "
        "little above ln 3.",
    ),
    Claim(
        "lian-figure-1-overfits", "lian2019", "introduction, on figure 1",
        "A network with BN overfits if the batch size is 1.",
        "04_the_objective#batches-of-one-sample", effects_with(_figure_1_losses, "final training loss"),
        (("the median training loss falls below ln 3 - 0.1, which is impossible without using the inputs",
          lambda e: np.median(e["final training loss, nats"]) < math.log(3) - 0.1),),
        quantifier="tendency",
        scale="paper",
        note="For every single sample, the output of a BN layer is beta, so the layers after it can learn only the "
        "class frequencies. The paper calls this overfitting, but the network has learned nothing about its samples.",
    ),
    Claim(
        "lian-figure-2", "lian2019", "figure 2",
        "With BN, the test error is larger the smaller the batches are.",
        "04_the_objective#batch-sizes-on-digits", _figure_2_errors,
        tuple((f"at a learning rate of {lr}, the median test error with batches of 2 is more than 2 points above that "
               "with batches of 128",
               lambda e, r=lr: np.median(e[f"test error with BN, batches of 2, learning rate {r}, %"])
               > np.median(e[f"test error with BN, batches of 128, learning rate {r}, %"]) + COMPARABLE)
              for lr in (0.01, 0.1)),
        quantifier="tendency",
        stand_in="a small convolutional network on digits in place of ResNet-18 on CIFAR-10",
    ),
    Claim(
        "lian-figure-3", "lian2019", "figure 3",
        "If BN is added to a logistic regression on data of large variation, training no longer converges.",
        "04_the_objective#what-a-batch-hides", effects_with(_figure_3_errors, "train error"),
        tuple((f"with BN {where} the linear layer, the median training error stays above 10 %",
               lambda e, n=name: np.median(e[f"train error, {n}, %"]) > 10)
              for name, where in (("BN first", "before"), ("BN last", "after"))),
        quantifier="tendency",
        scale="paper",
        note="Tested at the size of the paper. There, BN is before the linear layer in equation (1), and after it in "
        "figure 1.",
    ),
    Claim(
        "lian-figure-3-easy", "lian2019", "figure 3",
        "A logistic regression without BN classifies the data set of large variation easily.",
        "04_the_objective#what-a-batch-hides", effects_with(_figure_3_errors, "test error, without"),
        (("without BN, the median test error is below 15 %, while chance gives 99.9 % with 1,000 classes",
          lambda e: np.median(e["test error, without normalisation, %"]) < 15),),
        quantifier="tendency",
        scale="paper",
        note="The amplitudes are between 0 and 50, and the noise has a variance of 1, so a sample with a small "
        "amplitude cannot be recognised.",
    ),
    Claim(
        "lian-figure-3-fails", "lian2019", "introduction, on figure 3",
        "BN fails on data of large variation: a logistic regression with BN makes more errors on new samples than one "
        "without BN.",
        "04_the_objective#what-a-batch-hides", effects_with(_figure_3_errors, "test error"),
        tuple((f"with BN {where} the linear layer, the median test error is more than 2 points above that without BN",
               lambda e, n=name: _larger_error_than_without(e, n))
              for name, where in (("BN first", "before"), ("BN last", "after"))),
        quantifier="tendency",
        scale="paper",
        note="Tested at the size of the paper. The result depends on the placement of BN, which the paper does not "
        "state, and on the numbers of classes and samples.",
    ),
    Claim(
        "ioffe-regularises", "ioffe2015", "abstract and section 3.4",
        "BN regularises a network.",
        "04_the_objective#look-at-it", _weights_by_batch_size_and_errors,
        (("in each of five regressions, the best weight is smaller the smaller the batches are",
          lambda e: np.diff([v for n, v in e.items() if "best weight" in n], axis=0).min() > 0),
         ("on digits, the median test error with BN is more than 2 points below that without, at the best learning "
          "rate of each",
          lambda e: np.median(e["test error at the best rate, without normalisation, %"])
          > np.median(e["test error at the best rate, batch norm, %"]) + COMPARABLE)),
        quantifier="tendency",
        note="The first condition is exact because all batches are enumerated. On digits, we use batches of 32 and He "
        "initialisation.",
    ),
    Claim(
        "ioffe-dropout", "ioffe2015", "abstract and section 3.4",
        "In some cases, BN makes dropout unnecessary.",
        "04_the_objective#look-at-it",
        quantifier="sometimes",
        untested_because="The book does not train with dropout. A test would need a network that overfits, with "
        "dropout, with BN, and with both.",
    ),
    Claim(
        "irpan-unshuffled", "irpan2017", "after the third story",
        "Forgetting to shuffle the data is especially bad with BN.",
        "04_the_objective#objective-and-evaluation", _errors_in_unshuffled_batches,
        tuple((f"with batches of {b} of one label in place of shuffled ones, the median test error on digits rises by "
               "over 5 points more with BN than without BN", lambda e, b=b: _cost_of_one_label(e, b, "batch norm")
               > _cost_of_one_label(e, b, "without normalisation") + FAR) for b in (16, 64)),
        quantifier="tendency",
        note="Batches of one label arise from data that are sorted by label.",
    ),
)  # fmt: skip
