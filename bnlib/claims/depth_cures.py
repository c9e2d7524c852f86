"""Claims about cures of the noise of deep stacks, and about networks that need no norm, tested in chapter 8."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.depth import final_loss, roughness
from bnlib.claims.thresholds import COMPARABLE, ROUGH, TIMES, WORKS
from bnlib.experiments.depth.cures import RATES
from bnlib.experiments.depth.without_norms import BATCH_SIZES, LEARNING_RATES

_RENORMS = ("Batch Renorm", "Batch Renorm, statistics of the first batch")
_FLOORS = (0.01, 0.1)


def _cure(results: Results, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the roughness at 0.0001, and the final loss at the rate with the smallest median, per seed."""
    rows = {lr: results("depth.cures", variant, lr) for lr in RATES[variant]}
    return roughness(rows[1e-4]), min(map(final_loss, rows.values()), key=np.median)


def _batch_norm(results: Results) -> tuple[np.ndarray, np.ndarray]:
    rows = {lr: results("depth.descent", "batch norm", 100, lr) for lr in (1e-4, 0.1, 0.4, 10.0)}
    return roughness(rows[1e-4]), min(map(final_loss, rows.values()), key=np.median)


def _compared(results: Results, variants: dict[str, str]) -> Effects:
    found: Effects = {}
    for title, (rough, loss) in {
        "BN": _batch_norm(results),
        **{title: _cure(results, variant) for title, variant in variants.items()},
    }.items():
        found |= {f"roughness at 0.0001, {title}": rough, f"final loss at the best rate, {title}, nats": loss}
    return found


def _batch_renorm(results: Results) -> Effects:
    return _compared(results, {name: name for name in _RENORMS})


def _clipped_variance(results: Results) -> Effects:
    return _compared(results, {f"variance at least {least:g}": f"variance at least {least:g}" for least in _FLOORS})


def _largest_rises(results: Results) -> Effects:
    return {
        f"largest rise of the loss in a step at {lr:g}, nats": results("depth.descent", "batch norm", 100, lr)[
            "loss_changes"
        ].max(1)
        for lr in (10.0, 0.4)
    }


def _errors(results: Results, network: str, batch_size: int) -> np.ndarray:
    """Return the test errors in per cent, shape (seeds, rates); infinite where training diverged."""
    errors = 100 * np.asarray(results("depth.without_norms", network, batch_size)["test_error"], dtype=float)
    return np.nan_to_num(errors, nan=np.inf)


def _errors_without_norms(results: Results) -> Effects:
    found: Effects = {}
    for size in BATCH_SIZES:
        for title, network in (("BN", "batch norm"), ("without norms", "weight standardisation, AGC")):
            errors = _errors(results, network, size)
            found[f"test error at the best rate, {title}, batch size {size}, %"] = errors[
                :, np.argmin(np.median(errors, 0))
            ]
    return found


def _largest_rates_with_clipping(results: Results) -> Effects:
    """Return the largest rate at which the network works, per seed; 0 if there is none."""
    names = {"with AGC": "weight standardisation, AGC", "without AGC": "weight standardisation"}
    return {
        f"largest learning rate with a test error of 6 % or less, {title}": np.where(
            _errors(results, network, 64) <= WORKS, np.array(LEARNING_RATES), 0.0
        ).max(1)
        for title, network in names.items()
    }


CLAIMS = (
    Claim(
        "kari-renorm", "kari2018", "third answer",
        "Batch Renorm helps against the fluctuation of the loss in deep stacks.",
        "08_deep_stacks#the-suspects-one-by-one", _batch_renorm,
        (("the median roughness (total movement of the loss over its net change) with BN is more than twice that with "
          "Batch Renorm, from both starts",
          lambda e: all(np.median(e["roughness at 0.0001, BN"])
                        > TIMES * np.median(e[f"roughness at 0.0001, {name}"]) for name in _RENORMS)),
         ("at the best learning rate of each, the median final loss is lower with Batch Renorm than with BN, from "
          "both starts",
          lambda e: all(np.median(e["final loss at the best rate, BN, nats"])
                        > np.median(e[f"final loss at the best rate, {name}, nats"]) for name in _RENORMS))),
        quantifier="tendency",
        stand_in="stacks of fully connected layers with ReLU in place of LSTMs",
        note="The running statistics start at 0 and 1, or at the statistics of the first batch. The roughness is that "
        "at a learning rate of 0.0001.",
    ),
    Claim(
        "kari-clipping", "kari2018", "first answer",
        "Clipping the variance in BN removes the fluctuation of the loss in deep stacks.",
        "08_deep_stacks#the-suspects-one-by-one", _clipped_variance,
        (("with a variance of at least 0.01 or 0.1, the roughness (total movement of the loss over its net change) at "
          "a learning rate of 0.0001 is below 2 for every seed",
          lambda e: min(e[f"roughness at 0.0001, variance at least {least:g}"].max() for least in _FLOORS) < ROUGH),
         ("with this limit, the median final loss is lower than with BN, at the best learning rate of each",
          lambda e: any(e[f"roughness at 0.0001, variance at least {least:g}"].max() < ROUGH
                        and np.median(e[f"final loss at the best rate, variance at least {least:g}, nats"])
                        < np.median(e["final loss at the best rate, BN, nats"]) for least in _FLOORS))),
        quantifier="tendency",
        stand_in="stacks of fully connected layers with ReLU in place of LSTMs",
    ),
    Claim(
        "kari-snap", "kari2018", "question, edit",
        "With 100 layers and BN at a learning rate of 10, the error occasionally snaps to a high value.",
        "08_deep_stacks#exercise-2-one-over-the-learning-rate", _largest_rises,
        (("at a learning rate of 10, some step raises the loss by more than 0.5 nats, for every seed",
          lambda e: e["largest rise of the loss in a step at 10, nats"].min() > 0.5),),
        quantifier="tendency",
        stand_in="stacks of fully connected layers with ReLU in place of LSTMs",
        note="At a learning rate of 0.4, such steps occur, too.",
    ),
    Claim(
        "brock-match", "brock2021", "abstract and section 4",
        "Deep residual networks without norms match the test accuracy of networks with BN if they use weight "
        "standardisation and adaptive gradient clipping.",
        "08_deep_stacks#exercise-8-in-place-of-the-norm", _errors_without_norms,
        tuple(
            (f"with batches of {size}, the median test error without norms is at most 2 points above that with BN, at "
             "the best learning rate of each",
             lambda e, size=size: np.median(e[f"test error at the best rate, without norms, batch size {size}, %"])
             < np.median(e[f"test error at the best rate, BN, batch size {size}, %"]) + COMPARABLE)
            for size in BATCH_SIZES
        ),
        quantifier="tendency",
        stand_in="20 fully connected layers on digits in place of ResNets on ImageNet",
    ),
    Claim(
        "brock-clipping", "brock2021", "abstract and section 4",
        "Without norms, networks are unstable at large learning rates, but adaptive gradient clipping makes it "
        "possible to train them there.",
        "08_deep_stacks#exercise-8-in-place-of-the-norm", _largest_rates_with_clipping,
        (("with batches of 64, the largest learning rate with a test error of 6 % or less is larger with clipping "
          "than without, for every seed",
          lambda e: (e["largest learning rate with a test error of 6 % or less, with AGC"]
                     > e["largest learning rate with a test error of 6 % or less, without AGC"]).all()),),
        quantifier="tendency",
        stand_in="20 fully connected layers on digits in place of ResNets on ImageNet",
    ),
)  # fmt: skip
