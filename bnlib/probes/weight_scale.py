"""DOC weight_scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlib.probes.stateless import Loss, loss_and_gradients_at, trainable_names
from bnlib.probes.tensors import at_least_float32, gradients_or_zeros


@dataclass(frozen=True, eq=False)
class ScaleInvariance:
    r"""How far the loss depends on the length of one parameter; all 0 for one that is scale invariant.

    Attributes:
        name: of the parameter w.
        weight_norm: $\|w\|$, 0-dimensional.
        gradient_norm: $\|\nabla L\|$, 0-dimensional.
        cosine: of the angle between w and its gradient; nan if one of them is 0; 0-dimensional.
        row_cosine: the same for each index of the first dimension, that is for each unit or channel, shape (R,). A norm
            makes each of these scale invariant on its own.
        loss_change: $L(cw) - L(w)$, the others staying, 0-dimensional.
        gradient_error: $\|c\,\nabla L(cw) - \nabla L(w)\| / \|\nabla L(w)\|$, 0-dimensional.
    """

    name: str
    weight_norm: Tensor
    gradient_norm: Tensor
    cosine: Tensor
    row_cosine: Tensor
    loss_change: Tensor
    gradient_error: Tensor


@dataclass(frozen=True, eq=False)
class SphericalStep:
    r"""What a step of gradient descent does to a scale-invariant weight; 0-dimensional, or shape (R,) for rows.

    Attributes:
        effective_lr: $\eta / \|w\|^2$.
        weight_norm: after the step, $\sqrt{\|w\|^2 + \eta^2 \|\nabla L\|^2}$.
        angle: by which w turns, in radians: $\tan\theta = \eta\,\|\nabla L\| / \|w\| = \eta\,\|\tilde g\| / \|w\|^2$
            with $\tilde g$ the gradient at $w / \|w\|$.
    """

    effective_lr: Tensor
    weight_norm: Tensor
    angle: Tensor


def scale_invariance(
    model: nn.Module, loss: Loss, names: Iterable[str] | None = None, *, factor: float = 2.0
) -> list[ScaleInvariance]:
    """Which parameters the loss sees the direction of only, in the mode the model is in; nothing is changed.

    Each parameter is multiplied alone: one gradient for each, and one more.

    Arguments:
        model: any network.
        loss: function of the model that returns the loss on a batch, a single number.
        names: of the parameters; by default all that are trained and have two dimensions or more.
        factor: c.

    Returns:
        One entry for each parameter, in the order of the model.

    Raises:
        ValueError: ``factor`` is not positive or 1; ``names`` has one that does not exist or is not trained; a loss
            that is no single number.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-2, 2, 15).view(5, 3) ** 3
        >>> found = probes.scale_invariance(model, lambda model: model(x).square().mean())
        >>> [(each.name, bool(each.gradient_error < 0.01)) for each in found]
        [('1.weight', True), ('4.weight', False)]
    """
    if not 0 < factor < math.inf or factor == 1:
        raise ValueError(f"factor must be positive and not 1, got {factor}")
    old = {name: value.detach() for name, value in model.named_parameters()}
    if names is None:
        names = [name for name in trainable_names(model) if old[name].dim() > 1]
    names = trainable_names(model, names)
    value, gradients = loss_and_gradients_at(model, loss, old, names)
    result = []
    for name in names:
        there, after = loss_and_gradients_at(model, loss, old | {name: factor * old[name]}, [name])
        weight, gradient, scaled = (
            at_least_float32(each)
            for each in (
                old[name],
                *gradients_or_zeros(gradients, [name], old),
                *gradients_or_zeros(after, [name], old),
            )
        )
        norm, rows = gradient.norm(), len(weight) if weight.dim() else 1
        result.append(
            ScaleInvariance(
                name,
                weight.norm(),
                norm,
                _row_cosines(weight.reshape(1, -1), gradient.reshape(1, -1))[0],
                _row_cosines(weight.reshape(rows, -1), gradient.reshape(rows, -1)),
                there - value,
                (factor * scaled - gradient).norm() / norm,
            )
        )
    return result


def effective_learning_rate(lr: float, weight: Tensor, *, rows: bool = False) -> Tensor:
    r"""$\eta / \|w\|^2$, the learning rate on the unit sphere of a weight that a norm follows.

    Arguments:
        lr: the learning rate.
        weight: of any shape.
        rows: one for each index of the first dimension, as the norm of each unit stands for itself.

    Returns:
        0-dimensional, or shape (R,) with ``rows``. inf for a weight of 0.

    Raises:
        ValueError: ``lr`` is not positive; ``rows`` of a weight without dimensions.

    Source: van Laarhoven 2017 (https://arxiv.org/abs/1706.05350), section 2.

    Example:
        >>> round(probes.effective_learning_rate(0.1, torch.tensor([3.0, 4.0])).item(), 6)
        0.004
    """
    _check_positive(lr=lr)
    return lr / _weight_norm(weight, rows).square()


def spherical_step(lr: float, weight: Tensor, gradient: Tensor, *, rows: bool = False) -> SphericalStep:
    r"""What a step of gradient descent will do to a weight that is scale invariant, by Pythagoras.

    Arguments:
        lr, weight, rows: see ``effective_learning_rate``.
        gradient: of the weight, at a right angle to it.

    Raises:
        ValueError: as ``effective_learning_rate``; ``gradient`` in another shape.

    Source: Hoffer et al. 2018 (https://arxiv.org/abs/1803.01814), section 2.

    Example:
        >>> step = probes.spherical_step(1.0, weight=torch.tensor([3.0, 4.0]), gradient=torch.tensor([4.0, -3.0]))
        >>> round(step.weight_norm.item() ** 2, 3), round(step.angle.item() * 180 / np.pi, 3)
        (50.0, 45.0)
    """
    if gradient.shape != weight.shape:
        raise ValueError(f"gradient must have the shape of weight, {tuple(weight.shape)}, got {tuple(gradient.shape)}")
    effective, length, step = (
        effective_learning_rate(lr, weight, rows=rows),
        _weight_norm(weight, rows),
        _weight_norm(gradient, rows),
    )
    return SphericalStep(effective, torch.hypot(length, lr * step), torch.atan2(lr * step, length))


def weight_decay_equilibrium(lr: float, weight_decay: float, unit_gradient_norm: float) -> tuple[float, float]:
    r"""The norm at which growth and weight decay of a scale-invariant weight balance, and the angle of a step there.

    Of $w' = (1 - \eta\lambda)\,w - \eta\nabla L$ with $\|\nabla L\| = \|\tilde g\| / \|w\|$ at a right angle to w:
    $\|w\|^4 = \eta\|\tilde g\|^2 / (2\lambda - \eta\lambda^2)$ and $\cos\theta = 1 - \eta\lambda$. The angle, about
    $\sqrt{2\eta\lambda}$, does not depend on the loss.

    Arguments:
        lr: $\eta$.
        weight_decay: $\lambda$, as ``torch.optim.SGD`` has it.
        unit_gradient_norm: $\|\tilde g\|$, of the gradient at $w / \|w\|$, taken not to change.

    Returns:
        $\|w\|$, and $\theta$ in radians.

    Raises:
        ValueError: an argument is not positive, or their product ``lr * weight_decay`` is not below 1.

    Source: Wan et al. 2021 (https://arxiv.org/abs/2006.08419), which has the leading terms.

    Example:
        >>> norm, angle = probes.weight_decay_equilibrium(lr=0.1, weight_decay=5e-4, unit_gradient_norm=1.0)
        >>> round(norm, 2), round(angle, 4), round((2 * 0.1 * 5e-4) ** 0.5, 4)
        (3.16, 0.01, 0.01)
    """
    _check_positive(lr=lr, weight_decay=weight_decay, unit_gradient_norm=unit_gradient_norm)
    shrinkage = lr * weight_decay
    if not shrinkage < 1:
        raise ValueError(f"lr * weight_decay must be below 1, got {shrinkage}")
    norm = (lr * unit_gradient_norm**2 / (weight_decay * (2 - shrinkage))) ** 0.25
    return norm, math.acos(1 - shrinkage)


def _row_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Of each row; each divided by its own norm first, for the product of two small norms may be 0."""
    units = (each / each.norm(dim=1, keepdim=True) for each in (first, second))
    return torch.linalg.vecdot(*units)


def _weight_norm(values: Tensor, rows: bool) -> Tensor:
    if rows and values.dim() == 0:
        raise ValueError("weight must have a dimension if rows are asked for, got none")
    values = at_least_float32(values.detach())
    return values.reshape(len(values), -1).norm(dim=1) if rows else values.norm()


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
