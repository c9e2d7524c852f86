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
        "fallen below ln 50 by, nats": math.log(50) - final_loss(plain),
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
    return {"loss at the end, 100 LSTMs, nats": final_loss(_lstm_descent(results, 10.0, 100))}


CLAIMS = (
    Claim(
        "kari-calm-is-healthy", "kari2018", "question and a comment of the asker",
        "Without BN 100 layers learn steadily, so whatever is wrong came with BN.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstms_without_bn,
        (("without BN the roughness is below 1.2 in every seed",
          lambda e: e["roughness of 100 LSTMs without BN"].max() < CALM),
         ("its loss ends more than 0.05 nats below that of a constant answer in some seed",
          lambda e: e["fallen below ln 50 by, nats"].max() > 0.05)),
        quantifier="tendency",
        note="The error falls steadily because hardly anything is learnt.",
    ),
    Claim(
        "kari-lstm-noise", "kari2018", "question",
        "Under full-batch descent a stack of 100 LSTMs fluctuates with BN, and without it the error falls steadily.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_roughness_with_and_without_bn,
        (("with BN the roughness at 0.0001 is above 2 in every seed",
          lambda e: e["roughness of 100 LSTMs with BN, at 0.0001"].min() > ROUGH),
         ("without it the roughness is below 1.2, even at 0.4",
          lambda e: e["roughness of 100 LSTMs without BN, at 0.4"].max() < CALM)),
        quantifier="tendency",
    ),
    Claim(
        "kari-lstm", "kari2018", "question",
        "With BN about ten LSTMs can be stacked before the noise becomes hard to control.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_roughness_by_depth,
        (("ten LSTMs have a roughness below 1.2 in every seed", lambda e: e["roughness, 10 LSTMs"].max() < CALM),
         ("forty have one above 10 in every seed", lambda e: e["roughness, 40 LSTMs"].min() > 10)),
        quantifier="tendency",
    ),
    Claim(
        "kari-lstm-smaller-rate", "kari2018", "question",
        "A smaller learning rate makes the relative fluctuation of the stack of LSTMs larger: 0.0001 is worse than "
        "0.4.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_roughness_by_rate,
        (("at 0.0001 the median roughness of forty is more than twice that at 0.4",
          lambda e: np.median(e["roughness, 40 LSTMs, at 0.0001"])
          > TIMES * np.median(e["roughness, 40 LSTMs, at 0.4"])),),
        quantifier="tendency",
    ),
    Claim(
        "kari-lstm-rate-of-ten", "kari2018", "question, edit",
        "A stack of 100 LSTMs with BN can be trained at a learning rate of 10.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_loss_at_rate_10,
        (("the loss ends below that of a constant answer, ln 50, in some seed",
          lambda e: e["loss at the end, 100 LSTMs, nats"].min() < math.log(50)),),
        quantifier="sometimes",
        note="The question does not say where BN is in the LSTM, or whether the loss is a sum or a mean.",
    ),
)  # fmt: skip
