r"""Multilayer compositional stochastic gradient descent: Algorithm 2 of Lian and Liu (2019), for any composition.

The objective is an expectation with expectations inside,

$$J(w) = E_\xi\,\ell(z_d),\qquad z_i = F_i(w, z_{i-1}, y_i),\qquad y_i = E_{\xi'}\,e_i(w, z'_{i-1}),\qquad z_0 = \xi,$$

where $z'$ belongs to the sample $\xi'$. The stages are numbered in the order in which they are applied; the paper
numbers them in the opposite order. A mini-batch gives an unbiased estimate of the outer expectation, but not of the
inner ones, because these are arguments of nonlinear functions. The algorithm therefore keeps running estimates
$\hat y_i$ of the inner expectations, and an *oracle* computes the gradient from them.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4 and Algorithm 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnlib.arguments import check_kind, check_number, check_one_of, check_usual, shown
from bnlib.schedules import Schedule

Params = Mapping[str, Tensor]
"""The parameters w by name."""

Batch = tuple[Tensor, Tensor]
"""Samples, shape (b, ...), and their targets."""

ORACLES = ("same", "independent", "running", "constant")
"""How ``minimize`` can compute a gradient."""

ESTIMATORS = ("exponential", "corrected", "momentum")
"""How ``minimize`` can update its estimates of the statistics."""

ORDERS = ("algorithm 2", "layerwise")
"""Which estimates of earlier stages ``minimize`` uses when it updates a stage."""


@dataclass(frozen=True)
class Stage:
    r"""One stage of a composition: the function $F_i$ and the statistic $y_i$ that it uses.

    Attributes:
        apply: ``apply(params, z, y)`` takes the values z of the samples, shape (b, ...), and the statistic y, shape
            (k,), and returns the values for the next stage.
        statistic: ``statistic(params, z)`` returns one row per sample, shape (b, k), whose expectation is y.
        start: initial estimate of y, shape (k,).
        coordinates: None, or a pair of functions ``(params, y, adjoint)`` that map shape (k,) to (k,). The first one
            transforms the derivative of the loss with respect to y into the coordinates in which the oracle
            ``"running"`` averages it, and the second one transforms it back. Use it if the derivative changes with y
            itself, as the derivative with respect to a variance does.

    Example:
        The statistic is the mean of the products $w \xi$, and the stage returns this mean for every sample:

        >>> stage = mcsgd.Stage(
        ...     apply=lambda params, z, y: y.expand(len(z), 1),
        ...     statistic=lambda params, z: params["w"] * z,
        ...     start=torch.zeros(1),
        ... )
        >>> stage.statistic({"w": torch.tensor(3.0)}, torch.tensor([[0.0], [2.0]])).mean(0)
        tensor([3.])
    """

    apply: Callable[[Params, Tensor, Tensor], Tensor]
    statistic: Callable[[Params, Tensor], Tensor]
    start: Tensor
    coordinates: tuple[Callable, Callable] | None = None

    def __post_init__(self) -> None:
        for name in ("apply", "statistic"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} must be a function, got {shown(getattr(self, name))}")
        check_usual(start=self.start)


@dataclass(frozen=True)
class Composition:
    r"""An objective: a sequence of stages followed by a loss.

    Attributes:
        stages: the stages in the order in which they are applied.
        loss: ``loss(params, z, target)`` returns the loss of each sample, shape (b,).

    Example:
        $J(w) = (w\,E\xi - 1)^2$, with an expectation inside a square:

        >>> def apply(params, z, y):
        ...     return y.expand(len(z), 1)
        >>> stage = mcsgd.Stage(apply, lambda params, z: params["w"] * z, torch.zeros(1))
        >>> problem = mcsgd.Composition([stage], loss=lambda params, z, target: (z[:, 0] - 1).square())
        >>> data = torch.tensor([[0.0], [2.0]]), None
        >>> [problem.value({"w": torch.tensor(w)}, data).item() for w in (1.0, 3.0)]
        [0.0, 4.0]
    """

    stages: Sequence[Stage]
    loss: Callable[[Params, Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        check_usual(loss=self.loss)
        if not isinstance(self.stages, Sequence) or not all(isinstance(stage, Stage) for stage in self.stages):
            raise TypeError(f"stages must be a sequence of Stages, got {shown(self.stages)}")

    def statistics(self, params: Params, x: Tensor) -> list[Tensor]:
        """Return the exact statistic y of each stage over all samples ``x``, given those of the earlier stages."""
        found, z = [], x
        for stage in self.stages:
            found.append(_statistic(stage, params, z))
            z = stage.apply(params, z, found[-1])
        return found

    def value(self, params: Params, data: Batch) -> Tensor:
        """Return J(w) with means over all of ``data`` as expectations; differentiable, for the exact gradient."""
        z, target = data
        for stage, y in zip(self.stages, self.statistics(params, z), strict=True):
            z = stage.apply(params, z, y)
        return _mean_loss(self.loss, params, z, target, len(data[0]))


@dataclass
class State:
    """The state of a run of ``minimize`` after a step.

    Attributes:
        step: number of steps done.
        params: the parameters w by name.
        estimates: the estimate of y for each stage.
        adjoints: for each stage, the running estimate of the derivative of the loss with respect to y, which the oracle
            ``"running"`` uses.
        trends: for each stage, the trend that the estimator ``"momentum"`` uses.
        previous: the parameters before the last step, which the estimator ``"corrected"`` uses.
        gradient: the gradient of the last step by name.
    """

    step: int
    params: dict[str, Tensor]
    estimates: list[Tensor]
    adjoints: list[Tensor]
    trends: list[Tensor] = field(default_factory=list)
    previous: dict[str, Tensor] | None = None
    gradient: dict[str, Tensor] = field(default_factory=dict)

    def errors(self, composition: Composition, x: Tensor, previous: bool = True) -> list[float]:
        r"""Return the squared error of the estimate of each stage, $\|\hat y_i - E\,e_i(w; \xi)\|^2$.

        Lemma 1 of the paper bounds this error. As in the lemma, $e_i(w; \xi)$ uses the exact statistics of the earlier
        stages.

        Arguments:
            composition: the objective that is minimised.
            x: all samples.
            previous: use the parameters with which the last estimates were computed, not those after the step.
        """
        params = self.previous if previous and self.previous is not None else self.params
        with torch.no_grad():
            exact = composition.statistics(params, x)
            return [(y - estimate).square().sum().item() for y, estimate in zip(exact, self.estimates, strict=True)]


def minimize(
    composition: Composition,
    params: Params,
    batches: Iterable[Batch],
    lr: float | Schedule,
    alpha: float | Schedule,
    *,
    oracle: str = "running",
    estimator: str = "exponential",
    order: str = "algorithm 2",
) -> Iterator[State]:
    r"""Run Algorithm 2 and yield the state after each step until there are no more batches.

    A step draws a batch, updates the estimates, lets the oracle compute a gradient g at the new estimates, and updates
    the parameters, $w \leftarrow w - \eta_k g$.

    Arguments:
        composition: the objective to minimise.
        params: the initial parameters by name; they are not changed.
        batches: yields samples and targets. The oracle ``"independent"`` draws one more batch for each stage; if the
            batches end in the middle of a step, that step is not done.
        lr: the learning rate $\eta_k$, a number, a tensor that broadcasts against the parameters, or a schedule of the
            step (``bnlib.schedules``).
        alpha: $\alpha_k$, the weight of the newest batch, a number or a schedule of the step.
        oracle: how to estimate the two expectations in the derivative through a statistic,
            $E[\partial\ell/\partial y]\cdot E[\partial e]$:

            - ``"same"``: both from the batch of the step. This is biased, because the two are not independent.
            - ``"independent"``: each from its own batch. This is unbiased for given estimates.
            - ``"running"``: the first one from a running average over *earlier* batches, which is independent of the
              batch that gives the second one.
            - ``"constant"``: as 0, as if y did not depend on w.
        estimator: how to update the estimate of y:

            - ``"exponential"``: $(1-\alpha)\hat y + \alpha e$.
            - ``"corrected"``: $(1-\alpha)(\hat y - e^-) + e$, where $e^-$ is the statistic of the same batch at the
              previous parameters (Chen, Sun and Yin 2021). This corrects for the change of y from step to step.
            - ``"momentum"``: exponential smoothing of y and of its trend, with the weights $\alpha$ and $\alpha/4$
              (Holt 1957).
        order: with ``"algorithm 2"`` each stage is updated with the old estimates of the earlier stages; with
            ``"layerwise"`` it is updated with their new estimates, as in the layers of a network (Algorithm 3).

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if ``oracle``, ``estimator`` or ``order`` is unknown, if ``lr`` or ``alpha`` leaves its range at a
            step, if a batch is empty, if the loss is not one number per sample, or if there are too few batches for
            the first step.
        RuntimeError: in ``torch.inference_mode()``.

    Source: Lian and Liu 2019, Algorithm 2; Theorem 2 for lr and alpha.

    Example:
        $J(w) = (w\,E\xi - 1)^2$ has its minimum at $w = 1/E\xi = 1$. SGD on single samples would instead minimise
        $E(w\xi - 1)^2$, whose minimum is at 1/2.

        >>> def apply(params, z, y):
        ...     return y.expand(len(z), 1)
        >>> stage = mcsgd.Stage(apply, lambda params, z: params["w"] * z, torch.zeros(1))
        >>> problem = mcsgd.Composition([stage], loss=lambda params, z, target: (z[:, 0] - 1).square())
        >>> samples = torch.tensor([[0.0], [2.0]])
        >>> batches = ((samples[[step % 2]], None) for step in range(400))
        >>> *_, state = mcsgd.minimize(problem, {"w": torch.tensor(2.0)}, batches, lr=0.05, alpha=0.1)
        >>> round(state.params["w"].item(), 1)
        1.0
    """
    for name, value, known in (
        ("oracle", oracle, ORACLES), ("estimator", estimator, ESTIMATORS), ("order", order, ORDERS),
    ):  # fmt: skip
        check_one_of(name, value, known)
    check_kind("composition", composition, Composition, "a Composition")
    if not isinstance(params, Mapping) or not all(isinstance(value, Tensor) for value in params.values()):
        raise TypeError(f"params must be tensors by name, got {shown(params)}")
    if torch.is_inference_mode_enabled():  # in which all gradients would be 0
        raise RuntimeError("minimize must run with gradients, got torch.inference_mode() around it")
    batches = _iterator(batches)
    starts = [stage.start.detach().clone() for stage in composition.stages]
    zeros = [torch.zeros_like(each) for each in starts]
    state = State(0, {name: value.detach().clone() for name, value in params.items()}, starts, zeros, list(zeros))
    needed = 1 + len(starts) * (oracle == "independent")
    while len(drawn := list(itertools.islice(batches, needed))) == needed:
        rate, weight = (each(state.step) if callable(each) else each for each in (lr, alpha))
        _check_rates(rate, weight, state.step)
        for each in drawn:
            if not isinstance(each, (tuple, list)) or len(each) != 2:
                raise TypeError(f"batches must yield pairs of samples and targets, got {shown(each)}")
            if len(each[0]) == 0:
                raise ValueError("batches must yield at least one sample each, got an empty batch")
        batch, *more = drawn
        estimates, trends = _updated_estimates(composition, state, batch[0], weight, estimator, order)
        gradient, adjoints = _gradient(composition, state, estimates, batch, iter(more), oracle, weight)
        new = {name: value - rate * gradient[name] for name, value in state.params.items()}
        state = State(state.step + 1, new, estimates, adjoints, trends, state.params, gradient)
        yield state
    if state.step == 0:
        raise ValueError(
            f"batches must yield at least {needed} for a step with the oracle {oracle!r}, got {len(drawn)}"
        )


def _statistic(stage: Stage, params: Params, z: Tensor) -> Tensor:
    """Return the mean of a stage's statistic over samples; raise an error if it would be broadcast to the estimate.

    Dimensions between that of the samples and those of the estimate are runs that are made at once.
    """
    rows = stage.statistic(params, z)
    shape = getattr(rows, "shape", ())
    if shape[:1] != (len(z),) or shape[max(1, len(shape) - stage.start.dim()) :] != stage.start.shape:
        raise ValueError(
            f"statistic must return one row per sample, shape {(len(z), *stage.start.shape)} for a start of shape "
            f"{tuple(stage.start.shape)}, got {shown(rows)}"
        )
    return rows.mean(0)


def _mean_loss(loss: Callable, params: Params, z: Tensor, target: Tensor, samples: int) -> Tensor:
    """Return the mean loss; raise an error if it is not one number for each sample of the batch."""
    found = loss(params, z, target)
    if not isinstance(found, Tensor) or found.shape != (samples,):
        raise ValueError(f"loss must return one number per sample, shape ({samples},), got {shown(found)}")
    return found.mean()


def _iterator(batches: Iterable[Batch]) -> Iterator[Batch]:
    try:
        return iter(batches)
    except TypeError as error:
        raise TypeError(f"batches must yield pairs of samples and targets, got {shown(batches)}") from error


def _check_rates(lr: float, alpha: float, step: int) -> None:
    """Raise an error if a learning rate or a weight of the newest batch is out of range at a step."""
    for name, value, bounds in (("lr", lr, {"at_least": 0}), ("alpha", alpha, {"above": 0, "at_most": 1})):
        ends = [end.item() for end in value.aminmax()] if isinstance(value, Tensor) else [value]
        for end in ends:
            check_number(f"{name} at step {step}", end, **bounds)


def _updated_estimates(composition: Composition, state: State, x: Tensor, alpha: float, estimator: str, order: str):
    """Return the estimates and trends after a batch."""
    estimates, trends = [], []
    now, before = x, x
    corrects, last = estimator == "corrected" and state.previous is not None, len(composition.stages) - 1
    with torch.no_grad():
        for number, stage in enumerate(composition.stages):
            old, trend = state.estimates[number], state.trends[number]
            newest = _statistic(stage, state.params, now)
            if corrects:
                estimate = (1 - alpha) * (old - _statistic(stage, state.previous, before)) + newest
            elif estimator == "momentum":
                estimate = (1 - alpha) * (old + trend) + alpha * newest
                trend = (1 - alpha / 4) * trend + alpha / 4 * (estimate - old)
            else:
                estimate = (1 - alpha) * old + alpha * newest
            estimates.append(estimate)
            trends.append(trend)
            if number < last:
                now = stage.apply(state.params, now, old if order == "algorithm 2" else estimate)
                before = stage.apply(state.previous, before, old) if corrects else before
    return estimates, trends


@torch.enable_grad()
def _gradient(composition, state: State, estimates, batch: Batch, batches, oracle: str, alpha: float):
    """Return the gradient by name, and the new running adjoints."""
    params = {name: value.detach().requires_grad_() for name, value in state.params.items()}
    leaves = [each.detach().requires_grad_() for each in estimates]
    stages = composition.stages
    (z, target), extra = batch, 0.0
    for number, (stage, y) in enumerate(zip(stages, leaves, strict=True)):
        if oracle in ("same", "running"):
            newest = _statistic(stage, params, z)
            if oracle == "same":
                y = y + newest - newest.detach()
            else:
                extra = extra + (_expanded(stage, params, y, state.adjoints[number]) * newest).sum()
        z = stage.apply(params, z, y)
    value = _mean_loss(composition.loss, params, z, target, len(batch[0])) + extra
    found = _grad(value, [*params.values(), *leaves])
    gradient, adjoints = dict(zip(params, found, strict=False)), list(found[len(params) :])
    if oracle == "independent":
        _through_statistics(composition, params, estimates, adjoints, gradient, batches)
    if oracle != "running":
        return gradient, state.adjoints
    compressed = [
        _compressed(*each) for each in zip(stages, [state.params] * len(stages), estimates, adjoints, strict=True)
    ]
    return gradient, [(1 - alpha) * old + alpha * new for old, new in zip(state.adjoints, compressed, strict=True)]


def _through_statistics(composition: Composition, params, estimates, adjoints, gradient, batches) -> None:
    """Add the gradient through each statistic, from the last stage to the first, each from its own batch."""
    for number in range(len(estimates) - 1, -1, -1):
        leaves, (z, _) = [each.detach().requires_grad_() for each in estimates], next(batches)
        for stage, y in zip(composition.stages[:number], leaves, strict=False):
            z = stage.apply(params, z, y)
        statistic = _statistic(composition.stages[number], params, z)
        found = _grad((statistic * adjoints[number]).sum(), [*params.values(), *leaves[:number]])
        for name, value in zip(params, found, strict=False):
            gradient[name] = gradient[name] + value
        for lower, value in enumerate(found[len(params) :]):
            adjoints[lower] = adjoints[lower] + value


def _grad(value: Tensor, wanted: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if not value.requires_grad:
        return tuple(map(torch.zeros_like, wanted))
    return torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)


def _compressed(stage: Stage, params: Params, y: Tensor, adjoint: Tensor) -> Tensor:
    return adjoint if stage.coordinates is None else stage.coordinates[0](params, y, adjoint)


def _expanded(stage: Stage, params: Params, y: Tensor, kept: Tensor) -> Tensor:
    """Return the adjoint from its stored coordinates, without a gradient."""
    with torch.no_grad():
        return kept if stage.coordinates is None else stage.coordinates[1](params, y, kept)
