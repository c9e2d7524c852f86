"""Test the claims of chapter 4, the objective that training with BN minimises."""

from __future__ import annotations

import math

import numpy as np
import torch

from bnlib import objective
from bnlib.claims.claim import Claim, Effects, Results, final_values
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _best_weight_by_batch_size(results: Results) -> Effects:
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    y = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    found = {}
    for b in (2, 3, 4):
        batches = objective.all_batches(4, b)
        inputs, targets = x[batches][..., 0], y[batches]
        hat = (inputs - inputs.mean(1, keepdim=True)) / inputs.std(1, correction=0, keepdim=True)
        found[f"best weight of a regression on four samples, batches of {b}"] = (hat * targets).mean(1).mean().item()
    return found


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
        "training loss at the start, nats": row["train_loss"][:, 0],
        "training loss at the end, nats": final_values(row, "train_loss"),
        "share of seeds whose test loss ends above its start": (
            final_values(row, "test_loss") > row["test_loss"][:, 0]
        ).mean(),
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
    """Whether the test error with BN is more than 1.8 times that without."""
    return np.median(e[f"test error, {name}, %"]) > 1.8 * np.median(e["test error, without normalisation, %"])


CLAIMS = (
    Claim(
        "lian-objective", "lian2019", "section 4",
        "Training with BN minimises an objective of its own, which differs from batch size to batch size.",
        "04_the_objective#two-operators-two-objectives", _best_weight_by_batch_size,
        (("the best weight differs between batches of 2, 3 and 4 by more than 0.01",
          lambda e: np.diff(np.concatenate(list(e.values()))).min() > 0.01),),
    ),
    Claim(
        "lian-absorb", "lian2019", "section 4, objectives (3) and (5)",
        "Full-batch BN does not reduce what a network can express: its statistics can be absorbed into the weights.",
        "04_the_objective#what-the-full-batch-can-reach", _absorption_error,
        (("a plain network with absorbed statistics has the same outputs to 1e-10",
          lambda e: e["largest difference of outputs, full batch"].max() < 1e-10),),
        note="This needs a bias, or gamma and beta. Without them a network of linear layers, BN and ReLU can express "
        "less.",
    ),
    Claim(
        "lian-companies", "lian2019", "introduction",
        "BN can overfit predefined batches.",
        "04_the_objective#objective-and-evaluation", _accuracy_in_own_and_new_batches,
        (("with BN more than 90 % of random labels are predicted in the fixed batches of the training, and fewer than "
          "half in reshuffled batches, in every seed",
          lambda e: e["random labels predicted in fixed batches, batch norm, %"].min() > 90
          and e["random labels predicted in reshuffled batches, batch norm, %"].max() < 50),
         ("without BN reshuffling costs less than 2 points",
          lambda e: np.median(e["random labels predicted in fixed batches, without normalisation, %"])
          - np.median(e["random labels predicted in reshuffled batches, without normalisation, %"]) < 2)),
    ),
    Claim(
        "lian-trust", "lian2019", "introduction",
        "BN is not reliable if the batches are not drawn at random.",
        "04_the_objective#objective-and-evaluation", _errors_in_one_label_batches,
        (("in batches of one label the error is below 20 % in train mode and above 70 % in eval mode, in every seed",
          lambda e: e["errors in train mode, one label, batches of 64, %"].max() < 20
          and e["errors in eval mode, one label, batches of 64, %"].min() > 70),),
    ),
    Claim(
        "lian-converges", "lian2019", "introduction",
        "BN always converges.",
        "04_the_objective#what-the-objective-does-not-say",
        untestable_because="The paper does not prove it, and no finite run can show it: at a constant learning rate "
        "SGD does not converge.",
    ),
    Claim(
        "lian-conditioned", "lian2019", "section 4",
        "In general, normalisation reduces the condition number of the objective, which makes training easier.",
        "04_the_objective#what-the-full-batch-can-reach",
        untestable_because="The paper gives no proof and does not say for which networks 'in general' holds. The book "
        "measures sharpness, not condition numbers.",
    ),
    Claim(
        "lian-figure-1", "lian2019", "figure 1",
        "At batch size 1 BN overfits three samples: the training loss falls and the test loss rises.",
        "04_the_objective#figures-1-to-3-of-the-paper", _figure_1_losses,
        (("the test loss ends above its start in more than half of the seeds",
          lambda e: e["share of seeds whose test loss ends above its start"].max() > 0.5),
         ("it overfits: the median training loss falls below ln 3 - 0.1, which is impossible without using the inputs",
          lambda e: np.median(e["training loss at the end, nats"]) < math.log(3) - 0.1)),
        scale="paper",
        note="With the running variance of the paper's Algorithm 1, at a learning rate of 0.1. The network learns only "
        "the class frequencies, so the training loss hardly falls.",
    ),
    Claim(
        "lian-figure-2", "lian2019", "figure 2",
        "The smaller the batches, the larger the test error with BN.",
        "04_the_objective#figures-1-to-3-of-the-paper", _figure_2_errors,
        tuple((f"the median test error at batch size 2 is more than a point above that at 128, learning rate {lr}",
               lambda e, r=lr: np.median(e[f"test error with BN, batches of 2, learning rate {r}, %"])
               > np.median(e[f"test error with BN, batches of 128, learning rate {r}, %"]) + 1) for lr in (0.01, 0.1)),
        note="Tested with a small convolutional network on digits, not with ResNet-18 on CIFAR-10.",
    ),
    Claim(
        "lian-figure-3", "lian2019", "figure 3",
        "Logistic regression that converges easily without BN no longer converges with BN.",
        "04_the_objective#figures-1-to-3-of-the-paper", _figure_3_errors,
        (("without BN the median test error is below 15 %",
          lambda e: np.median(e["test error, without normalisation, %"]) < 15),
         ("with BN the median training error stays above 10 %, in one of the two placements",
          lambda e: max(np.median(e["train error, BN first, %"]), np.median(e["train error, BN last, %"])) > 10),
         ("with BN in front of the linear layer the median test error is more than 1.8 times that without",
          lambda e: _larger_error_than_without(e, "BN first")),
         ("with BN behind the linear layer it is so, too", lambda e: _larger_error_than_without(e, "BN last"))),
        scale="paper", note="At the size of the paper. BN converges in both placements. Equation (1) of the paper has "
        "BN in front of the linear layer, its figure 1 behind it.",
    ),
    Claim(
        "ioffe-regularises", "ioffe2015", "abstract and section 3.4",
        "BN regularises, and in some cases makes Dropout unnecessary.",
        "04_the_objective#look-at-it",
        untestable_because="On digits all test errors lie within one or two points, too close to tell, and the book "
        "does not train with Dropout. A regression with two weights shows that the noise of BN shrinks the best ones.",
    ),
)  # fmt: skip
