"""Claims tested in chapter 6, the perils of batch norm."""

from __future__ import annotations

import io
import itertools

import numpy as np
import torch

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.thresholds import COMPARABLE, EXACT, FAR, TIMES, WORKS
from bnlib.experiments.perils import (
    activations,
    adaptation_at_test_time,
    distribution_shift,
    target_networks,
    train_mode_at_inference,
)
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _single_sample_in_train_mode(results: Results) -> Effects:
    place = train_mode_at_inference.BATCH_SIZES.index(1)
    layer = BatchNorm(3)
    torch.nn.init.constant_(layer.bias, 0.25)
    samples = 100 * torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0))
    return {
        "right answers, fully connected, one at a time, %": 100
        * results("perils.train_mode_at_inference", "fully connected", "shuffled")["train_mode"][:, place],
        "largest normalised value of a single sample, before beta": np.array(
            [(layer(each) - layer.bias).abs().max().item() for each in samples]
        ),
    }


def _model_restored_in_train_mode(results: Results) -> Effects:
    file, x = io.BytesIO(), torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    torch.save(mlp((5, 8, 3), "batch_norm", seed=0).train(), file)
    file.seek(0)
    model = torch.load(file, weights_only=False)
    answers = torch.cat([model(each[None]) for each in x]).detach()
    return {
        "restored in train mode": float(model.training),
        "largest difference of its answers to single samples": (answers - answers[0]).abs().max().item(),
    }


def _running_statistics_of_two_domains(results: Results) -> Effects:
    means, variances = [], []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        layer = torch.nn.BatchNorm1d(1, affine=False).double()
        for _ in range(100):
            for mean, deviation in ((0.0, 1.0), (4.0, 2.0)):
                layer(mean + deviation * torch.randn(500, 1, generator=generator, dtype=torch.float64))
        means.append(layer.running_mean.item())
        variances.append(layer.running_var.item())
    return {
        "running mean, where the domains have 0 and 4": np.array(means),
        "running variance, where they have 1 and 4": np.array(variances),
    }


def _two_tower_accuracies(results: Results) -> Effects:
    cells = {
        "mixed batches": ("batch norm", 0.5),
        "two towers": ("batch norm", 1.0),
        "own norms": ("domain batch norm", 1.0),
    }
    found = {}
    for name, (norm, share) in cells.items():
        right = 100 * results("perils.two_towers", "inverted", norm, share, 64)["running"]
        found |= {f"right on {kind}, {name}, %": right[:, n] for n, kind in enumerate(("digits", "inverted digits"))}
    return found


def _below_in_both_domains(e: Effects, left: str, right: str, worse: bool) -> bool:
    """Whether in each domain all seeds (``worse``) or the median of the left are below the right, not comparable."""
    pairs = [
        (e[f"right on {kind}, {left}, %"], e[f"right on {kind}, {right}, %"]) for kind in ("digits", "inverted digits")
    ]
    return all(a.max() < b.min() if worse else np.median(a) + COMPARABLE < np.median(b) for a, b in pairs)


def _two_towers_vary_more(e: Effects) -> bool:
    names = [n for n in e if "two towers" in n]
    return all(np.ptp(e[n]) > TIMES * np.ptp(e[n.replace("two towers", "mixed batches")]) for n in names)


def _gradients_of_two_towers(results: Results) -> Effects:
    """Compare the gradient of one batch of two kinds of data with the mean gradient of a batch of each."""
    found: dict[str, list[float]] = {}
    for seed in range(3):
        data = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(seed)).double()
        data[1] = 3 * data[1] + 2
        for name, norm in (("without BN", None), ("with BN", BatchNorm)):
            net = mlp((5, 8, 1), norm, seed=seed).double()
            losses = (
                net(data.flatten(0, 1)).square().mean(),
                (net(data[0]).square().mean() + net(data[1]).square().mean()) / 2,
            )
            one, two = (
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, net.parameters())]) for loss in losses
            )
            found.setdefault(f"difference of the gradients relative to their size, {name}", []).append(
                ((one - two).norm() / one.norm()).item()
            )
    return {name: np.array(each) for name, each in found.items()}


