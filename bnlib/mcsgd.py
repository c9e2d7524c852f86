r"""Multilayer compositional stochastic gradient descent: Algorithm 2 of Lian and Liu (2019), for any composition.

The objective is an expectation with expectations inside,

$$f(w) = E_\xi\,\ell(z_n),\qquad z_i = F_i(w, z_{i-1}, y_i),\qquad y_i = E_{\xi'}\,e_i(w, z'_{i-1}),\qquad z_0 = \xi,$$

where $z'$ belongs to the sample $\xi'$. Stages are counted in the order in which they are applied (the paper counts the
other way). A mini-batch estimates the outer expectation without bias, but not the inner ones, for they are handed to
functions that are not linear. The algorithm keeps estimates $\hat y_i$ of them and lets an *oracle* make the gradient.

Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), section 4 and Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnlib.schedules import Schedule

Params = Mapping[str, Tensor]
"""The parameters w by name."""

Batch = tuple[Tensor, Tensor]
"""Samples, shape (b, ...), and what the loss compares them with."""

ORACLES = ("same", "independent", "running", "constant")
"""The ways of ``minimize`` to make a gradient."""

ESTIMATORS = ("exponential", "corrected", "momentum")
"""The ways of ``minimize`` to follow the statistics."""

ORDERS = ("algorithm 2", "layerwise")
"""What a stage of ``minimize`` sees of those before it."""


@dataclass(frozen=True)
class Stage:
    r"""One F and the statistic that it takes.

    Attributes:
        apply: ``apply(params, z, y)``: values z of samples, shape (b, ...), and the statistic y, shape (k,), to values.
        statistic: ``statistic(params, z)``: one row a sample, shape (b, k); its expectation is y.
        start: the first estimate of y, shape (k,).
        coordinates: None, or a pair of functions ``(params, y, adjoint)``, each (k,) to (k,): into the coordinates in
            which the oracle ``"running"`` averages the derivative of the loss with respect to y, and back. For what
            moves with y itself, as a derivative with respect to a variance does.

    Example:
        The statistic is a mean of products $w \xi$, and the stage passes on nothing but that mean:

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


@dataclass(frozen=True)
class Composition:
    r"""Stages, and the loss behind them.

    Attributes:
        stages: in the order in which they are applied.
        loss: ``loss(params, z, target)``: of each sample, shape (b,).

    Example:
        $f(w) = (w\,E\xi - 1)^2$, with an expectation inside a square:

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

    def statistics(self, params: Params, x: Tensor) -> list[Tensor]:
        """The y of all samples ``x``, exactly: each stage's with those of the stages before it."""
        found, z = [], x
        for stage in self.stages:
            found.append(stage.statistic(params, z).mean(0))
            z = stage.apply(params, z, found[-1])
        return found

    def value(self, params: Params, data: Batch) -> Tensor:
        """f(w) over all of ``data``, each expectation being a mean; differentiable, which gives the exact gradient."""
        z, target = data
        for stage, y in zip(self.stages, self.statistics(params, z), strict=True):
            z = stage.apply(params, z, y)
        return self.loss(params, z, target).mean()


@dataclass
class State:
    """Where a run stands after a step.

    Attributes:
        step: number of steps made.
        params: w, by name.
        estimates: of y, by stage.
        adjoints: estimates of the derivative of the loss with respect to y, by stage; of the oracle ``"running"``.
        trends: of the estimator ``"momentum"``.
        previous: params before the last step; of the estimator ``"corrected"``.
        gradient: the last one, by name.
    """

    step: int
    params: dict[str, Tensor]
    estimates: list[Tensor]
    adjoints: list[Tensor]
    trends: list[Tensor] = field(default_factory=list)
    previous: dict[str, Tensor] | None = None
    gradient: dict[str, Tensor] = field(default_factory=dict)

    def errors(self, composition: Composition, x: Tensor, previous: bool = True) -> list[float]:
        r"""$\|\hat y_i - E\,e_i(w; \xi)\|^2$ for each stage, the subject of Lemma 1: over all samples ``x``.

        As in the lemma $e_i(w; \xi)$ has exact statistics in the stages before it.

        Arguments:
            composition: that is minimised.
            x: all samples.
            previous: at the parameters at which the last estimates were made, not those after the step.
        """
        params = self.previous if previous and self.previous is not None else self.params
        with torch.no_grad():
            exact = composition.statistics(params, x)
            return [(y - estimate).square().sum().item() for y, estimate in zip(exact, self.estimates, strict=True)]


