"""Full Normalization in NumPy, with five ways to estimate its gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bnlib.reference.batch_norm import batch_statistics
from bnlib.reference.channels import affine, as_input, over, wide

ORACLES = ("batch", "literal", "constant", "running", "leave_one_out")
"""How ``full_norm_backward`` can estimate the gradient through the running estimates."""


class Estimates(NamedTuple):
    """Full Normalization's estimates over the data set.

    Attributes:
        mean: estimate of the mean, shape (C,).
        second_moment: estimate of the mean of squares, shape (C,).
    """

    mean: np.ndarray
    second_moment: np.ndarray


class FullNormCache(NamedTuple):
    """The values of Full Normalization's forward pass that its backward pass needs.

    Attributes:
        x: the input.
        estimates: the estimates that the input was normalised with.
        weight: gamma, shape (C,).
        eps: lower bound of the variance.
    """

    x: np.ndarray
    estimates: Estimates
    weight: np.ndarray
    eps: float


def full_norm_forward(
    x, estimates: Estimates, alpha: float | None, weight=None, bias=None, eps: float = 1e-5
) -> tuple[np.ndarray, Estimates, FullNormCache]:
    """Compute the forward pass of Full Normalization: update the estimates with the batch, then normalise with them.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        estimates: the estimates before the step.
        alpha: weight of the batch in the estimates; None keeps the estimates, as in eval mode.
        weight, bias: gamma and beta, shape (C,); None for 1 and 0.
        eps: lower bound of the variance.

    Returns:
        The output, in the shape of ``x``; the estimates after the step; and the cache for ``full_norm_backward``.

    Raises:
        ValueError: as ``batch_statistics``.

    Source: Lian and Liu 2019, Algorithm 3, forward pass.

    Example:
        >>> start = reference.Estimates(np.zeros(1), np.ones(1))
        >>> y, estimates, cache = reference.full_norm_forward([[1.0], [3.0]], start, alpha=0.5)
        >>> estimates  # halfway to the batch, whose mean is 2 and second moment 5
        Estimates(mean=array([1.]), second_moment=array([3.]))
        >>> y.ravel().round(2)
        array([0.  , 1.41])
    """
    x = as_input(x)
    mean, second_moment = (np.asarray(estimate, dtype=np.float64) for estimate in estimates)
    if alpha is not None:
        mean = (1 - alpha) * mean + alpha * batch_statistics(x)[0]
        second_moment = (1 - alpha) * second_moment + alpha * batch_statistics(x**2)[0]
    estimates = Estimates(mean, second_moment)
    weight, bias = affine(weight, bias, x)
    cache = FullNormCache(x, estimates, weight, eps)
    return wide(weight, x) * _full_normalised(cache) + wide(bias, x), estimates, cache


def full_norm_backward(
    grad_output, cache: FullNormCache, oracle: str = "batch", gradient_estimates=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Return the gradients of input, weight and bias; one of five oracles estimates the path through the estimates.

    As in the paper, the formula uses the derivatives of $f(\mu, \nu, x) = (x - \mu)/\sqrt{\max\{\nu - \mu^2,
    \epsilon\}}$. The gradient of the input is $h\,\partial_x f + (A_\mu + 2 x A_\nu)/N$, where $h = \gamma g$ and N is
    the number of values per channel. The oracle says how $A_\mu = \sum h\,\partial_\mu f$ and
    $A_\nu = \sum h\,\partial_\nu f$ are estimated:

    - ``"batch"``: from this batch.
    - ``"literal"``: from this batch, divided by $b d$ as Algorithm 3 is printed, where d is the number of *all* values
      of a sample.
    - ``"constant"``: as zero, so the estimates count as constants.
    - ``"running"``: from ``gradient_estimates``. They are sufficient, because $A_\mu$ and $A_\nu$ are linear in
      $\sum g = \partial\beta$ and $\sum g \hat x = \partial\gamma$.
    - ``"leave_one_out"``: for each sample, from the other samples of the batch; N then counts their values.

    Arguments:
        grad_output: the gradient g at the output, in the shape of the input.
        cache: from ``full_norm_forward``.
        oracle: one of ``ORACLES``.
        gradient_estimates: for ``"running"``, estimates of the gradients of weight and bias over the data set, shape
            (C,) each.

    Raises:
        ValueError: if the oracle is unknown.

    Source: Lian and Liu 2019, equation (7) and Algorithm 3, backward pass.

    Example:
        For one value per channel, the gradient of the oracle ``"batch"`` (Algorithm 3) opposes the one that arrives:

        >>> estimates = reference.Estimates(np.zeros(1), np.ones(1))
        >>> y, estimates, cache = reference.full_norm_forward([[2.0]], estimates, alpha=None)
        >>> for oracle in ("constant", "batch"):
        ...     print(oracle, reference.full_norm_backward([[1.0]], cache, oracle)[0].item())
        constant 1.0
        batch -4.0
    """
    x, (mean, second_moment), weight, eps = cache
    g = np.asarray(grad_output, dtype=np.float64)
    h = g * wide(weight, g)
    mu, variance = wide(mean, x), wide(second_moment - mean**2, x)
    free = 1.0 * (variance > eps)
    sigma = np.sqrt(np.maximum(variance, eps))
    by_x, by_mean = 1 / sigma, -1 / sigma + free * (x - mu) * mu / sigma**3
    by_second_moment = -free * (x - mu) / (2 * sigma**3)

    normalised = _full_normalised(cache)
    grad_weight, grad_bias = (g * normalised).sum(over(g)), g.sum(over(g))
    values = x.size // x.shape[1]
    if oracle == "running":
        of_weight, of_bias = (wide(weight * np.asarray(each, dtype=np.float64), x) for each in gradient_estimates)
        through_mean = (-of_bias + free * of_weight * mu / sigma) / sigma
        through_second_moment = -free * of_weight / (2 * sigma**2)
    elif oracle in ("batch", "literal", "constant", "leave_one_out"):
        through_mean, through_second_moment = (
            (h * each).sum(over(x), keepdims=True) for each in (by_mean, by_second_moment)
        )
        if oracle == "leave_one_out":
            own = tuple(range(2, x.ndim))
            through_mean = through_mean - (h * by_mean).sum(own, keepdims=True)
            through_second_moment = through_second_moment - (h * by_second_moment).sum(own, keepdims=True)
            values -= values // len(x)
        values = {"literal": x.size, "constant": np.inf}.get(oracle, values)
    else:
        raise ValueError(f"oracle must be one of {', '.join(ORACLES)}, got {oracle!r}")
    grad_input = h * by_x + (through_mean + 2 * x * through_second_moment) / values
    return grad_input, grad_weight, grad_bias


def _full_normalised(cache: FullNormCache) -> np.ndarray:
    mean, second_moment = cache.estimates
    sigma = np.sqrt(np.maximum(second_moment - mean**2, cache.eps))
    return (cache.x - wide(mean, cache.x)) / wide(sigma, cache.x)
