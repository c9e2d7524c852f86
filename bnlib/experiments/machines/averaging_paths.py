"""The paths of the workers' weights in federated averaging: how far they drift apart between two averages."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from bnlib.experiments.machines import local_steps
from bnlib.stacked import Stack

LEARNING_RATE, STEPS, ROUND = 0.3, 64, 16


class Paths(NamedTuple):
    """What federated averaging does with the weights of five workers that have two digits each.

    Attributes:
        workers: rounds of 16 local steps, projected on a plane: (3 rounds, 17 points, 5 workers, 2 coordinates); the
            first point of a round is the average from which all workers start.
        averages: the averages, (4, 2), the initial weights first.
        distances: by number of local steps: mean distance of the workers' weights from their average after each step,
            (64,), in units of the norm of all weights at the start.
        moved: by number of local steps: distance of the average from the start after 64 steps, in the same units.
    """

    workers: Tensor
    averages: Tensor
    distances: dict[int, Tensor]
    moved: dict[int, float]


@cache
def weight_paths(seed: int = 0) -> Paths:
    """Train networks with BN by federated averaging at rate 0.3, with 1, 4, 16 and 64 local steps.

    The plane is that of the two largest principal components of the workers' weights in the first three rounds of 16
    steps. Labels are assigned at skew 1.

    Arguments:
        seed: seed of the shards, of the batches and of the network.
    """
    weights: list[Tensor] = []
    settings = [(steps, LEARNING_RATE) for steps in local_steps.LOCAL_STEPS]

    def keep(model: Stack) -> None:
        copies = len(settings) * local_steps.WORKERS
        flat = torch.cat([parameter.detach().reshape(copies, -1) for parameter in model.parameters()], dim=1)
        weights.append(flat.unflatten(0, (len(settings), local_steps.WORKERS)).clone())

    points = local_steps.STEPS // STEPS
    next(local_steps.simulate("BN", "labels", 1.0, seed, settings, points=points, watch=keep))
    start = weights[0][0, 0]
    trained = torch.stack(weights[1:], dim=1)  # (settings, steps, workers, weights)
    away = (trained - trained.mean(2, keepdim=True)).norm(dim=3).mean(2) / start.norm()
    moved = (trained[:, -1].mean(1) - start).norm(dim=1) / start.norm()
    rounds = trained[settings.index((ROUND, LEARNING_RATE)), : 3 * ROUND].unflatten(0, (3, ROUND))
    averages = torch.cat([start[None], rounds[:, -1].mean(1)])
    begin = averages[:-1, None, None].expand(-1, 1, local_steps.WORKERS, -1)
    paths = torch.cat([begin, rounds], dim=1)
    center = paths.flatten(0, 2).mean(0)
    plane = torch.linalg.svd(paths.flatten(0, 2) - center, full_matrices=False)[2][:2].T
    return Paths(
        (paths - center) @ plane,
        (averages - center) @ plane,
        {steps: away[number] for number, (steps, _) in enumerate(settings)},
        {steps: moved[number].item() for number, (steps, _) in enumerate(settings)},
    )