def minimize(
    composition: Composition,
    params: Params,
    batches: Iterator[Batch],
    lr: float | Schedule,
    alpha: float | Schedule,
    *,
    oracle: str = "running",
    estimator: str = "exponential",
    order: str = "algorithm 2",
) -> Iterator[State]:
    r"""Run Algorithm 2 and yield the state after each step, for as long as there are batches.

    A step draws a batch, moves the estimates, asks the oracle for a gradient at them and goes
    $w \leftarrow w - \gamma_k g$.

    Arguments:
        composition: to be minimised.
        params: where to start, by name; not changed.
        batches: yields samples and targets. The oracle ``"independent"`` takes one more for each stage.
        lr: $\gamma_k$, a number or a schedule of the step (``bnlib.schedules``).
        alpha: $\alpha_k$, the weight of the newest batch.
        oracle: what stands for the two expectations in the derivative through a statistic,
            $E[\partial\ell/\partial y]\cdot E[\partial e]$:

            - ``"same"``: both from the batch of the step; biased, since they are not independent.
            - ``"independent"``: each from a batch of its own, without bias at given estimates.
            - ``"running"``: the first is a running average over the batches *before*, which the batch of the second
              does not know.
            - ``"constant"``: 0, as if y did not depend on w.
        estimator: of y.

            - ``"exponential"``: $(1-\alpha)\hat y + \alpha e$.
            - ``"corrected"``: $(1-\alpha)(\hat y - e^-) + e$, $e^-$ being the statistic of the same batch at the
              parameters before (Chen, Sun and Yin 2021); it follows y where that moves.
            - ``"momentum"``: exponential smoothing of y and of its trend, with the weights $\alpha$ and $\alpha/4$
              (Holt 1957).
        order: ``"algorithm 2"`` lets a stage see the values that the old estimates of the stages before it give,
            ``"layerwise"`` those of their new estimates, as layers of a network do (Algorithm 3).

    Raises:
        ValueError: an oracle, estimator or order of another name.

    Source: Lian and Liu 2019, Algorithm 2; Theorem 2 for lr and alpha.

    Example:
        $f(w) = (w\,E\xi - 1)^2$ has its minimum at $w = 1/E\xi = 1$. The mean loss of single samples,
        $E(w\xi - 1)^2$, which SGD would minimise, has it at 1/2.

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
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    starts = [stage.start.detach().clone() for stage in composition.stages]
    zeros = [torch.zeros_like(each) for each in starts]
    state = State(0, {name: value.detach().clone() for name, value in params.items()}, starts, zeros, list(zeros))
    for batch in batches:
        rate, weight = (each(state.step) if callable(each) else each for each in (lr, alpha))
        estimates, trends = _moved(composition, state, batch[0], weight, estimator, order)
        gradient, adjoints = _gradient(composition, state, estimates, batch, batches, oracle, weight)
        new = {name: value - rate * gradient[name] for name, value in state.params.items()}
        state = State(state.step + 1, new, estimates, adjoints, trends, state.params, gradient)
        yield state


def _moved(composition: Composition, state: State, x: Tensor, alpha: float, estimator: str, order: str):
    """The estimates and trends after a batch."""
    estimates, trends = [], []
    now, before = x, x
    corrects, last = estimator == "corrected" and state.previous is not None, len(composition.stages) - 1
    with torch.no_grad():
        for number, stage in enumerate(composition.stages):
            old, trend = state.estimates[number], state.trends[number]
            seen = stage.statistic(state.params, now).mean(0)
            if corrects:
                estimate = (1 - alpha) * (old - stage.statistic(state.previous, before).mean(0)) + seen
            elif estimator == "momentum":
                estimate = (1 - alpha) * (old + trend) + alpha * seen
                trend = (1 - alpha / 4) * trend + alpha / 4 * (estimate - old)
            else:
                estimate = (1 - alpha) * old + alpha * seen
            estimates.append(estimate)
            trends.append(trend)
            if number < last:
                now = stage.apply(state.params, now, old if order == "algorithm 2" else estimate)
                before = stage.apply(state.previous, before, old) if corrects else before
    return estimates, trends


def _gradient(composition, state: State, estimates, batch: Batch, batches, oracle: str, alpha: float):
    """The gradient by name, and the adjoints to remember."""
    params = {name: value.detach().requires_grad_() for name, value in state.params.items()}
    leaves = [each.detach().requires_grad_() for each in estimates]
    stages = composition.stages
    (z, target), extra = batch, 0.0
    for number, (stage, y) in enumerate(zip(stages, leaves, strict=True)):
        if oracle in ("same", "running"):
            seen = stage.statistic(params, z).mean(0)
            if oracle == "same":
                y = y + seen - seen.detach()
            else:
                extra = extra + (_expanded(stage, params, y, state.adjoints[number]) * seen).sum()
        z = stage.apply(params, z, y)
    value = composition.loss(params, z, target).mean() + extra
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
    """Add, from the last stage down, what goes through each statistic, with a batch of its own for each."""
    for number in range(len(estimates) - 1, -1, -1):
        leaves, (z, _) = [each.detach().requires_grad_() for each in estimates], next(batches)
        for stage, y in zip(composition.stages[:number], leaves, strict=False):
            z = stage.apply(params, z, y)
        seen = composition.stages[number].statistic(params, z).mean(0)
        found = _grad((seen * adjoints[number]).sum(), [*params.values(), *leaves[:number]])
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
    """The adjoint from what was kept, as a constant."""
    with torch.no_grad():
        return kept if stage.coordinates is None else stage.coordinates[1](params, y, kept)
