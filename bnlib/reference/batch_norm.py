"""Batch Normalization and Ghost Batch Normalization in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bnlib.reference.channels import affine, as_input, over, wide


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
    x = as_input(x)
    if x.size == 0:
        raise ValueError(f"x must not be empty, got shape {x.shape}")
    return x.mean(over(x)), x.var(over(x))


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
    x = as_input(x)
    mean, variance = batch_statistics(x)
    gain = 1 / np.sqrt(variance + eps)
    normalised = (x - wide(mean, x)) * wide(gain, x)
    weight, bias = affine(weight, bias, x)
    return wide(weight, x) * normalised + wide(bias, x), Cache(normalised, gain, weight)


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
    grad_weight, grad_bias = (g * normalised).sum(over(g)), g.sum(over(g))
    h = g * wide(weight, g)
    along_ones, along_normalised = h.mean(over(g)), (h * normalised).mean(over(g))
    grad_input = wide(gain, g) * (h - wide(along_ones, g) - normalised * wide(along_normalised, g))
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
    x = as_input(x)
    weight, bias = affine(weight, bias, x)
    scale = weight / np.sqrt(np.asarray(running_var, dtype=np.float64) + eps)
    return (x - wide(np.asarray(running_mean, dtype=np.float64), x)) * wide(scale, x) + wide(bias, x)


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


def ghost_batch_norm_forward(
    x, virtual_batch_size: int, weight=None, bias=None, eps: float = 1e-5
) -> tuple[np.ndarray, list[Cache]]:
    """Compute Ghost Batch Normalization in train mode: batch norm of each virtual batch by itself.

    Arguments:
        x: input, shape ``(N, C, *spatial)``; it is divided into ceil(N / ``virtual_batch_size``) virtual batches, whose
            sizes differ by at most one.
        virtual_batch_size: the most samples in a virtual batch.
        weight, bias, eps: as in ``batch_norm_forward``.

    Returns:
        The output, in the shape of ``x``, and the caches of the virtual batches for ``ghost_batch_norm_backward``.

    Raises:
        ValueError: as ``batch_statistics``.

    Source: Hoffer, Hubara and Soudry 2017 (https://arxiv.org/abs/1705.08741), Algorithm 1.

    Example:
        >>> y, caches = reference.ghost_batch_norm_forward([[1.0], [3.0], [10.0], [50.0]], 2, eps=0)
        >>> y.ravel(), len(caches)  # each of the two pairs is normalised by itself
        (array([-1.,  1., -1.,  1.]), 2)
    """
    parts = np.array_split(as_input(x), -(-len(x) // virtual_batch_size))
    outputs, caches = zip(*[batch_norm_forward(part, weight, bias, eps) for part in parts], strict=True)
    return np.concatenate(outputs), list(caches)


def ghost_batch_norm_backward(grad_output, caches: list[Cache]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of input, weight and bias: those of ``batch_norm_backward`` for each virtual batch.

    Arguments:
        grad_output: the gradient at the output, in the shape of the input.
        caches: from ``ghost_batch_norm_forward``.

    Example:
        >>> y, caches = reference.ghost_batch_norm_forward([[1.0], [2.0], [6.0], [4.0]], 4, eps=0)
        >>> _, cache = reference.batch_norm_forward([[1.0], [2.0], [6.0], [4.0]], eps=0)
        >>> g = [[1.0], [0.0], [0.0], [0.0]]
        >>> ghost, whole = reference.ghost_batch_norm_backward(g, caches), reference.batch_norm_backward(g, cache)
        >>> all(np.allclose(*pair) for pair in zip(ghost, whole))  # a single virtual batch
        True
    """
    parts = np.array_split(np.asarray(grad_output, dtype=np.float64), len(caches))
    inputs, weights, biases = zip(*map(batch_norm_backward, parts, caches), strict=True)
    return np.concatenate(inputs), sum(weights), sum(biases)
