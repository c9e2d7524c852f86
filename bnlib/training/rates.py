"""The steps of an optimiser for one model, or for a stack of models that have learning rates of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnlib.arguments import check_kind
from bnlib.training.optimisers import (
    OptimiserMaker,
    class_of,
    step_is_elementwise,
    step_is_proportional_to_gradient,
    step_is_proportional_to_rate,
)
from bnlib.training.settings import check_step


class Steps:
    """An optimiser whose steps have one learning rate for each model.

    The optimiser itself has one rate. If the rates differ, each model's gradients are multiplied by its rate where that
    is the same; else the optimiser steps with the largest rate, and each model keeps the share of its change that its
    own rate has of the largest.

    Arguments:
        model: the model, or a ``Stack`` with one model per learning rate.
        optimiser: as in ``training.iterate``.
        lrs: the learning rates.

    Raises:
        TypeError: if ``optimiser`` does not return an optimiser.
        ValueError: if the optimiser's steps need a closure; for several models, if it is one of PyTorch's that is not
            elementwise, or if the rates differ and it is not known that its steps are proportional to them.

    Example:
        >>> from bnlib.training.rates import Steps
        >>> model = nn.Linear(1, 1, bias=False)
        >>> both, before = stacked.stack([model, model]), model.weight.item()
        >>> both(torch.ones(2, 1, 1)).sum().backward()
        >>> Steps(both, torch.optim.Adam, [0.1, 0.2]).step()  # the first step of Adam has the size of the rate
        >>> [round(before - each.weight.item(), 1) for each in both.unstack()]
        [0.1, 0.2]
    """

    def __init__(self, model: nn.Module, optimiser: OptimiserMaker, lrs: Sequence[float]) -> None:
        mixed = len(set(lrs)) > 1
        _check_many(optimiser, lrs, mixed)
        scales_gradients = mixed and step_is_proportional_to_gradient(optimiser)
        self.lr = 1.0 if scales_gradients else max(lrs)
        self.optimiser = optimiser(model.parameters(), lr=self.lr)
        check_kind("optimiser(parameters, lr=...)", self.optimiser, Optimizer, "an optimiser of torch.optim")
        check_step(self.optimiser)
        self.trained: list[Tensor] = []
        self.shares: list[Tensor] = []
        if mixed:
            each = torch.tensor([lr / self.lr for lr in lrs], dtype=torch.float64, device="cpu")
            shares = model.broadcast_to_parameters(each)
            pairs = [pair for pair in zip(model.parameters(), shares, strict=True) if pair[0].requires_grad]
            self.trained, self.shares = map(list, zip(*pairs, strict=True))
        # The parameters before the step, unless it is the gradients that are multiplied.
        self.before = [] if scales_gradients else [value.detach().clone() for value in self.trained]

    def zero_grad(self) -> None:
        """Forget the gradients; to set them to 0 and to add to them takes longer."""
        self.optimiser.zero_grad()

    @torch.no_grad()
    def step(self, factor: float | None = None) -> None:
        """Do one step, with the learning rates times ``factor`` if it is given."""
        if factor is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr * factor
        if self.shares and not self.before:
            moved = [(each.grad, rate) for each, rate in zip(self.trained, self.shares, strict=True)]
            torch._foreach_mul_(*map(list, zip(*[pair for pair in moved if pair[0] is not None], strict=True)))
        self.optimiser.step()
        if self.before:
            torch._foreach_lerp_(self.before, self.trained, self.shares)
            torch._foreach_copy_(self.trained, self.before)


def _check_many(optimiser: OptimiserMaker, lrs: Sequence[float], mixed: bool) -> None:
    """Raise a ValueError if models must not be trained as one with this optimiser and these rates."""
    made = class_of(optimiser)
    is_of_pytorch = getattr(made, "__module__", "").startswith("torch.optim")
    if len(lrs) > 1 and is_of_pytorch and not step_is_elementwise(optimiser):
        raise ValueError(
            "optimiser must move each weight by itself where models are trained as one, as SGD and Adam do, got "
            f"{made.__name__}; train such models one after another"
        )
    if mixed and not step_is_proportional_to_rate(optimiser):
        raise ValueError(
            "lrs must be equal unless the optimiser's steps are proportional to the learning rate, as those of SGD and "
            f"Adam are, got {list(lrs)}"
        )
