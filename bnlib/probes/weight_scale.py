r"""Measure scale invariance and its consequences for the learning rate.

If a norm follows the weights w, multiplying w by c > 0 does not change the loss. It follows that
$\langle w, \nabla L\rangle = 0$ and $\nabla L(cw) = \nabla L(w) / c$, both up to the eps of the norm. Gradient descent
then moves the direction of w as it would on the unit sphere with the learning rate $\eta / \|w\|^2$.

Source: van Laarhoven 2017 (https://arxiv.org/abs/1706.05350); Hoffer et al. 2018 (https://arxiv.org/abs/1803.01814).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlib.arguments import check_flags, check_number, check_usual
from bnlib.probes.stateless import Loss, loss_and_gradients_at, trainable_names
from bnlib.probes.tensors import at_least_float32, gradients_or_zeros, norm


@dataclass(frozen=True, eq=False)
class ScaleInvariance:
    r"""How much the loss depends on the norm of one parameter w.

    For a scale-invariant parameter the cosines, ``loss_change`` and ``gradient_error`` are 0.

    Attributes:
        name: name of the parameter.
        weight_norm: $\|w\|$, 0-dimensional.
        gradient_norm: $\|\nabla L\|$, 0-dimensional.
        cosine: cosine of the angle between w and its gradient, 0-dimensional; nan if one of them is 0.
        cosine_per_unit: the same for each index of the first dimension (each unit or channel), shape (R,). A norm makes
            the weights of each unit scale invariant on their own.
        loss_change: $L(cw) - L(w)$ with the other parameters fixed, 0-dimensional.
        gradient_error: $\|c\,\nabla L(cw) - \nabla L(w)\| / \|\nabla L(w)\|$, 0-dimensional.
    """

    name: str
    weight_norm: Tensor
    gradient_norm: Tensor
    cosine: Tensor
    cosine_per_unit: Tensor
    loss_change: Tensor
    gradient_error: Tensor


@dataclass(frozen=True, eq=False)
class SphericalStep:
    r"""The effect of one gradient descent step on a scale-invariant weight w.

    All values are 0-dimensional, or have shape (R,) if they were computed per unit.

    Attributes:
        effective_lr: $\eta / \|w\|^2$.
        weight_norm: the norm after the step, $\sqrt{\|w\|^2 + \eta^2 \|\nabla L\|^2}$.
        angle: the angle in radians by which the step turns w:
            $\tan\theta = \eta\,\|\nabla L\| / \|w\| = \eta\,\|\tilde g\| / \|w\|^2$, where $\tilde g$ is the gradient
            at $w / \|w\|$.
    """

    effective_lr: Tensor
    weight_norm: Tensor
    angle: Tensor


def scale_invariance(
    model: nn.Module, loss: Loss, parameter_names: Iterable[str] | None = None, *, factor: float = 2.0
) -> list[ScaleInvariance]:
    """Measure for each parameter whether the loss depends only on its direction, in the current mode of the model.

    Each parameter is multiplied by ``factor`` on its own, so the cost is one gradient per parameter and one more. The
    model is not changed.

    Arguments:
        model: any network.
        loss: takes the model and returns the loss on a batch as a single number.
        parameter_names: the parameters to test; by default all trainable parameters with two dimensions or more.
        factor: the factor c.

    Returns:
        One entry for each parameter, in the order of the model.

    Raises:
        ValueError: ``factor`` is not positive or is 1; ``parameter_names`` names a parameter that does not exist or is
            not trainable; the loss is not a single number.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-2, 2, 15).view(5, 3) ** 3
        >>> found = probes.scale_invariance(model, lambda model: model(x).square().mean())
        >>> [(each.name, bool(each.gradient_error < 0.01)) for each in found]
        [('1.weight', True), ('4.weight', False)]
    """
    check_usual(model=model, loss=loss, parameter_names=parameter_names)
    check_number("factor", factor, above=0)
    if not 0 < factor < math.inf or factor == 1:
        raise ValueError(f"factor must be positive and not 1, got {factor}")
    old = {name: value.detach() for name, value in model.named_parameters()}
    if parameter_names is None:
        parameter_names = [name for name in trainable_names(model) if old[name].dim() > 1]
    parameter_names = trainable_names(model, parameter_names)
    value, gradients = loss_and_gradients_at(model, loss, old, parameter_names)
    result = []
    for name in parameter_names:
        there, after = loss_and_gradients_at(model, loss, old | {name: factor * old[name]}, [name])
        weight, gradient, scaled = (
            at_least_float32(each)
            for each in (
                old[name],
                *gradients_or_zeros(gradients, [name], old),
                *gradients_or_zeros(after, [name], old),
            )
        )
        gradient_norm, units = norm(gradient), len(weight) if weight.dim() else 1
        result.append(
            ScaleInvariance(
                name,
                norm(weight),
                gradient_norm,
                _cosines_by_row(weight.reshape(1, -1), gradient.reshape(1, -1))[0],
                _cosines_by_row(weight.reshape(units, -1), gradient.reshape(units, -1)),
                there - value,
                norm(factor * scaled - gradient) / gradient_norm,
            )
        )
    return result


def effective_learning_rate(lr: float, weight: Tensor, *, per_unit: bool = False) -> Tensor:
    r"""Return $\eta / \|w\|^2$, the learning rate on the unit sphere for a weight w that a norm follows.

    Arguments:
        lr: the learning rate $\eta$.
        weight: w, of any shape.
        per_unit: return one value for each index of the first dimension, because the norm of each unit's weights
            matters on its own.

    Returns:
        A 0-dimensional tensor, or shape (R,) with ``per_unit``; inf for a weight of 0.

    Raises:
        ValueError: ``lr`` is not positive, or ``per_unit`` is used for a weight without dimensions.

    Source: van Laarhoven 2017 (https://arxiv.org/abs/1706.05350), section 2.

    Example:
        >>> round(probes.effective_learning_rate(0.1, torch.tensor([3.0, 4.0])).item(), 6)
        0.004
    """
    check_usual(weight=weight)
    _check_positive(lr=lr)
    return lr / _weight_norm(weight, per_unit).square()


def spherical_step(lr: float, weight: Tensor, gradient: Tensor, *, per_unit: bool = False) -> SphericalStep:
    """Compute what a gradient descent step does to a scale-invariant weight, by Pythagoras.

    Arguments:
        lr, weight, per_unit: see ``effective_learning_rate``.
        gradient: the gradient of the loss, orthogonal to ``weight`` and of the same shape.

    Raises:
        ValueError: ``gradient`` has another shape than ``weight``; see also ``effective_learning_rate``.

    Source: Hoffer et al. 2018 (https://arxiv.org/abs/1803.01814), section 2.

    Example:
        >>> step = probes.spherical_step(1.0, weight=torch.tensor([3.0, 4.0]), gradient=torch.tensor([4.0, -3.0]))
        >>> round(step.weight_norm.item() ** 2, 3), round(step.angle.item() * 180 / np.pi, 3)
        (50.0, 45.0)
    """
    check_usual(weight=weight, gradient=gradient)
    if gradient.shape != weight.shape:
        raise ValueError(f"gradient must have the shape of weight, {tuple(weight.shape)}, got {tuple(gradient.shape)}")
    effective, length, step = (
        effective_learning_rate(lr, weight, per_unit=per_unit),
        _weight_norm(weight, per_unit),
        _weight_norm(gradient, per_unit),
    )
    return SphericalStep(effective, torch.hypot(length, lr * step), torch.atan2(lr * step, length))


def weight_decay_equilibrium(lr: float, weight_decay: float, unit_gradient_norm: float) -> tuple[float, float]:
    r"""Return the weight norm at which gradient steps and weight decay balance, and the angle of each step there.

    A step of gradient descent is $w' = (1 - \eta\lambda)\,w - \eta\nabla L$. For a scale-invariant weight the gradient
    is orthogonal to w and has the norm $\|\tilde g\| / \|w\|$. The norm of w stays constant if
    $\|w\|^4 = \eta\|\tilde g\|^2 / (2\lambda - \eta\lambda^2)$, and then $\cos\theta = 1 - \eta\lambda$. The angle,
    about $\sqrt{2\eta\lambda}$, does not depend on the loss.

    Arguments:
        lr: the learning rate $\eta$.
        weight_decay: $\lambda$ as in ``torch.optim.SGD``.
        unit_gradient_norm: $\|\tilde g\|$, the norm of the gradient at $w / \|w\|$, assumed constant.

    Returns:
        The norm $\|w\|$ and the angle $\theta$ in radians.

    Raises:
        ValueError: an argument is not positive, or ``lr * weight_decay`` is not below 1.

    Source: Wan et al. 2021 (https://arxiv.org/abs/2006.08419), which gives the leading terms.

    Example:
        >>> norm, angle = probes.weight_decay_equilibrium(lr=0.1, weight_decay=5e-4, unit_gradient_norm=1.0)
        >>> round(norm, 2), round(angle, 4), round((2 * 0.1 * 5e-4) ** 0.5, 4)
        (3.16, 0.01, 0.01)
    """
    _check_positive(lr=lr, weight_decay=weight_decay, unit_gradient_norm=unit_gradient_norm)
    shrinkage = lr * weight_decay
    if not shrinkage < 1:
        raise ValueError(f"lr * weight_decay must be below 1, got {shrinkage}")
    weight_norm = (lr * unit_gradient_norm**2 / (weight_decay * (2 - shrinkage))) ** 0.25
    return weight_norm, math.acos(1 - shrinkage)


def _cosines_by_row(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of each pair of rows, normalised first because the product of two small norms may be 0."""
    units = (each / norm(each, dim=1)[:, None] for each in (first, second))
    return torch.linalg.vecdot(*units)


def _weight_norm(values: Tensor, per_unit: bool) -> Tensor:
    check_flags(per_unit=per_unit)
    if per_unit and values.dim() == 0:
        raise ValueError("weight must have at least one dimension for per_unit=True, got a 0-dimensional tensor")
    values = at_least_float32(values.detach())
    return norm(values.reshape(len(values), -1), dim=1) if per_unit else norm(values)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        check_number(name, value, above=0)
