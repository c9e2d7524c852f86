"""Evaluate the loss on a grid of points around the parameters.

The model is not changed. All passes are made in the current mode of the model, from the same buffers and random numbers
(dropout masks). An overflow gives inf or nan, not an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlib.arguments import check_kind, check_usual
from bnlib.probes.stateless import Loss, loss_at, trainable_names
from bnlib.probes.tensors import number_sequence


@dataclass(frozen=True, eq=False)
class LossSurface:
    """The loss on a grid with D dimensions.

    Attributes:
        coordinates: for each dimension its K_d coordinates, each of shape (K_d,).
        losses: shape (K_1, ..., K_D).
    """

    coordinates: tuple[Tensor, ...]
    losses: Tensor


def filter_normalised_direction(
    model: nn.Module, seed: int, parameter_names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Draw a random direction in parameter space whose filters have the same norms as the filters of the weights.

    Slices of the loss along such directions can be compared between networks whose weights have different scales. A
    filter is one index of the first dimension: all weights that lead to one unit or to one output channel of a
    convolution. Parameters with fewer than two dimensions (biases, gamma, beta) get 0, as in the paper.

    Arguments:
        model: any network.
        seed: seed of the random numbers, which are the same on all devices.
        parameter_names: the parameters that get a direction; by default all trainable parameters.

    Returns:
        The direction by parameter name, in the shapes of the parameters.

    Raises:
        ValueError: ``parameter_names`` names a parameter that does not exist or is not trainable.

    Source: Li et al. 2018 (https://arxiv.org/abs/1712.09913), section 4.

    Example:
        >>> model = models.mlp((3, 4, 2))
        >>> direction = probes.filter_normalised_direction(model, seed=0)
        >>> torch.allclose(direction["1.weight"].norm(dim=1), model[1].weight.norm(dim=1), atol=1e-5)
        True
    """
    check_usual(model=model, seed=seed, parameter_names=parameter_names)
    old, generator, direction = dict(model.named_parameters()), torch.Generator().manual_seed(int(seed)), {}
    for name in trainable_names(model, parameter_names):
        weight = old[name].detach()
        if weight.dim() < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        drawn, flat = drawn.flatten(1), weight.flatten(1)
        drawn = drawn * (flat.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True))
        direction[name] = drawn.view_as(weight)
    return direction


def loss_surface(
    model: nn.Module,
    loss: Loss,
    directions: Sequence[Mapping[str, Tensor]],
    coordinates: Sequence[Sequence[float] | Tensor],
) -> LossSurface:
    r"""Evaluate the loss at $w + \sum_d s_d\,\delta_d$ for all combinations of the coordinates $s_d$.

    Arguments:
        model: any network.
        loss: takes the model and returns the loss on a batch as a single number.
        directions: D directions $\delta_d$ by parameter name, such as results of ``filter_normalised_direction``. Two
            directions give a surface. A direction does not move the parameters that it does not name.
        coordinates: for each direction its coordinates $s_d$.

    Raises:
        ValueError: ``directions`` is empty; a direction names a parameter that does not exist, or has another shape
            than the parameter; ``coordinates`` does not have one nonempty entry for each direction; the loss is not a
            single number.

    Source: Li et al. 2018 (https://arxiv.org/abs/1712.09913), section 2.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0]])
        >>> direction = {"weight": torch.tensor([[1.0]])}
        >>> probes.loss_surface(model, lambda model: model.weight.square(), [direction], [[-1.0, 0.0, 1.0]]).losses
        tensor([0., 1., 4.])
    """
    check_usual(model=model, loss=loss)
    for name, value in (("directions", directions), ("coordinates", coordinates)):
        check_kind(name, value, (list, tuple), "a list with one entry for each dimension")
    old = {name: value.detach() for name, value in model.named_parameters()}
    if not directions:
        raise ValueError("directions must hold at least one, got none")
    if len(coordinates) != len(directions):
        raise ValueError(
            f"coordinates must have an entry for each of {len(directions)} directions, got {len(coordinates)}"
        )
    for direction in directions:
        for name, value in direction.items():
            if name not in old or old[name].shape != value.shape:
                shape = f"shape {tuple(old[name].shape)}" if name in old else "no such parameter"
                raise ValueError(
                    f"directions must fit the parameters of the model, got {name!r} of shape {tuple(value.shape)} "
                    f"for {shape}"
                )
    rows, losses = [number_sequence("coordinates", each) for each in coordinates], []
    for point in itertools.product(*(row.tolist() for row in rows)):
        moved = dict(old)
        for step, direction in zip(point, directions, strict=True):
            moved |= {name: moved[name] + step * value.to(moved[name]) for name, value in direction.items()}
        losses.append(loss_at(model, loss, moved))
    return LossSurface(tuple(rows), torch.stack(losses).view([len(row) for row in rows]))