def _errors_by_activation(results: Results) -> Effects:
    found: Effects = {}
    for activation, norm in itertools.product(activations.ACTIVATIONS, activations.NORMS):
        rows = [results("perils.activations", activation, norm, lr) for lr in activations.LEARNING_RATES]
        errors = [100 * row["test_error"] for row in rows]
        found[f"test error at the best rate, {activation}, {norm}, %"] = min(errors, key=np.median)
        found[f"learning rates of four that work, {activation}, {norm}"] = sum(each <= WORKS for each in errors)
    return found


def _discriminator_accuracies(results: Results) -> Effects:
    found: Effects = {}
    for fake in ("shifted", "scaled", "reshaped"):
        mixed, separate = (
            results("perils.gan_discriminator", "batch norm", fake, batches) for batches in ("mixed", "separate")
        )
        found[f"{fake}: right in eval mode, trained on mixed batches, %"] = 100 * mixed["eval"]
        found[f"{fake}: the same, trained on separate ones, %"] = 100 * separate["eval"]
        found[f"{fake}: right in separate batches, trained on mixed, %"] = 100 * mixed["separate"]
    return found


def _accuracy_under_distribution_shift(results: Results) -> Effects:
    even, skewed = distribution_shift.CLASS_SHARES.index(0.1), distribution_shift.CLASS_SHARES.index(0.9)
    same, brighter = (100 * results("perils.distribution_shift", shift)["training"] for shift in (0.0, 0.8))
    return {
        "right, as in training, %": same[:, even],
        "right, nine in ten of one class, %": same[:, skewed],
        "right, other pictures (0.8 added to each pixel), %": brighter[:, even],
    }


def _loses_5_points(e: Effects, name: str) -> bool:
    return np.median(e["right, as in training, %"]) - np.median(e[name]) > FAR


def _accuracy_by_statistics(results: Results) -> Effects:
    found: Effects = {}
    for shift, share in ((0.8, 0.1), (0.0, 0.9)):
        row, place = results("perils.distribution_shift", shift), distribution_shift.CLASS_SHARES.index(share)
        for title, statistics in (("training", "training"), ("new", "recomputed")):
            name = f"right, {shift:g} added to each pixel, {share:.0%} of one class, {title} statistics, %"
            found[name] = 100 * row[statistics][:, place]
    return found


def _new_statistics_better(e: Effects, setting: str) -> bool:
    return e[f"right, {setting}, new statistics, %"].min() > e[f"right, {setting}, training statistics, %"].max()


def _accuracy_in_training_batches(results: Results) -> Effects:
    return {
        f"{norm}, shifted: right in {where}, trained on {batches} batches, %": 100
        * results("perils.gan_discriminator", norm, "shifted", batches)[where]
        for norm in ("batch norm", "batch norm, layer 2 only")
        for batches, where in itertools.product(("separate", "mixed"), ("separate", "mixed"))
        if batches == where
    }


def _separate_batches_better(e: Effects, norm: str) -> bool:
    separate, mixed = (e[f"{norm}, shifted: right in {b}, trained on {b} batches, %"] for b in ("separate", "mixed"))
    return np.median(separate) > np.median(mixed)


def _accuracy_of_adaptation(results: Results) -> Effects:
    """Take the accuracies on shuffled streams; those of TENT at its best learning rate above 0."""
    found: Effects = {}
    stream = adaptation_at_test_time.STREAMS.index("shuffled")
    rows = {images: results("perils.adaptation_at_test_time", images) for images in _CHANGED}
    for size in (4, 64):
        place = adaptation_at_test_time.BATCH_SIZES.index(size)
        tent = {images: 100 * row["tent"][:, stream, place] for images, row in rows.items()}
        best = int(np.mean([np.median(each, 0) for each in tent.values()], 0)[1:].argmax()) + 1
        for images, row in rows.items():
            found[f"{images}, batches of {size}: right with training statistics, %"] = 100 * row["training"][:, stream]
            found[f"{images}, batches of {size}: right with mixed ones, %"] = 100 * row["mixed"][:, stream, place]
            found[f"{images}, batches of {size}: right with those of the batch, %"] = tent[images][:, 0]
            found[f"{images}, batches of {size}: right with TENT, %"] = tent[images][:, best]
    return found


