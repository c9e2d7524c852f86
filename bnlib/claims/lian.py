"""Claims of Lian and Liu (2019)."""

from __future__ import annotations

import math

import numpy as np
import torch

from bnlib import objective
from bnlib.claims.claim import Claim, Effects, Rows, last
from bnlib.experiments.full_normalization import convergence_rates
from bnlib.models import mlp
from bnlib.norm import BatchNorm

SOURCE, FOUR, FIVE = "lian2019", "04_the_objective", "05_full_normalization"
FIGURES = f"{FIVE}#figures-4-5-7-8-and-9-of-the-paper"
NETWORKS = ("convolutional", "fully connected")


def _batches_matter(rows: Rows) -> Effects:
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    y = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    found = {}
    for b in (2, 3, 4):
        batches = objective.all_batches(4, b)
        inputs, targets = x[batches][..., 0], y[batches]
        hat = (inputs - inputs.mean(1, keepdim=True)) / inputs.std(1, correction=0, keepdim=True)
        found[f"best weight of a regression on four samples, batches of {b}"] = (hat * targets).mean(1).mean().item()
    return found


def _absorbed(rows: Rows) -> Effects:
    net = mlp((5, 8, 8, 3), BatchNorm, seed=0).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, BatchNorm):
                layer.weight.uniform_(0.5, 2, generator=generator)
                layer.bias.normal_(generator=generator)
        plain = objective.absorb(net, x)
        return {"largest difference of outputs, full batch": (net(x) - plain(x)).abs().max().item()}


def _companies(rows: Rows) -> Effects:
    found: Effects = {}
    for norm in ("batch norm", "no norm"):
        row = rows("objective.objective_and_evaluation", "random", "fixed", 16, norm)
        for name, where in (("in its batches", "objective"), ("dealt out anew", "reshuffled")):
            found[f"random labels right {name}, {norm}, %"] = 100 * (1 - row[where][:, 1])
    return found


def _one_label(rows: Rows) -> Effects:
    found = {}
    for name, where in (("in training", "objective"), ("in eval mode", "evaluation")):
        found[f"errors {name}, one label, batches of 64, %"] = (
            100 * rows("objective.objective_and_evaluation", "true", "one label", 64, "batch norm")[where][:, 1]
        )
    return found


def _figure_1(rows: Rows) -> Effects:
    row = rows("objective.lian_figure_1", "BN, algorithm 1")
    return {
        "training loss at the start, nats": row["train_loss"][:, 0],
        "training loss at the end, nats": last(row, "train_loss"),
        "share of seeds whose test loss ends above its start": (last(row, "test_loss") > row["test_loss"][:, 0]).mean(),
    }


def _figure_2(rows: Rows) -> Effects:
    return {f"test error with BN, batches of {b}, rate {lr}, %": 100 * last(
                rows("objective.lian_figure_2", "BN", b, lr), "test_error")
            for lr in (0.01, 0.1) for b in (2, 128)}  # fmt: skip


def _figure_3(rows: Rows) -> Effects:
    found: Effects = {}
    for name in ("BN", "none"):
        for curve in ("train_error", "test_error"):
            found[f"{curve.replace('_', ' ')}, {name}, %"] = 100 * last(
                rows("objective.lian_figure_3", name, 0.1), curve
            )
    return found


def _error(rows: Rows, number: int, network: str, norm: str, *more, curve: str = "test_error") -> np.ndarray:
    return (100 if curve.endswith("error") else 1) * last(
        rows(f"full_normalization.lian_figure_{number}", network, norm, *more), curve
    )


def _table(number: int, *norms: str, networks=NETWORKS, curve: str = "test_error"):
    unit = "%" if curve.endswith("error") else "nats"

    def measure(rows: Rows) -> Effects:
        return {f"{curve.replace('_', ' ')}, {network}, {norm}, {unit}": _error(
                    rows, number, network, norm, curve=curve)
                for network in networks for norm in norms}  # fmt: skip

    return measure


def _of(e: Effects, network: str, norm: str, curve: str = "test error", unit: str = "%") -> np.ndarray:
    return e[f"{curve}, {network}, {norm}, {unit}"]


def _algorithm_3(rows: Rows) -> Effects:
    return {f"figure {number}, {norm}, %": _error(rows, number, "convolutional", norm)
            for number in (4, 7) for norm in ("BN", "FN, literal", "FN, batch")}  # fmt: skip


def _reading(e: Effects, norm: str) -> bool:
    """Whether one oracle is far below BN on one label, and near it on shuffled batches."""
    far = np.median(e[f"figure 4, {norm}, %"]) < np.median(e["figure 4, BN, %"]) / 3
    return far and abs(np.median(e[f"figure 7, {norm}, %"]) - np.median(e["figure 7, BN, %"])) < 2


