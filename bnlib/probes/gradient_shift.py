"""Measure internal covariate shift: how much a layer's gradient changes when the layers before it make their step.

This is the definition of Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 2.2.

The measurements do not change the training: parameters, buffers, gradients, modes and random number generators keep
their values. Hooks that others have registered on the model do run during the measurement.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnlib.arguments import check_kind, check_usual
from bnlib.probes.layer_parameters import gradients_and_call_order, group_parameters
from bnlib.probes.stateless import Loss, gradients_at
from bnlib.probes.tensors import flattened, gradients_or_zeros, norm

Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class LayerGradientShift:
    r"""How much the gradient of one layer changes when the earlier layers make their step.

    $G$ is the gradient before and $G'$ the gradient after the step of the earlier layers. All numbers are 0-dimensional
    tensors.

    Attributes:
        layer: name of the layer.
        gradient_norm: $\|G\|$.
        ics: the internal covariate shift $\|G - G'\|$; it grows with the scale of the loss.
        cosine: the cosine of the angle between $G$ and $G'$; nan if one of them is 0.
        step_ratio: the relative size of the layer's own step, $\|\Delta W\| / \|W\|$.
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
    model: nn.Module, loss: Loss, new_parameters: Mapping[str, Tensor], groups: Groups | None = None
) -> list[LayerGradientShift]:
    r"""Measure the internal covariate shift of each layer between two sets of parameters.

    $$G_i = \nabla_{W_i} L(W_1^t, \dots, W_d^t),\qquad
    G'_i = \nabla_{W_i} L(W_1^{t+1}, \dots, W_{i-1}^{t+1}, W_i^t, \dots, W_d^t)$$

    Both gradients are taken on the same batch, in the current mode of the model, from the same running statistics and
    random numbers (dropout masks). Only the layers before layer i have made their step. For the first layer $G' = G$.

    The shift grows with the size of the step, so compare networks at the same ``step_ratio``. The cost is that of d
    gradients.

    Arguments:
        model: the network with the parameters of step t.
        loss: takes the model and returns the loss on the batch as a single number.
        new_parameters: the parameters of step t+1 by name. Other entries, such as the buffers of a ``state_dict``, are
            ignored.
        groups: the parameter names of each layer, from the first layer to the last; by default the result of
            ``parameters_by_layer``. Parameters in no group keep their values of step t.

    Returns:
        One entry for each layer, from the first to the last.

    Raises:
        ValueError: a group is empty, or names a parameter that does not exist, is not trainable or is in two groups;
            ``new_parameters`` lacks a parameter or has it in another shape; the loss is not a single number; see also
            ``parameters_by_layer``.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 2.2.

    Example:
        The first layer has no earlier layers, so its shift is 0:

        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-1, 1, 9).view(3, 3) ** 3
        >>> new_parameters = models.mlp((3, 4, 2), bnlib.BatchNorm, seed=1).state_dict()
        >>> found = probes.internal_covariate_shift(model, lambda model: model(x).square().sum(), new_parameters)
        >>> [(each.layer, bool(each.ics > 0)) for each in found]
        [('1', False), ('4', True)]
    """
    check_usual(model=model, loss=loss)
    return _gradient_shifts(model, loss, new_parameters, groups, *gradients_and_call_order(model, loss))


def parameters_after_step(model: nn.Module, optimiser: Optimizer, loss: Loss) -> dict[str, Tensor]:
    """Return the parameters that the model would have after one optimiser step on this loss.

    The step is made by a copy of the optimiser; the model and the optimiser are not changed.

    Arguments:
        model: any network.
        optimiser: a ``torch.optim`` optimiser of the model's parameters whose ``step`` needs no closure.
        loss: takes the model and returns the loss on the batch as a single number.

    Returns:
        All parameters of the model by name.

    Raises:
        ValueError: the optimiser is that of another model; the loss is not a single number.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0]])
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> new = probes.parameters_after_step(model, optimiser, lambda model: model(torch.tensor([[2.0]])).sum())
        >>> round(new["weight"].item(), 3), model.weight.item()
        (0.8, 1.0)
    """
    check_usual(model=model, loss=loss)
    check_kind("optimiser", optimiser, Optimizer, "an optimiser of torch.optim")
    return _parameters_after_step(model, optimiser, gradients_and_call_order(model, loss)[0])


