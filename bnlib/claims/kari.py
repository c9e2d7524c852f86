"""Claims of the question on Stack Exchange about a stack of 100 layers, and of its answers."""

from __future__ import annotations

import itertools
import math

import numpy as np

from bnlib.claims.claim import Claim, Effects, Row, Rows
from bnlib.experiments.depth import descent

SOURCE, NOISE = "kari2018", "08_deep_stacks#the-suspects-one-by-one"


def roughness(row: Row) -> np.ndarray:
    """All changes of the loss over what they come to; 1 for a loss that only falls."""
    change = row["change"]
    return np.abs(change).sum(1) / np.abs(change.sum(1))


def jitter(row: Row) -> np.ndarray:
    """The mean change of the loss in a step, over the second half of a run."""
    return np.abs(row["change"][:, row["change"].shape[1] // 2 :]).mean(1)


def end(row: Row) -> np.ndarray:
    """The last loss; infinite where a run diverged."""
    return np.nan_to_num(row["start"] + row["change"].sum(1), nan=np.inf)


def _stack(rows: Rows, variant: str, lr: float, depth: int = 100) -> Row:
    return rows("depth.descent", variant, depth, lr)


def _noise(rows: Rows) -> Effects:
    return {
        "roughness with BN": roughness(_stack(rows, "batch norm", 1e-4)),
        "roughness without": roughness(_stack(rows, "no norm", 1e-4)),
    }


def _ten_layers(rows: Rows) -> Effects:
    return {f"roughness, {d} layers": roughness(_stack(rows, "batch norm", 1e-4, d)) for d in (10, 20, 40)}


def _rates(rows: Rows) -> Effects:
    return {
        "roughness at 0.0001": roughness(_stack(rows, "batch norm", 1e-4)),
        "roughness at 0.4": roughness(_stack(rows, "batch norm", 0.4)),
    }


def _rate_of_ten(rows: Rows) -> Effects:
    return {
        "jitter at 10, nats": jitter(_stack(rows, "batch norm", 10.0)),
        "jitter at 0.4, nats": jitter(_stack(rows, "batch norm", 0.4)),
        "loss at the end at 10, nats": end(_stack(rows, "batch norm", 10.0)),
        "loss at the end at 0.4, nats": end(_stack(rows, "batch norm", 0.4)),
        "loss after 300 steps at 10, nats": rows("depth.longer_descent", 10.0)["loss"][:, -1],
    }


def _twice(rows: Rows) -> Effects:
    first, second = (list(itertools.islice(descent.descend("batch norm", 100, 1e-4, 0), 5)) for _ in range(2))
    return {"largest difference of two equal runs, nats": np.abs(np.subtract(first, second)).max()}


def _calm(rows: Rows) -> Effects:
    plain = _stack(rows, "no norm", 0.4)
    return {"roughness without BN": roughness(plain), "fallen below ln 50 by, nats": math.log(50) - end(plain)}


def _numerical(rows: Rows) -> Effects:
    names = {"float64": "batch norm", "float32": "float32"}
    found = {f"jitter in {kind}, nats": jitter(_stack(rows, name, 1e-4)) for kind, name in names.items()}
    return found | {"roughness with eps 0.1": roughness(_stack(rows, "eps 0.1", 1e-4))}


def _explosion(rows: Rows) -> Effects:
    rates = {n: rows("smoothness.stable_learning_rates", "He", n, 8)["rate"] for n in ("batch norm", "no norm")}
    growth = rows("depth.gradient_growth", "batch norm", 50, 63)["growth"][:, 0]
    return {
        "largest stable rate, 8 layers, BN": rates["batch norm"],
        "largest stable rate, 8 layers, none": rates["no norm"],
        "growth of the gradient a layer, 100 layers, BN": growth,
    }


def _no_inference(rows: Rows) -> Effects:
    return {"roughness with BN, never in eval mode": roughness(_stack(rows, "batch norm", 1e-4))}


def _growth(rows: Rows) -> Effects:
    return {f"growth a layer, batch of {n}": rows("depth.gradient_growth", "batch norm", n, 63)["growth"][:, 0]
            for n in (5, 16, 50)}  # fmt: skip


def _lstm(rows: Rows, lr: float, depth: int) -> Row:
    return rows("depth.stacked_lstms", "shared", depth, lr)


def _lstm_layers(rows: Rows) -> Effects:
    return {f"roughness, {d} LSTMs": roughness(_lstm(rows, 1e-4, d)) for d in (10, 40)} | {
        "roughness, 40 LSTMs, at 0.4": roughness(_lstm(rows, 0.4, 40))
    }


def _lstm_ten(rows: Rows) -> Effects:
    return {"loss at the end, 100 LSTMs, nats": end(_lstm(rows, 10.0, 100))}


CLAIMS = (
    Claim(
        "kari-noise", SOURCE, "question",
        "Under full-batch descent a stack of 100 layers fluctuates with BN, and without it the error falls steadily.",
        "08_deep_stacks", _noise,
        (("with BN the roughness is above 10 in every seed", lambda e: e["roughness with BN"].min() > 10),
         ("without it is below 1.1", lambda e: e["roughness without"].max() < 1.1)),
        note="Stacks of linear layers and ReLU stand for the LSTMs of the question.",
    ),
    Claim(
        "kari-ten-layers", SOURCE, "question",
        "With BN about ten layers can be stacked before the noise becomes hard to control.",
        "08_deep_stacks", _ten_layers,
        (("ten layers have a roughness below 1.2 in every seed", lambda e: e["roughness, 10 layers"].max() < 1.2),
         ("forty have one above 10 in every seed", lambda e: e["roughness, 40 layers"].min() > 10)),
    ),
    Claim(
        "kari-smaller-rate", SOURCE, "question",
        "A smaller learning rate makes the relative fluctuation larger: 0.0001 is worse than 0.4.",
        "08_deep_stacks#nothing-is-random", _rates,
        (("the median roughness at 0.0001 is more than three times that at 0.4",
          lambda e: np.median(e["roughness at 0.0001"]) > 3 * np.median(e["roughness at 0.4"])),),
        note="True of rates that anybody would try; below 1e-20 the loss falls smoothly.",
    ),
    Claim(
        "kari-rate-of-ten", SOURCE, "question, edit",
        "With 100 layers a learning rate of 10 is less noisy than smaller ones, and it works.",
        "08_deep_stacks#far-right-the-brake", _rate_of_ten,
        (("the median jitter at 10 is below that at 0.4",
          lambda e: np.median(e["jitter at 10, nats"]) < np.median(e["jitter at 0.4, nats"])),
         ("the median loss at 10 ends below that at 0.4",
          lambda e: np.median(e["loss at the end at 10, nats"]) < np.median(e["loss at the end at 0.4, nats"])),
         ("carried on to 300 steps at 10 it is below that of a constant answer, ln 50, in some seed",
          lambda e: e["loss after 300 steps at 10, nats"].min() < math.log(50) - 0.01)),
    ),
    Claim(
        "kari-stochastic", SOURCE, "title and question",
        "BN adds stochasticity to full-batch descent.",
        "08_deep_stacks#nothing-is-random", _twice,
        (("two equal runs in float64 differ at all",
          lambda e: e["largest difference of two equal runs, nats"].max() > 0),),
        refuted="wrong", note="The fluctuation is real; it is deterministic.",
    ),
    Claim(
        "kari-calm-is-healthy", SOURCE, "question and a comment of the asker",
        "Without BN 100 layers learn steadily, so whatever is wrong came with BN.",
        "08_deep_stacks", _calm,
        (("without BN the roughness is below 1.1 in every seed", lambda e: e["roughness without BN"].max() < 1.1),
         ("its loss ends more than 0.05 nats below that of a constant answer in some seed",
          lambda e: e["fallen below ln 50 by, nats"].max() > 0.05)),
        note="It falls steadily because only the last layer learns how many characters there are.",
    ),
    Claim(
        "kari-numerical", SOURCE, "first answer",
        "The fluctuation is numerical instability, of epsilon perhaps, which adds up over many small steps.",
        NOISE, _numerical,
        (("in float32 the jitter is more than twice that in float64",
          lambda e: np.median(e["jitter in float32, nats"]) > 2 * np.median(e["jitter in float64, nats"])),
         ("an epsilon of 0.1 brings the roughness below 2", lambda e: e["roughness with eps 0.1"].max() < 2)),
        refuted="wrong",
    ),
    Claim(
        "kari-explosion", SOURCE, "second answer",
        "BN should allow higher learning rates, for it combats the explosion of scales.",
        "08_deep_stacks#what-the-answers-got-right-and-wrong", _explosion,
        (("with eight layers the largest stable rate is larger with BN in every seed",
          lambda e: e["largest stable rate, 8 layers, BN"].min() > e["largest stable rate, 8 layers, none"].max()),
         ("in 100 layers with BN the gradient grows by less than 5 % a layer",
          lambda e: e["growth of the gradient a layer, 100 layers, BN"].max() < 1.05)),
        note="The answer means the explosion that a high rate causes; the second condition is about depth, before "
        "training.",
    ),
    Claim(
        "kari-inference", SOURCE, "third answer",
        "It comes from the difference between training and inference, where moving averages stand for the batch.",
        "08_deep_stacks#what-the-answers-got-right-and-wrong", _no_inference,
        (("where only the loss of the training is looked at, in train mode, the roughness is below 2",
          lambda e: e["roughness with BN, never in eval mode"].max() < 2),),
        refuted="wrong", note="The asker says that there is no inference, and with a full batch nothing to average.",
    ),
    Claim(
        "kari-small-batches", SOURCE, "third answer",
        "The smaller the mini-batch, the worse BN gets with depth.",
        "08_deep_stacks#why-the-gradient-grows", _growth,
        (("the growth of the gradient falls from batches of 5 to 16 and to 50, in every seed",
          lambda e: e["growth a layer, batch of 5"].min() > e["growth a layer, batch of 16"].max()
          and e["growth a layer, batch of 16"].min() > e["growth a layer, batch of 50"].max()),),
        note="We measure the gradient before training, not the performance that the answer speaks of.",
    ),
    Claim(
        "kari-lstm", SOURCE, "question",
        "In stacks of LSTMs, too, few layers are calm, many are not, and a smaller rate is worse.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_layers,
        (("ten LSTMs have a roughness below 1.1 in every seed", lambda e: e["roughness, 10 LSTMs"].max() < 1.1),
         ("forty have one above 20 in every seed", lambda e: e["roughness, 40 LSTMs"].min() > 20),
         ("at 0.4 the median roughness of forty is less than a third of that at 0.0001",
          lambda e: 3 * np.median(e["roughness, 40 LSTMs, at 0.4"]) < np.median(e["roughness, 40 LSTMs"]))),
    ),
    Claim(
        "kari-lstm-rate-of-ten", SOURCE, "question, edit",
        "A stack of 100 LSTMs with BN can be trained at a learning rate of 10.",
        "08_deep_stacks#the-question-as-it-was-asked-lstms", _lstm_ten,
        (("the loss ends below that of a constant answer, ln 50, in some seed",
          lambda e: e["loss at the end, 100 LSTMs, nats"].min() < math.log(50)),),
        note="Where BN stands in the LSTM and whether the loss is a sum or a mean, the question does not say.",
    ),
)  # fmt: skip
