"""Claims of "On The Perils of Batch Norm", and of the comments under it."""

from __future__ import annotations

import io

import numpy as np
import torch

from bnlib import probes
from bnlib.claims.claim import Claim, Effects, Rows
from bnlib.experiments.alternatives import batch_sizes
from bnlib.experiments.perils import distribution_shift, train_mode_at_inference
from bnlib.models import mlp
from bnlib.norm import NORMS, BatchNorm, BatchRenorm

SOURCE, CHAPTER = "irpan2017", "06_perils"


def _alone(rows: Rows) -> Effects:
    place = train_mode_at_inference.BATCH_SIZES.index(1)
    layer = BatchNorm(3)
    torch.nn.init.constant_(layer.bias, 0.25)
    return {
        "right answers, fully connected, one at a time, %": 100
        * rows("perils.train_mode_at_inference", "fully connected", "shuffled")["train_mode"][:, place],
        "output of a layer with beta 0.25 for one sample": layer(torch.tensor([[5.0, -1e6, 0.0]])).max().item(),
    }


def _checkpoint(rows: Rows) -> Effects:
    file, x = io.BytesIO(), torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    torch.save(mlp((5, 8, 3), "batch_norm", seed=0).train(), file)
    file.seek(0)
    model = torch.load(file, weights_only=False)
    answers = torch.cat([model(each[None]) for each in x]).detach()
    return {
        "restored in train mode": float(model.training),
        "largest difference of its answers to single samples": (answers - answers[0]).abs().max().item(),
    }


def _averages(rows: Rows) -> Effects:
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.BatchNorm1d(1, affine=False).double()
    for _ in range(200):
        for mean, deviation in ((0.0, 1.0), (4.0, 2.0)):
            layer(mean + deviation * torch.randn(500, 1, generator=generator, dtype=torch.float64))
    return {
        "running mean, where the domains have 0 and 4": layer.running_mean.item(),
        "running variance, where they have 1 and 4": layer.running_var.item(),
    }


def _towers(rows: Rows) -> Effects:
    cells = {"mixed batches": ("batch norm", 0.5), "two towers": ("batch norm", 1.0),
             "own norms": ("domain batch norm", 1.0)}  # fmt: skip
    found = {}
    for name, (norm, share) in cells.items():
        right = 100 * rows("perils.two_towers", "inverted", norm, share, 64)["running"]
        found |= {f"right on {kind}, {name}, %": right[:, n] for n, kind in enumerate(("digits", "inverted digits"))}
    return found


def _all(e: Effects, left: str, right: str, worse: bool) -> bool:
    """Whether in each domain all seeds (``worse``) or the median of the left are below the right."""
    pairs = [(e[f"right on {kind}, {left}, %"], e[f"right on {kind}, {right}, %"])
             for kind in ("digits", "inverted digits")]  # fmt: skip
    return all(a.max() < b.min() if worse else np.median(a) < np.median(b) for a, b in pairs)


def _wider(e: Effects) -> bool:
    names = [n for n in e if "two towers" in n]
    return all(np.ptp(e[n]) > 2 * np.ptp(e[n.replace("two towers", "mixed batches")]) for n in names)


def _discriminator(rows: Rows) -> Effects:
    found: Effects = {}
    for fake in ("shifted", "scaled", "reshaped"):
        mixed, separate = (
            rows("perils.gan_discriminator", "batch norm", fake, batches) for batches in ("mixed", "separate")
        )
        found[f"{fake}: right in eval mode, trained on mixed batches, %"] = 100 * mixed["eval"]
        found[f"{fake}: the same, trained on separate ones, %"] = 100 * separate["eval"]
        found[f"{fake}: right in separate batches, trained on mixed, %"] = 100 * mixed["separate"]
    return found


def _contracts(rows: Rows) -> Effects:
    torch.manual_seed(0)
    found, x = {}, torch.randn(8, 4)
    for name in ("layer_norm", "weight_norm", "cosine", "batch_norm"):
        model = NORMS[name].apply(torch.nn.Linear(4, 8))
        ways = [float(probe(model, x)) for probe in (probes.batch_dependence, probes.train_eval_difference)]
        found[f"{NORMS[name].title}: largest change by company or mode"] = max(ways)
    return found


def _tuned(rows: Rows) -> Effects:
    found = {}
    for budget in (batch_sizes.STEPS, batch_sizes.SAMPLES):
        medians = [_at_best(rows, norm, budget, 256) for norm in batch_sizes.NORMS if norm != "none, torch's start"]
        found[f"batches of 256, {budget}: worst less best norm, points"] = max(medians) - min(medians)
    return found