def _figure_9(rows: Rows) -> Effects:
    found = {}
    for network in NETWORKS:
        for norm in ("BN", "FN, running", "FN, batch"):
            one, sixteen = (_error(rows, 9, network, norm, b) for b in (1, 16))
            found[f"error at batch size 1 less at 16, {network}, {norm}, points"] = np.median(one) - np.median(sixteen)
    return found


def _any_size(rows: Rows) -> Effects:
    found: Effects = {}
    for oracle in ("running", "batch"):
        for b in (1, 4, 64):
            row = rows("full_normalization.oracles_on_digits", f"{oracle}, floor 0.03", "shuffled", b, 0.03)
            found[f"test error, {oracle}, batches of {b}, %"] = 100 * last(row, "test_error")
    return found


def _bias(rows: Rows) -> Effects:
    found = {b: rows("full_normalization.oracle_bias", 1, "batch", b) for b in (1, 2, 3)}
    bias = {f"bias over length of the gradient, same batch of {b}": row["bias"] for b, row in found.items()}
    return bias | {"cosine with the gradient, same batch of 1": found[1]["cosine"]}


def _slopes(*cells: tuple, name: str):
    def measure(rows: Rows) -> Effects:
        found = {}
        for problem, oracle, power, a, steps in cells:
            row = rows("full_normalization.convergence_rates", problem, oracle, power, a, steps)
            slope = convergence_rates.fitted(row, steps, name)
            found[f"slope, {problem}, {oracle}, powers {power} and {a}"] = np.array(
                sorted({slope.low, slope.middle, slope.high})
            )
        return found

    return measure


_LEMMA = [("quadratic", "independent", 0.8, 0.4, 6000), ("quadratic", "independent", 0.9, 0.2, 6000),
          ("network", "running", 0.8, 0.4, 2000)]  # fmt: skip
_COROLLARY = [("quadratic", "independent", 0.8, 0.4, 6000), ("logistic", "independent", 0.8, 0.4, 6000),
              ("network", "independent", 0.8, 0.4, 2000)]  # fmt: skip


def _machines(rows: Rows) -> Effects:
    return {f"test error, {workers} workers, {100 * skew:.0f} % of own labels, {method}, %": 100
            * rows("machines.label_skew", method, workers, skew)["first"]
            for workers, skew in ((10, 1.0), (10, 0.5), (2, 0.9)) for method in ("local BN", "SyncBN")}  # fmt: skip


def _suffers(e: Effects, setting: str) -> bool:
    name = f"test error, {setting} % of own labels"
    return np.median(e[f"{name}, local BN, %"]) > np.median(e[f"{name}, SyncBN, %"]) + 5


