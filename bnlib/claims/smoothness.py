"""Claims tested in chapter 3, Lipschitz smoothness."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import datasets, probes
from bnlib.claims.claim import Claim, Effects, Results, effects_with
from bnlib.claims.thresholds import COMPARABLE, EXACT
from bnlib.experiments.smoothness import lp_norms
from bnlib.experiments.smoothness.distance_to_solution import LEARNING_RATES as DISTANCE_RATES
from bnlib.experiments.smoothness.distance_to_solution import best_rate
from bnlib.experiments.smoothness.landscape_over_training import (
    EARLY,
    LATE,
    median_over_probes,
    relative_beta_at_equal_loss,
)
from bnlib.experiments.smoothness.stable_learning_rates import LEARNING_RATES
from bnlib.experiments.smoothness.stable_rates_near_border import gather, rates_of
from bnlib.models import mlp
from bnlib.norm import BatchNorm


def _effective_smoothness(results: Results) -> Effects:
    found: Effects = {}
    for init, norm in itertools.product(("He", "PyTorch default"), ("without normalisation", "batch norm")):
        row = results("smoothness.landscape_over_training", "mlp", init, norm, 64, 0.1)
        found[f"effective M, steps 10 to 50, {init}, {norm}"] = median_over_probes(row["beta"], EARLY)
    for init, b, lr in [("He", 256, 0.1), ("PyTorch default", 16, 0.3)]:
        for norm in ("without normalisation", "batch norm"):
            row = results("smoothness.landscape_over_training", "mlp", init, norm, b, lr)
            found[f"relative M at loss 0.3 to 0.6, {init}, batches of {b}, rate {lr}, {norm}"] = (
                relative_beta_at_equal_loss(row)
            )
    return found


def _loss_ranges(results: Results) -> Effects:
    """Return how far the loss ranges along the gradient, at step sizes from 1/2 to 4 learning rates."""
    found: Effects = {}
    for init, (norm, part) in itertools.product(
        ("He", "PyTorch default"),
        itertools.product(("without normalisation", "batch norm"), (EARLY, LATE)),
    ):
        row = results("smoothness.landscape_over_training", "mlp", init, norm, 64, 0.1)
        when = "steps 10 to 50" if part is EARLY else "steps 120 to 190"
        found[f"range of the loss, {when}, {init}, {norm}"] = median_over_probes(
            row["highest_loss"] - row["lowest_loss"], part
        )
    return found


def _is_smoother_with_bn(e: Effects, setting: str) -> bool:
    return np.median(e[f"{setting}, batch norm"]) < np.median(e[f"{setting}, without normalisation"])


def stable_rate_borders(results: Results, init: str, norm: str, depth: int) -> dict[str, np.ndarray]:
    """Return the smallest unstable and the largest stable learning rate of a network, one number per seed."""
    rates = rates_of(init, norm, depth)
    scans = [f"smoothness.stable_{'learning_rates' if lr in LEARNING_RATES else 'rates_near_border'}" for lr in rates]
    cells = [results(scan, init, norm, depth, lr) for scan, lr in zip(scans, rates, strict=True)]
    found = gather(rates, cells)
    return {name: found[name] for name in ("first_unstable", "last_stable")}


def _stable_rates(results: Results) -> Effects:
    found: Effects = {}
    for init, depth in itertools.product(("He", "PyTorch default"), (2, 4, 8)):
        for norm in ("batch norm", "without normalisation"):
            borders = stable_rate_borders(results, init, norm, depth)
            found[f"smallest unstable learning rate, {init}, {depth} hidden layers, {norm}"] = borders["first_unstable"]
            found[f"largest stable learning rate, {init}, {depth} hidden layers, {norm}"] = borders["last_stable"]
    return found


def _stable_rate_is_larger_with_bn(e: Effects, init: str) -> bool:
    """Whether every rate that is stable without BN is stable with BN, and some more, for each depth and seed."""
    return all(
        (
            e[f"smallest unstable learning rate, {init}, {depth} hidden layers, batch norm"]
            > e[f"largest stable learning rate, {init}, {depth} hidden layers, without normalisation"]
        ).all()
        for depth in (2, 4, 8)
    )


def _sides_of_theorem_4_1(results: Results) -> Effects:
    data = datasets.load("digits")
    x, y = data.train_x[:256].double(), data.train_y[:256]
    found: dict[str, list[float]] = {}
    for seed in range(5):
        net = mlp((64, 100, 100, 100, 10), None, init=nn.init.kaiming_normal_, seed=seed).double()
        with torch.no_grad():
            outputs = net[:2](x)

        def rest(activations, net=net):
            return F.cross_entropy(net[2:](activations), y)

        matched, unmatched = probes.theorem_4_1(rest, outputs), probes.theorem_4_1(rest, outputs, at=outputs)
        plain_gradient = torch.autograd.functional.jacobian(rest, outputs).square().sum(0)
        for name, value in {
            "largest relative difference of the two sides": (matched.slack / matched.right).abs().max(),
            "units where the bound fails with the gradient without BN, %": 100 * (unmatched.slack < 0).double().mean(),
            "units whose gradient norm is larger with BN than without, %": 100
            * (matched.left > plain_gradient).double().mean(),
        }.items():
            found.setdefault(name, []).append(value.item())
    return {name: np.array(values) for name, values in found.items()}


def _worst_case_and_real_weight_gradients(results: Results) -> Effects:
    found: Effects = {}
    for init, moment in itertools.product(("He", "PyTorch default"), ("before training", "after training")):
        row = results("smoothness.weight_gradients", init, moment)
        where = f"{init}, {moment}"
        found[f"gradient norm with BN over without, worst case over inputs, {where}"] = row["worst_case"].max(1)
        found[f"gradient norm of the weights with BN over without, real inputs, {where}"] = row["one"].max(1)
    return found


def _distances_to_solutions(results: Results) -> Effects:
    found: Effects = {}
    for init, norm in itertools.product(("He", "PyTorch default"), ("without normalisation", "batch norm")):
        rows = {lr: results("smoothness.distance_to_solution", init, norm, lr) for lr in DISTANCE_RATES}
        row = rows[best_rate({lr: each["steps"] for lr, each in rows.items()})]
        found[f"distance moved, {init}, {norm}"] = row["moved"].mean(1)
        if norm == "without normalisation":
            found[f"distance to the rays over distance moved, {init}"] = (row["to_rays"] / row["moved"]).max(1)
    return found


def _moves_less_with_bn(e: Effects, init: str) -> bool:
    return (e[f"distance moved, {init}, batch norm"] < e[f"distance moved, {init}, without normalisation"]).all()


def _errors_by_lp_norm(results: Results) -> Effects:
    found: Effects = {}
    for norm in lp_norms.NORMS:
        errors = [100 * results("smoothness.lp_norms", norm, lr)["test_error"] for lr in lp_norms.LEARNING_RATES]
        found[f"test error at the best rate, {norm}, %"] = min(errors, key=np.median)
    return found


def _weight_growth_under_descent(results: Results) -> Effects:
    data, differences, growth = datasets.load("digits"), [], []
    for seed in range(3):
        net = mlp((64, 20, 10), BatchNorm, seed=seed).double()
        net[2].eps = 1e-30
        x, y, weight = data.train_x[:64].double(), data.train_y[:64], net[1].weight
        norms, largest_difference = [weight.norm().item()], 0.0
        for _ in range(20):
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y), weight)
            expected = (weight.norm() ** 2 + 0.5**2 * gradient.norm() ** 2).sqrt().item()
            with torch.no_grad():
                weight.sub_(0.5 * gradient)
            norms.append(weight.norm().item())
            largest_difference = max(largest_difference, abs(norms[-1] - expected))
        differences.append(largest_difference)
        growth.append(norms[-1] / norms[0])
    return {
        "largest difference from the weight norm by Pythagoras in 20 steps": np.array(differences),
        "final over initial weight norm": np.array(growth),
    }


CLAIMS = (
    Claim(
        "kariya-smoother", "kariya2018", "back to the original question; figure 4 of Santurkar et al.",
        "During training, BN makes the gradient of the loss smoother: the gradient changes less over a step.",
        "03_lipschitz_smoothness#the-landscape-during-training", _effective_smoothness,
        (("the median effective M (largest change of the gradient per distance along a step) is smaller with BN: He "
          "initialisation, batches of 64, learning rate 0.1",
          lambda e: _is_smoother_with_bn(e, "effective M, steps 10 to 50, He")),
         ("the median effective M is smaller with BN: PyTorch's default initialisation, batches of 64, learning rate "
          "0.1",
          lambda e: _is_smoother_with_bn(e, "effective M, steps 10 to 50, PyTorch default")),
         ("the median relative M (weights in units of their norm) at equal loss is smaller with BN: He "
          "initialisation, batches of 256, learning rate 0.1",
          lambda e: _is_smoother_with_bn(e, "relative M at loss 0.3 to 0.6, He, batches of 256, rate 0.1")),
         ("the median relative M at equal loss is smaller with BN: PyTorch's default initialisation, batches of 16, "
          "learning rate 0.3",
          lambda e: _is_smoother_with_bn(
              e, "relative M at loss 0.3 to 0.6, PyTorch default, batches of 16, rate 0.3"))),
        quantifier="tendency",
    ),
    Claim(
        "kariya-loss-smoother", "kariya2018", "back to the original question; figure 4 of Santurkar et al.",
        "During training, BN makes the loss itself smoother: the loss changes less along the gradient.",
        "03_lipschitz_smoothness#the-landscape-during-training", _loss_ranges,
        tuple(("the median range of the loss along the gradient, over steps of 1/2 to 4 learning rates, is smaller "
               f"with BN: {init} initialisation, {when}",
               lambda e, i=init, w=when: _is_smoother_with_bn(e, f"range of the loss, {w}, {i}"))
              for init in ("He", "PyTorch default") for when in ("steps 10 to 50", "steps 120 to 190")),
        quantifier="tendency",
        note="Tested with batches of 64 and a learning rate of 0.1. A network on a plateau has a small range as well.",
    ),
    Claim(
        "kariya-larger-rates", "kariya2018", "back to the original question",
        "With BN, larger learning rates can be used.",
        "03_lipschitz_smoothness", _stable_rates,
        (("with He initialisation, the smallest unstable learning rate of full-batch gradient descent with BN is "
          "above the largest stable one without BN, with 2, 4 and 8 hidden layers and for every seed",
          lambda e: _stable_rate_is_larger_with_bn(e, "He")),
         ("with PyTorch's default initialisation, the same holds",
          lambda e: _stable_rate_is_larger_with_bn(e, "PyTorch default"))),
        quantifier="tendency",
        note="With PyTorch's default initialisation, eight hidden layers without BN tolerate a learning rate near 10, "
        "because their output hardly depends on the input.",
    ),
    Claim(
        "kariya-rates-cause", "kariya2018", "back to the original question",
        "With BN, larger learning rates can be used because the loss landscape is smoother.",
        "03_lipschitz_smoothness",
        quantifier="always",
        untested_because="A test would have to intervene: make the landscape as smooth without BN, or as rough with "
        "BN. The book measures smoothness and stable learning rates side by side, which cannot tell cause from effect.",
    ),
    Claim(
        "santurkar-theorem", "santurkar2018", "Theorem 4.1",
        "If the activations are equal, the squared norm of the gradient before a BN layer is at most gamma²/variance "
        "times that of the gradient after the layer without two of its components.",
        "03_lipschitz_smoothness#the-theorem", effects_with(_sides_of_theorem_4_1, "two sides"),
        (("the two sides are equal to within 10⁻⁹, which is more than the theorem states",
          lambda e: e["largest relative difference of the two sides"].max() < EXACT),),
        quantifier="always",
        note="The two components are the mean of the gradient over the batch, and its component along the normalised "
        "values.",
    ),
    Claim(
        "santurkar-theorem-gloss", "santurkar2018", "not in the paper: Theorem 4.1 without its condition",
        "The gradient norm is smaller with BN than in the same network without BN.",
        "03_lipschitz_smoothness#the-theorem", effects_with(_sides_of_theorem_4_1, "units"),
        (("in every unit, the bound of Theorem 4.1 holds with the gradient of the network without BN",
          lambda e: e["units where the bound fails with the gradient without BN, %"].max() == 0),
         ("in more than half of the units, the gradient norm is smaller with BN",
          lambda e: e["units whose gradient norm is larger with BN than without, %"].max() < 50)),
        quantifier="always",
        note="The counterexample is one layer of networks with He initialisation, before training, with five seeds.",
    ),
    Claim(
        "santurkar-weight-space", "santurkar2018", "Theorem 4.4",
        "In the worst case over inputs of bounded norm, the gradient norm of the weights before a BN layer is smaller "
        "than in the same network without BN.",
        "03_lipschitz_smoothness#weights-instead-of-activations", _worst_case_and_real_weight_gradients,
        (("with equal activations, the worst-case gradient norm is smaller with BN in each hidden layer, for each "
          "initialisation and seed",
          lambda e: all(values.max() < 1 for name, values in e.items() if "worst case" in name)),),
        quantifier="always",
        note="With the real inputs of the layers, the norm is smaller, too. The theorem's formula, which we know from "
        "transcriptions, has other powers and factors than what follows from Theorem 4.1, and fails for inputs of "
        "small norm.",
    ),
    Claim(
        "santurkar-initialisation", "santurkar2018", "Lemma 4.5",
        "With BN, the closest optimum is never further away than without BN, because all weights on a ray are "
        "equivalent.",
        "03_lipschitz_smoothness#a-favourable-start", _distances_to_solutions,
        (("the rays through the trained weights are closer to the initial weights than the trained weights, in each "
          "hidden layer and for each seed",
          lambda e: all(v.max() < 1 for name, v in e.items() if "to the rays" in name)),),
        quantifier="always",
        note="This follows from geometry if the inner product of initial and trained weights is positive. Gradient "
        "descent cannot reach the nearest point of a ray, because it never shortens weights before BN.",
    ),
    Claim(
        "santurkar-favourable", "santurkar2018", "section 4.2, on Lemma 4.5",
        "BN leads to a more favourable initialisation: training has a shorter way to go.",
        "03_lipschitz_smoothness#a-favourable-start", _distances_to_solutions,
        (("until the loss is below 0.1, at the best learning rate of each, the weights move less with BN than without "
          "BN, for every seed: He initialisation", lambda e: _moves_less_with_bn(e, "He")),
         ("the same holds with PyTorch's default initialisation", lambda e: _moves_less_with_bn(e, "PyTorch default"))),
        quantifier="tendency",
        note="Tested with three hidden layers on digits. Lemma 4.5 says less, because it is about distances and not "
        "about training.",
    ),
    Claim(
        "santurkar-lp", "santurkar2018", "section 3.3",
        "Networks train equally well if their activations are normalised by the L1 or the L-infinity norm in place of "
        "the L2 norm.",
        "03_lipschitz_smoothness#more-results", _errors_by_lp_norm,
        tuple((f"at the best learning rate of each, the median test error with {p} is within 2 points of that with L2",
               lambda e, p=p: abs(np.median(e[f"test error at the best rate, {p}, %"])
                                  - np.median(e["test error at the best rate, L2, %"])) < COMPARABLE)
              for p in ("L1", "L-infinity")),
        quantifier="tendency",
        note="Tested with three hidden layers on digits, where the error without normalisation is comparable as well. "
        "The paper uses VGG on CIFAR-10 and deep linear networks, and says this of such norms in general.",
    ),
    Claim(
        "vanlaarhoven-length", "vanlaarhoven2017", "section 2",
        "Gradient descent only increases the norm of the weights before BN, and so lowers their effective learning "
        "rate.",
        "03_lipschitz_smoothness#scale-invariance-and-the-effective-learning-rate", _weight_growth_under_descent,
        (("in each of 20 steps, the norm of the weights follows Pythagoras' theorem to within 10⁻⁹",
          lambda e: e["largest difference from the weight norm by Pythagoras in 20 steps"].max() < EXACT),
         ("after 20 steps, the norm of the weights has grown",
          lambda e: e["final over initial weight norm"].min() > 1)),
        quantifier="always",
    ),
)  # fmt: skip
