"""More claims of Lian and Liu (2019), tested by exact computations and small simulations for chapters 4 and 5."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bnlib import datasets, mcsgd
from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.thresholds import EXACT, TIMES
from bnlib.experiments.objective import two_weights
from bnlib.norm import BatchNorm

Function = Callable[[Tensor], Tensor]


def _operator(function: Function, batch: Tensor, weight: Tensor) -> Function:
    """Return the function of equation (1): normalise by the statistics of ``function`` over ``batch``, then a layer."""
    values = function(batch)
    mean, deviation = values.mean(0), values.var(0, correction=0).sqrt()

    def layer(x: Tensor) -> Tensor:
        hat = (function(x) - mean) / deviation
        return torch.tanh(torch.cat((hat, torch.ones(len(x), 1, dtype=x.dtype)), 1) @ weight.T)

    return layer


def _network_and_operators(results: Results) -> Effects:
    """Compare a network with BN in front of its layers with operators (1), and its functions for two batches."""
    found: dict[str, list[float]] = {}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        batch, other = torch.randn(2, 20, 4, generator=generator, dtype=torch.float64)
        weights = [torch.randn(6, width + 1, generator=generator, dtype=torch.float64) for width in (4, 6, 6)]
        layers: list[nn.Module] = []
        for weight in weights:
            linear = nn.Linear(weight.shape[1] - 1, 6, dtype=torch.float64)
            linear.weight.data, linear.bias.data = weight[:, :-1], weight[:, -1]
            norm = BatchNorm(linear.in_features, eps=1e-30, affine=False, dtype=torch.float64)
            layers += [norm, linear, nn.Tanh()]
        functions = []
        for each in (batch, other):
            composed: Function = lambda x: x  # noqa: E731
            for weight in weights:
                composed = _operator(composed, each, weight)
            functions.append(composed)
        with torch.no_grad():
            same = (nn.Sequential(*layers)(batch) - functions[0](batch)).abs().max().item()
            differ = (functions[1](batch) - functions[0](batch)).abs().max().item()
        found.setdefault("largest difference from the network in train mode", []).append(same)
        found.setdefault("largest difference between the functions of two batches", []).append(differ)
    return {name: np.array(each) for name, each in found.items()}


def _normalise(z: Tensor, y: Tensor) -> Tensor:
    """Return the normalised values, given their means and mean squares in one row ``y``."""
    mean, square = y.chunk(2)
    return (z - mean) / (square - mean.square()).sqrt()


def _nested_and_full_batch_objective(results: Results) -> Effects:
    """Compare objective (6), written with e(x) = (x, x²), with a network with BN on all samples in one batch."""
    found: dict[str, list[float]] = {}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        x, target = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
        params = {
            name: torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_() for name in ("1", "2")
        }
        stages = [
            mcsgd.Stage(
                apply=lambda params, z, y, name=name: torch.tanh(_normalise(z @ params[name], y)),
                statistic=lambda params, z, name=name: torch.cat((z @ params[name], (z @ params[name]).square()), 1),
                start=torch.zeros(6, dtype=torch.float64),
            )
            for name in params
        ]
        nested = mcsgd.Composition(stages, lambda params, z, t: (z - t).square().sum(1)).value(params, (x, target))
        z = x
        for weight in params.values():
            z = torch.tanh(BatchNorm(3, eps=1e-30, affine=False, dtype=torch.float64)(z @ weight))
        full = (z - target).square().sum(1).mean()
        gradients = [torch.autograd.grad(each, list(params.values())) for each in (nested, full)]
        found.setdefault("difference of the objectives", []).append((nested - full).abs().item())
        found.setdefault("largest difference of their gradients", []).append(
            max((a - b).abs().max().item() for a, b in zip(*gradients, strict=True))
        )
    return {name: np.array(each) for name, each in found.items()}


def _variance_in_batches(results: Results) -> Effects:
    """Return the mean of var(B) over shuffled batches of digits over the variance of all, mean over pixels."""
    x = datasets.load("digits").train_x.flatten(1).double()
    x = x[:, x.std(0) > 0]
    found: dict[int, list[float]] = {}
    for seed in range(3):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: 64 * 22]
        for b in (1, 2, 16, 64):
            variances = x[order].view(-1, b, x.shape[1]).var(1, correction=0).mean(0)
            found.setdefault(b, []).append((variances / x.var(0, correction=0)).mean().item())
    return {
        f"average var(B) over the variance of all data, batches of {b}": np.array(each) for b, each in found.items()
    }


def _minimisers(*sets: tuple[str, int]):
    def measure(results: Results) -> Effects:
        return {
            f"weight {number} at the minimum, {name}, batches of {b}": np.array([weight])
            for name, b in sets
            for number, weight in enumerate(two_weights.surface(name, b).minimiser, 1)
        }

    return measure


def _differ(e: Effects, one: str, other: str) -> bool:
    """Whether two minima are more than 0.1 apart."""
    pairs = [(e[name][0], e[name.replace(one, other)][0]) for name in e if one in name]
    return float(np.linalg.norm([a - b for a, b in pairs])) > 0.1


def _gradient_error_by_error_of_estimates(results: Results) -> Effects:
    """Return the distance of the oracle's expectation from the gradient, relative to it, for worse and worse estimates.

    One normaliser behind a linear layer on six samples, as in ``equation_7``. The oracle draws the sample of the
    statistics independently, or takes that of the loss.
    """
    found: dict[str, list[float]] = {}
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        inputs, weight = torch.randn(6, 2, generator=generator).double(), torch.randn(2, generator=generator).double()
        targets, wrong = torch.randn(6, generator=generator).double(), torch.rand(2, generator=generator).double()

        def loss(weight, mean, square, inputs=inputs, targets=targets):
            return ((inputs @ weight - mean) / (square - mean**2).sqrt() - targets) ** 4

        leaf = weight.clone().requires_grad_()
        x = inputs @ leaf
        (exact,) = torch.autograd.grad(loss(leaf, x.mean(), x.square().mean()).mean(), leaf)
        for scale in (0.3, 0.03, 0.003):
            mean = (x.mean() + scale * x.std() * wrong[0]).detach()
            variance = (x.var(correction=0) * (1 + scale * wrong[1])).detach()
            for oracle in ("new sample", "same sample"):
                w = weight.clone().requires_grad_()
                y = [each.expand(6).clone().requires_grad_() for each in (mean, variance + mean**2)]
                direct, *through = torch.autograd.grad(loss(w, *y).sum(), (w, *y))
                slopes = inputs, 2 * (inputs @ weight)[:, None] * inputs
                if oracle == "new sample":
                    rest = sum(a.mean() * slope.mean(0) for a, slope in zip(through, slopes, strict=True))
                else:
                    rest = sum((a[:, None] * slope).mean(0) for a, slope in zip(through, slopes, strict=True))
                error = ((direct / 6 + rest - exact).norm() / exact.norm()).item()
                found.setdefault(f"relative error of the gradient, {oracle}, estimates wrong by {scale}", []).append(
                    error
                )
    return {name: np.array(each) for name, each in found.items()}


def _squared_gradients_by_batch_size(results: Results) -> Effects:
    r"""Return the mean squared gradient of Algorithm 2 with Corollary 3's powers, by batch size.

    The problem is $f(w)=\log(1+e^u)-0.2\,u$ with $u=E[w+a]$ and $a=\pm2$, 64 copies and 3,000 steps for each seed.
    """
    found: dict[str, list[float]] = {}
    for seed in range(3):
        for b in (1, 64):
            draw = np.random.default_rng(seed)
            w, estimate, total = draw.standard_normal(64), np.zeros(64), 0.0
            for k in range(3000):
                offsets = 4 * draw.binomial(b, 0.5, 64) / b - 2
                estimate = estimate + (k + 1.0) ** -0.4 * (w + offsets - estimate)
                total += np.square(1 / (1 + np.exp(-w)) - 0.2).mean()
                w = w - 8 * (k + 2.0) ** -0.8 * (1 / (1 + np.exp(-estimate)) - 0.2)
            found.setdefault(f"mean squared gradient over 3000 steps, batches of {b}", []).append(total / 3000)
    return {name: np.array(each) for name, each in found.items()}


CLAIMS = (
    Claim(
        "lian-operators", "lian2019", "section 4, equation (1)",
        "A network with BN is a composition of operators that have the batch as an argument: each batch has a "
        "function of its own.",
        "04_the_objective#two-operators-two-objectives", _network_and_operators,
        (("a network with BN in front of each layer is equal to this composition to within 10⁻⁹",
          lambda e: e["largest difference from the network in train mode"].max() < EXACT),
         ("the functions of two batches differ by more than 0.01",
          lambda e: e["largest difference between the functions of two batches"].min() > 0.01)),
        quantifier="always",
    ),
    Claim(
        "lian-algorithm-1", "lian2019", "section 3 and Algorithm 1",
        "The mean and the variance of a batch are similar to those of the whole data set, so their running averages "
        "can replace these at inference.",
        "04_the_objective#batches-of-one-sample", _variance_in_batches,
        tuple((f"in shuffled batches of size {b}, the average batch variance var(B) of digits is within 10 % of the "
               "variance of all data",
               lambda e, b=b: abs(e[f"average var(B) over the variance of all data, batches of {b}"] - 1).max() < 0.1)
              for b in (64, 16, 2, 1)),
        quantifier="tendency",
        note="Algorithm 1 averages var(B), which is too small by a factor of 1 - 1/b. With b = 1 it is 0, so the test "
        "loss of figure 1 explodes. PyTorch averages the unbiased variance.",
    ),
    Claim(
        "lian-workers", "lian2019", "section 4",
        "If each worker makes batches of its own samples, the set of batches changes, and so does the objective.",
        "04_the_objective#look-at-it",
        _minimisers(("all subsets", 3), ("one worker", 3), ("all subsets", 6), ("one worker", 6)),
        tuple((f"in a logistic regression with batches of {b}, the best two weights for the batches of one worker are "
               "more than 0.1 from those for all batches",
               lambda e, b=b: _differ({n: v for n, v in e.items() if n.endswith(f" {b}")}, "all subsets", "one worker"))
              for b in (3, 6)),
        quantifier="always",
        exact_because="all batches are enumerated",
    ),
    Claim(
        "lian-convex", "lian2019", "introduction, on figure 2",
        "Even on convex problems, BN has different solutions at different batch sizes.",
        "04_the_objective#look-at-it", _minimisers(("all subsets", 2), ("all subsets", 6)),
        (("the best two weights of a logistic regression with batches of 2 are more than 0.1 from those with batches "
          "of 6",
          lambda e: _differ(e, "batches of 2", "batches of 6")),),
        quantifier="sometimes",
        exact_because="all batches are enumerated",
        note="With BN on the inputs, the objective is convex in the weights at every batch size.",
    ),
    Claim(
        "lian-equation-6", "lian2019", "equation (6)",
        "The objective of full-batch BN is a special case of objective (6), which has an expectation in each layer.",
        "12_convergence#exercise-4-equation-7-of-the-paper", _nested_and_full_batch_objective,
        (("with e(x) = (x, x²), the two objectives are equal to within 10⁻⁹",
          lambda e: e["difference of the objectives"].max() < EXACT),
         ("with e(x) = (x, x²), their gradients are equal to within 10⁻⁹",
          lambda e: e["largest difference of their gradients"].max() < EXACT)),
        quantifier="always",
        note="Tested with two normalised layers and three seeds.",
    ),
    Claim(
        "lian-remark-1", "lian2019", "Remark 1",
        "The more accurate the estimates of the statistics, the closer the expectation of the gradient oracle is to "
        "the gradient.",
        "05_full_normalization#how-wrong-is-each-oracle-exactly", _gradient_error_by_error_of_estimates,
        tuple(("if the oracle takes a new sample for the statistics, its error is smaller with estimates that are "
               f"wrong by {better} than by {worse}, in all of 20 problems",
               lambda e, a=better, b=worse: (
                   e[f"relative error of the gradient, new sample, estimates wrong by {a}"]
                   < e[f"relative error of the gradient, new sample, estimates wrong by {b}"]).all())
              for worse, better in ((0.3, 0.03), (0.03, 0.003))),
        quantifier="always",
        note="The oracle is the rule that estimates the gradient. If it takes the same sample for the loss and the "
        "statistics, its error does not shrink with better estimates.",
    ),
    Claim(
        "lian-small-error", "lian2019", "section 5.2",
        "If the estimation error is small, for example in large random batches, Algorithm 2 converges fast.",
        "12_convergence#rates", _squared_gradients_by_batch_size,
        (("over 3,000 steps, the mean squared gradient with batches of 64 is less than half of that with batches of "
          "1, for every seed",
          lambda e: TIMES * e["mean squared gradient over 3000 steps, batches of 64"].max()
          < e["mean squared gradient over 3000 steps, batches of 1"].min()),),
        quantifier="tendency",
        note="Tested on one problem, where the error of the estimates is the only noise of the gradient.",
    ),
    Claim(
        "lian-no-algorithm", "lian2019", "section 5.1",
        "Before this paper, there was no good algorithm for more than two nested expectations.",
        "05_full_normalization",
        quantifier="always",
        untestable_because="This is a statement about the literature of its time, which no experiment can decide.",
    ),
)  # fmt: skip
