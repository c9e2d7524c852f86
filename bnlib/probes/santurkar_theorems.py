"""Compute both sides of three theorems of Santurkar et al., so that they can be tested.

The theorems are about one BN layer after one linear layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bnlib.arguments import check_flags, check_number, check_usual

ActivationLoss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Inequality:
    """Both sides of a statement ``left <= right``, for each of d units.

    Attributes:
        left: shape (d,).
        right: shape (d,).
    """

    left: Tensor
    right: Tensor

    @property
    def slack(self) -> Tensor:
        """``right - left``, shape (d,); negative where the statement is false."""
        return self.right - self.left


def theorem_4_1(
    loss: ActivationLoss,
    y: Tensor,
    gamma: float | Tensor = 1.0,
    beta: float | Tensor = 0.0,
    eps: float = 0.0,
    *,
    at: Tensor | None = None,
) -> Inequality:
    r"""Compute both sides of Theorem 4.1, the effect of BN on the Lipschitz constant of the loss.

    The theorem bounds the squared norm of each unit's gradient with BN by an expression of the gradient without BN:

    $$\|\nabla_{y_j}\hat L\|^2 \le \frac{\gamma^2}{\sigma_j^2}\Big(\|\nabla_{y_j} L\|^2
    - \frac1m\langle 1, \nabla_{y_j} L\rangle^2 - \frac1m\langle\nabla_{y_j} L, \hat y_j\rangle^2\Big)$$

    Here $\hat L$ is the loss of $\gamma\hat y + \beta$. The proof takes $\nabla L$ at these same activations. Then both
    sides are equal for eps = 0. For eps > 0 the left side is smaller by
    $\frac{\gamma^2}{m\sigma^2}\,\frac{\epsilon}{\sigma^2}\langle\nabla_{y_j}L, \hat y_j\rangle^2$, where
    $\sigma^2 = v + \epsilon$. If $\nabla L$ is taken at other activations, such as the y of the network without BN, the
    statement can be false. The right side can be larger than $\|\nabla_{y_j}L\|^2$: BN can amplify the gradient where
    $\gamma > \sigma_j$.

    Arguments:
        loss: takes activations of shape (m, d) and returns a single number.
        y: outputs of the linear layer for m samples and d units, shape (m, d).
        gamma, beta: parameters of the BN layer, numbers or tensors of shape (d,).
        eps: eps of the BN layer.
        at: activations at which $\nabla L$ is taken, shape (m, d); by default the outputs of the BN layer.

    Returns:
        Both sides, shape (d,). For a constant unit they are nan or inf if eps = 0.

    Raises:
        ValueError: ``y``, ``at``, ``gamma`` or ``beta`` has another shape, ``eps`` is negative, or the loss is not a
            single number.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), Theorem 4.1.

    Example:
        If the gradient is taken at the outputs of the BN layer, both sides are equal:

        >>> y, target = torch.linspace(-1, 1, 10)[:, None] ** 3, torch.linspace(-1, 1, 10)[:, None]
        >>> sides = probes.theorem_4_1(lambda y: (y - target).square().sum(), y, gamma=2.0)
        >>> bool(sides.slack.abs() < 1e-3 * sides.right)
        True
    """
    check_usual(loss=loss, y=y)
    y, at, gamma, beta, scale, normalised = _prepare(y, at, gamma, beta, eps)
    left = _gradient(_loss_after_batch_norm(loss, gamma, beta, eps), y).square().sum(0)
    g = _gradient(loss, at)
    right = g.square().sum(0) - (g.sum(0).square() + (g * normalised).sum(0).square()) / len(y)
    return Inequality(left, (gamma / scale) ** 2 * right)


def theorem_4_2(
    loss: ActivationLoss,
    y: Tensor,
    gamma: float | Tensor = 1.0,
    beta: float | Tensor = 0.0,
    eps: float = 0.0,
    *,
    at: Tensor | None = None,
    simplified: bool = False,
) -> Inequality:
    r"""Compute both sides of Theorem 4.2, the effect of BN on the smoothness of the loss.

    The theorem bounds the curvature along each unit's gradient with BN. Let $u_j = \nabla_{y_j}\hat L$,
    $g_j = \nabla_{y_j}L$, and let $H_{jj}$ and $\hat H_{jj}$ be the Hessians of $L$ and $\hat L$ with respect to the m
    activations of unit j:

    $$u_j^\top\hat H_{jj}u_j \le \frac{\gamma^2}{\sigma_j^2}\,u_j^\top H_{jj}u_j
    - \frac{\gamma}{m\sigma_j^2}\langle g_j, \hat y_j\rangle\|u_j\|^2$$

    If $g_j$ and $H_{jj}$ are taken at the outputs of the BN layer, both sides are equal for eps = 0. For eps > 0, with
    $\sigma^2 = v + \epsilon$, $\delta = \epsilon/\sigma^2$, $s = \langle g_j, \hat y_j\rangle$ and
    $w_j = u_j - \frac{\gamma\delta s}{m\sigma}\hat y_j$, the right side is larger by
    $\frac{\gamma^2}{\sigma^2}(u_j^\top H_{jj}u_j - w_j^\top H_{jj}w_j)
    + \frac{\gamma s}{m\sigma^2}(2\delta\|u_j\|^2 - \frac{\gamma^2\delta^2s^2}{m\sigma^2})$.
    This difference can be negative; then the statement is false, by a small amount.

    Arguments:
        loss: see ``theorem_4_1``; it must be differentiable twice.
        y, gamma, beta, eps: see ``theorem_4_1``.
        at: activations at which $g_j$ and $H_{jj}$ are taken, see ``theorem_4_1``.
        simplified: use the second form of the paper, which replaces $u_j^\top H_{jj}u_j$ by $g_j^\top H_{jj}g_j$ "if
            $H_{jj}$ preserves the relative norms" of the two. It can be false where $\gamma > \sigma_j$.

    Returns:
        Both sides, shape (d,).

    Raises:
        ValueError: see ``theorem_4_1``.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), Theorem 4.2.

    Example:
        >>> y, target = torch.linspace(-1, 1, 10)[:, None] ** 3, torch.linspace(-1, 1, 10)[:, None]
        >>> sides = probes.theorem_4_2(lambda y: (y - target).square().sum(), y)
        >>> bool(sides.slack.abs() < 1e-3 * sides.right.abs())
        True
    """
    check_usual(loss=loss, y=y)
    check_flags(simplified=simplified)
    y, at, gamma, beta, scale, normalised = _prepare(y, at, gamma, beta, eps)
    with_bn = _loss_after_batch_norm(loss, gamma, beta, eps)
    u, g = _gradient(with_bn, y), _gradient(loss, at)
    curvature = _curvature(loss, at, g if simplified else u)
    bent = gamma * (g * normalised).sum(0) * u.square().sum(0) / len(y)
    return Inequality(_curvature(with_bn, y, u), (gamma**2 * curvature - bent) / scale**2)


def theorem_4_4(
    loss: ActivationLoss,
    y: Tensor,
    gamma: float | Tensor = 1.0,
    beta: float | Tensor = 0.0,
    eps: float = 0.0,
    *,
    radius: float = 1.0,
) -> Inequality:
    r"""Compute both sides of Theorem 4.4, a bound on the gradient of the weights in the worst case over inputs.

    The gradient of the weights of unit j is $X^\top\nabla_{y_j}L$, where the rows of X are the m inputs of the linear
    layer. Over all X with a spectral norm of at most $\lambda$ its squared norm is at most
    $\lambda^2\|\nabla_{y_j}L\|^2$, and some X reach this. With $\hat g_j$ for this maximum with BN and $g_j$ for that
    without, Theorem 4.1 gives

    $$\hat g_j \le \frac{\gamma^2}{\sigma_j^2}\Big(g_j - \frac{\lambda^2}m\langle 1, \nabla_{y_j} L\rangle^2
    - \frac{\lambda^2}m\langle\nabla_{y_j} L, \hat y_j\rangle^2\Big)$$

    As in Theorem 4.1, $\nabla L$ is taken at the outputs of the BN layer, and both sides are equal for eps = 0. The
    transcriptions of the paper that we know have $g_j^2$ for $g_j$, $m\mu^2$ (with $\mu$ the mean of
    $\nabla_{y_j}L$) without $\lambda^2$, and the last term without 1/m; with those the terms have different units, and
    the bound fails for small $\lambda$. The formula here is what follows from Theorem 4.1. It says nothing about the
    gradient for the inputs that the layer really has.

    Arguments:
        loss, y, gamma, beta, eps: see ``theorem_4_1``.
        radius: largest spectral norm of the inputs, $\lambda$.

    Returns:
        Both sides, shape (d,).

    Raises:
        ValueError: see ``theorem_4_1``; ``radius`` is not positive.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), Theorem 4.4.

    Example:
        >>> y, target = torch.linspace(-1, 1, 10)[:, None] ** 3, torch.linspace(-1, 1, 10)[:, None]
        >>> sides = probes.theorem_4_4(lambda y: (y - target).square().sum(), y, radius=2.0)
        >>> bool(sides.slack.abs() < 1e-3 * sides.right)
        True
    """
    check_usual(loss=loss, y=y)
    check_number("radius", radius, above=0)
    sides = theorem_4_1(loss, y, gamma, beta, eps)
    return Inequality(radius**2 * sides.left, radius**2 * sides.right)


def _prepare(y, at, gamma, beta, eps) -> tuple[Tensor, ...]:
    """Check the arguments; return them as tensors, with sigma and the normalised activations."""
    if y.dim() != 2 or y.numel() == 0:
        raise ValueError(f"y must have shape (m, d), got {tuple(y.shape)}")
    if not eps >= 0:
        raise ValueError(f"eps must be at least 0, got {eps}")
    for name, value in (("gamma", gamma), ("beta", beta)):
        if tuple(torch.as_tensor(value).shape) not in ((), y.shape[1:]):
            raise ValueError(f"{name} must be a number or have shape ({y.size(1)},), got {tuple(value.shape)}")
    if at is not None and at.shape != y.shape:
        raise ValueError(f"at must have the shape of y, {tuple(y.shape)}, got {tuple(at.shape)}")
    y = y.detach()
    gamma, beta = (torch.as_tensor(each, dtype=y.dtype, device=y.device).detach() for each in (gamma, beta))
    scale = (y.var(0, correction=0) + eps).sqrt()
    normalised = (y - y.mean(0)) / scale
    at = gamma * normalised + beta if at is None else at.detach()
    return y, at, gamma, beta, scale, normalised


def _loss_after_batch_norm(loss: ActivationLoss, gamma: Tensor, beta: Tensor, eps: float) -> ActivationLoss:
    # F.batch_norm does not allow eps = 0.
    return lambda y: loss(gamma * (y - y.mean(0)) / (y.var(0, correction=0) + eps).sqrt() + beta)


def _gradient(loss: ActivationLoss, at: Tensor) -> Tensor:
    with torch.enable_grad():
        at = at.clone().requires_grad_()
        return torch.autograd.grad(_scalar(loss, at), at, materialize_grads=True, allow_unused=True)[0]


def _curvature(loss: ActivationLoss, at: Tensor, direction: Tensor) -> Tensor:
    """Return, for each unit, the second derivative along its part of ``direction`` with the other units fixed."""
    result = []
    with torch.enable_grad():
        at = at.clone().requires_grad_()
        options = {"materialize_grads": True, "allow_unused": True}
        (first,) = torch.autograd.grad(_scalar(loss, at), at, create_graph=True, **options)
        for unit, along in enumerate(direction.T):
            if first.requires_grad:
                (second,) = torch.autograd.grad(first[:, unit] @ along, at, retain_graph=True, **options)
                result.append(second[:, unit] @ along)
            else:
                result.append(torch.zeros_like(along[0]))
    return torch.stack(result)


def _scalar(loss: ActivationLoss, at: Tensor) -> Tensor:
    value = loss(at)
    if value.numel() != 1:
        raise ValueError(f"loss must return a single number, got shape {tuple(value.shape)}")
    return value
