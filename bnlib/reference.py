"""Batch and Full Normalization in NumPy, float64: the formulas that everything else is tested against.

Inputs have shape ``(N, C)`` or ``(N, C, *spatial)``. Statistics run over every dimension but the second, so that each
of the C channels is normalised on its own; ``weight`` and ``bias`` are the gamma and beta of the papers, shape (C,).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ORACLES = ("batch", "literal", "constant", "running", "leave_one_out")
"""The ways of ``full_norm_backward`` to find the path of the gradient through the estimates."""


class Cache(NamedTuple):
    """What the backward pass needs of the forward pass."""

    normalised: np.ndarray
    gain: np.ndarray
    weight: np.ndarray


def batch_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel, shape (C,).

    Two passes, as NumPy does it: the mean is subtracted before squaring, so nothing cancels.

    Raises:
        ValueError: ``x`` has fewer than two dimensions or no values to average.

    Example:
        >>> reference.batch_statistics([[1.0, 10.0], [3.0, 30.0]])
        (array([ 2., 20.]), array([  1., 100.]))
    """
    x = _input(x)
    if x.size == 0:
        raise ValueError(f"x must not be empty, got shape {x.shape}")
    return x.mean(_over(x)), x.var(_over(x))


def batch_norm_forward(x, weight=None, bias=None, eps: float = 1e-5) -> tuple[np.ndarray, Cache]:
    """Normalise with the batch's own statistics, then scale and shift (train mode).

    Shape:
        ``x``: ``(N, C, *spatial)``; the output has the same. ``weight`` (1 if None) and ``bias`` (0 if None): (C,).

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
    r"""Gradients of a loss with respect to input, weight and bias, from that with respect to the output.

    With $h = \gamma g$ the gradient of the input is
    $r\,(h - \overline{h} - \hat x\,\overline{h \hat x})$, a bar meaning the average over the channel's N values.

    Source: derived in chapter 1; the three paths of Ioffe and Szegedy 2015, section 3, added up.

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
    """Normalise with given statistics, shape (C,), then scale and shift (eval mode): a fixed affine map.

    Raises:
        ValueError: ``x`` has fewer than two dimensions.

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
    """Running mean and variance, shape (C,), after one more batch ``x``, in one of three conventions.

    - ``"torch"``: the batch weighs ``momentum``; its variance is the unbiased one.
    - ``"algorithm1"``: the batch weighs ``momentum``, the paper's alpha; its variance is the biased one
      (Lian and Liu 2019, Algorithm 1).
    - ``"keras"``: the *old* value weighs ``momentum`` (Keras's 0.99 is torch's 0.01); biased variance,
      as in unfused Keras (Keras 3 is).

    Raises:
        ValueError: an unknown convention, ``momentum`` outside [0, 1], or ``"torch"`` with one value a channel, which
            has no unbiased variance; else as ``batch_statistics``.

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
            raise ValueError(f"x must hold more than one value a channel for an unbiased variance, got {np.shape(x)}")
        variance = variance * count / (count - 1)
    newest = 1 - momentum if convention == "keras" else momentum
    old_mean, old_var = np.asarray(running_mean, dtype=np.float64), np.asarray(running_var, dtype=np.float64)
    return (1 - newest) * old_mean + newest * mean, (1 - newest) * old_var + newest * variance


class Estimates(NamedTuple):
    """Full Normalization's estimates over the data set, shape (C,): of the mean and of the mean of squares."""

    mean: np.ndarray
    second_moment: np.ndarray


class FullNormCache(NamedTuple):
    """What the backward pass of Full Normalization needs of the forward pass."""

    x: np.ndarray
    estimates: Estimates
    weight: np.ndarray
    eps: float


def full_norm_forward(
    x, estimates: Estimates, alpha: float | None, weight=None, bias=None, eps: float = 1e-5
) -> tuple[np.ndarray, Estimates, FullNormCache]:
    """Move the estimates towards the batch by ``alpha`` (not at all if None: eval mode), then normalise with them.

    Returns:
        The output, of the shape of ``x``; the estimates after the step; what ``full_norm_backward`` needs.

    Raises:
        ValueError: as ``batch_statistics``.

    Source: Lian and Liu 2019, Algorithm 3, forward pass.

    Example:
        >>> start = reference.Estimates(np.zeros(1), np.ones(1))
        >>> y, estimates, cache = reference.full_norm_forward([[1.0], [3.0]], start, alpha=0.5)
        >>> estimates  # half of the way to the batch, whose second moment is 5
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
    r"""Gradients with respect to input, weight and bias; one of five oracles finds the path through the estimates.

    Written as the paper writes it, with the derivatives of $f(\mu, \nu, x) = (x - \mu)/\sqrt{\max\{\nu - \mu^2,
    \epsilon\}}$: the gradient of the input is $h\,\partial_x f + (A_\mu + 2 x A_\nu)/N$, where $h = \gamma g$,
    N counts a channel's values, and the oracle says how $A_\mu = \sum h\,\partial_\mu f$ and
    $A_\nu = \sum h\,\partial_\nu f$ are found:

    - ``"batch"``: from this batch.
    - ``"literal"``: from this batch, divided by $b d$ as Algorithm 3 is printed, d counting *all* values of a sample.
    - ``"constant"``: as zero, the estimates being taken for constants.
    - ``"running"``: from ``gradient_estimates``, estimates of the gradients of weight and bias over the data set. These two
      are all that is needed: $A_\mu$ and $A_\nu$ are linear in $\sum g = \partial\beta$ and
      $\sum g \hat x = \partial\gamma$.
    - ``"leave_one_out"``: for each sample from the other samples of the batch, so that N is less by one sample.

    Raises:
        ValueError: an unknown oracle.

    Source: Lian and Liu 2019, equation (7) and Algorithm 3, backward pass.

    Example:
        With one value, the same-batch oracle of Algorithm 3 points the wrong way:

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
