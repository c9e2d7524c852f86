"""Claims tested in chapter 5, Full Normalization."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results, effects_with, final_values
from bnlib.claims.thresholds import COMPARABLE, FAR, TIMES, WORKS

NETWORKS = ("convolutional", "fully connected")


def _final_value_in_figure(
    results: Results, number: int, network: str, norm: str, *more, curve: str = "test_error"
) -> np.ndarray:
    return (100 if curve.endswith("error") else 1) * final_values(
        results(f"full_normalization.lian_figure_{number}", network, norm, *more), curve
    )


def _final_values_in_figure(number: int, *norms: str, networks=NETWORKS, curve: str = "test_error"):
    unit = "%" if curve.endswith("error") else "nats"

    def measure(results: Results) -> Effects:
        return {
            f"{curve.replace('_', ' ')}, {network}, {norm}, {unit}": _final_value_in_figure(
                results, number, network, norm, curve=curve
            )
            for network in networks
            for norm in norms
        }

    return measure


def _final_value(e: Effects, network: str, norm: str, curve: str = "test error", unit: str = "%") -> np.ndarray:
    return e[f"{curve}, {network}, {norm}, {unit}"]


def _errors_by_reading_of_algorithm_3(results: Results) -> Effects:
    return {
        f"figure {number}, {norm}, %": _final_value_in_figure(results, number, "convolutional", norm)
        for number in (4, 7)
        for norm in ("BN", "FN, literal", "FN, batch")
    }


def _reading_matches_paper(e: Effects, norm: str) -> bool:
    """Whether one oracle is far below BN on one label, and near it on shuffled batches."""
    far = np.median(e[f"figure 4, {norm}, %"]) < np.median(e["figure 4, BN, %"]) / 3
    return far and abs(np.median(e[f"figure 7, {norm}, %"]) - np.median(e["figure 7, BN, %"])) < COMPARABLE


def _error_gap_between_batch_sizes(results: Results) -> Effects:
    found = {}
    for network in NETWORKS:
        for norm in ("BN", "FN, running", "FN, batch", "FN, literal"):
            one, sixteen = (_final_value_in_figure(results, 9, network, norm, b) for b in (1, 16))
            found[f"error at batch size 1 less that at 16, {network}, {norm}, points"] = one - sixteen
    return found


def _gap(e: Effects, network: str, norm: str) -> float:
    """Return the median gap between the batch sizes in points."""
    return float(np.median(e[f"error at batch size 1 less that at 16, {network}, {norm}, points"]))


def _error_by_oracle_and_batch_size(results: Results) -> Effects:
    found: Effects = {}
    for oracle, title in (("running", "running averages"), ("batch", "same batch")):
        for b in (1, 4, 64):
            row = results("full_normalization.oracles_on_digits", f"{oracle}, floor 0.03", "shuffled", b, 0.03)
            found[f"test error, gradient from {title}, batches of {b}, %"] = 100 * final_values(row, "test_error")
    return found


def _gradient_bias(results: Results) -> Effects:
    found = {b: results("full_normalization.oracle_bias", 1, "batch", b) for b in (1, 2, 3)}
    bias = {f"bias over length of the gradient, same batch of {b}": row["bias"] for b, row in found.items()}
    return bias | {"cosine with the gradient, same batch of 1": found[1]["cosine"]}


CLAIMS = (
    Claim(
        "lian-figure-4-test", "lian2019", "figure 4",
        "On MNIST in batches of one label, the test error of Full Normalization (FN) is far below that of BN.",
        "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper", _final_values_in_figure(4, "BN", "FN, running"),
        tuple((f"the median test error with FN is less than a third of that with BN, {network} network",
               lambda e, n=network: np.median(_final_value(e, n, "FN, running"))
               < np.median(_final_value(e, n, "BN")) / 3)
              for network in NETWORKS),
        quantifier="tendency",
        scale="paper",
        note="This FN estimates its gradient with running averages, a version that the paper does not print.",
    ),
    Claim(
        "lian-figure-4-train", "lian2019", "figure 4 and section 6.2",
        "On MNIST in batches of one label, the training losses of BN and Full Normalization (FN) fall equally fast.",
        "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper",
        _final_values_in_figure(4, "BN", "FN, running", curve="train_loss"),
        tuple((f"the median training loss with BN ends below twice that with FN, {network} network",
               lambda e, n=network: np.median(_final_value(e, n, "BN", "train loss", "nats"))
               < TIMES * np.median(_final_value(e, n, "FN, running", "train loss", "nats"))) for network in NETWORKS),
        quantifier="tendency",
        scale="paper",
        note="The training loss with BN falls late: after 400 epochs on digits, it is below 0.3 nats in both networks.",
    ),
    Claim(
        "lian-algorithm-3", "lian2019", "Algorithm 3 and section 6",
        "There is a reading of Algorithm 3 with which Full Normalization (FN) is far better than BN on batches of one "
        "label and as good as BN on shuffled batches.",
        "05_full_normalization#algorithm-3-as-printed", _errors_by_reading_of_algorithm_3,
        (("read literally, FN has less than a third of BN's median error in figure 4, and in figure 7 the two are "
          "within 2 points",
          lambda e: _reading_matches_paper(e, "FN, literal")),
         ("read as the gradient of the same batch, FN meets both of these conditions",
          lambda e: _reading_matches_paper(e, "FN, batch"))),
        quantifier="sometimes",
        scale="paper",
        note="Tested with the convolutional network, where each reading passes one of the two figures. We do not know "
        "which version the authors ran.",
    ),
    Claim(
        "lian-figure-5", "lian2019", "figure 5",
        "On CIFAR-10 with at most three labels per batch, the test error of BN is still far above that of Full "
        "Normalization (FN).",
        "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper",
        _final_values_in_figure(5, "BN", "FN, running", networks=("convolutional",)),
        (("the median test error with BN is more than 5 points above that with FN",
          lambda e: np.median(_final_value(e, "convolutional", "BN"))
          > np.median(_final_value(e, "convolutional", "FN, running")) + FAR),),
        quantifier="tendency",
        stand_in="digits in place of CIFAR-10",
        note="On digits, three labels in a batch of 64 do not harm BN.",
    ),
    Claim(
        "lian-figure-7", "lian2019", "figure 7",
        "On MNIST in shuffled batches, the test errors of BN and Full Normalization (FN) match.",
        "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper", _final_values_in_figure(7, "BN", "FN, running"),
        tuple((f"the median test errors with BN and FN are within 2 points, {network} network",
               lambda e, n=network: abs(
                   np.median(_final_value(e, n, "BN")) - np.median(_final_value(e, n, "FN, running"))) < COMPARABLE)
              for network in NETWORKS),
        quantifier="tendency",
        scale="paper",
    ),
    Claim(
        "lian-figure-8", "lian2019", "figure 8",
        "On CIFAR-10 in shuffled batches, the test errors of BN and Full Normalization (FN) match.",
        "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper",
        _final_values_in_figure(8, "BN", "FN, running", networks=("convolutional",)),
        (("the median test errors with BN and FN are within 2 points", lambda e: abs(
            np.median(_final_value(e, "convolutional", "BN"))
             - np.median(_final_value(e, "convolutional", "FN, running"))) < COMPARABLE),),
        quantifier="tendency",
        stand_in="digits in place of CIFAR-10",
    ),
    Claim(
        "lian-figure-9", "lian2019", "figure 9",
        "With batches of 1 and of 16 samples, BN ends at different test errors, and Full Normalization (FN) at "
        "consistent ones.",
        "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper",
        effects_with(_error_gap_between_batch_sizes, ", BN", "FN, running", "FN, batch"),
        (*(("the median gap between the two test errors is above 5 points with BN, and less than half as large with "
            f"FN, {network} network",
            lambda e, n=network: _gap(e, n, "BN") > FAR and _gap(e, n, "FN, running") < _gap(e, n, "BN") / TIMES)
           for network in NETWORKS),
         *((f"the two test errors of FN are within 2 points, {network} network",
            lambda e, n=network: abs(_gap(e, n, "FN, running")) < COMPARABLE) for network in NETWORKS)),
        quantifier="tendency",
        scale="paper",
        note="This FN uses running averages for its gradient, and the paper's alpha. With the gradient of the same "
        "batch, the gap of FN is about as large as that of BN.",
    ),
    Claim(
        "lian-any-size", "lian2019", "section 5",
        "Algorithm 2 has no requirement on the size of the mini-batch.",
        "05_full_normalization#which-alpha", _error_by_oracle_and_batch_size,
        tuple(("with running averages for the gradient, the median test error on digits is at most 6 % with batches "
               f"of {b}",
               lambda e, b=b: np.median(e[f"test error, gradient from running averages, batches of {b}, %"]) <= WORKS)
              for b in (1, 4, 64)),
        quantifier="always",
        note="Algorithm 2 is the basis of Full Normalization (FN). If FN computes the gradient of the same batch, as "
        "in Algorithm 3, it fails with batches of one sample: the error is 81 %.",
    ),
    Claim(
        "lian-bias", "lian2019", "Remark 1",
        "Using the same samples for all layers brings some bias into the gradient of Full Normalization (FN).",
        "05_full_normalization#how-wrong-is-each-oracle-exactly", _gradient_bias,
        (("with exact statistics, the bias of the same-batch gradient is above 1 % of the gradient with batches of 1, "
          "2 and 3",
          lambda e: min(v.min() for n, v in e.items() if n.startswith("bias")) > 0.01),),
        quantifier="always",
        note="Tested with one normalised layer, where the same samples serve the loss and its statistics. With "
        "batches of one sample, the bias is larger than the gradient, and the average estimate has a negative cosine "
        "with it.",
    ),
    Claim(
        "lian-algorithm-3-size", "lian2019", "Algorithm 3 and figure 9",
        "The layer printed as Algorithm 3 of Full Normalization (FN) ends at consistent test errors with batches of 1 "
        "and of 16 samples.",
        "05_full_normalization#figures-4-5-7-8-and-9-of-the-paper",
        effects_with(_error_gap_between_batch_sizes, "FN, literal", "FN, batch"),
        tuple((f"read {words}, its median test errors at the two batch sizes are within 2 points, {network} network",
               lambda e, n=network, norm=norm: abs(_gap(e, n, norm)) < COMPARABLE)
              for norm, words in (("FN, literal", "literally"), ("FN, batch", "as the gradient of the same batch"))
              for network in NETWORKS),
        quantifier="tendency",
        scale="paper",
    ),
)  # fmt: skip
