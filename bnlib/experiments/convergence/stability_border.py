r"""Predict from a linear recursion at which rate the lag of Full Normalization's estimates makes training unstable.

On average the oracle "running" moves the weights along $-\eta\,\partial_w\mathcal L$, and the tracked numbers towards
their targets, $\alpha\,\partial_\psi\mathcal L$ for the statistics u and $\alpha\,\partial_u\mathcal L$ for the
adjoints $\psi$ (``lagrangian``). In units of $1/\alpha$ steps, and for small $\alpha$, a small perturbation of
$(w,u,\psi)$ therefore changes with the matrix

$$\begin{pmatrix}-\kappa\,\mathcal L_{ww}&-\kappa\,\mathcal L_{wu}&-\kappa\,\mathcal L_{w\psi}\\
\mathcal L_{\psi w}&\mathcal L_{\psi u}&0\\\mathcal L_{uw}&\mathcal L_{uu}&\mathcal L_{u\psi}\end{pmatrix},
\qquad\kappa=\frac{\eta}{(1-m)\,\alpha},$$

where m is the momentum, if $1-m$ is larger than $\alpha$. For the toy problem of chapter 5 its eigenvalues have
positive real parts above $\kappa=2/J''\approx0.68$. In a network even exact gradient descent has directions that grow,
with the rate $-\kappa$ times the lowest curvature of J. So ``borders`` returns the ratio at which perturbations grow by
a factor e per $1/\alpha$ steps faster than those of gradient descent: then the estimates cannot follow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, FullNorm, datasets
from bnlib.experiments.convergence import lagrangian
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled

WIDTH, DEPTHS = 10, (1, 3)
STEPS = (0, 10, 100, 400)
"""Training steps after which the border is computed, of 64 samples each, with BN at ``LEARNING_RATE``."""
LEARNING_RATE, BATCH_SIZE, EVERY_NTH = 0.1, 64, 6
RATIOS = np.array([0.03, 0.1, 0.3, 1.0, 3.0])


def network_after(depth: int, steps: int, seed: int) -> nn.Sequential:
    """Train with BN and return the same weights in a network with FullNorm layers, in float64."""
    sizes = (64, *[WIDTH] * depth, 10)
    data, network = datasets.load("digits"), mlp(sizes, BatchNorm, seed=seed)
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    for index in itertools.islice(shuffled(data.train_y, BATCH_SIZE, seed), steps):
        optimiser.zero_grad()
        F.cross_entropy(network(data.train_x[index].flatten(1)), data.train_y[index]).backward()
        optimiser.step()
    full = mlp(sizes, partial(FullNorm, dtype=torch.float64), seed=seed).double()
    full.load_state_dict({name: value.double() for name, value in network.state_dict().items()}, strict=False)
    return full


class Linearised(NamedTuple):
    """The Hessian of the Lagrangian at the exact statistics and adjoints of a network.

    Attributes:
        hessian: over (w, u, psi).
        weights, tracked: how many numbers w has, and how many each of u and psi.
    """

    hessian: np.ndarray
    weights: int
    tracked: int

    def matrix(self, ratio: float) -> np.ndarray:
        """Return the matrix of the recursion at the ratio kappa."""
        of_weights, of_u, of_adjoints = np.split(self.hessian, (self.weights, self.weights + self.tracked))
        return np.concatenate((-ratio * of_weights, of_adjoints, of_u))

    def growth(self, ratio: float) -> float:
        """Return the largest real part of the eigenvalues of the recursion: growth per 1/alpha steps."""
        return float(np.linalg.eigvals(self.matrix(ratio)).real.max())

    def of_objective(self) -> np.ndarray:
        """Return the Hessian of J, for which statistics and adjoints follow w at once."""
        direct, across = self.hessian[: self.weights, : self.weights], self.hessian[self.weights :, : self.weights]
        return direct - across.T @ np.linalg.solve(self.hessian[self.weights :, self.weights :], across)


def linearise(network: nn.Sequential, data: tuple[Tensor, Tensor]) -> Linearised:
    """Compute the Hessian of the Lagrangian over ``data``, a pair of samples and labels."""
    found = lagrangian.exact(network, data)
    params = {name: value.detach() for name, value in network.named_parameters()}
    shapes = [each.shape for each in (*params.values(), *found.statistics, *found.adjoints)]
    sizes, layers = [shape.numel() for shape in shapes], len(found.statistics)

    def value(point: Tensor) -> Tensor:
        parts = [each.view(shape) for each, shape in zip(point.split(sizes), shapes, strict=True)]
        named, tracked = dict(zip(params, parts, strict=False)), parts[len(params) :]
        return lagrangian.lagrangian(network, named, data, tracked[:layers], tracked[layers:])

    point = torch.cat([lagrangian.flat(each) for each in (params, found.statistics, found.adjoints)])
    hessian = torch.func.jacrev(torch.func.grad(value), chunk_size=64)(point).numpy()
    weights = sum(sizes[: len(params)])
    return Linearised(hessian, weights, (len(point) - weights) // 2)


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each depth after each number of training steps."""
    return {cell: range(3) for cell in itertools.product(DEPTHS, STEPS)}


def measure(depth: int, steps: int, *, seed: int, device: str) -> dict[str, Any]:
    r"""Linearise the recursion around a network on every ``EVERY_NTH`` training image, always on the CPU.

    Returns:
        ``growth``, the rate of the fastest growing perturbation per $1/\alpha$ steps at each of ``RATIOS``, and
        ``lowest_curvature`` of J.
    """
    data = datasets.load("digits")
    few = data.train_x.flatten(1)[::EVERY_NTH].double(), data.train_y[::EVERY_NTH]
    found = linearise(network_after(depth, steps, seed), few)
    lowest = float(np.linalg.eigvalsh(found.of_objective())[0])
    return {"growth": [found.growth(ratio) for ratio in RATIOS.tolist()], "lowest_curvature": lowest}


EXPERIMENT = Measurement(
    name="convergence.stability_border",
    question="Above which ratio of learning rate and alpha can the estimates of Full Normalization not follow?",
    source="chapter 5, the border of the toy problem, and the Lagrangian of chapter 12",
    axes=("depth", "steps"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def excess(values: dict[str, np.ndarray]) -> np.ndarray:
    """Return by how much perturbations grow faster than those of gradient descent, (seeds, RATIOS)."""
    return values["growth"] + RATIOS * np.minimum(values["lowest_curvature"], 0)[:, None]


def borders(values: dict[str, np.ndarray]) -> np.ndarray:
    """Return the ratio at which ``excess`` is 1, interpolated between powers, per seed; infinity above ``RATIOS``."""
    found = []
    for row in excess(values):
        above = np.flatnonzero(row > 1)
        if not above.size:
            found.append(np.inf)
        elif above[0] == 0:
            found.append(RATIOS[0])
        else:
            part = slice(above[0] - 1, above[0] + 1)
            found.append(float(np.exp(np.interp(1, row[part], np.log(RATIOS[part])))))
    return np.array(found)
