r"""Compute what equation (7) of Lian and Liu (2019) gives below a normaliser, by how its expectation is read.

For each layer the equation has the factor $\partial_xF+\partial_uF\cdot E_{\xi'}\Delta(\xi')$, where $\Delta$ is the
derivative of the statistics $e(x)=(x,x^2)$. The readings differ in what is evaluated at $\xi'$, see ``gradients``.
"""

from __future__ import annotations

import torch
from torch import Tensor

READINGS = {
    "printed": "as printed: E Δ(ξ′) averaged on its own",
    "operators": "as operators: all below Δ at ξ′, inside E",
    "same sample": "with ξ′ = ξ",
}
"""The readings, in words."""


def normalise(x: Tensor, mean: Tensor, square: Tensor) -> Tensor:
    """Return the normalised values, given estimates of the mean and the mean square."""
    return (x - mean) / (square - mean.square()).sqrt()


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draw six samples of two inputs, (6, 2), their targets, (6,), and the weights of a linear layer, (2,)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (6, 2), (6,), (2,)
    inputs, targets, weights = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return inputs + 1, targets, weights


def exact_gradient(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of objective (5), by automatic differentiation through the statistics of all samples."""
    leaf = weights.clone().requires_grad_()
    x = inputs @ leaf
    loss = (normalise(x, x.mean(), x.square().mean()) - targets).pow(4).mean()
    return torch.autograd.grad(loss, leaf)[0]


def gradients(inputs: Tensor, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
    r"""Return the mean over $\xi$ of equation (7) for a linear layer, a normaliser and the loss $(\hat x-t)^4$.

    Returns:
        The gradient for the weights by reading. ``"printed"``: $\Delta$ is averaged on its own, and the derivative of x
        with respect to the weights, to the right of it, is that of $\xi$. ``"operators"``: this derivative is that of
        $\xi'$, and stands inside the average. ``"same sample"``: $\xi'=\xi$.
    """
    x = (inputs @ weights).requires_grad_()
    mean, square = (each.detach().expand(len(x)).clone().requires_grad_() for each in (x.mean(), x.square().mean()))
    hat = normalise(x, mean, square)
    (g,) = torch.autograd.grad((hat - targets).pow(4).sum(), hat, retain_graph=True)
    of_x, of_mean, of_square = torch.autograd.grad(hat.sum(), (x, mean, square))
    x = x.detach()
    printed = (g * (of_x + of_mean + of_square * 2 * x.mean())) @ inputs
    direct = (g * of_x) @ inputs
    through = (g * of_mean).sum() * inputs.mean(0) + (g * of_square).sum() * (2 * x[:, None] * inputs).mean(0)
    same = (g * (of_x + of_mean + of_square * 2 * x)) @ inputs
    found = {"printed": printed, "operators": direct + through, "same sample": same}
    return {name: (value / len(x)).detach() for name, value in found.items()}


def same_sample_formula(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    r"""Return the gradient that arrives if the normaliser returns $-\hat x^2 g/\sigma$, the formula at batch size 1."""
    x = inputs @ weights
    hat = normalise(x, x.mean(), x.square().mean())
    g = 4 * (hat - targets).pow(3)
    return (-hat.square() * g / x.var(correction=0).sqrt()) @ inputs / len(x)


def gradient_rows(seed: int = 0) -> list[dict]:
    """Return the exact gradient and that of each reading, a row each."""
    data = problem(seed)
    found = {"exact": exact_gradient(*data)} | gradients(*data)
    names = {"exact": "gradient of objective (4.5)"} | READINGS
    return [
        {"equation (7) read": names[name], "weight 1": first, "weight 2": second}
        for name, (first, second) in ((name, (value.round(decimals=9) + 0.0).tolist()) for name, value in found.items())
    ]


def largest_errors(seeds=range(20)) -> dict[str, float]:
    """Return over several problems the largest distance from the exact gradient, relative to it, by reading.

    ``"zero"`` is the largest norm of the printed reading, and ``"formula"`` the largest distance of the reading
    "same sample" from ``same_sample_formula``, both relative to the norm of the exact gradient.
    """
    worst = dict.fromkeys((*READINGS, "zero", "formula"), 0.0)
    for seed in seeds:
        data = problem(seed)
        exact, found = exact_gradient(*data), gradients(*data)
        distances = {name: value - exact for name, value in found.items()}
        distances |= {"zero": found["printed"], "formula": found["same sample"] - same_sample_formula(*data)}
        worst = {name: max(worst[name], (distances[name].norm() / exact.norm()).item()) for name in worst}
    return worst
