"""Reference implementations of Batch and Full Normalization in NumPy, in float64; the tests compare the layers to them.

Inputs have the shape ``(N, C)`` or ``(N, C, *spatial)``. The statistics of each of the C channels are computed over all
other dimensions. ``weight`` and ``bias`` are the gamma and beta of the papers, shape (C,).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ORACLES = ("batch", "literal", "constant", "running", "leave_one_out")
"""How ``full_norm_backward`` can estimate the gradient through the running estimates."""


class Cache(NamedTuple):
    """The results of the forward pass that the backward pass needs.

    Attributes:
        normalised: the normalised input, in the shape of the input.
        gain: 1 / sqrt(variance + eps), shape (C,).
        weight: gamma, shape (C,).
    """

    normalised: np.ndarray
    gain: np.ndarray
    weight: np.ndarray


def batch_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the biased variance of each channel, shape (C,) each.

    NumPy computes the variance in two passes: it subtracts the mean before squaring, so no digits cancel.

    Raises:
        ValueError: if ``x`` has fewer than two dimensions or is empty.

    Example:
        >>> reference.batch_statistics([[1.0, 10.0], [3.0, 30.0]])
        (array([ 2., 20.]), array([  1., 100.]))
    """
    x = _input(x)
    if x.size == 0:
        raise ValueError(f"x must not be empty, got shape {x.shape}")
    return x.mean(_over(x)), x.var(_over(x))


def batch_norm_forward(x, weight=None, bias=None, eps: float = 1e-5) -> tuple[np.ndarray, Cache]:
    """Compute batch norm in train mode: normalise with the statistics of the batch, then scale and shift.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        weight: gamma, shape (C,); None for 1.
        bias: beta, shape (C,); None for 0.
        eps: added to the variance.

    Returns:
        The output, in the shape of ``x``, and the cache for ``batch_norm_backward``.

    Raises:
        ValueError: as ``batch_statistics``.

    Source: Ioffe and Szegedy 2015, Algorithm 1; Lian and Liu 2019, Algorithm 1.

    Example:
        >>> y, cache = reference.batch_norm_forward([[1.0], [2.0], [6.0]], weight=[2.0], bias=[5.0], eps=0)
        >>> y.mean(), y.std().round(9)  # beta and gamma
        (np.float64(5.0), np.float64(2.0))
    """
    x = _input(x)
    mean, variance = batch_statistics(x)
    gain = 1 / np.sqrt(variance + eps)
    normalised = (x - _wide(mean, x)) * _wide(gain, x)
    weight, bias = _affine(weight, bias, x)
    return _wide(weight, x) * normalised + _wide(bias, x), Cache(normalised, gain, weight)


