"""Claims of the question about a stack of 100 layers, tested in chapter 8 on the LSTMs that it asks about."""

from __future__ import annotations

import math

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results, Row
from bnlib.claims.depth import final_loss, roughness
from bnlib.claims.thresholds import CALM, ROUGH, TIMES


def _lstm_descent(results: Results, lr: float, depth: int) -> Row:
    return results("depth.stacked_lstms", "shared", depth, lr)


def _lstms_without_bn(results: Results) -> Effects:
    plain = results("depth.stacked_lstms", "without normalisation", 100, 0.4)
    return {
        "roughness of 100 LSTMs without BN": roughness(plain),
        "ln 50 less the final loss, nats": math.log(50) - final_loss(plain),
    }


def _lstm_roughness_with_and_without_bn(results: Results) -> Effects:
    return {
        "roughness of 100 LSTMs with BN, at 0.0001": roughness(_lstm_descent(results, 1e-4, 100)),
        "roughness of 100 LSTMs without BN, at 0.4": _lstms_without_bn(results)["roughness of 100 LSTMs without BN"],
    }


def _lstm_roughness_by_depth(results: Results) -> Effects:
    return {f"roughness, {d} LSTMs": roughness(_lstm_descent(results, 1e-4, d)) for d in (10, 20, 40)}


def _lstm_roughness_by_rate(results: Results) -> Effects:
    return {f"roughness, 40 LSTMs, at {lr:g}": roughness(_lstm_descent(results, lr, 40)) for lr in (1e-4, 0.4)}


def _lstm_loss_at_rate_10(results: Results) -> Effects:
    return {"final loss, 100 LSTMs, nats": final_loss(_lstm_descent(results, 10.0, 100))}


CLAIMS = (
    Claim(
        "kari-calm-is-healthy", "kari2018", "question and a comment of the asker",
        "Without BN, a stack of 100 LSTMs learns steadily, so whatever is wrong came with BN.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstms_without_bn,
        (("without BN, the total movement of the loss is less than 1.2 times its net change (roughness below 1.2) for "
          "every seed",
          lambda e: e["roughness of 100 LSTMs without BN"].max() < CALM),
         ("without BN, the loss ends more than 0.05 nats below ln 50, the loss of a constant prediction, for some seed",
          lambda e: e["ln 50 less the final loss, nats"].max() > 0.05)),
        quantifier="tendency",
        note="Without BN, the error falls steadily because the network learns hardly anything.",
    ),
    Claim(
        "kari-lstm-noise", "kari2018", "question",
        "With full-batch gradient descent, the error of a stack of 100 LSTMs fluctuates with BN and falls steadily "
        "without BN.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_roughness_with_and_without_bn,
        (("with BN at a learning rate of 0.0001, the total movement of the loss is more than twice its net change "
          "(roughness above 2) for every seed",
          lambda e: e["roughness of 100 LSTMs with BN, at 0.0001"].min() > ROUGH),
         ("without BN, the roughness is below 1.2 for every seed, even at a learning rate of 0.4",
          lambda e: e["roughness of 100 LSTMs without BN, at 0.4"].max() < CALM)),
        quantifier="tendency",
    ),
    Claim(
        "kari-lstm", "kari2018", "question",
        "With BN, about ten LSTMs can be stacked before the fluctuation of the loss becomes hard to control.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_roughness_by_depth,
        (("with 10 LSTMs, the total movement of the loss is less than 1.2 times its net change (roughness below 1.2) "
          "for every seed", lambda e: e["roughness, 10 LSTMs"].max() < CALM),
         ("with 40 LSTMs, the roughness is above 10 for every seed", lambda e: e["roughness, 40 LSTMs"].min() > 10)),
        quantifier="tendency",
    ),
    Claim(
        "kari-lstm-smaller-rate", "kari2018", "question",
        "In deep stacks of LSTMs with BN, a smaller learning rate makes the relative fluctuation larger: 0.0001 is "
        "worse than 0.4.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_roughness_by_rate,
        (("with 40 LSTMs, the median roughness (total movement of the loss over its net change) at 0.0001 is more "
          "than twice that at 0.4",
          lambda e: np.median(e["roughness, 40 LSTMs, at 0.0001"])
          > TIMES * np.median(e["roughness, 40 LSTMs, at 0.4"])),),
        quantifier="tendency",
    ),
    Claim(
        "kari-lstm-rate-of-ten", "kari2018", "question, edit",
        "A stack of 100 LSTMs with BN can be trained at a learning rate of 10.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_loss_at_rate_10,
        (("the loss ends below ln 50, the loss of a constant prediction, for some seed",
          lambda e: e["final loss, 100 LSTMs, nats"].min() < math.log(50)),),
        quantifier="sometimes",
        note="The question says neither where BN is in the LSTM nor whether the loss is a sum or a mean.",
    ),
)  # fmt: skip