def internal_covariate_shift_of_step(
    model: nn.Module, optimiser: Optimizer, loss: Loss, groups: Groups | None = None
) -> list[LayerGradientShift]:
    """Measure the internal covariate shift that the next step of the optimiser would cause.

    This is ``internal_covariate_shift`` with the result of ``parameters_after_step``, at the cost of d gradients.

    Arguments:
        model, loss, groups: see ``internal_covariate_shift``.
        optimiser: see ``parameters_after_step``.

    Raises:
        ValueError: see ``internal_covariate_shift``.

    Example:
        >>> model, x, y = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.eye(3), torch.tensor([0, 1, 1])
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> loss = lambda model: F.cross_entropy(model(x), y)
        >>> found = probes.internal_covariate_shift_of_step(model, optimiser, loss)
        >>> [(each.layer, round(each.cosine.item(), 1)) for each in found]
        [('1', 1.0), ('4', 0.9)]
    """
    check_usual(model=model, loss=loss)
    check_kind("optimiser", optimiser, Optimizer, "an optimiser of torch.optim")
    gradients, called = gradients_and_call_order(model, loss)
    return _gradient_shifts(model, loss, _parameters_after_step(model, optimiser, gradients), groups, gradients, called)


def _gradient_shifts(model, loss, new_parameters, groups, gradients, called) -> list[LayerGradientShift]:
    groups = group_parameters(model, gradients, called) if groups is None else groups
    old = dict(model.named_parameters())
    _check_groups(groups, old, new_parameters)
    now, result = dict(old), []
    for position, (layer, names) in enumerate(groups.items()):
        before = flattened(gradients_or_zeros(gradients, names, old))
        changed = gradients_at(model, loss, now, names) if position else gradients
        after = flattened(gradients_or_zeros(changed, names, old))
        norm_before, norm_after = norm(before), norm(after)
        weights, moved = flattened(old[name] for name in names), flattened(new_parameters[name] for name in names)
        # Each gradient is normalised first, because the product of two small norms may be 0.
        cosine = torch.dot(before / norm_before, after / norm_after)
        ratio = norm(moved - weights) / norm(weights)
        result.append(LayerGradientShift(layer, norm_before, norm(before - after), cosine, ratio))
        now |= {name: new_parameters[name] for name in names}
    return result


def _check_groups(groups: Groups, old: Mapping[str, Tensor], new_parameters: Mapping[str, Tensor]) -> None:
    seen: dict[str, str] = {}
    for layer, names in groups.items():
        if not names:
            raise ValueError(f"groups must name at least one parameter for each layer, got none for {layer!r}")
        for name in names:
            if name not in old or not old[name].requires_grad:
                raise ValueError(f"groups must name trainable parameters of the model, got {name!r}")
            if name in seen:
                raise ValueError(f"groups must not share a parameter, got {name!r} in {seen[name]!r} and {layer!r}")
            if name not in new_parameters or new_parameters[name].shape != old[name].shape:
                got = f"shape {tuple(new_parameters[name].shape)}" if name in new_parameters else "none"
                raise ValueError(f"new_parameters must hold {name!r} of shape {tuple(old[name].shape)}, got {got}")
            seen[name] = layer


def _parameters_after_step(
    model: nn.Module, optimiser: Optimizer, gradients: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    twin, names = copy.deepcopy(optimiser), {value: name for name, value in model.named_parameters()}
    held = [value for group in optimiser.param_groups for value in group["params"]]
    if not any(value in names for value in held):
        raise ValueError("optimiser must hold parameters of the model, got an optimiser of other tensors")
    moved = {}
    for group, copied in zip(optimiser.param_groups, twin.param_groups, strict=True):
        for parameter, other in zip(group["params"], copied["params"], strict=True):
            name = names.get(parameter)
            if name in gradients:
                # Some optimisers write into the gradient, so they get a clone.
                other.grad, moved[name] = gradients[name].clone(), other
    twin.step()
    return {name: moved.get(name, value).detach().clone() for value, name in names.items()}