def batch_norm_backward(grad_output, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Return the gradients of a loss with respect to input, weight and bias, given the gradient at the output.

    With the gradient g at the output, $h = \gamma g$ and $r = 1/\sqrt{v + \epsilon}$, the gradient of the input is
    $r\,(h - \overline{h} - \hat x\,\overline{h \hat x})$, where a bar is the average over the channel's N values.

    Arguments:
        grad_output: g, in the shape of the input.
        cache: from ``batch_norm_forward``.

    Source: chapter 1 derives it; it is the sum of the three paths in Ioffe and Szegedy 2015, section 3.

    Example:
        >>> y, cache = reference.batch_norm_forward([[1.0], [2.0], [6.0]], eps=0)
        >>> grad_input, grad_weight, grad_bias = reference.batch_norm_backward([[1.0], [0.0], [0.0]], cache)
        >>> grad_input.ravel().round(3)
        array([ 0.176, -0.22 ,  0.044])
        >>> float(abs(grad_input.sum())) < 1e-12, float(abs((grad_input * y).sum())) < 1e-12
        (True, True)
    """
    g = np.asarray(grad_output, dtype=np.float64)
    normalised, gain, weight = cache
    grad_weight, grad_bias = (g * normalised).sum(_over(g)), g.sum(_over(g))
    h = g * _wide(weight, g)
    along_ones, along_normalised = h.mean(_over(g)), (h * normalised).mean(_over(g))
    grad_input = _wide(gain, g) * (h - _wide(along_ones, g) - normalised * _wide(along_normalised, g))
    return grad_input, grad_weight, grad_bias


def batch_norm_inference(x, running_mean, running_var, weight=None, bias=None, eps: float = 1e-5) -> np.ndarray:
    """Compute batch norm in eval mode: normalise with running statistics, then scale and shift; an affine map.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        running_mean, running_var: statistics, shape (C,) each.
        weight, bias, eps: as in ``batch_norm_forward``.

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.

    Source: Ioffe and Szegedy 2015, Algorithm 2.

    Example:
        >>> reference.batch_norm_inference([[4.0]], running_mean=[2.0], running_var=[4.0], eps=0)
        array([[1.]])
    """
    x = _input(x)
    weight, bias = _affine(weight, bias, x)
    scale = weight / np.sqrt(np.asarray(running_var, dtype=np.float64) + eps)
    return (x - _wide(np.asarray(running_mean, dtype=np.float64), x)) * _wide(scale, x) + _wide(bias, x)


def update_running(running_mean, running_var, x, momentum: float = 0.1, convention: str = "torch"):
    """Return the running mean and variance, shape (C,) each, after a batch ``x``, in one of three conventions.

    - ``"torch"``: ``momentum`` is the weight of the batch, and the unbiased variance is averaged (PyTorch).
    - ``"algorithm1"``: ``momentum`` is the weight of the batch, the paper's alpha, and the biased variance is averaged
      (Lian and Liu 2019, Algorithm 1).
    - ``"keras"``: ``momentum`` is the weight of the *old* value (0.99 in Keras is 0.01 in PyTorch), and the biased
      variance is averaged, as in Keras without the fused kernel (Keras 3 does not use it).

    Raises:
        ValueError: if the convention is unknown, ``momentum`` is outside [0, 1], or ``x`` has one value per channel
            with ``"torch"``, because one value has no unbiased variance; else as ``batch_statistics``.

    Example:
        >>> for convention in ("torch", "algorithm1", "keras"):
        ...     mean, variance = reference.update_running([0.0], [1.0], [[1.0], [3.0]], 0.1, convention)
        ...     print(f"{convention}: {mean.item():.1f} {variance.item():.1f}")
        torch: 0.2 1.1
        algorithm1: 0.2 1.0
        keras: 1.8 1.0
    """
    if convention not in ("torch", "algorithm1", "keras"):
        raise ValueError(f"convention must be 'torch', 'algorithm1' or 'keras', got {convention!r}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
    mean, variance = batch_statistics(x)
    if convention == "torch":
        count = np.size(x) // len(mean)
        if count == 1:
            raise ValueError(f"x must hold more than one value per channel for an unbiased variance, got {np.shape(x)}")
        variance = variance * count / (count - 1)
    newest = 1 - momentum if convention == "keras" else momentum
    old_mean, old_var = np.asarray(running_mean, dtype=np.float64), np.asarray(running_var, dtype=np.float64)
    return (1 - newest) * old_mean + newest * mean, (1 - newest) * old_var + newest * variance


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
    x = _input(x)
    mean, second_moment = (np.asarray(estimate, dtype=np.float64) for estimate in estimates)
    if alpha is not None:
        mean = (1 - alpha) * mean + alpha * batch_statistics(x)[0]
        second_moment = (1 - alpha) * second_moment + alpha * batch_statistics(x**2)[0]
    estimates = Estimates(mean, second_moment)
    weight, bias = _affine(weight, bias, x)
    cache = FullNormCache(x, estimates, weight, eps)
    return _wide(weight, x) * _full_normalised(cache) + _wide(bias, x), estimates, cache


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
    h = g * _wide(weight, g)
    mu, variance = _wide(mean, x), _wide(second_moment - mean**2, x)
    free = 1.0 * (variance > eps)
    sigma = np.sqrt(np.maximum(variance, eps))
    by_x, by_mean = 1 / sigma, -1 / sigma + free * (x - mu) * mu / sigma**3
    by_second_moment = -free * (x - mu) / (2 * sigma**3)

    normalised = _full_normalised(cache)
    grad_weight, grad_bias = (g * normalised).sum(_over(g)), g.sum(_over(g))
    values = x.size // x.shape[1]
    if oracle == "running":
        of_weight, of_bias = (_wide(weight * np.asarray(each, dtype=np.float64), x) for each in gradient_estimates)
        through_mean = (-of_bias + free * of_weight * mu / sigma) / sigma
        through_second_moment = -free * of_weight / (2 * sigma**2)
    elif oracle in ("batch", "literal", "constant", "leave_one_out"):
        through_mean, through_second_moment = (
            (h * each).sum(_over(x), keepdims=True) for each in (by_mean, by_second_moment)
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
    return (cache.x - _wide(mean, cache.x)) / _wide(sigma, cache.x)


def _input(x) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2:
        raise ValueError(f"x must have shape (N, C) or (N, C, *spatial), got shape {x.shape}")
    return x


def _over(x: np.ndarray) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _wide(per_channel: np.ndarray, x: np.ndarray) -> np.ndarray:
    return per_channel.reshape(1, -1, *[1] * (x.ndim - 2))


def _affine(weight, bias, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weight = np.ones(x.shape[1]) if weight is None else np.asarray(weight, dtype=np.float64)
    bias = np.zeros(x.shape[1]) if bias is None else np.asarray(bias, dtype=np.float64)
    return weight, bias
