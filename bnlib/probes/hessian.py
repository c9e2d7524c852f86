"""Compute the sharpness: the largest eigenvalue of the Hessian of a loss, by the Lanczos method."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bnlib.arguments import check_integer, check_number, check_usual
from bnlib.probes.stateless import Loss, as_leaves, gradients_at, scalar_loss, stateless_call, trainable_names
from bnlib.probes.tensors import at_least_float32, flattened, gradients_or_zeros, norm

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Sharpness:
    r"""The largest eigenvalue of a Hessian H and its eigenvector v.

    Attributes:
        value: $\lambda$, the largest eigenvalue (with its sign, so not the largest in absolute value), 0-dimensional.
        eigenvector: v by parameter name; all its values together have norm 1.
        residual: $\|H v - \lambda v\|$, 0-dimensional. H has an eigenvalue no farther from ``value`` than this.
        converged: whether the residual is within the tolerance. If not, ``value`` is a lower bound of the largest
            eigenvalue, or the products were not those of a symmetric matrix.
        hessian_products: number of Hessian-vector products that were computed.
        weight_norm: $\|w\|$ of the parameters, 0-dimensional.
    """

    value: Tensor
    eigenvector: dict[str, Tensor]
    residual: Tensor
    converged: bool
    hessian_products: int
    weight_norm: Tensor

    @property
    def scale_free(self) -> Tensor:
        r"""The sharpness that does not depend on the scale of the weights, $\lambda \|w\|^2$.

        It does not change when weights that a norm follows are multiplied by a number.
        """
        return self.value * self.weight_norm**2


def sharpness(
    model: nn.Module,
    loss: Loss,
    parameter_names: Iterable[str] | None = None,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
    finite_difference: float | None = None,
) -> Sharpness:
    r"""Compute the largest eigenvalue of the Hessian of the loss, in the current mode of the model.

    Gradient descent on a quadratic is stable for learning rates below 2 divided by this eigenvalue. The Lanczos method
    keeps all its vectors orthogonal. It needs far fewer Hessian-vector products than power iteration, and it finds the
    largest eigenvalue even if a negative eigenvalue is larger in absolute value. It needs the memory of one vector of
    parameters per iteration. The model is not changed.

    Arguments:
        model: any network.
        loss: takes the model and returns the loss on a batch as a single number.
        parameter_names: the parameters whose block of the Hessian is used; by default all trainable parameters.
        tolerance: stop when the residual is at most this fraction of $|\lambda|$. The relative error of $\lambda$ is
            about the square of the tolerance. In float32 a tolerance below 1e-5 is hardly reachable.
        max_iterations: largest number of Lanczos iterations.
        seed: seed of the first vector, which is the same on all devices.
        finite_difference: compute Hessian-vector products from the gradients at $w \pm h v$, where h is this fraction
            of $\|w\|$, instead of by automatic differentiation. Use it for layers that cannot be differentiated twice,
            or whose second derivative is wrong, such as PyTorch's weight norm (PyTorch 2.13). About 1e-3 is good in
            float32 (kinks of ReLU within the distance h then count as curvature), and 1e-6 in float64.

    Raises:
        ValueError: ``tolerance`` or ``finite_difference`` is not positive, or ``max_iterations`` is below 1;
            ``parameter_names`` names a parameter that does not exist or is not trainable; the loss is not a single
            number.
        RuntimeError: the model has a layer that cannot be differentiated twice, and ``finite_difference`` is None. One
            such layer is ``FullNorm`` in train mode: its gradient is an estimate that is not the gradient of any
            function. With ``finite_difference`` the products are derivatives of that estimate and not symmetric, so
            check ``converged``. In eval mode ``FullNorm`` has a Hessian like any other layer.

    Source: Lanczos 1950; for networks Cohen et al. 2021 (https://arxiv.org/abs/2103.00065).

    Example:
        A quadratic with the eigenvalues 2 and 10, on which gradient descent is stable below 2/10:

        >>> model = nn.Linear(2, 1, bias=False)
        >>> found = probes.sharpness(model, lambda model: (model.weight.square() * torch.tensor([1.0, 5.0])).sum())
        >>> round(found.value.item(), 3), round(2 / found.value.item(), 3), found.converged
        (10.0, 0.2, True)
    """
    check_usual(model=model, loss=loss, parameter_names=parameter_names, seed=seed)
    check_number("tolerance", tolerance, above=0)
    check_integer("max_iterations", max_iterations)
    if finite_difference is not None:
        check_number("finite_difference", finite_difference, above=0)
    old, parameter_names = dict(model.named_parameters()), trainable_names(model, parameter_names)
    weights = flattened(old[name] for name in parameter_names)
    start = torch.randn(len(weights), generator=torch.Generator().manual_seed(int(seed))).to(weights)
    search = partial(_lanczos, start=start / start.norm(), tolerance=tolerance, max_iterations=max_iterations)
    if finite_difference is None:
        value, vector, residual, products = _search_by_autograd(model, loss, parameter_names, search)
    else:
        value, vector, residual, products = search(
            _hessian_product_by_finite_differences(model, loss, parameter_names, finite_difference * weights.norm())
        )
    converged = bool(residual <= tolerance * value.abs())
    return Sharpness(
        value, _split_by_parameter(vector, parameter_names, old), residual, converged, products, norm(weights)
    )


def _search_by_autograd(
    model: nn.Module, loss: Loss, parameter_names: list[str], search: Callable[[Product], tuple]
) -> tuple:
    """Call ``search`` with exact Hessian-vector products, which all use the same graph of the gradient."""
    leaves = as_leaves(model, dict(model.named_parameters()))
    wanted = [leaves[name] for name in parameter_names]

    def within(model: nn.Module) -> tuple:
        with torch.enable_grad():
            first = torch.autograd.grad(scalar_loss(loss(model)), wanted, create_graph=True, materialize_grads=True)
            gradient = torch.cat([at_least_float32(each).flatten() for each in first])

        def product(vector: Tensor) -> Tensor:
            # The gradient of a linear loss does not depend on the parameters.
            if not gradient.requires_grad:
                return torch.zeros_like(vector)
            return flattened(torch.autograd.grad(gradient, wanted, vector, retain_graph=True, materialize_grads=True))

        return search(product)

    return stateless_call(model, within, leaves)


def _hessian_product_by_finite_differences(
    model: nn.Module, loss: Loss, parameter_names: list[str], step: Tensor
) -> Product:
    """Return a function that approximates Hessian-vector products by a central difference of gradients."""
    old = dict(model.named_parameters())

    def gradient(move: Tensor) -> Tensor:
        moves = _split_by_parameter(move, parameter_names, old)
        moved = {name: old[name].detach() + moves[name] for name in parameter_names}
        return flattened(
            gradients_or_zeros(gradients_at(model, loss, old | moved, parameter_names), parameter_names, old)
        )

    return lambda vector: (gradient(step * vector) - gradient(-step * vector)) / (2 * step)


def _lanczos(
    product: Product, start: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return the largest eigenvalue, its eigenvector, the residual and the number of Hessian-vector products."""
    basis, small = start[None], torch.zeros(0, 0, dtype=torch.float64)
    for _ in range(min(max_iterations, len(start))):
        image = product(basis[-1])
        # Orthogonalise twice: after once, rounding errors make known eigenvalues appear again.
        along = basis @ image
        rest = image - along @ basis
        rest = rest - (basis @ rest) @ basis
        small = _extend_tridiagonal(small, along)
        if not (small.isfinite().all() and rest.isfinite().all()):
            nan = torch.full_like(start, torch.nan)
            return nan[0], nan, nan[0], len(basis)
        values, vectors = torch.linalg.eigh(small)
        value, weights, length = values[-1], vectors[:, -1], norm(rest)
        # Half of the tolerance, because the reported residual has additional rounding errors.
        if length.cpu() * weights[-1].abs() <= tolerance / 2 * value.abs() or len(basis) == min(
            max_iterations, len(start)
        ):
            break
        basis = torch.cat([basis, (rest / length)[None]])
    # Some devices have no float64.
    value, weights = (each.to(start.dtype).to(start.device) for each in (value, weights))
    vector = weights @ basis
    vector = vector / vector.norm()
    residual = norm(product(vector) - value * vector)
    return value, vector, residual, len(basis) + 1


def _extend_tridiagonal(small: Tensor, along: Tensor) -> Tensor:
    """Add a row and a column for one more vector to the projected Hessian, which is tridiagonal up to rounding."""
    along = along.cpu().double()
    result = torch.diag(along[-1:].repeat(len(along)))
    result[:-1, :-1] = small
    result[-1, :-1] = result[:-1, -1] = along[:-1]
    return result


def _split_by_parameter(vector: Tensor, parameter_names: list[str], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split a vector of all parameters into tensors by parameter name."""
    parts = vector.split([like[name].numel() for name in parameter_names])
    return {
        name: part.view_as(like[name]).to(like[name].dtype) for name, part in zip(parameter_names, parts, strict=True)
    }
