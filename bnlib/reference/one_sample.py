r"""Norms of one sample, and dynamic tanh, in NumPy: nothing in them depends on the other samples in the batch.

Each backward function takes the gradient g at the output and the arguments of the forward function, and returns the
gradients of the input and of the learned numbers, in the order of the arguments. With $h = \gamma g$, a norm that
divides by $s = \sqrt{m + \epsilon}$, where m is the mean square of a set of values, has the input gradient
$(h - \hat x\,\overline{h \hat x})/s$; the bar is the mean over that set.
"""

from __future__ import annotations

import numpy as np

from bnlib.reference.channels import affine, as_input, over, wide


def rms_norm_forward(x, weight=None, eps: float = 1e-6) -> np.ndarray:
    """Divide each sample by the root mean square of all its values, then multiply by gamma.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        weight: gamma, shape (C,); None for 1.
        eps: added to the mean square.

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.

    Source: Zhang and Sennrich 2019 (https://arxiv.org/abs/1910.07467), section 4.

    Example:
        >>> reference.rms_norm_forward([[3.0, -4.0, 5.0, 0.0]], eps=0) * np.sqrt(12.5)
        array([[ 3., -4.,  5.,  0.]])
    """
    x = as_input(x)
    return wide(affine(weight, None, x)[0], x) * x / _root_mean_square(x, _sample(x), eps)


