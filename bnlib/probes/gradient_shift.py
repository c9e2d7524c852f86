"""DOC gradient_shift."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnlib.probes.layer_parameters import gradients_and_call_order, group_parameters
from bnlib.probes.stateless import Loss, gradients_at
from bnlib.probes.tensors import flattened, gradients_or_zeros

Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class LayerGradientShift:
    r"""What the steps of the earlier layers do to the gradient of one layer; 0-dimensional tensors.

    With $G$ the gradient before and $G'$ after them:

    Attributes:
        layer: its name.
        gradient_norm: $\|G\|$.
        ics: $\|G - G'\|$, the internal covariate shift; it grows with the scale of the loss.
        cosine: of the angle between $G$ and $G'$; nan if one of them is 0.
        step_ratio: size of the layer's own step, $\|\Delta W\| / \|W\|$.
    """

    layer: str
    gradient_norm: Tensor
    ics: Tensor
    cosine: Tensor
    step_ratio: Tensor

    @property
    def relative_ics(self) -> Tensor:
        r"""$\|G - G'\| / \|G\|$, which does not depend on the scale of the loss."""
        return self.ics / self.gradient_norm


def internal_covariate_shift(
    model: nn.Module, loss: Loss, new: Mapping[str, Tensor], groups: Groups | None = None
) -> list[LayerGradientShift]:
    r"""Internal covariate shift of each layer as Santurkar et al. define it.

    $$G_i = \nabla_{W_i} L(W_1^t, \dots, W_k^t),\qquad
    G'_i = \nabla_{W_i} L(W_1^{t+1}, \dots, W_{i-1}^{t+1}, W_i^t, \dots, W_k^t)$$

    on one batch, so that only the layers before have made their step. Both are taken in the mode the model is in, from
    the same running statistics and random numbers (Dropout's masks). For the first layer $G' = G$.

    It grows with the step: compare networks next to ``step_ratio``. The cost is that of k gradients.

    Arguments:
        model: at step t.
        loss: function of the model that returns the loss on the batch, a single number.
        new: parameters at step t+1 by name; buffers among them, as in a ``state_dict``, are not looked at.
        groups: names of the parameters of each layer, from the input on; by default ``parameters_by_layer``. Parameters in
            none of them stay where they are.

    Returns:
        One entry for each layer, in order.

    Raises:
        ValueError: a group that is empty or has a parameter that does not exist, is not trained or is in two groups;
            a parameter that ``new`` lacks or has in another shape; a loss that is no single number; and what
            ``parameters_by_layer`` raises.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 2.2.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-1, 1, 9).view(3, 3) ** 3
        >>> new = models.mlp((3, 4, 2), bnlib.BatchNorm, seed=1).state_dict()
        >>> found = probes.internal_covariate_shift(model, lambda model: model(x).square().sum(), new)
        >>> [(each.layer, bool(each.ics > 0)) for each in found]  # nothing comes before the first layer
        [('1', False), ('4', True)]
    """
    return _gradient_shifts(model, loss, new, groups, *gradients_and_call_order(model, loss))


def parameters_after_step(model: nn.Module, optimiser: Optimizer, loss: Loss) -> dict[str, Tensor]:
    """What the parameters would be after a step of the optimiser, which is copied, on this loss alone.

    Arguments:
        model, loss: see ``internal_covariate_shift``.
        optimiser: of ``torch.optim``, of parameters of the model, with a step that needs no closure.

    Raises:
        ValueError: the loss is no single number.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0]])
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> new = probes.parameters_after_step(model, optimiser, lambda model: model(torch.tensor([[2.0]])).sum())
        >>> round(new["weight"].item(), 3), model.weight.item()
        (0.8, 1.0)
    """
    return _parameters_after_step(model, optimiser, gradients_and_call_order(model, loss)[0])


def internal_covariate_shift_of_step(
    model: nn.Module, optimiser: Optimizer, loss: Loss, groups: Groups | None = None
) -> list[LayerGradientShift]:
    """``internal_covariate_shift`` for the step that the optimiser is about to make; at the cost of k gradients, too.

    Arguments:
        model, loss, groups: see ``internal_covariate_shift``.
        optimiser: see ``parameters_after_step``.

    Raises:
        ValueError: as ``internal_covariate_shift``.

    Example:
        >>> model, x, y = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.eye(3), torch.tensor([0, 1, 1])
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> found = probes.internal_covariate_shift_of_step(model, optimiser, lambda model: F.cross_entropy(model(x), y))
        >>> [(each.layer, round(each.cosine.item(), 1)) for each in found]
        [('1', 1.0), ('4', 0.9)]
    """
    gradients, called = gradients_and_call_order(model, loss)
    return _gradient_shifts(model, loss, _parameters_after_step(model, optimiser, gradients), groups, gradients, called)


def _gradient_shifts(model, loss, new, groups, gradients, called) -> list[LayerGradientShift]:
    groups = group_parameters(model, gradients, called) if groups is None else groups
    old = dict(model.named_parameters())
    _check_groups(groups, old, new)
    now, result = dict(old), []
    for position, (layer, names) in enumerate(groups.items()):
        before = flattened(gradients_or_zeros(gradients, names, old))
        changed = gradients_at(model, loss, now, names) if position else gradients
        after = flattened(gradients_or_zeros(changed, names, old))
        norm, norm_after = before.norm(), after.norm()
        weights, moved = flattened(old[name] for name in names), flattened(new[name] for name in names)
        # Each divided by its own norm first: the product of two small norms may be 0.
        cosine = torch.dot(before / norm, after / norm_after)
        ratio = (moved - weights).norm() / weights.norm()
        result.append(LayerGradientShift(layer, norm, (before - after).norm(), cosine, ratio))
        now |= {name: new[name] for name in names}
    return result


def _check_groups(groups: Groups, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    seen: dict[str, str] = {}
    for layer, names in groups.items():
        if not names:
            raise ValueError(f"groups must name at least one parameter for each layer, got none for {layer!r}")
        for name in names:
            if name not in old or not old[name].requires_grad:
                raise ValueError(f"groups must name parameters of the model that are trained, got {name!r}")
            if name in seen:
                raise ValueError(f"groups must not share a parameter, got {name!r} in {seen[name]!r} and {layer!r}")
            if name not in new or new[name].shape != old[name].shape:
                got = f"shape {tuple(new[name].shape)}" if name in new else "none"
                raise ValueError(f"new must hold {name!r} of shape {tuple(old[name].shape)}, got {got}")
            seen[name] = layer


def _parameters_after_step(
    model: nn.Module, optimiser: Optimizer, gradients: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    twin, names = copy.deepcopy(optimiser), {value: name for name, value in model.named_parameters()}
    moved = {}
    for group, copied in zip(optimiser.param_groups, twin.param_groups, strict=True):
        for parameter, other in zip(group["params"], copied["params"], strict=True):
            name = names.get(parameter)
            if name in gradients:
                # A clone: some steps write into the gradient.
                other.grad, moved[name] = gradients[name].clone(), other
    twin.step()
    return {name: moved.get(name, value).detach().clone() for value, name in names.items()}