def _higher(e: Effects, setting: str, left: str, right: str) -> bool:
    return np.median(e[f"{setting}: right with {left}, %"]) > np.median(e[f"{setting}: right with {right}, %"])


def _errors_of_q_networks(results: Results) -> Effects:
    """Take the error of each arm, in standard deviations of the exact values, at its best learning rate."""
    rows = {
        arm: [results("perils.target_networks", arm, lr)["test_error"] for lr in target_networks.LEARNING_RATES]
        for arm in target_networks.ARMS
    }
    return {f"error, {arm}": min(errors, key=np.median) for arm, errors in rows.items()}


_CHANGED, _Q = adaptation_at_test_time.IMAGES[1:], "policy evaluation of a linear-quadratic problem in place of control"

CLAIMS = (
    Claim(
        "irpan-alone", "irpan2017", "first story",
        "In train mode a single sample is normalised to 0, so that the answer does not depend on it.",
        "06_perils#predictions-in-train-mode", _single_sample_in_train_mode,
        (("for single samples the accuracy of a dense network is below 20 % in every seed",
          lambda e: e["right answers, fully connected, one at a time, %"].max() < 20),
         ("in a dense layer the normalised values of one sample are 0",
          lambda e: e["largest normalised value of a single sample, before beta"].max() == 0)),
        quantifier="always",
        note="Tested on dense layers, as in the story: the output of BN is then beta. After a convolutional layer, BN "
        "normalises over the positions of an image, so the output still depends on the image.",
    ),
    Claim(
        "irpan-checkpoint", "irpan2017", "second story",
        "A model that comes back as it was while it trained is in train mode, and useless for single samples.",
        "06_perils#stuck-in-train-mode", _model_restored_in_train_mode,
        (("a model saved whole comes back in train mode", lambda e: e["restored in train mode"].min() == 1),
         ("its outputs for single samples are all equal",
          lambda e: e["largest difference of its answers to single samples"].max() < 1e-6)),
        quantifier="always",
        exact_because="the mode is stored with the model, whatever its weights",
        note="Tested on a whole model that was saved by torch.save; the story is about TensorFlow's MetaGraph.",
    ),
    Claim(
        "irpan-averages", "irpan2017", "third story",
        "If two towers share running statistics, these converge to the average of the two domains'.",
        "06_perils#why-no-single-statistic-is-right", _running_statistics_of_two_domains,
        (("the running mean is within 0.3 of the average of the means, 2",
          lambda e: abs(e["running mean, where the domains have 0 and 4"] - 2).max() < 0.3),
         ("the running variance is within 0.3 of the average of the variances, 2.5",
          lambda e: abs(e["running variance, where they have 1 and 4"] - 2.5).max() < 0.3)),
        quantifier="always",
        note="The variance of the pooled data is 6.5; the running variance lacks the part between the domains.",
    ),
    Claim(
        "irpan-towers", "irpan2017", "third story, plot",
        "Two towers that share running statistics do worse at test time than mixed batches, and vary more over seeds.",
        "06_perils#two-towers", _two_tower_accuracies,
        (("they are below mixed batches in both domains in every seed",
          lambda e: _below_in_both_domains(e, "two towers", "mixed batches", True)),
         ("their range over seeds is more than twice as wide in both", _two_towers_vary_more)),
        quantifier="tendency",
        note="Digits and inverted digits; on digits and MNIST, two towers cost 2 and 11 percentage points.",
    ),
    Claim(
        "irpan-own-norms", "irpan2017", "third story, aside",
        "Best of all are shared weights with separate BN variables for each domain.",
        "06_perils#two-towers", _two_tower_accuracies,
        (("they are above shared running statistics in both domains in every seed",
          lambda e: _below_in_both_domains(e, "two towers", "own norms", True)),
         ("their median is more than 2 points above that of mixed batches in both domains",
          lambda e: _below_in_both_domains(e, "mixed batches", "own norms", False))),
        quantifier="tendency",
        note="Separate BN layers and mixed batches are comparable: their medians differ by about one percentage "
        "point, and their ranges overlap.",
    ),
    Claim(
        "irpan-one-gradient", "irpan2017", "third story",
        "Without BN one mixed batch and two towers have the same gradient; with BN they do not.",
        "06_perils#two-towers", _gradients_of_two_towers,
        (("without BN the gradients are equal to 1e-9 of their size",
          lambda e: e["difference of the gradients relative to their size, without BN"].max() < EXACT),
         ("with BN they differ by more than 1 %",
          lambda e: e["difference of the gradients relative to their size, with BN"].min() > 0.01)),
        quantifier="always",
    ),
    Claim(
        "irpan-gan", "irpan2017", "after the third story",
        "A discriminator with BN must be given batches half real, half generated.",
        "06_perils#the-discriminator", _discriminator_accuracies,
        (("in eval mode its accuracy is higher after mixed batches than after separate ones, for each kind of "
        "generated samples, in every seed",
          lambda e: all(e[n].min() > e[n.replace("right in eval mode, trained on mixed batches", "the same, trained on "
          "separate ones")].max() for n in e if "trained on mixed batches" in n)),
         ("in batches of one kind its median accuracy is lower than in eval mode",
          lambda e: all(np.median(e[n]) < np.median(e[n.replace("separate batches, trained on mixed",
          "eval mode, trained on mixed batches")]) for n in e if "in separate batches" in n))),
        quantifier="tendency",
        stand_in="a discriminator of points in the plane without a generator in place of a GAN",
        note="BN in both layers.",
    ),
    Claim(
        "irpan-labelled", "irpan2017", "comment of E. Kruus",
        "If labelled samples are over-represented in training, the statistics of BN are wrong at inference.",
        "06_perils#different-data-at-inference", _accuracy_under_distribution_shift,
        (("the statistics from training cost over 5 points where nine in ten samples at inference are of one class",
          lambda e: _loses_5_points(e, "right, nine in ten of one class, %")),
         ("they do where the images are different",
          lambda e: _loses_5_points(e, "right, other pictures (0.8 added to each pixel), %"))),
        quantifier="tendency",
        note="Other class frequencies alone do not lower the accuracy; statistics that are recomputed on such data do.",
    ),
    Claim(
        "irpan-leaky", "irpan2017", "comment of M. Görner",
        "With LeakyReLU or SELU batch norm is no longer useful.",
        "06_perils", _errors_by_activation,
        (*((f"at the best rate of each, BN does not lower the median test error by more than 2 points: {activation}",
            lambda e, a=activation: np.median(e[f"test error at the best rate, {a}, batch norm, %"])
            > np.median(e[f"test error at the best rate, {a}, without normalisation, %"]) - COMPARABLE)
           for activation in ("LeakyReLU", "SELU")),
         *((f"BN does not make more of four learning rates work, in the median: {activation}",
            lambda e, a=activation: np.median(e[f"learning rates of four that work, {a}, batch norm"])
            <= np.median(e[f"learning rates of four that work, {a}, without normalisation"]))
           for activation in ("LeakyReLU", "SELU"))),
        quantifier="always",
        note="Eight hidden layers on digits, each activation with the initialisation that it was made for. The "
        "comment calls itself hearsay.",
    ),
    Claim(
        "irpan-indefensible", "irpan2017", "why haven't people ditched batch norm",
        "That a sample's output depends on its batch is indefensible; nobody would call it a good quality.",
        "06_perils",
        quantifier="always",
        untestable_because="A judgement of value. That the dependence exists, and that its noise may regularise, can "
        "be measured; whether it is defensible cannot.",
    ),
    Claim(
        "li-domain", "li2016", "the method",
        "New statistics, without training, adapt a network with BN to new data.",
        "06_perils#different-data-at-inference", _accuracy_by_statistics,
        (("they do where 0.8 is added to each pixel, in every seed",
          lambda e: _new_statistics_better(e, "0.8 added to each pixel, 10% of one class")),
         ("they do where nine in ten are of one class",
          lambda e: _new_statistics_better(e, "0 added to each pixel, 90% of one class"))),
        quantifier="tendency",
        note="New statistics lower the accuracy if only the class frequencies change.",
    ),
    Claim(
        "chintala-separate", "chintala2016", "tip 4",
        "A discriminator with BN should have separate batches of real and of generated samples.",
        "06_perils#the-discriminator", _accuracy_in_training_batches,
        tuple((f"in the batches of its training it is right more often so than with mixed ones, in the median: {norm}",
               lambda e, n=norm: _separate_batches_better(e, n))
              for norm in ("batch norm, layer 2 only", "batch norm")),
        quantifier="tendency",
        stand_in="a discriminator of points in the plane without a generator in place of a GAN",
        note="With BN in both layers it learns nothing about a shift; in layer 2 only, it classifies the batch, not "
        "the sample.",
    ),
    Claim(
        "schneider-few", "schneider2020", "abstract and method",
        "A few test images improve robustness, if their statistics are mixed with those of training.",
        "06_perils#test-time-adaptation", _accuracy_of_adaptation,
        tuple((f"in shuffled batches of 4, mixed statistics are right more often than those of training, in the "
               f"median: {images}",
               lambda e, i=images: _higher(e, f"{i}, batches of 4", "mixed ones", "training statistics"))
              for images in _CHANGED),
        quantifier="tendency", stand_in="changed digits in place of ImageNet-C",
    ),
    Claim(
        "wang-entropy", "wang2021", "abstract",
        "Minimising the entropy of the predictions on gamma and beta reduces the error on corrupted images.",
        "06_perils#test-time-adaptation", _accuracy_of_adaptation,
        tuple((f"in shuffled batches of 64, TENT is right more often than {other}, in the median: {images}",
               lambda e, i=images, o=other: _higher(e, f"{i}, batches of 64", "TENT", o))
              for images in _CHANGED for other in ("training statistics", "those of the batch")),
        quantifier="tendency", stand_in="changed digits in place of ImageNet-C and CIFAR-C",
        note="At its best learning rate for these images, which needs their labels.",
    ),
    Claim(
        "bhatt-separate", "bhatt2024", "the method",
        "BN harms a Q network whose values now and next are normalised in separate batches; a joint batch does not.",
        "06_perils#target-networks", _errors_of_q_networks,
        (("at the best rate of each, separate batches more than double the error of the same network without "
          "normalisation, in every seed",
          lambda e: e["error, batch norm, separate batches, target network"].min()
          > TIMES * e["error, without normalisation, target network"].max()),
         ("they more than double that of the joint batch, in every seed",
          lambda e: e["error, batch norm, separate batches, target network"].min()
          > TIMES * e["error, batch norm, joint batch, no target network"].max())),
        quantifier="tendency", stand_in=_Q,
    ),
    Claim(
        "bhatt-no-target", "bhatt2024", "abstract",
        "With BN in a joint batch, target networks can be removed.",
        "06_perils#target-networks", _errors_of_q_networks,
        (("without normalisation, removing the target network more than doubles the median error",
          lambda e: np.median(e["error, without normalisation, no target network"])
          > TIMES * np.median(e["error, without normalisation, target network"])),
         ("with BN in a joint batch and no target network, it is at most twice that without normalisation and with one",
          lambda e: np.median(e["error, batch norm, joint batch, no target network"])
          <= TIMES * np.median(e["error, without normalisation, target network"]))),
        quantifier="tendency", stand_in=_Q,
    ),
)  # fmt: skip
