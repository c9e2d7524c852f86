"""Claims tested in chapter 2, internal covariate shift."""

from __future__ import annotations

import itertools

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results, effects_with, final_values
from bnlib.claims.thresholds import COMPARABLE
from bnlib.experiments.covariate_shift import activation_shift, gradient_shift, noisy_batch_norm

INITIALISATIONS_AND_RATES = tuple(itertools.product(("PyTorch default", "He"), (0.1, 0.3)))


def _losses_in_eval_mode(results: Results, *norms: str) -> Effects:
    """Return final training losses of nine layers in eval mode, for both initialisations and learning rates.

    In train mode the loss of a network with BN contains the noise of the batches, so that a comparison with a network
    without BN would be unfair.
    """
    found: Effects = {}
    for (init, lr), norm in itertools.product(INITIALISATIONS_AND_RATES, norms):
        losses = results("covariate_shift.final_losses", init, norm, lr)["train_loss"]
        name = f"{norm}, {init}, rate {lr}: training loss in eval mode, nats"
        found[name] = np.where(np.isfinite(losses), losses, np.inf)
    return found


def _loss_in_eval_mode(e: Effects, norm: str, init: str, lr: float) -> np.ndarray:
    """Return one entry of ``_losses_in_eval_mode``."""
    return e[f"{norm}, {init}, rate {lr}: training loss in eval mode, nats"]


def _median_in_eval_mode(e: Effects, norm: str, init: str, lr: float) -> float:
    """Return the median over seeds of one entry of ``_losses_in_eval_mode``."""
    return float(np.median(_loss_in_eval_mode(e, norm, init, lr)))


def _last_of_nine_layers(results: Results, norm: str, init: str, lr: float, curve: str = "train_loss") -> np.ndarray:
    """Return the last value of a curve of nine layers, one per seed, with the published noise if the norm has it."""
    strength = noisy_batch_norm.strength_of(norm)
    return final_values(results("covariate_shift.noisy_batch_norm", "9 layers", init, lr, norm, *strength), curve)


def _losses_in_train_mode(results: Results, *norms: str) -> Effects:
    """Return training losses of nine layers in train mode, with the noise on, for both initialisations and rates."""
    return {
        f"{norm}, {init}, rate {lr}: training loss, nats": _last_of_nine_layers(results, norm, init, lr)
        for init, lr in INITIALISATIONS_AND_RATES
        for norm in norms
    }


def _median_in_train_mode(e: Effects, norm: str, init: str, lr: float) -> float:
    """Return the median over seeds of one entry of ``_losses_in_train_mode``."""
    return float(np.median(e[f"{norm}, {init}, rate {lr}: training loss, nats"]))


def _noisy_bn_losses_and_errors(results: Results) -> Effects:
    return _losses_in_train_mode(results, "noisy BN") | {
        f"{norm}, {init}, rate {lr}: test error, %": 100 * _last_of_nine_layers(results, norm, init, lr, "test_error")
        for init, lr in INITIALISATIONS_AND_RATES
        for norm in ("noisy BN", "batch norm")
    }


def _test_errors_are_comparable(e: Effects) -> bool:
    """Whether the median test errors with noisy BN and with BN are comparable in each setting."""
    noisy, bn = (
        [np.median(e[f"{norm}, {init}, rate {lr}: test error, %"]) for init, lr in INITIALISATIONS_AND_RATES]
        for norm in ("noisy BN", "batch norm")
    )
    return bool(np.abs(np.subtract(noisy, bn)).max() < COMPARABLE)


def _mean_shifts_and_losses_of_noisy_bn(results: Results) -> Effects:
    found = _losses_in_train_mode(results, "noisy BN")
    for name in ("batch norm", "noisy BN"):
        histories = [activation_shift.history_of(name, 0.1, steps=4, interval=1, seed=seed) for seed in range(3)]
        for layer in (1, 8):
            found[f"shift of the means in one step, layer {layer}, {name}, standard deviations"] = np.array(
                [np.median([history.mean_shift(layer, k, k + 1) for k in range(4)]) for history in histories]
            )
    return found


def _losses_of_noisy_bn_and_plain(results: Results) -> Effects:
    return _losses_in_eval_mode(results, "noisy BN", "without normalisation")


def _losses_of_plain_and_noisy_plain(results: Results) -> Effects:
    found = _losses_in_train_mode(results, "without normalisation", "noise without BN")
    return {name: losses for name, losses in found.items() if "He" in name}