CLAIMS = (
    Claim(
        "lian-objective", SOURCE, "section 4",
        "BN minimises an objective of its own, and another one for each batch size.",
        f"{FOUR}#two-operators-two-objectives", _batches_matter,
        (("the best weight differs between batches of 2, 3 and 4 by more than 0.01",
          lambda e: np.diff(np.concatenate(list(e.values()))).min() > 0.01),),
    ),
    Claim(
        "lian-absorb", SOURCE, "section 4, objectives (3) and (5)",
        "Full-batch BN does not hurt the expressiveness: its normalisation can be absorbed into the weights.",
        f"{FOUR}#what-the-full-batch-can-reach", _absorbed,
        (("a plain network with absorbed statistics has the same outputs to 1e-10",
          lambda e: e["largest difference of outputs, full batch"].max() < 1e-10),),
        note="With a bias, or gamma and beta; without them the usual order can do less.",
    ),
    Claim(
        "lian-companies", SOURCE, "introduction",
        "BN can overfit predefined batches.",
        f"{FOUR}#objective-and-evaluation", _companies,
        (("with BN more than 90 % of random labels are learnt, and fewer than half are right when the batches are "
          "dealt out anew, in every seed",
          lambda e: e["random labels right in its batches, batch norm, %"].min() > 90
          and e["random labels right dealt out anew, batch norm, %"].max() < 50),
         ("without BN dealing them out costs less than 2 points",
          lambda e: np.median(e["random labels right in its batches, no norm, %"])
          - np.median(e["random labels right dealt out anew, no norm, %"]) < 2)),
    ),
    Claim(
        "lian-trust", SOURCE, "introduction",
        "BN is not to be trusted where the batches are not drawn at random.",
        f"{FOUR}#objective-and-evaluation", _one_label,
        (("in batches of one label the error is below 20 % in training and above 70 % in eval mode, in every seed",
          lambda e: e["errors in training, one label, batches of 64, %"].max() < 20
          and e["errors in eval mode, one label, batches of 64, %"].min() > 70),),
    ),
    Claim(
        "lian-converges", SOURCE, "introduction",
        "BN always converges.",
        f"{FOUR}#what-the-objective-does-not-say",
        why_not="It is not proved there, and no finite run can show it; with a constant rate SGD does not settle.",
    ),
    Claim(
        "lian-conditioned", SOURCE, "section 4",
        "Normalising reduces the condition number of the objective in general, which makes it easier to train.",
        f"{FOUR}#what-the-full-batch-can-reach",
        why_not="There is no proof, and the networks to which 'in general' refers are not named; we have measured "
        "sharpness, not condition numbers.",
    ),
    Claim(
        "lian-figure-1", SOURCE, "figure 1",
        "At batch size 1 BN overfits three samples: the training loss falls and the test loss rises.",
        f"{FOUR}#figures-1-to-3-of-the-paper", _figure_1,
        (("the test loss ends above its start in more than half of the seeds",
          lambda e: e["share of seeds whose test loss ends above its start"].max() > 0.5),
         ("it overfits: the median training loss gets below ln 3 - 0.1, which needs a look at the samples",
          lambda e: np.median(e["training loss at the end, nats"]) < math.log(3) - 0.1)),
        scale="paper",
        note="With the running variance of its Algorithm 1, at a rate of 0.1. Only the frequencies are learnt, so that "
        "the training loss has next to nothing to fall.",
    ),
    Claim(
        "lian-figure-2", SOURCE, "figure 2",
        "The smaller the batches, the worse the result with BN.",
        f"{FOUR}#figures-1-to-3-of-the-paper", _figure_2,
        tuple((f"the median test error at 2 is more than a point above that at 128, rate {lr}",
               lambda e, r=lr: np.median(e[f"test error with BN, batches of 2, rate {r}, %"])
               > np.median(e[f"test error with BN, batches of 128, rate {r}, %"]) + 1) for lr in (0.01, 0.1)),
        note="A small convolutional network on digits for ResNet-18 on CIFAR-10; not tested at its size.",
    ),
    Claim(
        "lian-figure-3", SOURCE, "figure 3",
        "A logistic regression that is easy without BN no longer converges with it.",
        f"{FOUR}#figures-1-to-3-of-the-paper", _figure_3,
        (("without BN the median test error is below 15 %", lambda e: np.median(e["test error, none, %"]) < 15),
         ("with BN the median training error stays above 10 %",
          lambda e: np.median(e["train error, BN, %"]) > 10),
         ("with BN the median test error is more than 1.8 times that without",
          lambda e: np.median(e["test error, BN, %"]) > 1.8 * np.median(e["test error, none, %"]))),
        scale="paper", note="At the size of the paper. It converges, to something worse.",
    ),
    Claim(
        "lian-figure-4-test", SOURCE, "figure 4",
        "On MNIST in batches of one label the test error of FN is far below BN's.",
        FIGURES, _table(4, "BN", "FN, running"),
        tuple((f"the median with FN is less than a third of that with BN, {network}",
               lambda e, n=network: np.median(_of(e, n, "FN, running")) < np.median(_of(e, n, "BN")) / 3)
              for network in NETWORKS),
        scale="paper", note="With running averages for the gradient's statistics, which the paper does not print.",
    ),
    Claim(
        "lian-figure-4-train", SOURCE, "figure 4 and section 6.2",
        "In batches of one label BN and FN have equally fast falling training losses.",
        FIGURES, _table(4, "BN", "FN, running", curve="train_loss"),
        tuple((f"BN's median training loss ends below twice FN's, {network}",
               lambda e, n=network: np.median(_of(e, n, "BN", "train loss", "nats"))
               < 2 * np.median(_of(e, n, "FN, running", "train loss", "nats"))) for network in NETWORKS),
        scale="paper",
    ),
    Claim(
        "lian-algorithm-3", SOURCE, "Algorithm 3 and section 6",
        "The layer printed as Algorithm 3 does both: far better than BN on one label, and as good on shuffled batches.",
        f"{FIVE}#algorithm-3-as-printed", _algorithm_3,
        (("read literally, it has less than a third of BN's error in figure 4 and is within 2 points in figure 7",
          lambda e: _reading(e, "FN, literal")),
         ("read as the gradient of the same batch it is so", lambda e: _reading(e, "FN, batch"))),
        scale="paper", note="What the authors ran we do not know. Convolutional network.",
    ),
    Claim(
        "lian-figure-5", SOURCE, "figure 5",
        "With at most three labels in a batch BN's test error is still far behind FN's.",
        FIGURES, _table(5, "BN", "FN, running", networks=("convolutional",)),
        (("BN's median is more than 5 points above FN's", lambda e: np.median(_of(e, "convolutional", "BN"))
          > np.median(_of(e, "convolutional", "FN, running")) + 5),),
        note="Digits for CIFAR-10: three labels in 64 do BN no harm there.",
    ),
    Claim(
        "lian-figure-7", SOURCE, "figure 7",
        "On MNIST in shuffled batches BN and FN match.",
        FIGURES, _table(7, "BN", "FN, running"),
        tuple((f"the medians of the test errors are within 2 points, {network}",
               lambda e, n=network: abs(np.median(_of(e, n, "BN")) - np.median(_of(e, n, "FN, running"))) < 2)
              for network in NETWORKS),
        scale="paper",
    ),
    Claim(
        "lian-figure-8", SOURCE, "figure 8",
        "In shuffled batches BN and FN match in the second setting as well (momentum 0.9; CIFAR-10 there).",
        FIGURES, _table(8, "BN", "FN, running", networks=("convolutional",)),
        (("the medians of the test errors are within a point", lambda e: abs(
            np.median(_of(e, "convolutional", "BN")) - np.median(_of(e, "convolutional", "FN, running"))) < 1),),
        note="On digits; CIFAR-10 was not run.",
    ),
    Claim(
        "lian-figure-9", SOURCE, "figure 9",
        "Between batch sizes 1 and 16 BN's test error changes, and FN's much less.",
        FIGURES, _figure_9,
        tuple((f"the gap of FN is less than half of BN's, {network}",
               lambda e, n=network: e[f"error at batch size 1 less at 16, {n}, FN, running, points"][0]
               < e[f"error at batch size 1 less at 16, {n}, BN, points"][0] / 2) for network in NETWORKS),
        scale="paper", note="With running averages for the gradient; with the same batch the gap is BN's.",
    ),
    Claim(
        "lian-any-size", SOURCE, "section 5",
        "The algorithm has no requirement on the size of the mini-batch.",
        f"{FIVE}#which-alpha", _any_size,
        (("with running averages for the gradient the median error is below 6 % at 1, 4 and 64",
          lambda e: max(np.median(v) for n, v in e.items() if "running" in n) < 6),
         ("with the gradient of the same batch it is",
          lambda e: max(np.median(v) for n, v in e.items() if "error, batch" in n) < 6)),
        note="The paper says it of Algorithm 2; the gradient of the same batch is how its Algorithm 3 can be read.",
    ),
    Claim(
        "lian-bias", SOURCE, "Remark 1",
        "Using the same samples for all layers brings some bias into the gradient.",
        f"{FIVE}#how-wrong-is-each-oracle-exactly", _bias,
        (("with exact statistics the bias of the same batch is above 1 % of the gradient at batch sizes 1 to 3",
          lambda e: min(v.min() for n, v in e.items() if n.startswith("bias")) > 0.01),),
        note="One normalised layer, where the same samples serve the loss and its statistics; at batch size 1 the bias "
        "is larger than the gradient, and the result mostly points the wrong way.",
    ),
    Claim(
        "lian-lemma-1", SOURCE, "Lemma 1",
        "The squared error of the estimates falls at least like the power -a of the step, where that term leads.",
        f"{FIVE}#rates", _slopes(*_LEMMA, name="error"),
        (("each slope is at most 0.06 above -a", lambda e: all(
            np.median(v) < -float(n.rsplit(" ", 1)[1]) + 0.06 for n, v in e.items())),),
    ),
    Claim(
        "lian-corollary-3", SOURCE, "Corollary 3",
        "With the powers 4/5 and 2/5 the mean squared gradient falls at least like the power -1/5.",
        f"{FIVE}#rates", _slopes(*_COROLLARY, name="average"),
        (("each slope is below -0.2", lambda e: max(np.median(v) for v in e.values()) < -0.2),),
        note="It falls three times as fast and more. The same-batch oracle is outside the theorem, and does not.",
    ),
    Claim(
        "lian-theorem-2", SOURCE, "Theorem 2 as printed",
        "For all powers with a < 2p - 1 and a < 1/2 the weighted sum of squared gradients is bounded, so that their "
        "mean falls like the power p - 1.",
        f"{FIVE}#rates", _slopes(("logistic", "independent", 0.55, 0.05, 6000), name="average"),
        (("with p = 0.55 and a = 0.05 the slope is below -0.35; promised is -0.45",
          lambda e: max(np.median(v) for v in e.values()) < -0.35),),
        refuted="wrong", note="p + a > 1 seems to be missing among the conditions. We have not seen the proof.",
    ),
    Claim(
        "lian-machines", SOURCE, "introduction, on figure 3",
        "BN often fails in distributed training where the workers' data sets are very different.",
        "10_many_machines#errors", _machines,
        tuple((f"local BN has 5 points more errors than with joined batches: {setting} % of own labels",
               lambda e, s=setting: _suffers(e, s)) for setting in ("10 workers, 100", "10 workers, 50",
                                                                    "2 workers, 90")),
        note="The failure is there where the data sets are very different indeed.",
    ),
)  # fmt: skip