def _at_best(rows: Rows, norm: str, budget: str, batch_size: int) -> float:
    """Median test error at the best learning rate, per cent."""
    points = batch_sizes.POINTS[batch_size] / batch_sizes.EPOCHS[batch_size]
    point = round(batch_sizes.BUDGETS[budget][batch_size] * points)
    ends = []
    for lr in batch_sizes.LEARNING_RATES:
        curves = rows("alternatives.batch_sizes", norm, "shuffled", batch_size, lr)["test_error"]
        ends.append(np.median(np.nan_to_num(curves[:, min(point, curves.shape[1] - 1)], nan=0.9)))
    return 100 * min(ends)


def _fast(rows: Rows) -> Effects:
    names = {"BN": "batch norm", "no norm": "none"}
    return {
        f"test error after {steps} steps of 256, {title}, %": _at_best(rows, norm, budget, 256)
        for steps, budget in ((25, batch_sizes.SAMPLES), (360, batch_sizes.STEPS))
        for title, norm in names.items()
    }


def _renorm(rows: Rows) -> Effects:
    layer = BatchRenorm(1, r_max=100.0, d_max=100.0, affine=False)
    x = torch.randn(16, 1, generator=torch.Generator().manual_seed(0))
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    first = layer(x).detach()
    layer.load_state_dict(state)
    layer.running_mean.fill_(1.0)
    return {"change of the output in train mode with the running mean": (layer(x) - first).abs().max().item()}


def _labelled(rows: Rows) -> Effects:
    even, skewed = distribution_shift.SHARES.index(0.1), distribution_shift.SHARES.index(0.9)
    same, brighter = (100 * rows("perils.distribution_shift", shift)["training"] for shift in (0.0, 0.8))
    return {
        "right, as in training, %": same[:, even],
        "right, nine in ten of one class, %": same[:, skewed],
        "right, other pictures (0.8 brighter), %": brighter[:, even],
    }


def _drop(e: Effects, name: str) -> bool:
    return np.median(e["right, as in training, %"]) - np.median(e[name]) > 5