def _relative_gradient_shift(results: Results) -> Effects:
    found: Effects = {}
    for init, b, lr in [("PyTorch default", 64, 0.1), ("He", 64, 0.1), ("He", 256, 0.3), ("He", 4, 0.1)]:
        for norm in gradient_shift.NORMS:
            row = results("covariate_shift.gradient_shift", "mlp", init, norm, b, lr)
            found[f"relative shift, {init}, batches of {b}, learning rate {lr}, {norm}"] = np.median(
                row["relative_ics"], 1
            )
    return found


def _shift_larger_with_bn(e: Effects, setting: str) -> bool:
    return np.median(e[f"relative shift, {setting}, batch norm"]) > np.median(
        e[f"relative shift, {setting}, without normalisation"]
    )


def _deep_linear_cosines_and_losses(results: Results) -> Effects:
    found: Effects = {}
    for lr, norm in itertools.product((1e-4, 1e-3), ("without normalisation", "batch norm")):
        row = results("covariate_shift.deep_linear_network", norm, lr, 300)
        found[f"cosine, median over layers, rate {lr:g}, {norm}"] = np.median(row["cosine"], 1)
        found[f"loss at the end, rate {lr:g}, {norm}"] = row["loss"][:, -1]
    return found


def _mean_shifts(results: Results) -> Effects:
    found = {}
    for name in ("without normalisation", "batch norm"):
        histories = [activation_shift.history_of(name, 0.1, steps=20, interval=20, seed=seed) for seed in range(3)]
        effect = f"shift of the means in 20 steps, hidden layer 8, {name}, standard deviations"
        found[effect] = np.array([history.mean_shift(8, 0, 1) for history in histories])
    return found


def _noisy_bn_losses(results: Results) -> Effects:
    return _losses_in_train_mode(results, "noisy BN")


def _losses_with_and_without_bn(results: Results) -> Effects:
    return _losses_in_eval_mode(results, "batch norm", "without normalisation")


def _losses_by_initialisation(results: Results) -> Effects:
    return {
        n: v for n, v in _losses_in_eval_mode(results, "batch norm", "without normalisation").items() if "rate 0.1" in n
    }


