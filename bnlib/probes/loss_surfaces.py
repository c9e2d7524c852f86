"""DOC loss_surfaces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlib.probes.stateless import Loss, loss_at, trainable_names
from bnlib.probes.tensors import number_sequence


@dataclass(frozen=True, eq=False)
class LossSurface:
    """The loss on a grid of D dimensions.

    Attributes:
        steps: for each dimension its coordinates.
        losses: shape (K_1, ..., K_D), as many as there are coordinates.
    """

    steps: tuple[Tensor, ...]
    losses: Tensor


def filter_normalised_direction(model: nn.Module, seed: int, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    r"""A random direction in which each filter is as long as that of the weights.

    Slices along it can be compared between networks whose weights have different scales. A filter is what belongs to
    one index of the first dimension: all weights into a unit, or into a channel of a convolution. Parameters of one
    dimension or none (biases, gamma, beta) get 0, as in the paper.

    Arguments:
        model: any network.
        seed: of the numbers drawn, which are the same on all devices.
        names: of the parameters that get a direction; by default all that are trained.

    Returns:
        By name, in the shapes of the parameters.

    Raises:
        ValueError: ``names`` has one that does not exist or is not trained.

    Source: Li et al. 2018 (https://arxiv.org/abs/1712.09913), section 4.

    Example:
        >>> model = models.mlp((3, 4, 2))
        >>> direction = probes.filter_normalised_direction(model, seed=0)
        >>> torch.allclose(direction["1.weight"].norm(dim=1), model[1].weight.norm(dim=1), atol=1e-5)
        True
    """
    old, generator, direction = dict(model.named_parameters()), torch.Generator().manual_seed(seed), {}
    for name in trainable_names(model, names):
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
    steps: Sequence[Sequence[float] | Tensor],
) -> LossSurface:
    r"""The loss at $w + \sum_d s_d\,\delta_d$, for all combinations of the steps.

    Arguments:
        model, loss: see ``landscape_along_gradient``.
        directions: D of them, by names of parameters, such as ``filter_normalised_direction``; two for a surface.
            Parameters that one does not name it does not move.
        steps: for each direction its steps $s_d$.

    Raises:
        ValueError: no direction, one that names a parameter that does not exist or has it in another shape; not as many
            ``steps`` as directions, or none for one; a loss that is no single number.

    Source: Li et al. 2018 (https://arxiv.org/abs/1712.09913), section 2.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0]])
        >>> direction = {"weight": torch.tensor([[1.0]])}
        >>> probes.loss_surface(model, lambda model: model.weight.square(), [direction], [[-1.0, 0.0, 1.0]]).losses
        tensor([0., 1., 4.])
    """
    old = {name: value.detach() for name, value in model.named_parameters()}
    if not directions:
        raise ValueError("directions must hold at least one, got none")
    if len(steps) != len(directions):
        raise ValueError(f"steps must have an entry for each of {len(directions)} directions, got {len(steps)}")
    for direction in directions:
        for name, value in direction.items():
            if name not in old or old[name].shape != value.shape:
                shape = f"shape {tuple(old[name].shape)}" if name in old else "no such parameter"
                raise ValueError(
                    f"directions must fit the parameters of the model, got {name!r} of shape {tuple(value.shape)} "
                    f"for {shape}"
                )
    rows, losses = [number_sequence("steps", each) for each in steps], []
    for coordinates in itertools.product(*(row.tolist() for row in rows)):
        moved = dict(old)
        for step, direction in zip(coordinates, directions, strict=True):
            moved |= {name: moved[name] + step * value.to(moved[name]) for name, value in direction.items()}
        losses.append(loss_at(model, loss, moved))
    return LossSurface(tuple(rows), torch.stack(losses).view([len(row) for row in rows]))
