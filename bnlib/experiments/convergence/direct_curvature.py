r"""Compare the sharpness of the objective with that of the Lagrangian at fixed statistics and adjoints.

``stability_map`` and ``causes_of_failures`` refute the ratio $\eta/\alpha$: the largest rate that trains hardly depends
on alpha, momentum 0.9 does not lower it, and it falls with depth. This is what one would expect if a single step were
too long. Within a step Full Normalization cannot move its estimates. So the step sees the curvature
$\partial_w^2\mathcal L$ at fixed $(u,\psi)$, where BN, whose statistics move with the weights, sees that of J. A step
of length $\eta$ is stable below $2(1+m)/\lambda$, where $\lambda$ is the largest eigenvalue and m the momentum.

Written down before this measurement, after the map: at weights that have taken 100 steps, $\lambda$ of the Lagrangian
is larger than that of J in each network; $2/\lambda$ is within a factor 3 of the largest rate that trains with SGD in
batches of 64 at the floors 0.03 and more, for each depth; and for the convolutional network of chapter 5 it lies below
the rate 0.1 at which Full Normalization fails, while that of J lies above it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import BatchNorm, FullNorm, datasets, probes
from bnlib.experiments.convergence import lagrangian, stability_map
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp, small_cnn
from bnlib.samplers import shuffled


def _fully_connected(depth: int, norm: Callable[..., nn.Module], seed: int) -> nn.Sequential:
    return mlp((64, *[stability_map.WIDTH] * depth, 10), norm, seed=seed)


NETWORKS = {f"{depth} layer{'s' * (depth > 1)}": partial(_fully_connected, depth) for depth in stability_map.DEPTHS}
NETWORKS["convolutional"] = lambda norm, seed: small_cnn(norm=norm, seed=seed)
STEPS, LEARNING_RATE, BATCH_SIZE, EVERY_NTH = (0, 100, 400), 0.1, 64, 6


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each network after each number of training steps."""
    return {cell: range(3) for cell in itertools.product(NETWORKS, STEPS)}


def measure(network: str, steps: int, *, seed: int, device: str) -> dict[str, Any]:
    """Train with BN, take the weights into a network with FullNorm, and compute curvatures on every sixth image.

    Returns:
        the largest eigenvalues of the Hessians over the weights: ``direct``, of the Lagrangian at the exact statistics
        and adjoints, and ``objective``, of J.
    """
    data = datasets.load("digits").to(device)
    trained = NETWORKS[network](BatchNorm, seed).to(device)
    optimiser = torch.optim.SGD(trained.parameters(), lr=LEARNING_RATE)
    for index in itertools.islice(shuffled(data.train_y.cpu(), BATCH_SIZE, seed), steps):
        optimiser.zero_grad()
        F.cross_entropy(trained(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    full, few = NETWORKS[network](FullNorm, seed).to(device), (data.train_x[::EVERY_NTH], data.train_y[::EVERY_NTH])
    full.load_state_dict(trained.state_dict())
    found = lagrangian.exact(full, few)
    losses = {
        "direct": lambda model: lagrangian.lagrangian(model, _named(model), few, found.statistics, found.adjoints),
        "objective": lambda model: lagrangian.objective(model, _named(model), few),
    }
    return {name: float(probes.sharpness(full, loss, tolerance=1e-2).value) for name, loss in losses.items()}


def _named(model: nn.Module) -> dict:
    return dict(model.named_parameters())


EXPERIMENT = Measurement(
    name="convergence.direct_curvature",
    question="How sharp is the loss for a step within which the statistics and the adjoints cannot move?",
    source="the stability map of chapter 12",
    axes=("network", "steps"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


def largest_stable_rates(network: str, steps: int, name: str) -> np.ndarray:
    """Return 2 over the curvature ``"direct"`` or ``"objective"``, one number per seed."""
    return 2 / load()[network, steps][name]


def rows(steps: int = 100) -> list[dict]:
    """Return both curvatures after so many steps, and 2 over each, medians over seeds, a row per network."""
    found = []
    for network in NETWORKS:
        direct, objective = (float(np.median(load()[network, steps][name])) for name in ("direct", "objective"))
        found.append(
            {
                "network": network,
                ("curvature", "of J"): round(objective),
                ("curvature", "of the Lagrangian"): round(direct),
                ("2 / curvature", "of J"): f"{2 / objective:.2g}",
                ("2 / curvature", "of the Lagrangian"): f"{2 / direct:.2g}",
            }
        )
    return found