CLAIMS = (
    Claim(
        "irpan-alone", SOURCE, "first story",
        "In train mode a single sample is normalised to 0, so that the answer does not depend on it.",
        f"{CHAPTER}#asked-in-train-mode", _alone,
        (("one at a time a dense network is right in less than 20 % in every seed",
          lambda e: e["right answers, fully connected, one at a time, %"].max() < 20),
         ("the layer puts out 0, whatever its beta",
          lambda e: e["output of a layer with beta 0.25 for one sample"].max() == 0)),
        note="It puts out beta; with images a single sample is normalised over its positions.",
    ),
    Claim(
        "irpan-checkpoint", SOURCE, "second story",
        "A model that comes back as it was while it trained is in train mode, and useless for single samples.",
        f"{CHAPTER}#stuck-in-train-mode", _checkpoint,
        (("a model saved whole comes back in train mode", lambda e: e["restored in train mode"].min() == 1),
         ("its answers to single samples are all the same",
          lambda e: e["largest difference of its answers to single samples"].max() < 1e-6)),
        note="torch.save stands for TensorFlow's MetaGraph.",
    ),
    Claim(
        "irpan-averages", SOURCE, "third story",
        "If two towers share running statistics, these converge to the average of the two domains'.",
        f"{CHAPTER}#why-no-single-statistic-is-right", _averages,
        (("the running mean is within 0.3 of the average of the means, 2",
          lambda e: abs(e["running mean, where the domains have 0 and 4"][0] - 2) < 0.3),
         ("the running variance is within 0.3 of the average of the variances, 2.5",
          lambda e: abs(e["running variance, where they have 1 and 4"][0] - 2.5) < 0.3)),
        note="The variance of both domains together would be 6.5: the part between them is missing.",
    ),
    Claim(
        "irpan-towers", SOURCE, "third story, plot",
        "Two towers that share running statistics do worse at test time than mixed batches, and vary more over seeds.",
        f"{CHAPTER}#two-towers", _towers,
        (("they are below mixed batches in both domains in every seed",
          lambda e: _all(e, "two towers", "mixed batches", True)),
         ("their range over seeds is more than twice as wide in both", _wider)),
        note="Digits and inverted digits; on digits and MNIST the loss is 2 and 11 points.",
    ),
    Claim(
        "irpan-own-norms", SOURCE, "third story, aside",
        "Best of all are shared weights with separate BN variables for each domain.",
        f"{CHAPTER}#two-towers", _towers,
        (("they are above shared running statistics in both domains in every seed",
          lambda e: _all(e, "two towers", "own norms", True)),
         ("their median is above that of mixed batches in both domains",
          lambda e: _all(e, "mixed batches", "own norms", False))),
        note="Ahead of mixed batches by a point, where the ranges overlap.",
    ),
    Claim(
        "irpan-gan", SOURCE, "after the third story",
        "A discriminator with BN must be given batches half real, half generated.",
        f"{CHAPTER}#the-discriminator", _discriminator,
        (("in eval mode it is right more often after mixed batches than after separate ones, for each kind of fake, "
          "in every seed",
          lambda e: all(e[n].min() > e[n.replace("right in eval mode, trained on mixed batches", "the same, trained on "
          "separate ones")].max() for n in e if "trained on mixed batches" in n)),
         ("asked about batches of one kind it is right less often than in eval mode, in the median",
          lambda e: all(np.median(e[n]) < np.median(e[n.replace("separate batches, trained on mixed",
          "eval mode, trained on mixed batches")]) for n in e if "in separate batches" in n))),
        note="Points in the plane, BN in both layers; no generator is trained.",
    ),
    Claim(
        "irpan-contracts", SOURCE, "why haven't people ditched batch norm",
        "Layer norm, weight norm and cosine norm keep both contracts that BN breaks: batch independence, train = test.",
        "09_alternatives#what-each-one-keeps", _contracts,
        (("with each of the three neither company nor mode changes an output by more than 1e-5 of its size",
          lambda e: max(v.max() for n, v in e.items() if not n.startswith("Batch")) < 1e-5),
         ("with BN they do", lambda e: min(v.min() for n, v in e.items() if n.startswith("Batch")) > 1e-2)),
    ),
    Claim(
        "irpan-tuned", SOURCE, "why haven't people ditched batch norm",
        "Tuned well, the normalisation methods differ little.",
        "09_alternatives#the-contest", _tuned,
        (("after 360 steps of 256 pictures all are within 3 points at their best rates",
          lambda e: e["batches of 256, as many steps: worst less best norm, points"].max() < 3),
         ("after 25 such steps they are, too",
          lambda e: e["batches of 256, as many pictures: worst less best norm, points"].max() < 3)),
        note="At batch size 1 BN and Batch Renorm fail altogether. Three dense layers on digits.",
    ),
    Claim(
        "irpan-fast", SOURCE, "why haven't people ditched batch norm",
        "When everything is done right, models with BN train a lot faster.",
        "09_alternatives#the-contest", _fast,
        (("after 25 steps of 256 pictures, at the best rate of each, BN has less than half the errors of no norm",
          lambda e: e["test error after 25 steps of 256, BN, %"].max()
          < e["test error after 25 steps of 256, no norm, %"].min() / 2),),
        note="Given 360 steps the two are close. No norm starts with He's weights.",
    ),
    Claim(
        "irpan-renorm", SOURCE, "paragraph on Batch Renorm, withdrawn by the author",
        "Batch Renorm has moving averages that are used at test time only.",
        "09_alternatives#what-shares-with-what", _renorm,
        (("its output in train mode is the same whatever the running mean is",
          lambda e: e["change of the output in train mode with the running mean"].max() < 1e-6),),
        refuted="wrong", note="The post took it back in June 2017.",
    ),
    Claim(
        "irpan-labelled", SOURCE, "comment of E. Kruus",
        "If labelled samples are over-represented in training, the statistics of BN are wrong for the data in use.",
        f"{CHAPTER}#other-data-in-use", _labelled,
        (("the training's statistics cost more than 5 points where one class makes nine in ten in use",
          lambda e: _drop(e, "right, nine in ten of one class, %")),
         ("they do where the pictures are others", lambda e: _drop(e, "right, other pictures (0.8 brighter), %"))),
        note="Other frequencies do no harm; statistics taken anew from them do.",
    ),
    Claim(
        "irpan-leaky", SOURCE, "comment of M. Görner",
        "With LeakyReLU or SELU batch norm is no longer useful.",
        f"{CHAPTER}",
        why_not="Hearsay, as the comment says itself; it names no task, depth or measure of use, and we have not "
        "trained these activations.",
    ),
    Claim(
        "irpan-indefensible", SOURCE, "why haven't people ditched batch norm",
        "That a sample's output depends on its batch is indefensible; nobody would call it a good quality.",
        f"{CHAPTER}",
        why_not="A judgement of value. That the dependence exists, and that its noise may regularise, can be measured; "
        "whether it is defensible cannot.",
    ),
)  # fmt: skip
