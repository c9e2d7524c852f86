r"""Norms whose statistics are averages over the last batches or samples, in NumPy, written as their papers write them.

Each forward function returns the output and a cache, and moves the state; each backward function takes the gradient g
at the output and returns the gradients of input, weight and bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bnlib.reference.channels import affine, as_input, over, wide


@dataclass
class MovingAverages:
    """The state of Moving Average Batch Normalization.

    Attributes:
        window: number of batches in the averages.
        momentum: weight of the newest average in the running one.
        running: running average of the mean square, shape (C,), or 1.
        mean_squares, products: the mean squares and the means of g z of all batches so far, shape (C,) each.
    """

    window: int
    momentum: float = 0.02
    running: np.ndarray | float = 1.0
    mean_squares: list[np.ndarray] = field(default_factory=list)
    products: list[np.ndarray] = field(default_factory=list)


class MovingAverageCache(NamedTuple):
    """What the backward pass needs: z, the ratio of the two roots, the root, gamma, and whether it is an average."""

    z: np.ndarray
    ratio: np.ndarray
    root: np.ndarray
    weight: np.ndarray
    averaged: bool


def moving_average_forward(x, state: MovingAverages, r_max: float = 1.0, weight=None, bias=None, eps: float = 1e-5):
    """Divide by the root of an average mean square, correct it, and scale and shift.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        state: the averages, which the function moves.
        r_max: limit of the correction.
        weight, bias: gamma and beta, shape (C,); None for 1 and 0.
        eps: added to mean squares.

    Returns:
        The output and the cache for ``moving_average_backward``.

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.

    Source: Yan et al. 2020 (https://arxiv.org/abs/2001.06838), section 4.

    Example:
        >>> state = reference.MovingAverages(window=1)
        >>> y, cache = reference.moving_average_forward([[3.0], [-3.0]], state, eps=0)
        >>> y.ravel().tolist()
        [1.0, -1.0]
    """
    x = as_input(x)
    weight, bias = affine(weight, bias, x)
    state.mean_squares.append((x**2).mean(over(x)))
    averaged = len(state.mean_squares) > state.window
    recent = state.mean_squares[-state.window :] if averaged else state.mean_squares[-1:]
    mean_square = np.mean(recent, 0)
    root = np.sqrt(mean_square + eps)
    ratio = np.clip(root / np.sqrt(state.running + eps), 1 / r_max, r_max)
    state.running = (1 - state.momentum) * state.running + state.momentum * mean_square
    z = x / wide(root, x)
    return wide(weight * ratio, x) * z + wide(bias, x), MovingAverageCache(z, ratio, root, weight, averaged)


def moving_average_backward(grad_output, state: MovingAverages, cache: MovingAverageCache):
    """Return the gradients of input, weight and bias; the function moves the averages of the backward pass.

    Example:
        >>> state = reference.MovingAverages(window=1)
        >>> y, cache = reference.moving_average_forward([[3.0], [-1.0]], state, eps=0)
        >>> grad_input, *_ = reference.moving_average_backward([[1.0], [0.0]], state, cache)
        >>> bool(abs(grad_input[0] * 3 - grad_input[1]) < 1e-12)  # orthogonal to the input, as with BN
        True
    """
    z, ratio, root, weight, averaged = cache
    g = np.asarray(grad_output, dtype=np.float64)
    at_z = g * wide(weight * ratio, z)
    state.products.append((at_z * z).mean(over(z)))
    product = np.mean(state.products[-state.window :] if averaged else state.products[-1:], 0)
    grad_input = (at_z - z * wide(product, z)) / wide(root, z)
    return grad_input, (g * wide(ratio, z) * z).sum(over(z)), g.sum(over(z))


@dataclass
class OnlineState:
    """The state of Online Normalization, shape (C,) each.

    Attributes:
        mean, variance: the running statistics.
        along_output, along_ones: the accumulated components of the gradients along the output and along 1.
    """

    mean: np.ndarray
    variance: np.ndarray
    along_output: np.ndarray
    along_ones: np.ndarray


def online_norm_forward(x, state: OnlineState, alpha: float = 0.999, eps: float = 1e-5):
    """Normalise one sample after the other with the statistics of the earlier ones, without gamma and layer scaling.

    Arguments:
        x: input, shape ``(N, C, *spatial)``.
        state: the statistics, which the function moves.
        alpha: decay of the running statistics per sample.
        eps: added to the variance.

    Returns:
        The output, and the standard deviations that the samples were divided by, shape (N, C).

    Raises:
        ValueError: if ``x`` has fewer than two dimensions.

    Source: Chiley et al. 2019 (https://arxiv.org/abs/1905.05894), equations (8).

    Example:
        >>> state = reference.OnlineState(*np.array([[0.0], [1.0], [0.0], [0.0]]))
        >>> y, _ = reference.online_norm_forward([[1.0], [1.0]], state, alpha=0.5, eps=0)
        >>> y.round(3).ravel().tolist(), state.mean.tolist()  # the variance is 0.75 after the first sample
        ([1.0, 0.577], [0.75])
    """
    x = as_input(x)
    outputs, deviations = [], []
    for sample in x:
        rows = sample.reshape(len(sample), -1)
        deviation = np.sqrt(state.variance + eps)
        outputs.append(((rows - state.mean[:, None]) / deviation[:, None]).reshape(sample.shape))
        deviations.append(deviation)
        mean, difference = rows.mean(1), rows.mean(1) - state.mean
        state.variance = alpha * state.variance + (1 - alpha) * (rows.var(1) + alpha * difference**2)
        state.mean = alpha * state.mean + (1 - alpha) * mean
    return np.array(outputs), np.array(deviations)


def online_norm_backward(grad_output, output, deviations, state: OnlineState, alpha: float = 0.99) -> np.ndarray:
    """Return the gradient of the input; the function moves the accumulated components.

    Arguments:
        grad_output: gradient at the output.
        output, deviations: the results of ``online_norm_forward``.
        state: the accumulated components.
        alpha: their decay per sample.

    Example:
        >>> state = reference.OnlineState(*np.zeros((4, 1)))
        >>> reference.online_norm_backward([[1.0], [1.0]], np.ones((2, 1)), np.ones((2, 1)), state, alpha=0).tolist()
        [[1.0], [-1.0]]
    """
    grads = []
    for g, y, deviation in zip(np.asarray(grad_output, dtype=np.float64), output, deviations, strict=True):
        rows, y_rows = g.reshape(len(g), -1), y.reshape(len(y), -1)
        rows = rows - (1 - alpha) * state.along_output[:, None] * y_rows
        state.along_output = state.along_output + (rows * y_rows).mean(1)
        rows = rows / deviation[:, None] - (1 - alpha) * state.along_ones[:, None]
        state.along_ones = state.along_ones + rows.mean(1)
        grads.append(rows.reshape(g.shape))
    return np.array(grads)


class Iteration(NamedTuple):
    """What Cross-Iteration Batch Normalization keeps of a batch.

    Attributes:
        weights: the weights of the layer, shape (C, fan-in).
        mean, mean_square: the statistics of its products, shape (C,).
        mean_slope, square_slope: their derivatives by the weights, shape (C, fan-in).
    """

    weights: np.ndarray
    mean: np.ndarray
    mean_square: np.ndarray
    mean_slope: np.ndarray
    square_slope: np.ndarray


class CrossIterationCache(NamedTuple):
    """What the backward pass needs: the normalised products, the gain, gamma, and the number of batches."""

    normalised: np.ndarray
    gain: np.ndarray
    weight: np.ndarray
    batches: int


def cross_iteration_forward(inputs, weights, earlier: list[Iteration], weight=None, bias=None, eps: float = 1e-5):
    """Multiply inputs by weights and normalise with the statistics of this and the earlier batches.

    Arguments:
        inputs: inputs of the layer, shape (M, fan-in); for a convolution, a row for each patch.
        weights: weights of the layer, shape (C, fan-in).
        earlier: the earlier batches of the window.
        weight, bias: gamma and beta, shape (C,); None for 1 and 0.
        eps: added to the variance.

    Returns:
        The output, shape (M, C); what is kept of this batch; the mean and the variance that were used, shape (C,); and
        the cache for ``cross_iteration_backward``.

    Source: Yao et al. 2021 (https://arxiv.org/abs/2002.05712), section 3.

    Example:
        >>> y, kept, mean, variance, _ = reference.cross_iteration_forward(np.array([[1.0]]), np.array([[2.0]]), [])
        >>> _, _, mean, variance, _ = reference.cross_iteration_forward(np.array([[3.0]]), np.array([[2.0]]), [kept])
        >>> mean.tolist(), variance.tolist()  # of 2 and 6
        ([4.0], [4.0])
    """
    inputs, weights = np.asarray(inputs, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    products = inputs @ weights.T
    mean_slope = np.broadcast_to(inputs.mean(0), weights.shape)
    square_slope = 2 * products.T @ inputs / len(inputs)
    newest = Iteration(weights.copy(), products.mean(0), (products**2).mean(0), mean_slope, square_slope)
    means, squares = [newest.mean], [newest.mean_square]
    for each in earlier:
        moved = weights - each.weights
        means.append(each.mean + (each.mean_slope * moved).sum(1))
        squares.append(np.maximum(each.mean_square + (each.square_slope * moved).sum(1), means[-1] ** 2))
    mean = np.mean(means, 0)
    variance = np.mean(squares, 0) - mean**2
    weight, bias = affine(weight, bias, products)
    gain = 1 / np.sqrt(variance + eps)
    normalised = (products - mean) * gain
    cache = CrossIterationCache(normalised, gain, weight, len(means))
    return normalised * weight + bias, newest, mean, variance, cache


def cross_iteration_backward(grad_output, cache: CrossIterationCache):
    r"""Return the gradients of the products, of weight and of bias.

    With k batches, $h = \gamma g$ and $r = 1/\sqrt{v + \epsilon}$, the first is
    $r\,(h - \frac1k(\overline h + \hat x\,\overline{h \hat x}))$: the statistics are those of this batch to one k-th.

    Example:
        >>> rows, weights = np.array([[1.0], [3.0]]), np.array([[1.0]])
        >>> *_, cache = reference.cross_iteration_forward(rows, weights, [], eps=0)  # batch norm
        >>> grad, *_ = reference.cross_iteration_backward([[1.0], [0.0]], cache)
        >>> abs(grad).max() < 1e-12
        np.True_
    """
    normalised, gain, weight, batches = cache
    g = np.asarray(grad_output, dtype=np.float64)
    h = g * weight
    through = h.mean(0) + normalised * (h * normalised).mean(0)
    return gain * (h - through / batches), (g * normalised).sum(0), g.sum(0)
