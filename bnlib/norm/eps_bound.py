"""Keep what a model computes when ``eps``, which was added to the variance, becomes its lower bound, or the reverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bnlib.norm.full_norm import FullNorm
from bnlib.norm.replacement import remembered

Pairs = Iterable[tuple[nn.Module, nn.Module]]


def scale_change(layer: nn.Module, new: nn.Module) -> Tensor | None:
    """Return by how much more the new layer would divide each channel in eval mode, or None if by the same.

    FullNorm divides by sqrt(max(running_var, eps)), the other layers by sqrt(running_var + eps).

    Returns:
        A float64 tensor of shape (C,), 1 where the running variance is of no use.
    """
    if isinstance(layer, FullNorm) == isinstance(new, FullNorm):
        return None
    change = (_used_variance(new, layer.running_var) / _used_variance(layer, layer.running_var)).sqrt()
    return torch.where(change.isfinite() & (change > 0), change, 1.0)


def keep_function(pairs: Pairs, model: nn.Module) -> None:
    """Change the weights of new layers so that the model computes the same in eval mode as with the old ones.

    The running variance is changed where the weight cannot be: where there is none, where another layer has it too, and
    where ``model`` is the old layer itself. A conversion that undoes the one before, with nothing trained in between,
    restores the exact values.

    Arguments:
        pairs: the old and the new layers, which have the same weights.
        model: the model that holds the old layers.
    """
    owners = Counter(id(value) for module in model.modules() for value in module._parameters.values())
    for layer, new in pairs:
        change = None if layer.running_var is None or layer.running_var.is_meta else scale_change(layer, new)
        if change is None:
            continue
        weight = layer.weight
        fixed = weight is None or layer is model or owners[id(weight)] > 1 or weight.is_inference()
        before = {"running_var": layer.running_var.clone()} | ({} if fixed else {"weight": weight.detach().clone()})
        values = _values_before(layer, new)
        if values is None or values.keys() != before.keys():
            if fixed:
                used = _used_variance(layer, layer.running_var)
                values = {"running_var": used if isinstance(new, FullNorm) else (used - new.eps).clamp(min=0)}
            else:
                values = {"weight": weight * change}
        for name, value in values.items():
            if name == "weight":
                with torch.no_grad():
                    weight.copy_(value)
            else:
                new.running_var = value.to(new.running_var)
        if conversion := remembered(new):
            conversion.changed = {name: (old, getattr(new, name).detach().clone()) for name, old in before.items()}


def _used_variance(layer: nn.Module, variance: Tensor) -> Tensor:
    """Return the variance by whose square root the layer divides in eval mode."""
    return variance.double().clamp(min=layer.eps) if isinstance(layer, FullNorm) else variance.double() + layer.eps


def _values_before(layer: nn.Module, new: nn.Module) -> dict[str, Tensor] | None:
    """Return the values before the conversion that made ``layer``, or None if ``new`` does not just undo it."""
    conversion = remembered(layer)
    if conversion is None or conversion.eps != (new.eps, layer.eps) or not conversion.changed:
        return None
    for name, (_, after) in conversion.changed.items():
        now = getattr(layer, name)
        if now is None or now.dtype != after.dtype or not torch.equal(now, after.to(now.device)):
            return None
    return {name: before for name, (before, _) in conversion.changed.items()}
