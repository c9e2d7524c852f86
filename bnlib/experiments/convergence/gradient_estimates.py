r"""Compare the gradients of Full Normalization for other estimates of its averages, along one training.

The network is trained with ``FullNorm`` as it is. All other estimators see the same weights and the same batches, and
keep estimates of their own in each normalised layer, which do not influence the training. So the differences between
them come from the estimates alone. At some steps their mean gradient is compared with the gradient of the objective
over all training images. Afterwards the weights are held still while the estimates see further batches; the part of the
bias that then vanishes is due to the lag.

A layer's variance moves towards $s+(1-\alpha)\,d^2$ in ``FullNorm``, where s is the variance of the batch and d the
distance of its mean from the running mean. This is the running $\nu-\mu^2$. The centred variance moves towards
$s+d^2$, the mean square about the running mean. The mean of $\log(s+d^2)$ is lower than the logarithm of the mean; its
correction is exact for a normal distribution.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import FullNorm, datasets
from bnlib.experiments.convergence import lagrangian
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import Sampler, shuffled, single_label

ESTIMATORS = {
    "FullNorm": "as in FullNorm",
    "centred": "variance about the running mean",
    "logarithm": "mean of the log variance",
    "earlier": "statistics of earlier batches only",
    "mean": "first layer's mean corrected",
    "start": "adjoints corrected for the start at 0",
    "adjoints": "adjoints corrected for each step",
    "none": "adjoints 0",
}
"""The estimators, each with one change to the first, in words for readers."""
FLOORS = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Floors of the weight of the newest batch; before, it is 1/2, 1/3, ... as in ``FullNorm``."""
CONSTRUCTIONS: dict[tuple[str, int], Sampler] = {
    ("shuffled", 1): shuffled,
    ("shuffled", 16): shuffled,
    ("one label", 16): single_label,
}
LEARNING_RATES = (0.03, 0.1)
SIZES, MOMENTS, STILL = (64, 50, 50, 10), (10, 200, 500), 100
"""``MOMENTS`` are the steps of the comparisons, and ``STILL`` is the number of batches with the weights held still."""
SAMPLES = 512
"""Samples in the batches from which the effect of the current batch, and the noise, are estimated."""
ROWS = list(itertools.product(ESTIMATORS, FLOORS))
EPS = 1e-5


class Estimates(NamedTuple):
    """What the estimators track in one layer, (rows, C) each. The running gradients are sums over a batch."""

    mean: Tensor
    variance: Tensor
    of_weight: Tensor
    of_bias: Tensor


class Pass(NamedTuple):
    """A forward and backward pass of M batches, each from the same estimates.

    Attributes:
        gradient: mean over the batches, (rows, P), in the order of ``network.parameters()``, if it was wanted.
        square: mean over the batches of the squared norm of the gradient, (rows,), likewise.
        moved: the statistics after each batch, a pair of (rows, M, C) for each layer.
        sums: the sums over each batch for the running gradients, a pair for each layer.
    """

    gradient: Tensor | None
    square: Tensor | None
    moved: list[tuple[Tensor, Tensor]]
    sums: list[tuple[Tensor, Tensor]]


def only(name: str) -> Tensor:
    """Return which rows belong to an estimator, (rows, 1)."""
    return torch.tensor([estimator == name for estimator, _ in ROWS])[:, None]


def alphas(step: int) -> Tensor:
    """Return the weight of the newest batch, (rows, 1); the first step is 0."""
    return torch.tensor([[max(floor, 1 / (step + 2))] for _, floor in ROWS], dtype=torch.float64)


def first_estimates(network: nn.Sequential) -> list[Estimates]:
    """Return the estimates before the first step: mean 0, variance 1 and gradients 0."""
    zeros = [torch.zeros(len(ROWS), layer.num_features).double() for layer in lagrangian.layers_of(network)]
    return [Estimates(each, each + 1, each, each) for each in zeros]


