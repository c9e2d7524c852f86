"""DOC gradient_landscape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlib.probes.stateless import Loss, loss_and_gradients_at, trainable_names
from bnlib.probes.tensors import flattened, gradients_or_zeros, number_sequence


@dataclass(frozen=True, eq=False)
class LandscapeAlongGradient:
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


def step_sizes(lr: float, low: float = 1 / 2, high: float = 4, count: int = 8, *, geometric: bool = True) -> Tensor:
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
        >>> [round(each, 3) for each in probes.step_sizes(0.1, low=0.5, high=2, count=3).tolist()]
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


def landscape_along_gradient(
    model: nn.Module,
    loss: Loss,
    lengths: Sequence[float] | Tensor,
    names: Iterable[str] | None = None,
    *,
    relative: bool = False,
) -> LandscapeAlongGradient:
    r"""Loss and gradient some steps down the gradient of the parameters as they are; K + 1 gradients.

    How much both change along the way is what Santurkar et al. show of each step of a training. Their numbers go with
    the scale of the weights: $\beta$ is divided by $c^2$ when weights that a norm follows are multiplied by c. Compare
    networks by ``scale_free_beta``, at the same relative distances.

    Arguments:
        model: any network.
        loss: function of the model that returns the loss on a batch, a single number.
        lengths: K step lengths $\eta_k$, positive, such as ``step_sizes`` of the learning rate.
        names: of the parameters that move and whose gradient is meant; by default all that are trained.
        relative: ``lengths`` are $\eta_k \|g\| / \|w\|$ instead.

    Raises:
        ValueError: ``lengths`` is empty or has one that is not positive; ``names`` has one that does not exist or is
            not trained; a loss that is no single number.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 3.2 and Figure 4.

    Example:
        On a parabola with second derivative 6 the effective smoothness is 6, wherever it is measured:

        >>> model = nn.Linear(1, 1, bias=False)
        >>> found = probes.landscape_along_gradient(model, lambda model: 3 * model.weight.square(), [0.01, 0.1])
        >>> round(found.beta.item(), 3)
        6.0
    """
    lengths = number_sequence("lengths", lengths)
    if not (lengths > 0).all():
        raise ValueError(f"lengths must be positive, got {lengths.tolist()}")
    old, names = dict(model.named_parameters()), trainable_names(model, names)
    value, gradients = loss_and_gradients_at(model, loss, old, names)
    before = flattened(gradients_or_zeros(gradients, names, old))
    norm, weight_norm = before.norm(), flattened(old[name] for name in names).norm()
    lengths = lengths.to(before.dtype).to(before.device)
    lengths = lengths * (weight_norm / norm) if relative else lengths
    losses, changes = [], []
    for length in lengths:
        moved = {name: old[name].detach() - (length * gradients[name]).to(old[name]) for name in gradients}
        there, after = loss_and_gradients_at(model, loss, old | moved, names)
        losses.append(there)
        changes.append((before - flattened(gradients_or_zeros(after, names, old))).norm())
    return LandscapeAlongGradient(lengths, value, torch.stack(losses), norm, torch.stack(changes), weight_norm)
