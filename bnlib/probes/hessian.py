"""DOC hessian."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bnlib.probes.stateless import Loss, as_leaves, gradients_at, scalar_loss, stateless_call, trainable_names
from bnlib.probes.tensors import at_least_float32, flattened, gradients_or_zeros

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Sharpness:
    r"""The top of the spectrum of a Hessian H.

    Attributes:
        value: $\lambda$, the largest eigenvalue with its sign, not the largest in absolute value; 0-dimensional.
        vector: its eigenvector, of norm 1, by names of parameters.
        residual: $\|H v - \lambda v\|$, by a product of its own. An eigenvalue lies no farther from ``value`` than
            that; 0-dimensional.
        converged: the residual is within the tolerance. If not, ``value`` is a lower bound, or the products were
            not those of a symmetric matrix.
        products: number of products of the Hessian and a vector.
        weight_norm: $\|w\|$ of the parameters, 0-dimensional.
    """

    value: Tensor
    vector: dict[str, Tensor]
    residual: Tensor
    converged: bool
    products: int
    weight_norm: Tensor

    @property
    def scale_free(self) -> Tensor:
        r"""$\lambda \|w\|^2$, which stays when weights that a norm follows are multiplied by a number."""
        return self.value * self.weight_norm**2


def sharpness(
    model: nn.Module,
    loss: Loss,
    names: Iterable[str] | None = None,
    *,
    tolerance: float = 1e-3,
    iterations: int = 100,
    seed: int = 0,
    difference: float | None = None,
) -> Sharpness:
    r"""The largest eigenvalue of the Hessian of the loss, in the mode the model is in; nothing is changed.

    Gradient descent on a quadratic is stable for learning rates below 2 over it. Lanczos with all vectors kept
    orthogonal, which needs far fewer products than power iteration and finds the largest eigenvalue even if there is a
    negative one of larger size; it takes the memory of as many vectors as there are iterations.

    Arguments:
        model: any network.
        loss: function of the model that returns the loss on a batch, a single number.
        names: of the parameters whose block of the Hessian is meant; by default all that are trained.
        tolerance: residual over $|\lambda|$ at which to stop; the error of $\lambda$ is about its square. In float32
            hardly below 1e-5.
        iterations: at most.
        seed: of the first vector, which is the same on all devices.
        difference: products from gradients at $w \pm h v$ with h this part of $\|w\|$, instead of derivatives of
            gradients. For layers that cannot be differentiated twice, or wrongly, as torch's weight norm (torch 2.13).
            About 1e-3 in float32, where the kinks of ReLU that lie between count as curvature; 1e-6 in float64.

    Raises:
        ValueError: ``tolerance`` or ``difference`` not positive, ``iterations`` below 1; ``names`` has one that does
            not exist or is not trained; a loss that is no single number.
        RuntimeError: the model has a layer that cannot be differentiated twice, and no ``difference`` is given. One is
            ``FullNorm`` in train mode, whose gradient is an estimate that belongs to no function. ``difference`` then
            takes the derivative of that estimate, which is not symmetric: look at ``converged``. In eval mode, with
            statistics that stay, it has a Hessian like any layer.

    Source: Lanczos 1950; for networks Cohen et al. 2021 (https://arxiv.org/abs/2103.00065).

    Example:
        A quadratic with the eigenvalues 2 and 10, on which gradient descent is stable below 2/10:

        >>> model = nn.Linear(2, 1, bias=False)
        >>> found = probes.sharpness(model, lambda model: (model.weight.square() * torch.tensor([1.0, 5.0])).sum())
        >>> round(found.value.item(), 3), round(2 / found.value.item(), 3), found.converged
        (10.0, 0.2, True)
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if difference is not None and not difference > 0:
        raise ValueError(f"difference must be positive, got {difference}")
    old, names = dict(model.named_parameters()), trainable_names(model, names)
    weights = flattened(old[name] for name in names)
    start = torch.randn(len(weights), generator=torch.Generator().manual_seed(seed)).to(weights)
    search = partial(_lanczos, start=start / start.norm(), tolerance=tolerance, iterations=iterations)
    if difference is None:
        value, vector, residual, products = _search_by_autograd(model, loss, names, search)
    else:
        value, vector, residual, products = search(
            _hessian_product_by_finite_differences(model, loss, names, difference * weights.norm())
        )
    converged = bool(residual <= tolerance * value.abs())
    return Sharpness(value, _split_by_parameter(vector, names, old), residual, converged, products, weights.norm())


def _search_by_autograd(model: nn.Module, loss: Loss, names: list[str], search: Callable[[Product], tuple]) -> tuple:
    """``search`` with the products of the Hessian and a vector, from one graph."""
    leaves = as_leaves(model, dict(model.named_parameters()))
    wanted = [leaves[name] for name in names]

    def within(model: nn.Module) -> tuple:
        with torch.enable_grad():
            first = torch.autograd.grad(scalar_loss(loss(model)), wanted, create_graph=True, materialize_grads=True)
            gradient = torch.cat([at_least_float32(each).flatten() for each in first])

        def product(vector: Tensor) -> Tensor:
            # That of a loss that is linear in the parameters depends on none of them.
            if not gradient.requires_grad:
                return torch.zeros_like(vector)
            return flattened(torch.autograd.grad(gradient, wanted, vector, retain_graph=True, materialize_grads=True))

        return search(product)

    return stateless_call(model, within, leaves)


def _hessian_product_by_finite_differences(model: nn.Module, loss: Loss, names: list[str], step: Tensor) -> Product:
    old = dict(model.named_parameters())

    def gradient(move: Tensor) -> Tensor:
        moves = _split_by_parameter(move, names, old)
        moved = {name: old[name].detach() + moves[name] for name in names}
        return flattened(gradients_or_zeros(gradients_at(model, loss, old | moved, names), names, old))

    return lambda vector: (gradient(step * vector) - gradient(-step * vector)) / (2 * step)


def _lanczos(product: Product, start: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Largest eigenvalue, its vector, the residual and the number of products."""
    basis, small = start[None], torch.zeros(0, 0, dtype=torch.float64)
    for _ in range(min(iterations, len(start))):
        image = product(basis[-1])
        # Twice: once leaves rounding errors that let found eigenvalues come back.
        along = basis @ image
        rest = image - along @ basis
        rest = rest - (basis @ rest) @ basis
        small = _extend_tridiagonal(small, along)
        if not (small.isfinite().all() and rest.isfinite().all()):
            nan = torch.full_like(start, torch.nan)
            return nan[0], nan, nan[0], len(basis)
        values, vectors = torch.linalg.eigh(small)
        value, weights, length = values[-1], vectors[:, -1], rest.norm()
        # Half, for the residual that is reported has rounding errors of its own.
        if length.cpu() * weights[-1].abs() <= tolerance / 2 * value.abs() or len(basis) == min(iterations, len(start)):
            break
        basis = torch.cat([basis, (rest / length)[None]])
    # Not all devices have float64.
    value, weights = (each.to(start.dtype).to(start.device) for each in (value, weights))
    vector = weights @ basis
    vector = vector / vector.norm()
    residual = (product(vector) - value * vector).norm()
    return value, vector, residual, len(basis) + 1


def _extend_tridiagonal(small: Tensor, along: Tensor) -> Tensor:
    """The projection of the Hessian on one more vector: a row and the same column, tridiagonal up to rounding."""
    along = along.cpu().double()
    result = torch.diag(along[-1:].repeat(len(along)))
    result[:-1, :-1] = small
    result[-1, :-1] = result[:-1, -1] = along[:-1]
    return result


def _split_by_parameter(vector: Tensor, names: list[str], like: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = vector.split([like[name].numel() for name in names])
    return {name: part.view_as(like[name]).to(like[name].dtype) for name, part in zip(names, parts, strict=True)}