def moved_statistics(mean: Tensor, variance: Tensor, z: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return the statistics after one batch, (rows, M, C) each, from those before, (rows, 1 or M, C).

    ``z`` are the inputs of the layer, (rows, M, b, C), and ``alpha`` has the shape (rows, 1, 1).
    """
    distance, own, half = z.mean(2) - mean, z.var(2, correction=0), z.size(2) / 2
    about = own + distance.square()
    new = variance + alpha * (about - alpha * distance.square() - variance)
    low = math.log(half) - torch.special.digamma(torch.tensor(half)).item()  # of a normal distribution
    logarithm = (variance.log() + alpha * (about.clamp(min=EPS).log() + low - variance.log())).exp()
    new = torch.where(only("centred")[:, None], variance + alpha * (about - variance), new)
    return mean + alpha * distance, torch.where(only("logarithm")[:, None], logarithm, new)


def propagate(
    network: nn.Sequential,
    batches: tuple[Tensor, Tensor],
    old: Sequence[Estimates],
    adjoint_scale: Tensor,
    alpha: Tensor | None = None,
    before: Sequence[Tensor] | None = None,
    wanted: Sequence[str] = (),
) -> Pass:
    """Compute the gradients of M batches in the network of each row.

    Arguments:
        network: an ``mlp`` with ``FullNorm`` in float64, of which the parameters are used.
        batches: samples, (M, b, features), and labels, (M, b).
        old: the estimates in each layer.
        adjoint_scale: by which the running gradients are multiplied, (rows, 1); without ``alpha`` any rows will do.
        alpha: weight of a batch, with which it moves the statistics before they are used; None to leave them.
        before: weight and bias of the first layer before the last training step; None if they are the same.
        wanted: ``"gradient"``, or ``"gradient"`` and ``"square"``.
    """
    linears, y = [each for each in network if isinstance(each, nn.Linear)], batches[1]
    kept, moved, h = _forward(network, batches[0], old, adjoint_scale, alpha, before)
    g = (F.linear(h, linears[-1].weight, linears[-1].bias).softmax(-1) - F.one_hot(y, SIZES[-1])) / y.size(1)
    parts: list[Tensor] = []
    squares: list[Tensor] = []
    sums: list[tuple[Tensor, Tensor]] = []

    def keep(g: Tensor, h: Tensor, *of_norm: Tensor) -> None:
        if "gradient" in wanted:
            parts[:0] = [*_of_linear(g, h), *(each.mean(1) for each in of_norm)]
        if "square" in wanted:
            squares.append(_squares(g, h) + sum(each.square().sum(2) for each in of_norm))

    keep(g, h)
    for linear, (h, hat, scale, positive, of_weight, of_bias) in zip(linears[:0:-1], reversed(kept), strict=True):
        g = (g @ linear.weight) * positive
        sums.append(((g * hat).sum(2), g.sum(2)))  # also the gradients of gamma and beta
        g = (g - (of_bias + hat * of_weight) / y.size(1)) * scale
        keep(g, h, *sums[-1])
    gradient = torch.cat([each.flatten(1) for each in parts], 1) if parts else None
    return Pass(gradient, sum(squares).mean(1) if squares else None, moved, sums[::-1])


def _forward(network: nn.Sequential, x: Tensor, old: Sequence[Estimates], adjoint_scale: Tensor, alpha, before):
    """Return what the backward pass of each layer needs, the moved statistics, and the input of the last layer."""
    linears, norms = [each for each in network if isinstance(each, nn.Linear)], lagrangian.layers_of(network)
    kept, moved, h = [], [], x.expand(len(adjoint_scale), *x.shape)
    for number, (linear, norm, each) in enumerate(zip(linears, norms, old, strict=False)):
        z = F.linear(h, linear.weight, linear.bias)
        mean, variance = each.mean[:, None], each.variance[:, None]
        if alpha is not None:
            if before is not None and number == 0:
                shift = z.mean(2) - F.linear(x, *before).mean(1)
                mean = torch.where(only("mean")[:, None], mean + shift, mean)
            moved.append(moved_statistics(mean, variance, z, alpha[:, None]))
            unmoved = only("earlier")[:, None]
            pairs = zip((mean, variance), moved[-1], strict=True)
            mean, variance = (torch.where(unmoved, was, new) for was, new in pairs)
        gain, free = variance.clamp(min=EPS).rsqrt()[:, :, None], (variance > EPS)[:, :, None]
        hat = (z - mean[:, :, None]) * gain
        output = hat * norm.weight + norm.bias
        of_weight, of_bias = (sums[:, None, None] * adjoint_scale[:, None, None] for sums in each[2:])
        kept.append((h, hat, gain * norm.weight, output > 0, of_weight * free, of_bias))
        h = output.relu()
    return kept, moved, h


def _of_linear(g: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the batches of the gradients of weight and bias, from those at the output of the layer."""
    joined, count = g.flatten(1, 2), g.size(1)
    return joined.mT @ inputs.flatten(1, 2) / count, joined.sum(1) / count


def _squares(g: Tensor, inputs: Tensor) -> Tensor:
    """Return the squared norm of the gradients of weight and bias in each batch, (rows, M)."""
    return ((g @ g.mT) * (inputs @ inputs.mT + 1)).sum((2, 3))


class Follower:
    """The estimates of all estimators beside a training: ``estimates`` by layer, and the number of steps."""

    def __init__(self, network: nn.Sequential) -> None:
        self.estimates, self.steps = first_estimates(network), 0
        self._weight_of_start = torch.ones(len(ROWS), 1).double()
        self._ahead: list[tuple[Tensor, ...]] | None = None

    @property
    def adjoint_scale(self) -> Tensor:
        """By which the running gradients are multiplied before they are used, (rows, 1)."""
        corrected = 1 / (1 - self._weight_of_start) if self.steps else self._weight_of_start
        return torch.where(only("start"), corrected, 1.0) * ~only("none")

    def see(self, network: nn.Sequential, data: tuple, batch: Tensor, following: Tensor, before=None) -> None:
        """Update the estimates with a batch, before it changes the network.

        Arguments:
            network: as in ``propagate``.
            data: all samples and labels.
            batch, following: the indices of the batch and of the next one.
            before: as in ``propagate``.
        """
        alpha, both, shifted = alphas(self.steps), torch.stack((batch, following)), only("adjoints")[:, 0]
        done = propagate(network, _take(data, both[:1]), self.estimates, self.adjoint_scale, alpha, before)
        chosen = [Estimates(*(each[shifted] for each in old)) for old in self.estimates]
        still = propagate(network, _take(data, both), chosen, self.adjoint_scale[shifted]).sums
        new = []
        for number, (old, statistics, sums) in enumerate(zip(self.estimates, done.moved, done.sums, strict=True)):
            gradients = [old.of_weight.clone(), old.of_bias.clone()]
            for place, (of, own) in enumerate(zip(gradients, sums, strict=True)):
                if self._ahead is not None:
                    of[shifted] += still[number][place][:, 0] - self._ahead[number][place]
                of += alpha * (own[:, 0] - of)
            new.append(Estimates(*(each[:, 0] for each in statistics), *gradients))
        self._ahead = [tuple(each[:, 1] for each in pair) for pair in still]
        self._weight_of_start = self._weight_of_start * (1 - alpha)
        self.estimates, self.steps = new, self.steps + 1

    def with_weights_held_still(self, network: nn.Sequential, data: tuple, batches) -> Follower:
        """Return what the estimates become after ``STILL`` batches more, if the network does not change."""
        other = copy.copy(self)
        other._ahead = None
        drawn = list(itertools.islice(batches, STILL + 1))
        for batch, following in itertools.pairwise(drawn):
            other.see(network, data, batch, following)
        return other

    def errors(self, network: nn.Sequential, data: tuple, batches: Tensor, before=None) -> dict[str, Tensor]:
        """Compare the gradients with that of the objective, over its norm.

        The mean without the effect of the current batch is exact; the effect is estimated from ``batches``, (M, b).

        Returns:
            bias, cosine and noise, (estimators, floors) each.
        """
        with torch.enable_grad():
            truth = lagrangian.flat(lagrangian.exact(network, data).gradient)
        every, some = _take(data, torch.arange(len(data[1]))[None]), _take(data, batches)
        known = self.estimates, self.adjoint_scale
        own = propagate(network, some, *known, alphas(self.steps), before, ("gradient", "square"))
        exact, unmoved = (propagate(network, each, *known, wanted=["gradient"]).gradient for each in (every, some))
        mean = exact + own.gradient - unmoved
        variance = (own.square - own.gradient.square().sum(1)) * len(batches) / (len(batches) - 1)
        found = {
            "bias": (mean - truth).norm(dim=1) / truth.norm(),
            "cosine": torch.cosine_similarity(mean, truth[None]),
            "noise": variance.clamp(min=0).sqrt() / truth.norm(),
        }
        return {name: each.view(len(ESTIMATORS), len(FLOORS)) for name, each in found.items()}


def _take(data: tuple[Tensor, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
    return data[0][index], data[1][index]


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each construction and batch size with each learning rate."""
    return {(*batches, lr): range(3) for batches in CONSTRUCTIONS for lr in LEARNING_RATES}


def measure(construction: str, batch_size: int, lr: float, *, seed: int, device: str) -> dict[str, Any]:
    """Train an MLP with FullNorm on digits by SGD on the CPU, and compare at ``MOMENTS``.

    Returns:
        ``bias``, ``cosine`` and ``noise``, see ``Follower.errors``, and with the weights held still ``still bias`` and
        so on, (moments, estimators, floors) each.
    """
    data, sampler = datasets.load("digits"), CONSTRUCTIONS[construction, batch_size]
    everything = data.train_x.flatten(1).double(), data.train_y
    network = mlp(SIZES, partial(FullNorm, dtype=torch.float64), seed=seed).double()
    optimiser, follower, before = torch.optim.SGD(network.parameters(), lr=lr), Follower(network), None
    batches, others = (sampler(data.train_y, batch_size, each) for each in (seed, 1000 + seed))
    found: list[dict[str, Any]] = []
    for batch, following in itertools.pairwise(itertools.islice(batches, max(MOMENTS) + 2)):
        with torch.no_grad():
            if follower.steps in MOMENTS:
                found.append(_compare(follower, network, everything, others, before))
            follower.see(network, everything, batch, following, before)
        before = [each.detach().clone() for each in itertools.islice(network.parameters(), 2)]
        optimiser.zero_grad()
        F.cross_entropy(network(everything[0][batch]), everything[1][batch]).backward()
        optimiser.step()
    return {name: torch.stack([each[name] for each in found]).numpy() for name in found[0]}


def _compare(follower: Follower, network: nn.Sequential, data: tuple, batches, before) -> dict[str, Tensor]:
    first = next(batches)
    drawn = torch.stack([first, *itertools.islice(batches, SAMPLES // len(first) - 1)])
    still = follower.with_weights_held_still(network, data, batches).errors(network, data, drawn)
    return follower.errors(network, data, drawn, before) | {f"still {name}": each for name, each in still.items()}


EXPERIMENT = Measurement(
    name="convergence.gradient_estimates",
    question="Which estimates of its averages bring Full Normalization's gradient closest to the true one?",
    source="chapter 12; Lian and Liu 2019, Algorithm 3; Chen, Sun and Yin 2021",
    axes=("construction", "batch_size", "lr"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result: numbers by cell and name, (seeds, moments, estimators, floors)."""
    return EXPERIMENT.load("quick")


def best_floor(cell: tuple, estimator: str) -> float:
    """Return the floor with which an estimator has the least bias: the least median over seeds and later moments."""
    return FLOORS[int(np.median(load()[cell]["bias"][:, 1:, list(ESTIMATORS).index(estimator)], (0, 1)).argmin())]


def at_best_floor(cell: tuple, estimator: str, name: str) -> np.ndarray:
    """Return a committed number of an estimator with its best floor, at the moments after the first, (seeds, moments).

    Arguments:
        cell: construction, batch size and learning rate.
        estimator: one of ``ESTIMATORS``.
        name: a result of ``measure``, such as ``"bias"``.
    """
    place = list(ESTIMATORS).index(estimator), FLOORS.index(best_floor(cell, estimator))
    return load()[cell][name][:, 1:, *place]


def bias_ratios(estimator: str) -> dict[tuple, np.ndarray]:
    """Return in each cell an estimator's bias over that of ``FullNorm``, means over the later moments, one per seed."""
    return {
        cell: at_best_floor(cell, estimator, "bias").mean(1) / at_best_floor(cell, "FullNorm", "bias").mean(1)
        for cell in load()
    }


def rows() -> list[dict]:
    """Return a row for each estimator: medians over seeds and later moments, one per cell.

    The last column counts the cells where all seeds have a smaller bias than with ``FullNorm``.
    """
    found = []
    for estimator, label in ESTIMATORS.items():
        ratios = list(bias_ratios(estimator).values())
        smaller = sum(bool((each < 1).all()) for each in ratios)
        numbers = {
            name: np.array([np.median(at_best_floor(cell, estimator, name)) for cell in load()])
            for name in ("bias", "still bias", "cosine", "noise")
        }
        found.append(
            {
                "estimate": label,
                "bias / gradient": numbers["bias"],
                "bias over FullNorm's": np.array([np.median(each) for each in ratios]),
                "with weights held still": numbers["still bias"],
                "cosine": numbers["cosine"],
                "noise / gradient": numbers["noise"],
                "smaller bias in all seeds": f"{smaller} of {len(ratios)}",
            }
        )
    return found
