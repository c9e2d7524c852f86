"""The loss around a point: along the gradient, on slices, and how far a learning rate can go.

As everywhere in the probes the training stays as it was. Passes are made in the mode the model is in, and all from the
same buffers and random numbers (Dropout's masks). What overflows comes out as inf or nan, not as an error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlib.probes.apart import Loss, filled, joined, loss_and_gradients_at, loss_at, trained


@dataclass(frozen=True, eq=False)
class AlongGradient:
    r"""Loss and gradient at K points $w - \eta_k\,g$ with $g = \nabla L(w)$.

    Attributes:
        lengths: $\eta_k$, shape (K,).
        loss: $L(w)$, 0-dimensional.
        losses: $L(w - \eta_k\,g)$, shape (K,).
        gradient_norm: $\|g\|$, 0-dimensional.
        gradient_change: $\|g - \nabla L(w - \eta_k\,g)\|$, the gradient predictiveness, shape (K,).
        weight_norm: $\|w\|$, 0-dimensional.
    """

    lengths: Tensor
    loss: Tensor
    losses: Tensor
    gradient_norm: Tensor
    gradient_change: Tensor
    weight_norm: Tensor

    @property
    def loss_range(self) -> Tensor:
        """The smallest and the largest of ``losses``, shape (2,)."""
        return torch.stack(self.losses.aminmax())

    @property
    def distance(self) -> Tensor:
        r"""$\eta_k \|g\|$, shape (K,)."""
        return self.lengths * self.gradient_norm

    @property
    def beta(self) -> Tensor:
        """The effective beta-smoothness, the largest ratio of ``gradient_change`` to ``distance``, 0-dimensional."""
        return (self.gradient_change / self.distance).amax()

    @property
    def relative_distance(self) -> Tensor:
        r"""``distance`` in units of the weights, $\eta_k \|g\| / \|w\|$, shape (K,)."""
        return self.distance / self.weight_norm

    @property
    def scale_free_gradient_change(self) -> Tensor:
        r"""``gradient_change`` times $\|w\|$: that of the function of $w / \|w\|$, shape (K,)."""
        return self.gradient_change * self.weight_norm

    @property
    def scale_free_beta(self) -> Tensor:
        r"""$\beta \|w\|^2$, 0-dimensional.

        Weights before a norm can be multiplied by any c without a change of the function, and $\beta$ is then divided
        by $c^2$. At the same relative distances this number stays.
        """
        return self.beta * self.weight_norm**2


@dataclass(frozen=True, eq=False)
class Surface:
    """The loss on a grid of D dimensions.

    Attributes:
        steps: for each dimension its coordinates.
        losses: shape (K_1, ..., K_D), as many as there are coordinates.
    """

    steps: tuple[Tensor, ...]
    losses: Tensor


@dataclass(frozen=True)
class Stable:
    """Where stability ends.

    Attributes:
        low: the largest learning rate found stable.
        high: the smallest found not to be.
        trials: each learning rate tried and whether it was stable, in the order of the trials.
    """

    low: float
    high: float
    trials: tuple[tuple[float, bool], ...]


def step_lengths(lr: float, low: float = 1 / 2, high: float = 4, count: int = 8, *, geometric: bool = True) -> Tensor:
    """Step lengths from ``low * lr`` to ``high * lr``, shape (count,), in float64.

    Arguments:
        lr: the learning rate.
        low, high: by default those that Santurkar et al. take for VGG; 1/100 and 30 for their deep linear network.
        count: of lengths, the ends among them.
        geometric: equal ratios, else equal differences.

    Raises:
        ValueError: ``lr`` or ``low`` is not positive, ``high`` not above ``low``, or ``count`` below 2.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 3.2.

    Example:
        >>> [round(each, 3) for each in probes.step_lengths(0.1, low=0.5, high=2, count=3).tolist()]
        [0.05, 0.1, 0.2]
    """
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be positive and finite, got {lr}")
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be positive and in this order, got {low} and {high}")
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    low, high = lr * low, lr * high
    if geometric:
        return torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64).exp()
    return torch.linspace(low, high, count, dtype=torch.float64)


def along_gradient(
    model: nn.Module,
    loss: Loss,
    lengths: Sequence[float] | Tensor,
    names: Iterable[str] | None = None,
    *,
    relative: bool = False,
) -> AlongGradient:
    r"""Loss and gradient some steps down the gradient of the parameters as they are; K + 1 gradients.

    How much both change along the way is what Santurkar et al. show of each step of a training. Their numbers go with
    the scale of the weights: $\beta$ is divided by $c^2$ when weights that a norm follows are multiplied by c. Compare
    networks by ``scale_free_beta``, at the same relative distances.

    Arguments:
        model: any network.
        loss: function of the model that returns the loss on a batch, a single number.
        lengths: K step lengths $\eta_k$, positive, such as ``step_lengths`` of the learning rate.
        names: of the parameters that move and whose gradient is meant; by default all that are trained.
        relative: ``lengths`` are $\eta_k \|g\| / \|w\|$ instead.

    Raises:
        ValueError: ``lengths`` is empty or has one that is not positive; ``names`` has one that does not exist or is
            not trained; a loss that is no single number.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 3.2 and Figure 4.

    Example:
        On a parabola with second derivative 6 the effective smoothness is 6, wherever it is measured:

        >>> model = nn.Linear(1, 1, bias=False)
        >>> found = probes.along_gradient(model, lambda model: 3 * model.weight.square(), [0.01, 0.1])
        >>> round(found.beta.item(), 3)
        6.0
    """
    lengths = _row("lengths", lengths)
    if not (lengths > 0).all():
        raise ValueError(f"lengths must be positive, got {lengths.tolist()}")
    old, names = dict(model.named_parameters()), trained(model, names)
    value, gradients = loss_and_gradients_at(model, loss, old, names)
    before = joined(filled(gradients, names, old))
    norm, weight_norm = before.norm(), joined(old[name] for name in names).norm()
    lengths = lengths.to(before.dtype).to(before.device)
    lengths = lengths * (weight_norm / norm) if relative else lengths
    losses, changes = [], []
    for length in lengths:
        moved = {name: old[name].detach() - (length * gradients[name]).to(old[name]) for name in gradients}
        there, after = loss_and_gradients_at(model, loss, old | moved, names)
        losses.append(there)
        changes.append((before - joined(filled(after, names, old))).norm())
    return AlongGradient(lengths, value, torch.stack(losses), norm, torch.stack(changes), weight_norm)


def filter_normalised_direction(model: nn.Module, seed: int, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    r"""A random direction in which each filter is as long as that of the weights.

    Slices along it can be compared between networks whose weights have different scales. A filter is what belongs to
    one index of the first dimension: all weights into a unit, or into a channel of a convolution. Parameters of one
    dimension or none (biases, gamma, beta) get 0, as in the paper.

    Arguments:
        model: any network.
        seed: of the numbers drawn, which are the same on all devices.
        names: of the parameters that get a direction; by default all that are trained.

    Returns:
        By name, in the shapes of the parameters.

    Raises:
        ValueError: ``names`` has one that does not exist or is not trained.

    Source: Li et al. 2018 (https://arxiv.org/abs/1712.09913), section 4.

    Example:
        >>> model = models.mlp((3, 4, 2))
        >>> direction = probes.filter_normalised_direction(model, seed=0)
        >>> torch.allclose(direction["1.weight"].norm(dim=1), model[1].weight.norm(dim=1), atol=1e-5)
        True
    """
    old, generator, direction = dict(model.named_parameters()), torch.Generator().manual_seed(seed), {}
    for name in trained(model, names):
        weight = old[name].detach()
        if weight.dim() < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        drawn, flat = drawn.flatten(1), weight.flatten(1)
        drawn = drawn * (flat.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True))
        direction[name] = drawn.view_as(weight)
    return direction


def loss_surface(
    model: nn.Module,
    loss: Loss,
    directions: Sequence[Mapping[str, Tensor]],
    steps: Sequence[Sequence[float] | Tensor],
) -> Surface:
    r"""The loss at $w + \sum_d s_d\,\delta_d$, for all combinations of the steps.

    Arguments:
        model, loss: see ``along_gradient``.
        directions: D of them, by names of parameters, such as ``filter_normalised_direction``; two for a surface.
            Parameters that one does not name it does not move.
        steps: for each direction its steps $s_d$.

    Raises:
        ValueError: no direction, one that names a parameter that does not exist or has it in another shape; not as many
            ``steps`` as directions, or none for one; a loss that is no single number.

    Source: Li et al. 2018 (https://arxiv.org/abs/1712.09913), section 2.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0]])
        >>> direction = {"weight": torch.tensor([[1.0]])}
        >>> probes.loss_surface(model, lambda model: model.weight.square(), [direction], [[-1.0, 0.0, 1.0]]).losses
        tensor([0., 1., 4.])
    """
    old = {name: value.detach() for name, value in model.named_parameters()}
    if not directions:
        raise ValueError("directions must hold at least one, got none")
    if len(steps) != len(directions):
        raise ValueError(f"steps must have an entry for each of {len(directions)} directions, got {len(steps)}")
    for direction in directions:
        for name, value in direction.items():
            if name not in old or old[name].shape != value.shape:
                shape = f"shape {tuple(old[name].shape)}" if name in old else "no such parameter"
                raise ValueError(
                    f"directions must fit the parameters of the model, got {name!r} of shape {tuple(value.shape)} "
                    f"for {shape}"
                )
    rows, losses = [_row("steps", each) for each in steps], []
    for coordinates in itertools.product(*(row.tolist() for row in rows)):
        moved = dict(old)
        for step, direction in zip(coordinates, directions, strict=True):
            moved |= {name: moved[name] + step * value.to(moved[name]) for name, value in direction.items()}
        losses.append(loss_at(model, loss, moved))
    return Surface(tuple(rows), torch.stack(losses).view([len(row) for row in rows]))


def largest_stable(run: Callable[[float], bool], low: float, high: float, ratio: float = 1.1) -> Stable:
    """The largest learning rate for which a training is stable, by bisection on a logarithmic scale.

    If stability comes and goes between ``low`` and ``high``, one of its ends is found.

    Arguments:
        run: function of the learning rate that trains from the start and says whether that was stable. A finite loss is
            not enough to ask: a network whose units have all died has one at any learning rate.
        low: a learning rate that is stable.
        high: one that is not.
        ratio: of the two ends at which to stop.

    Returns:
        The last bracket, ``high`` being at most ``ratio`` times ``low``, and all trials.

    Raises:
        ValueError: ``low`` and ``high`` not positive or not in this order, ``ratio`` not above 1, ``low`` not stable or
            ``high`` stable.

    Example:
        Gradient descent on $5w^2$, whose second derivative is 10:

        >>> def run(lr):
        ...     w = 1.0
        ...     for _ in range(1000):
        ...         w -= lr * 10 * w
        ...     return abs(w) < 1
        >>> round(probes.largest_stable(run, low=0.01, high=1.0, ratio=1.01).low, 2)
        0.2
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be positive and in this order, got {low} and {high}")
    if not ratio > 1:
        raise ValueError(f"ratio must be above 1, got {ratio}")
    trials: list[tuple[float, bool]] = []

    def stable(lr: float) -> bool:
        trials.append((lr, bool(run(lr))))
        return trials[-1][1]

    if not stable(low):
        raise ValueError(f"low must be a learning rate that is stable, got {low}, which is not: try a smaller one")
    if stable(high):
        raise ValueError(f"high must be a learning rate that is not stable, got {high}, which is: try a larger one")
    while high / low > ratio:
        middle = math.sqrt(low) * math.sqrt(high)
        if not low < middle < high:
            break
        low, high = (middle, high) if stable(middle) else (low, middle)
    return Stable(low, high, tuple(trials))


def _row(name: str, values: Sequence[float] | Tensor) -> Tensor:
    row = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
    if row.dim() != 1 or row.numel() == 0:
        raise ValueError(f"{name} must be a sequence of numbers, got shape {tuple(row.shape)}")
    return row