def rms_norm_backward(grad_output, x, weight=None, eps: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of input and weight; the arguments are those of ``rms_norm_forward``.

    Example:
        >>> grad_input, grad_weight = reference.rms_norm_backward([[1.0, 0.0]], [[3.0, 4.0]], eps=0)
        >>> float(abs(grad_input @ [3.0, 4.0]).item()) < 1e-12  # orthogonal to the input, whose scale does not matter
        True
    """
    x, g = as_input(x), np.asarray(grad_output, dtype=np.float64)
    root = _root_mean_square(x, _sample(x), eps)
    h, normalised = wide(affine(weight, None, x)[0], x) * g, x / root
    grad_input = (h - normalised * (h * normalised).mean(_sample(x), keepdims=True)) / root
    return grad_input, (g * normalised).sum(over(x))


def dynamic_tanh_forward(x, alpha: float, weight=None, bias=None) -> np.ndarray:
    """Compute dynamic tanh, gamma tanh(alpha x) + beta, of each value.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        alpha: the learned scale of the input, one number.
        weight, bias: gamma and beta, shape (C,); None for 1 and 0.

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.

    Source: Zhu et al. 2025 (https://arxiv.org/abs/2503.10622).

    Example:
        >>> reference.dynamic_tanh_forward([[0.0, 1.0, 100.0]], alpha=0.5).round(2)
        array([[0.  , 0.46, 1.  ]])
    """
    x = as_input(x)
    weight, bias = affine(weight, bias, x)
    return wide(weight, x) * np.tanh(alpha * x) + wide(bias, x)


def dynamic_tanh_backward(
    grad_output, x, alpha: float, weight=None, bias=None
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Return the gradients of input, alpha, weight and bias; the arguments are those of ``dynamic_tanh_forward``.

    Example:
        >>> grad_input, *_ = reference.dynamic_tanh_backward([[1.0, 1.0]], [[0.0, 20.0]], alpha=0.5)
        >>> grad_input.round(3)  # alpha at zero, and nothing where tanh is flat
        array([[0.5, 0. ]])
    """
    x, g = as_input(x), np.asarray(grad_output, dtype=np.float64)
    squashed = np.tanh(alpha * x)
    slope = wide(affine(weight, bias, x)[0], x) * g * (1 - squashed**2)
    return alpha * slope, float((slope * x).sum()), (g * squashed).sum(over(x)), g.sum(over(x))


def filter_response_norm_forward(x, weight=None, bias=None, threshold=None, eps: float = 1e-6) -> np.ndarray:
    """Divide each channel of each sample by its root mean square over positions, then scale, shift and threshold.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        weight, bias: gamma and beta, shape (C,); None for 1 and 0.
        threshold: tau of the thresholded linear unit max(y, tau), shape (C,); None for no threshold.
        eps: added to the mean square.

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.

    Source: Singh and Krishnan 2020 (https://arxiv.org/abs/1911.09737), section 3.

    Example:
        >>> reference.filter_response_norm_forward([[[1.0, -7.0]], [[30.0, 40.0]]], threshold=[0.0], eps=0).round(2)
        array([[[0.2 , 0.  ]],
        <BLANKLINE>
               [[0.85, 1.13]]])
    """
    x = as_input(x)
    weight, bias = affine(weight, bias, x)
    y = wide(weight, x) * x / _root_mean_square(x, _channel(x), eps) + wide(bias, x)
    return y if threshold is None else np.maximum(y, wide(np.asarray(threshold, dtype=np.float64), x))


def filter_response_norm_backward(
    grad_output, x, weight=None, bias=None, threshold=None, eps: float = 1e-6
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return the gradients of input, weight, bias, threshold and eps.

    The arguments are those of ``filter_response_norm_forward``.

    Example:
        One value per channel is divided by its own size. What is left is its sign, so almost no gradient passes:

        >>> grad_input, *_ = reference.filter_response_norm_backward([[1.0]], [[2.0]], eps=1e-4)
        >>> grad_input.round(5)
        array([[1.e-05]])
    """
    x, g = as_input(x), np.asarray(grad_output, dtype=np.float64)
    weight, bias = affine(weight, bias, x)
    root = _root_mean_square(x, _channel(x), eps)
    normalised, passes = x / root, np.ones_like(x)
    if threshold is not None:
        low = wide(np.asarray(threshold, dtype=np.float64), x)
        passes = 1.0 * (wide(weight, x) * normalised + wide(bias, x) > low)
    g_below = g * passes
    h = wide(weight, x) * g_below
    grad_input = (h - normalised * (h * normalised).mean(_channel(x), keepdims=True)) / root
    grad_eps = -(h * normalised / root**2).sum() / 2
    grads = (g_below * normalised).sum(over(x)), g_below.sum(over(x)), (g * (1 - passes)).sum(over(x))
    return grad_input, *grads, float(grad_eps)


def evonorm_s0_forward(x, num_groups: int, v, weight=None, bias=None, eps: float = 1e-5) -> np.ndarray:
    """Compute EvoNorm-S0, gamma x sigmoid(v x) / std + beta; std is that of a group of channels of one sample.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        num_groups: number of groups; it divides C.
        v: the learned scale inside the sigmoid, shape (C,).
        weight, bias: gamma and beta, shape (C,); None for 1 and 0.
        eps: added to the biased variance.

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.

    Source: Liu et al. 2020 (https://arxiv.org/abs/2004.02967).

    Example:
        >>> reference.evonorm_s0_forward([[-1.0, 1.0]], num_groups=1, v=[0.0, 0.0], eps=0)  # sigmoid(0) is 1/2
        array([[-0.5,  0.5]])
    """
    x = as_input(x)
    weight, bias = affine(weight, bias, x)
    std = _centred_and_std(x, num_groups, eps)[1]
    return wide(weight, x) * x * _sigmoid(wide(np.asarray(v, dtype=np.float64), x) * x) / std + wide(bias, x)


def evonorm_s0_backward(
    grad_output, x, num_groups: int, v, weight=None, bias=None, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r"""Return the gradients of input, v, weight and bias; the arguments are those of ``evonorm_s0_forward``.

    With the numerator $q = x\,\sigma(vx)$ and $h = \gamma g$, the gradient of the input is
    $h q'/s - (x - \mu)\,\overline{h q}/s^3$; the mean $\mu$ and the bar belong to the group.

    Example:
        >>> grad_input, *_ = reference.evonorm_s0_backward([[1.0, 0.0]], [[-1.0, 1.0]], 1, v=[0.0, 0.0], eps=0)
        >>> grad_input
        array([[0.25, 0.25]])
    """
    x, g = as_input(x), np.asarray(grad_output, dtype=np.float64)
    gate = _sigmoid(wide(np.asarray(v, dtype=np.float64), x) * x)
    centred, std = _centred_and_std(x, num_groups, eps)
    h, numerator = wide(affine(weight, bias, x)[0], x) * g, x * gate
    bend = gate * (1 - gate)
    slope = gate + wide(np.asarray(v, dtype=np.float64), x) * x * bend
    grad_input = h * slope / std - centred * _group_mean(h * numerator, num_groups) / std**3
    return grad_input, (h * x**2 * bend / std).sum(over(x)), (g * numerator / std).sum(over(x)), g.sum(over(x))


def _sample(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def _channel(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _root_mean_square(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return np.sqrt((x**2).mean(axes, keepdims=True) + eps)


def _group_mean(x: np.ndarray, num_groups: int) -> np.ndarray:
    groups = x.reshape(len(x), num_groups, -1)
    return np.broadcast_to(groups.mean(2, keepdims=True), groups.shape).reshape(x.shape)


def _centred_and_std(x: np.ndarray, num_groups: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    centred = x - _group_mean(x, num_groups)
    return centred, np.sqrt(_group_mean(centred**2, num_groups) + eps)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
