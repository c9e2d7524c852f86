"""More claims of Lian and Liu (2019), tested by experiments of chapters 4 and 5."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results, final_values
from bnlib.claims.thresholds import COMPARABLE, TIMES

NETWORKS = ("convolutional", "fully connected")


def _final(results: Results, number: int, network: str, norm: str, curve: str) -> np.ndarray:
    """Return the last value of a curve of one of the paper's figures; errors in per cent, losses in nats."""
    row = results(f"full_normalization.lian_figure_{number}", network, norm)
    return (100 if curve.endswith("error") else 1) * final_values(row, curve)


def _training_losses(number: int, *networks: str):
    def measure(results: Results) -> Effects:
        return {
            f"final training loss, {network}, {norm}, nats": _final(results, number, network, norm, "train_loss")
            for network in networks
            for norm in ("BN", "FN, running")
        }

    return measure


def _losses_match(e: Effects, network: str) -> bool:
    """Whether the median training losses of BN and FN differ by no more than a factor of ``TIMES``."""
    losses = [np.median(e[f"final training loss, {network}, {norm}, nats"]) for norm in ("BN", "FN, running")]
    return max(losses) <= TIMES * min(losses)


def _errors_in_figure(number: int):
    def measure(results: Results) -> Effects:
        return {
            f"test error, {norm}, %": _final(results, number, "convolutional", norm, "test_error")
            for norm in ("BN", "FN, literal", "FN, batch")
        }

    return measure


def _bn_errors_by_labels(results: Results) -> Effects:
    return {
        f"test error of BN, {labels}, %": _final(results, number, "convolutional", "BN", "test_error")
        for number, labels in ((4, "one label"), (5, "at most three labels"))
    }


def _errors_by_mode(results: Results) -> Effects:
    """Return the share of errors on the training set in train mode, batches as in training, and in eval mode."""
    found: Effects = {}
    cells = {
        "one label, batches of 64": ("true", "one label", 64),
        "fixed batches of 16, random labels": ("random", "fixed", 16),
        "shuffled batches of 4": ("true", "shuffled", 4),
    }
    for name, cell in cells.items():
        row = results("objective.objective_and_evaluation", *cell, "batch norm")
        for where, key in (("train mode", "objective"), ("eval mode", "evaluation")):
            found[f"errors in {where}, {name}, %"] = 100 * row[key][:, 1]
    return found


_FIGURES = "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper"

CLAIMS = (
    Claim(
        "lian-train-inference", "lian2019", "introduction",
        "BN makes more errors because it treats training and inference differently.",
        "04_the_objective#objective-and-evaluation", _errors_by_mode,
        tuple(("on the training set, the median error in eval mode is more than 2 points above that in train mode: "
               f"{name}",
               lambda e, n=name: np.median(e[f"errors in eval mode, {n}, %"])
               > np.median(e[f"errors in train mode, {n}, %"]) + COMPARABLE)
              for name in ("one label, batches of 64", "fixed batches of 16, random labels", "shuffled batches of 4")),
        quantifier="tendency",
        note="In train mode, the batches are made as in training. In shuffled batches, eval mode has fewer errors, "
        "because it lacks the noise of the batch statistics.",
    ),
    Claim(
        "lian-algorithm-3-one-label", "lian2019", "Algorithm 3 and figure 4",
        "On MNIST in batches of one label, Full Normalization (FN) as printed in Algorithm 3 is far better than BN.",
        "05_full_normalization#algorithm-3-as-printed", _errors_in_figure(4),
        tuple((f"read {words}, FN has less than half of the median test error of BN",
               lambda e, n=norm: TIMES * np.median(e[f"test error, {n}, %"]) < np.median(e["test error, BN, %"]))
              for norm, words in (("FN, literal", "literally"), ("FN, batch", "as the gradient of the same batch"))),
        quantifier="tendency",
        scale="paper",
        note="Tested with the convolutional network.",
    ),
    Claim(
        "lian-algorithm-3-shuffled", "lian2019", "Algorithm 3 and figure 7",
        "On MNIST in shuffled batches, Full Normalization (FN) as printed in Algorithm 3 is as good as BN.",
        "05_full_normalization#algorithm-3-as-printed", _errors_in_figure(7),
        tuple((f"read {words}, FN has a median test error within 2 points of that of BN",
               lambda e, n=norm: abs(np.median(e[f"test error, {n}, %"]) - np.median(e["test error, BN, %"]))
               < COMPARABLE)
              for norm, words in (("FN, literal", "literally"), ("FN, batch", "as the gradient of the same batch"))),
        quantifier="tendency",
        scale="paper",
        note="Tested with the convolutional network.",
    ),
    Claim(
        "lian-figure-5-train", "lian2019", "figure 5 and section 6.2",
        "On CIFAR-10 with at most three labels per batch, the training losses of BN and Full Normalization (FN) are "
        "comparable.",
        _FIGURES, _training_losses(5, "convolutional"),
        (("the median training losses of BN and FN end within a factor of 2",
          lambda e: _losses_match(e, "convolutional")),),
        quantifier="tendency",
        stand_in="digits in place of CIFAR-10",
    ),
    Claim(
        "lian-figure-5-better", "lian2019", "section 6.2",
        "On CIFAR-10 with at most three labels per batch, BN does slightly better than on MNIST with one label per "
        "batch.",
        _FIGURES, _bn_errors_by_labels,
        (("the median test error of BN is lower with three labels per batch than with one",
          lambda e: np.median(e["test error of BN, at most three labels, %"])
          < np.median(e["test error of BN, one label, %"])),),
        quantifier="tendency",
        stand_in="digits in place of CIFAR-10 and of MNIST",
        note="On digits, the difference is large: with three labels per batch, BN has an error of 0.8 %.",
    ),
    Claim(
        "lian-figure-6", "lian2019", "figure 6",
        "The results of the paper come from the simple network of its figure 6.",
        _FIGURES,
        quantifier="tendency",
        untested_because="The copies of the paper that we could read lack figure 6. In its place, we train a "
        "convolutional and a fully connected network, and report both.",
    ),
    Claim(
        "lian-figure-7-train", "lian2019", "figure 7 and section 6.2",
        "On MNIST in shuffled batches, the training losses of BN and Full Normalization (FN) match.",
        _FIGURES, _training_losses(7, *NETWORKS),
        tuple((f"the median training losses of BN and FN end within a factor of 2, {network} network",
               lambda e, n=network: _losses_match(e, n)) for network in NETWORKS),
        quantifier="tendency",
        scale="paper",
        note="FN estimates its gradient with running averages.",
    ),
    Claim(
        "lian-figure-8-train", "lian2019", "figure 8 and section 6.2",
        "On CIFAR-10 in shuffled batches, the training losses of BN and Full Normalization (FN) match.",
        _FIGURES, _training_losses(8, "convolutional"),
        (("the median training losses of BN and FN end within a factor of 2",
          lambda e: _losses_match(e, "convolutional")),),
        quantifier="tendency",
        stand_in="digits in place of CIFAR-10",
    ),
    Claim(
        "lian-per-sample", "lian2019", "section 2",
        "Norms that take statistics over a single sample work well if layers have hundreds of channels. With fewer "
        "channels, the statistics of one sample are not enough.",
        "09_alternatives",
        quantifier="tendency",
        untested_because="A test would need one network at many widths, with group norm and layer norm. The book "
        "compares norms at one width.",
    ),
)  # fmt: skip