CLAIMS = (
    Claim(
        "kariya-noisy", "kariya2018", "is internal covariate shift important; figure 2 of Santurkar et al.",
        "A network with noisy BN, whose outputs are shifted and scaled by random noise in each step, trains about as "
        "well as a network with BN.",
        "02_internal_covariate_shift#noise-on-demand", _noisy_bn_losses_and_errors,
        (("with noisy BN, the training loss in train mode ends below 0.2 nats for every seed, with both "
          "initialisations and learning rates",
          lambda e: max(v.max() for n, v in e.items() if "training loss" in n) < 0.2),
         ("with noisy BN, the median test error is within 2 points of that with BN in all four of these settings",
          _test_errors_are_comparable)),
        quantifier="tendency",
        stand_in="nine fully connected layers on digits in place of VGG on CIFAR-10",
        note="In eval mode, the loss with noisy BN ends at 0.21 nats for one of three seeds (He initialisation, "
        "learning rate 0.1). If the mean factor of the noise is kept in eval mode, no loss is above 0.04.",
    ),
    Claim(
        "kariya-not-moments", "kariya2018", "is internal covariate shift important, second conclusion",
        "The reason why BN works is not that it keeps the mean and the variance of layer inputs constant.",
        "02_internal_covariate_shift#first-definition-distributions-that-move", _mean_shifts_and_losses_of_noisy_bn,
        (("in one step, the means of hidden layers 1 and 8 shift more than ten times as far with noisy BN as with BN",
          lambda e: all(e[f"shift of the means in one step, layer {n}, noisy BN, standard deviations"].min()
                        > 10 * e[f"shift of the means in one step, layer {n}, batch norm, standard deviations"].max()
                        for n in (1, 8))),
         ("with noisy BN, the training loss in train mode ends below 0.2 nats for every seed, with both "
          "initialisations and learning rates",
          lambda e: max(v.max() for n, v in e.items() if n.startswith("noisy BN,")) < 0.2)),
        quantifier="tendency",
        note="This rules out stability from step to step as the reason, but says nothing about shifts that "
        "accumulate. In eval mode, the loss with noisy BN ends at 0.21 nats for one of three seeds (He "
        "initialisation, learning rate 0.1).",
    ),
    Claim(
        "kariya-standard-worse", "kariya2018", "is internal covariate shift important",
        "A network without BN trains worse even than a network with noisy BN.",
        "02_internal_covariate_shift", _losses_of_noisy_bn_and_plain,
        tuple((f"the median training loss in eval mode is higher without BN than with noisy BN: {init} "
               f"initialisation, learning rate {lr}",
               lambda e, i=init, r=lr: _median_in_eval_mode(e, "without normalisation", i, r)
               > _median_in_eval_mode(e, "noisy BN", i, r))
              for init, lr in INITIALISATIONS_AND_RATES),
        quantifier="tendency",
        stand_in="nine fully connected layers on digits in place of VGG on CIFAR-10",
        note="With He initialisation and a learning rate of 0.1, the loss without normalisation is much lower in eval "
        "mode, which drops the mean factor of the noise. If the factor is kept, the ranges of the losses overlap.",
    ),
    Claim(
        "kariya-noise-prevents", "kariya2018", "is internal covariate shift important",
        "The noise of noisy BN prevents a network without BN from training at all.",
        "02_internal_covariate_shift#noise-on-demand", _losses_of_plain_and_noisy_plain,
        tuple(("with this noise and without BN, the median training loss stays above 2 nats: He initialisation, "
               f"learning rate {lr}",
               lambda e, r=lr: _median_in_train_mode(e, "noise without BN", "He", r) > 2) for lr in (0.1, 0.3)),
        quantifier="tendency",
        stand_in="nine fully connected layers on digits in place of VGG on CIFAR-10",
        note="With PyTorch's default initialisation, nine layers without BN do not train without the noise either. "
        "Noise in units of each activation's standard deviation does less harm.",
    ),
    Claim(
        "kariya-gradient-shift", "kariya2018", "expanding the scope; figure 3 of Santurkar et al.",
        "If internal covariate shift is measured by the change of gradients, BN does not reduce it, and often "
        "increases it.",
        "02_internal_covariate_shift#second-definition-gradients-that-turn", _relative_gradient_shift,
        tuple(("the median shift is larger with BN than without normalisation: "
               f"{setting.replace(',', ' initialisation,', 1)}",
               lambda e, s=setting: _shift_larger_with_bn(e, s))
              for setting in ("PyTorch default, batches of 64, learning rate 0.1",
                              "He, batches of 64, learning rate 0.1",
                              "He, batches of 256, learning rate 0.3", "He, batches of 4, learning rate 0.1")),
        quantifier="tendency",
        note="We divide the change by the norm of the gradient, but the source does not. With PyTorch's default "
        "initialisation, the network without normalisation has hardly any shift because it does not learn.",
    ),
    Claim(
        "santurkar-deep-linear", "santurkar2018", "section 2.2, figure 3",
        "In a network of 25 linear layers, an update of the lower layers hardly turns the gradient of a layer without "
        "BN. With BN, the gradients before and after the update are nearly unrelated.",
        "02_internal_covariate_shift#the-linear-network-of-25-layers",
        effects_with(_deep_linear_cosines_and_losses, "cosine"),
        tuple((f"at a learning rate of {lr}{remark}, the median cosine of the gradients before and after is {words}",
               lambda e, lr=lr, n=norm, low=low, high=high:
               low < np.median(e[f"cosine, median over layers, rate {lr}, {n}"]) < high)
              for lr, remark in (("0.0001", ""), ("0.001", " (probably the published one)"))
              for norm, words, low, high in (("without normalisation", "above 0.9 without BN", 0.9, 2),
                                             ("batch norm", "below 0.5 with BN", -0.5, 0.5))),
        quantifier="tendency",
        note="At 0.0001, the steps with BN are several times as long as those without BN.",
    ),
    Claim(
        "santurkar-linear-faster", "santurkar2018", "section 2.2, figure 3",
        "A network of 25 linear layers learns faster with BN than without BN.",
        "02_internal_covariate_shift#the-linear-network-of-25-layers",
        effects_with(_deep_linear_cosines_and_losses, "loss at the end"),
        tuple((f"at a learning rate of {lr}, the median final loss is lower with BN", lambda e, lr=lr:
               np.median(e[f"loss at the end, rate {lr}, batch norm"])
               < np.median(e[f"loss at the end, rate {lr}, without normalisation"])) for lr in ("0.0001", "0.001")),
        quantifier="tendency",
        note="At 0.0001, the steps with BN are several times as long as those without BN.",
    ),
    Claim(
        "santurkar-vgg", "santurkar2018", "section 2, figure 1",
        "A VGG network on CIFAR-10 trains faster, and to a higher accuracy, with BN than without BN.",
        "02_internal_covariate_shift",
        quantifier="tendency",
        untested_because="The book has the commands for runs of this size but no results, because they need a GPU.",
    ),
    Claim(
        "ioffe-still", "ioffe2015", "section 3",
        "During training, BN reduces the change of the distributions of layer inputs.",
        "02_internal_covariate_shift#first-definition-distributions-that-move", _mean_shifts,
        (("in 20 steps, the means of the last hidden layer move less than a tenth as far with BN as without "
          "normalisation",
          lambda e: 10 * e["shift of the means in 20 steps, hidden layer 8, batch norm, standard deviations"].max()
          < e["shift of the means in 20 steps, hidden layer 8, without normalisation, standard deviations"].min()),),
        quantifier="tendency",
        note="BN fixes the mean and the variance by construction. Tested on nine layers with He initialisation and a "
        "learning rate of 0.1.",
    ),
    Claim(
        "ioffe-why", "ioffe2015", "title and section 2",
        "BN speeds up training because it reduces internal covariate shift: shifting distributions slow training down.",
        "02_internal_covariate_shift#noise-on-demand", _noisy_bn_losses,
        tuple(("with noisy BN, which shifts the statistics in every step, the median training loss stays above 1 nat: "
               f"{init} initialisation, learning rate {lr}",
               lambda e, i=init, r=lr: _median_in_train_mode(e, "noisy BN", i, r) > 1)
              for init, lr in itertools.product(("PyTorch default", "He"), (0.1, 0.3))),
        quantifier="tendency",
        note="The shifts of noisy BN are random, so this does not refute every notion of covariate shift.",
    ),
    Claim(
        "ioffe-faster", "ioffe2015", "abstract",
        "BN accelerates the training of deep networks: with the same settings, they learn faster with BN.",
        "02_internal_covariate_shift", _losses_with_and_without_bn,
        tuple((f"after 20 epochs, the median training loss in eval mode is lower with BN: {init} initialisation, "
               f"learning rate {lr}",
               lambda e, i=init, r=lr: _median_in_eval_mode(e, "batch norm", i, r)
               < _median_in_eval_mode(e, "without normalisation", i, r))
              for init, lr in itertools.product(("PyTorch default", "He"), (0.1, 0.3))),
        quantifier="tendency",
        note="The paper says this of deep networks in general, not of each one. With He initialisation and a learning "
        "rate of 0.1, the two median losses are nearly equal (0.0025 and 0.0024 nats).",
    ),
    Claim(
        "ioffe-start", "ioffe2015", "abstract",
        "With BN, one can be less careful about the initialisation.",
        "02_internal_covariate_shift", _losses_by_initialisation,
        (("with BN, the training loss in eval mode ends below 0.1 nats for both initialisations and every seed",
          lambda e: max(_loss_in_eval_mode(e, "batch norm", i, 0.1).max() for i in ("PyTorch default", "He")) < 0.1),
         ("without normalisation, this loss ends above 2 nats for one of the initialisations and every seed",
          lambda e: max(_loss_in_eval_mode(e, "without normalisation", i, 0.1).min()
                        for i in ("PyTorch default", "He")) > 2)),
        quantifier="tendency",
    ),
    Claim(
        "bjorck-rates", "bjorck2018", "section 2",
        "The advantage of BN is that it allows larger learning rates; at a small learning rate, BN is no better than "
        "no normalisation.",
        "02_internal_covariate_shift", _losses_with_and_without_bn,
        (("He initialisation, learning rate 0.1: the median training loss in eval mode without normalisation is at "
          "most that with BN",
          lambda e: _median_in_eval_mode(e, "without normalisation", "He", 0.1)
          <= _median_in_eval_mode(e, "batch norm", "He", 0.1)),
         ("He initialisation, learning rate 0.3: without normalisation, this loss is more than five times that with BN",
          lambda e: _median_in_eval_mode(e, "without normalisation", "He", 0.3)
          > 5 * _median_in_eval_mode(e, "batch norm", "He", 0.3)),
         ("PyTorch's default initialisation, learning rate 0.1: without normalisation, this loss is at most that with "
          "BN",
          lambda e: _median_in_eval_mode(e, "without normalisation", "PyTorch default", 0.1)
          <= _median_in_eval_mode(e, "batch norm", "PyTorch default", 0.1))),
        quantifier="tendency",
        note="With PyTorch's default initialisation, the signal vanishes in nine layers without BN, at every learning "
        "rate.",
    ),
)  # fmt: skip
