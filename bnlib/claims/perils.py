"""Claims tested in chapter 6, the perils of batch norm."""

from __future__ import annotations

import io
import itertools

import numpy as np
import torch

from bnlib.claims.claim import Claim, Effects, Results, effects_with
from bnlib.claims.thresholds import COMPARABLE, EXACT, FAR, TIMES, WORKS
from bnlib.experiments.perils import (
    activations,
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
        "correct predictions for single samples, %": 100
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
        "largest difference between its outputs for single samples": (answers - answers[0]).abs().max().item(),
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
        "running mean of domains with means 0 and 4": np.array(means),
        "running variance of domains with variances 1 and 4": np.array(variances),
    }


def _two_tower_accuracies(results: Results) -> Effects:
    cells = {
        "mixed batches": ("batch norm", 0.5),
        "two towers": ("batch norm", 1.0),
        "separate BN layers": ("domain batch norm", 1.0),
    }
    found = {}
    for name, (norm, share) in cells.items():
        right = 100 * results("perils.two_towers", "inverted", norm, share, 64)["running"]
        found |= {f"accuracy on {kind}, {name}, %": right[:, n] for n, kind in enumerate(("digits", "inverted digits"))}
    return found


def _below_in_both_domains(e: Effects, left: str, right: str, worse: bool) -> bool:
    """Whether in each domain all seeds (``worse``) or the median of the left are below the right, not comparable."""
    pairs = [
        (e[f"accuracy on {kind}, {left}, %"], e[f"accuracy on {kind}, {right}, %"])
        for kind in ("digits", "inverted digits")
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
        name = f"learning rates of four with an error of 6 % or less, {activation}, {norm}"
        found[name] = sum(each <= WORKS for each in errors)
    return found


def _discriminator_accuracies(results: Results) -> Effects:
    found: Effects = {}
    for fake in ("shifted", "scaled", "reshaped"):
        mixed, separate = (
            results("perils.gan_discriminator", "batch norm", fake, batches) for batches in ("mixed", "separate")
        )
        found[f"{fake}: accuracy in eval mode, trained on mixed batches, %"] = 100 * mixed["eval"]
        found[f"{fake}: accuracy in eval mode, trained on separate batches, %"] = 100 * separate["eval"]
        found[f"{fake}: accuracy in separate batches, trained on mixed, %"] = 100 * mixed["separate"]
    return found


def _accuracy_under_distribution_shift(results: Results) -> Effects:
    even, skewed = distribution_shift.CLASS_SHARES.index(0.1), distribution_shift.CLASS_SHARES.index(0.9)
    same, brighter = (100 * results("perils.distribution_shift", shift)["training"] for shift in (0.0, 0.8))
    return {
        "accuracy, as in training, %": same[:, even],
        "accuracy, nine in ten of one class, %": same[:, skewed],
        "accuracy, 0.8 added to each pixel, %": brighter[:, even],
    }


def _loses_5_points(e: Effects, name: str) -> bool:
    return np.median(e["accuracy, as in training, %"]) - np.median(e[name]) > FAR


def _accuracy_in_training_batches(results: Results) -> Effects:
    return {
        f"{title}: accuracy in {where} batches, trained on {batches} ones, %": 100
        * results("perils.gan_discriminator", norm, "shifted", batches)[where]
        for norm, title in _BN_LAYERS.items()
        for batches, where in itertools.product(("separate", "mixed"), ("separate", "mixed"))
        if batches == where
    }


def _separate_batches_better(e: Effects, title: str) -> bool:
    separate, mixed = (e[f"{title}: accuracy in {b} batches, trained on {b} ones, %"] for b in ("separate", "mixed"))
    return np.median(separate) > np.median(mixed)


def _errors_of_q_networks(results: Results) -> Effects:
    """Take the error of each arm, in standard deviations of the exact values, at its best learning rate."""
    rows = {
        arm: [results("perils.target_networks", arm, lr)["test_error"] for lr in target_networks.LEARNING_RATES]
        for arm in target_networks.ARMS
    }
    return {f"error, {arm}": min(errors, key=np.median) for arm, errors in rows.items()}


_BN_LAYERS = {"batch norm": "BN in both layers", "batch norm, layer 2 only": "BN in layer 2 only"}
_Q = "policy evaluation of a linear-quadratic problem in place of control"

CLAIMS = (
    Claim(
        "irpan-alone", "irpan2017", "first story",
        "In train mode, BN normalises a single sample to 0, so the output does not depend on the sample.",
        "06_perils#predictions-in-train-mode", _single_sample_in_train_mode,
        (("in train mode, a fully connected network classifies fewer than 20 % of single samples correctly, for every "
          "seed",
          lambda e: e["correct predictions for single samples, %"].max() < 20),
         ("in a fully connected layer, BN normalises every value of a single sample to 0",
          lambda e: e["largest normalised value of a single sample, before beta"].max() == 0)),
        quantifier="always",
        note="Tested on fully connected layers, as in the story, where BN then outputs beta. After a convolution, BN "
        "normalises over the positions of an image, so the output still depends on the image.",
    ),
    Claim(
        "irpan-checkpoint", "irpan2017", "second story",
        "A model that is restored as it was during training is in train mode, so it is useless for single samples.",
        "06_perils#stuck-in-train-mode", _model_restored_in_train_mode,
        (("a model that was saved as a whole comes back in train mode",
          lambda e: e["restored in train mode"].min() == 1),
         ("the restored model has the same output for all single samples",
          lambda e: e["largest difference between its outputs for single samples"].max() < 1e-6)),
        quantifier="always",
        exact_because="the mode is stored with the model, whatever its weights",
        note="Tested on a whole model saved with torch.save. The story is about TensorFlow's MetaGraph.",
    ),
    Claim(
        "irpan-averages", "irpan2017", "third story",
        "If two towers, trained on two domains, share running statistics, these converge to the average of the "
        "statistics of the two domains.",
        "06_perils#why-no-single-statistic-is-right", _running_statistics_of_two_domains,
        (("the running mean is within 0.3 of 2, the average of the two means",
          lambda e: abs(e["running mean of domains with means 0 and 4"] - 2).max() < 0.3),
         ("the running variance is within 0.3 of 2.5, the average of the two variances",
          lambda e: abs(e["running variance of domains with variances 1 and 4"] - 2.5).max() < 0.3)),
        quantifier="always",
        note="The variance of the pooled data is 6.5. The running variance lacks the variance between the domains.",
    ),
    Claim(
        "irpan-towers", "irpan2017", "third story, plot",
        "Two towers that share running statistics have a lower test accuracy than a network trained on mixed batches, "
        "and vary more over seeds.",
        "06_perils#two-towers", effects_with(_two_tower_accuracies, "mixed batches", "two towers"),
        (("two towers are less accurate than a network trained on mixed batches, in both domains and for every seed",
          lambda e: _below_in_both_domains(e, "two towers", "mixed batches", True)),
         ("the accuracy of two towers ranges over seeds more than twice as widely as with mixed batches, in both "
          "domains",
          _two_towers_vary_more)),
        quantifier="tendency",
        note="The domains are digits and inverted digits. With digits and MNIST, two towers cost 2 and 11 percentage "
        "points of accuracy.",
    ),
    Claim(
        "irpan-own-norms", "irpan2017", "third story, aside",
        "Shared weights with separate BN variables for each domain give the best results of all.",
        "06_perils#two-towers", _two_tower_accuracies,
        (("separate BN layers are more accurate than shared running statistics, in both domains and for every seed",
          lambda e: _below_in_both_domains(e, "two towers", "separate BN layers", True)),
         ("the median accuracy of separate BN layers is more than 2 points above that of mixed batches, in both "
          "domains",
          lambda e: _below_in_both_domains(e, "mixed batches", "separate BN layers", False))),
        quantifier="tendency",
        note="Separate BN layers and mixed batches are comparable: their median accuracies differ by about one "
        "percentage point, and their ranges overlap.",
    ),
    Claim(
        "irpan-one-gradient", "irpan2017", "third story",
        "Without BN, one mixed batch and two towers give the same gradient; with BN, they do not.",
        "06_perils#two-towers", _gradients_of_two_towers,
        (("without BN, the two gradients differ by less than 10⁻⁹ of their norm",
          lambda e: e["difference of the gradients relative to their size, without BN"].max() < EXACT),
         ("with BN, the two gradients differ by more than 1 %",
          lambda e: e["difference of the gradients relative to their size, with BN"].min() > 0.01)),
        quantifier="always",
    ),
    Claim(
        "irpan-gan", "irpan2017", "after the third story",
        "A discriminator with BN must be trained on batches that are half real and half generated.",
        "06_perils#the-discriminator", _discriminator_accuracies,
        (("the accuracy of the discriminator in eval mode is higher after training on mixed than on separate batches, "
          "for each kind of generated samples and every seed",
          lambda e: all(e[n].min() > e[n.replace("mode, trained on mixed", "mode, trained on separate")].max()
                        for n in e if "trained on mixed batches" in n)),
         ("after training on mixed batches, its median accuracy in train mode on batches of one kind is lower than in "
          "eval mode",
          lambda e: all(np.median(e[n]) < np.median(e[n.replace("separate batches, trained on mixed",
          "eval mode, trained on mixed batches")]) for n in e if "in separate batches" in n))),
        quantifier="tendency",
        stand_in="a discriminator of points in the plane without a generator in place of a GAN",
        note="The discriminator has BN in both layers.",
    ),
    Claim(
        "irpan-labelled", "irpan2017", "comment of E. Kruus",
        "If labelled samples are over-represented in training, the running statistics of BN are wrong at inference.",
        "06_perils#different-data-at-inference", _accuracy_under_distribution_shift,
        (("if nine in ten samples at inference are of one class, the training statistics cost over 5 points of median "
          "accuracy",
          lambda e: _loses_5_points(e, "accuracy, nine in ten of one class, %")),
         ("if 0.8 is added to each pixel at inference, the training statistics cost over 5 points of median accuracy",
          lambda e: _loses_5_points(e, "accuracy, 0.8 added to each pixel, %"))),
        quantifier="tendency",
        note="If only the class frequencies change, the training statistics still work, and recomputed ones lower the "
        "accuracy.",
    ),
    Claim(
        "irpan-leaky", "irpan2017", "comment of M. Görner",
        "With the activations LeakyReLU or SELU, BN is no longer useful.",
        "06_perils", _errors_by_activation,
        (*((f"with {activation}, BN lowers the median test error by at most 2 points, at the best learning rate of "
            "each",
            lambda e, a=activation: np.median(e[f"test error at the best rate, {a}, batch norm, %"])
            > np.median(e[f"test error at the best rate, {a}, without normalisation, %"]) - COMPARABLE)
           for activation in ("LeakyReLU", "SELU")),
         *((f"with {activation}, no more of four learning rates reach a test error of 6 % with BN than without, in "
            "the median",
            lambda e, n=f"learning rates of four with an error of 6 % or less, {activation}":
            np.median(e[f"{n}, batch norm"]) <= np.median(e[f"{n}, without normalisation"]))
           for activation in ("LeakyReLU", "SELU"))),
        quantifier="always",
        note="Tested on eight hidden layers and digits, with the initialisation made for each activation. The comment "
        "calls itself hearsay.",
    ),
    Claim(
        "irpan-indefensible", "irpan2017", "why haven't people ditched batch norm",
        "Nobody would call it a good quality that the output for a sample depends on its batch; it is indefensible.",
        "06_perils",
        quantifier="always",
        untestable_because="This is a judgement of value. Experiments can show that the dependence exists, and that "
        "its noise may regularise, but not whether it is defensible.",
    ),
    Claim(
        "chintala-separate", "chintala2016", "tip 4",
        "A discriminator with BN should be trained on separate batches of real and of generated samples.",
        "06_perils#the-discriminator", _accuracy_in_training_batches,
        tuple(("in batches made as in training, the discriminator has a higher median accuracy with separate batches "
               f"than with mixed ones: {title}",
               lambda e, n=title: _separate_batches_better(e, n))
              for title in reversed(_BN_LAYERS.values())),
        quantifier="tendency",
        stand_in="a discriminator of points in the plane without a generator in place of a GAN",
        note="With BN in both layers and separate batches, the discriminator learns nothing about a shift of the "
        "samples. With BN in layer 2 only, it classifies the batch and not the sample.",
    ),
    Claim(
        "bhatt-separate", "bhatt2024", "the method",
        "BN harms a Q network if it normalises current and next states in separate batches, but not in a joint batch.",
        "06_perils#target-networks", _errors_of_q_networks,
        (("at the best learning rate of each, the error with separate batches is more than twice that without "
          "normalisation, for every seed",
          lambda e: e["error, batch norm, separate batches, target network"].min()
          > TIMES * e["error, without normalisation, target network"].max()),
         ("at the best learning rate of each, the error with separate batches is more than twice that with a joint "
          "batch, for every seed",
          lambda e: e["error, batch norm, separate batches, target network"].min()
          > TIMES * e["error, batch norm, joint batch, no target network"].max())),
        quantifier="tendency",
        stand_in=_Q,
    ),
    Claim(
        "bhatt-no-target", "bhatt2024", "abstract",
        "With BN in a joint batch, a Q network can be trained without a target network.",
        "06_perils#target-networks", _errors_of_q_networks,
        (("without normalisation, removing the target network more than doubles the median error",
          lambda e: np.median(e["error, without normalisation, no target network"])
          > TIMES * np.median(e["error, without normalisation, target network"])),
         ("the median error with BN in a joint batch and no target network is at most twice that without "
          "normalisation and with a target network",
          lambda e: np.median(e["error, batch norm, joint batch, no target network"])
          <= TIMES * np.median(e["error, without normalisation, target network"]))),
        quantifier="tendency",
        stand_in=_Q,
    ),
)  # fmt: skip
