"""Measure the loss and the gradient at points along the negative gradient direction.

The model is not changed. All passes are made in the current mode of the model, from the same buffers and random numbers
(dropout masks). An overflow gives inf or nan, not an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlib.arguments import check_flags, check_integer, check_number, check_usual
from bnlib.probes.stateless import Loss, loss_and_gradients_at, trainable_names
from bnlib.probes.tensors import flattened, gradients_or_zeros, norm, number_sequence


@dataclass(frozen=True, eq=False)
class LandscapeAlongGradient:
    r"""The loss and the gradient at n points $w - \eta\,g$, where $g = \nabla L(w)$.

    Attributes:
        step_sizes: $\eta$, shape (n,).
        loss: $L(w)$, 0-dimensional.
        losses: $L(w - \eta\,g)$, shape (n,).
        gradient_norm: $\|g\|$, 0-dimensional.
        gradient_change: $\|g - \nabla L(w - \eta\,g)\|$, shape (n,). Santurkar et al. call it gradient
            predictiveness.
        weight_norm: $\|w\|$, 0-dimensional.
    """

    step_sizes: Tensor
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
        r"""The distance of each point from w, $\eta \|g\|$, shape (n,)."""
        return self.step_sizes * self.gradient_norm

    @property
    def smoothness(self) -> Tensor:
        """The effective smoothness constant M, the largest ``gradient_change / distance``, 0-dimensional."""
        return (self.gradient_change / self.distance).amax()

    @property
    def relative_distance(self) -> Tensor:
        r"""The distance relative to the norm of the weights, $\eta \|g\| / \|w\|$, shape (n,)."""
        return self.distance / self.weight_norm

    @property
    def scale_free_gradient_change(self) -> Tensor:
        r"""``gradient_change`` times $\|w\|$: the gradient change for a loss of $w / \|w\|$, shape (n,)."""
        return self.gradient_change * self.weight_norm

    @property
    def scale_free_smoothness(self) -> Tensor:
        r"""The smoothness constant that does not depend on the scale of the weights, $M \|w\|^2$, 0-dimensional.

        If a norm follows the weights, multiplying them by c leaves the function unchanged but divides $M$ by $c^2$.
        At the same relative distances, $M \|w\|^2$ does not change.
        """
        return self.smoothness * self.weight_norm**2


def step_sizes(lr: float, low: float = 1 / 2, high: float = 4, count: int = 8, *, geometric: bool = True) -> Tensor:
    """Return step sizes from ``low * lr`` to ``high * lr``, shape (count,), in float64.

    Arguments:
        lr: the learning rate.
        low, high: multiples of the learning rate. The defaults are those of Santurkar et al. for VGG; for their deep
            linear network they use 1/100 and 30.
        count: number of step sizes, including both ends.
        geometric: space the step sizes at equal ratios; otherwise at equal differences.

    Raises:
        ValueError: ``lr`` or ``low`` is not positive, ``high`` is not above ``low``, or ``count`` is below 2.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 3.2.

    Example:
        >>> [round(each, 3) for each in probes.step_sizes(0.1, low=0.5, high=2, count=3).tolist()]
        [0.05, 0.1, 0.2]
    """
    check_number("lr", lr, above=0)
    check_number("low", low, above=0)
    check_number("high", high, above=low)
    check_integer("count", count, at_least=2)
    check_flags(geometric=geometric)
    low, high = lr * low, lr * high
    if geometric:
        return torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64).exp()
    return torch.linspace(low, high, count, dtype=torch.float64)


def landscape_along_gradient(
    model: nn.Module,
    loss: Loss,
    step_sizes: Sequence[float] | Tensor,
    parameter_names: Iterable[str] | None = None,
    *,
    relative: bool = False,
) -> LandscapeAlongGradient:
    r"""Measure the loss and the gradient after steps of several sizes along the negative gradient.

    Santurkar et al. make this measurement at every training step to compare the smoothness of networks. Their numbers
    depend on the scale of the weights: multiplying weights that a norm follows by c divides $M$ by $c^2$. To
    compare networks, use ``scale_free_smoothness`` at the same relative distances. The cost is that of n + 1 gradients.

    Arguments:
        model: any network.
        loss: takes the model and returns the loss on a batch as a single number.
        step_sizes: n positive step sizes $\eta$, such as the result of ``step_sizes``.
        parameter_names: the parameters that move; the gradient is taken with respect to them. By default all trainable
            parameters.
        relative: interpret ``step_sizes`` as relative distances $\eta \|g\| / \|w\|$.

    Raises:
        ValueError: ``step_sizes`` is empty or has a number that is not positive; ``parameter_names`` names a parameter
            that does not exist or is not trainable; the loss is not a single number.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 3.2 and Figure 4.

    Example:
        The parabola $3w^2$ has the second derivative 6, so its effective smoothness is 6 everywhere:

        >>> model = nn.Linear(1, 1, bias=False)
        >>> found = probes.landscape_along_gradient(model, lambda model: 3 * model.weight.square(), [0.01, 0.1])
        >>> round(found.smoothness.item(), 3)
        6.0
    """
    check_usual(model=model, loss=loss, parameter_names=parameter_names)
    check_flags(relative=relative)
    step_sizes = number_sequence("step_sizes", step_sizes)
    if not (step_sizes > 0).all():
        raise ValueError(f"step_sizes must be positive, got {step_sizes.tolist()}")
    old, parameter_names = dict(model.named_parameters()), trainable_names(model, parameter_names)
    value, gradients = loss_and_gradients_at(model, loss, old, parameter_names)
    before = flattened(gradients_or_zeros(gradients, parameter_names, old))
    gradient_norm, weight_norm = norm(before), norm(flattened(old[name] for name in parameter_names))
    step_sizes = step_sizes.to(before.dtype).to(before.device)
    step_sizes = step_sizes * (weight_norm / gradient_norm) if relative else step_sizes
    losses, changes = [], []
    for step_size in step_sizes:
        moved = {name: old[name].detach() - (step_size * gradients[name]).to(old[name]) for name in gradients}
        there, after = loss_and_gradients_at(model, loss, old | moved, parameter_names)
        losses.append(there)
        changes.append(norm(before - flattened(gradients_or_zeros(after, parameter_names, old))))
    losses, changes = torch.stack(losses), torch.stack(changes)
    return LandscapeAlongGradient(step_sizes, value, losses, gradient_norm, changes, weight_norm)
