"""Claims of the answer of 2025, "Why is the batch normalization layer failing?"."""

from __future__ import annotations

import numpy as np
import torch

from bnlib.claims.claim import Claim, Effects, Rows, last
from bnlib.experiments.failing import evaluation_statistics, placement
from bnlib.norm import BatchNorm

SOURCE, CHAPTER = "failing2025", "07_why_is_my_bn_failing"


def _printed(rows: Rows) -> Effects:
    found = {size: rows("failing.published_examples", "BN, ReLU", "printed", size, 1.0) for size in (4, 32)}
    return {f"{what} of the last epoch's losses, batches of {size}": row[name].ravel()
            for what, name in (("mean", "seen"), ("deviation", "fluctuation"))
            for size, row in found.items()}  # fmt: skip


def _micro(rows: Rows) -> Effects:
    return {
        f"test error, micro-batches of {m}, %": 100
        * rows("failing.evaluation_statistics", "batch norm", evaluation_statistics.LARGE, m, 0.1)["precise"][:, -1, 1]
        for m in (2, 8, 16, 256)
    }


def _placement(rows: Rows) -> Effects:
    found: Effects = {}
    for depth in placement.DEPTHS:
        best = [min(np.median(last(rows("failing.placement", where, depth, lr), "test_error"))
                    for lr in placement.LEARNING_RATES) for where in ("after", "before")]  # fmt: skip
        found[f"test error after less before, each at its best rate, {depth} layers, points"] = 100 * (
            best[0] - best[1]
        )
    small = [last(rows("failing.placement", where, 1, 0.03), "train_loss") for where in ("after", "before")]
    found["training loss after less before, one layer, rate 0.03, nats"] = small[0] - small[1]
    own = [
        rows("failing.published_examples", name, "printed", 32, 1.0)["seen"].ravel()
        for name in ("ReLU, BN", "BN, ReLU")
    ]
    found["loss after less before, the answer's own program"] = own[0] - own[1]
    return found


def _gamma(rows: Rows) -> Effects:
    return {
        f"test error, gamma {g:g}, %": 100 * rows("failing.initial_gamma", "BN, ReLU", g)["error"] for g in (0.0, 1.0)
    }


def _mechanism(rows: Rows) -> Effects:
    dead, behind = (rows("failing.initial_gamma", name, 0.0) for name in ("BN, ReLU", "ReLU, BN"))
    return {
        "gradient of gamma in the first step, BN before ReLU": dead["first_gamma"],
        "test error, gamma 0, BN behind ReLU, %": 100 * behind["error"],
    }


def _shape(rows: Rows) -> Effects:
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
        "largest difference after gamma and beta undid it": (layer(values) - values).abs().max().item(),
    }


def _small_problem(e: Effects, size: int) -> bool:
    names = [f"test error, micro-batches of {m}, %" for m in (size, 256)]
    return np.median(e[names[0]]) > np.median(e[names[1]]) + 1


CLAIMS = (
    Claim(
        "failing-erratic", SOURCE, "small batch sizes, code example 1",
        "In its first program the losses of batches of 4 are more erratic than those of 32, and converge less well.",
        f"{CHAPTER}#small-batches", _printed,
        (("the median deviation over the last epoch is 1.2 times as large at 4 as at 32 or more",
          lambda e: np.median(e["deviation of the last epoch's losses, batches of 4"])
          > 1.2 * np.median(e["deviation of the last epoch's losses, batches of 32"])),
         ("the mean loss of the last epoch is larger at 4, in the median",
          lambda e: np.median(e["mean of the last epoch's losses, batches of 4"])
          > np.median(e["mean of the last epoch's losses, batches of 32"]))),
        note="Its own program, run as printed with 20 seeds: it ends lower at 4 in each. Only the last epoch is looked "
        "at; and 100 samples in batches of 32 leave one of 4.",
    ),
    Claim(
        "failing-below-sixteen", SOURCE, "small batch sizes",
        "With batches below 16 or 8 the statistics of BN become so noisy that training is unstable or fails.",
        f"{CHAPTER}#small-batches", _micro,
        (("statistics of 2 samples cost more than a point of test error", lambda e: _small_problem(e, 2)),
         ("statistics of 8 do", lambda e: _small_problem(e, 8)),
         ("statistics of 16 do", lambda e: _small_problem(e, 16))),
        note="The step is 256 digits in each case; only BN's batch changes. Two dense layers.",
    ),
    Claim(
        "failing-relu-first", SOURCE, "placement, code example 2",
        "ReLU before BN typically performs worse than BN before ReLU.",
        f"{CHAPTER}#before-or-after-the-relu", _placement,
        (("at the best rate of each the test error is larger behind the ReLU, at every depth",
          lambda e: all(e[n].min() > 0 for n in e if n.startswith("test error"))),
         ("so is the training loss at the smallest rate, one layer, in the median",
          lambda e: np.median(e["training loss after less before, one layer, rate 0.03, nats"]) > 0),
         ("so is the loss of the answer's own program with batches of 32, in the median",
          lambda e: np.median(e["loss after less before, the answer's own program"]) > 0)),
        note="The differences of the first condition are below a point on digits.",
    ),
    Claim(
        "failing-gamma-zero", SOURCE, "initialisation, code example 3",
        "Starting gamma at 0 severely hinders learning in linear, BN, ReLU, linear.",
        f"{CHAPTER}#gamma-is-zero", _gamma,
        (("with gamma 0 the test error ends above 80 % in every seed",
          lambda e: e["test error, gamma 0, %"].min() > 80),
         ("with gamma 1 it ends below 10 %", lambda e: e["test error, gamma 1, %"].max() < 10)),
    ),
    Claim(
        "failing-gamma-reason", SOURCE, "initialisation, after code example 3",
        "It does so because BN will then not scale its input.",
        f"{CHAPTER}#gamma-is-zero", _mechanism,
        (("gamma gets a gradient in the first step, so that only the scale is missing",
          lambda e: e["gradient of gamma in the first step, BN before ReLU"].max() > 0),
         ("gamma 0 hinders as much where BN stands behind the ReLU",
          lambda e: e["test error, gamma 0, BN behind ReLU, %"].min() > 80)),
        refuted="wrong", note="relu'(0) = 0 blocks every gradient; it is a dead end and no matter of scale.",
    ),
    Claim(
        "failing-distribution", SOURCE, "placement",
        "Normalising in front of a non-linearity can destroy the distribution.",
        "01_the_formula#scale-and-shift", _shape,
        (("the skewness of a channel changes", lambda e: e["change of the skewness"].max() > 1e-6),
         ("gamma and beta cannot bring the values back",
          lambda e: e["largest difference after gamma and beta undid it"].max() > 1e-6)),
        refuted="wrong", note="In a channel BN is one shift and one scale for the whole batch.",
    ),
    Claim(
        "failing-recurrent", SOURCE, "placement, last paragraph",
        "In recurrent networks BN performs worse, for statistics per time step disrupt the dependencies between steps.",
        "09_alternatives#sentences",
        why_not="We trained no task with dependencies over time; chapter 9 shows what such statistics see, not what "
        "they cost.",
    ),
    Claim(
        "failing-early-layers", SOURCE, "placement",
        "In early layers the values are less coupled with the parameters, so that normalisation matters less there.",
        CHAPTER,
        why_not="The statement names no quantity: neither what is coupled nor how it would be measured.",
    ),
)  # fmt: skip
