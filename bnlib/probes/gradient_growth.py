"""Measure how the gradient of a loss grows or shrinks from the last layer to the first.

Source: Yang et al. 2019 (https://arxiv.org/abs/1902.08129). Their theory is about the gradient at the outputs of the
linear layers; the gradient of the weights grows at the same rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.arguments import check_usual
from bnlib.probes.layer_parameters import trainable_parameters_by_module
from bnlib.probes.stateless import Loss, as_leaves, scalar_loss, stateless_call
from bnlib.probes.tensors import at_least_float32, number_sequence


@dataclass(frozen=True, eq=False)
class LayerGradientNorms:
    r"""Norms of the weights and gradients of one layer, as 0-dimensional tensors.

    Attributes:
        layer: name of the layer.
        weight_norm: $\|w\|$ of the layer's trainable parameters with two dimensions or more.
        gradient_norm: $\|\nabla_w L\|$ with respect to these parameters.
        output_gradient_norm: norm of the gradient with respect to the layer's output; over all outputs together, if the
            model calls the layer several times.
    """

    layer: str
    weight_norm: Tensor
    gradient_norm: Tensor
    output_gradient_norm: Tensor

    @property
    def gradient_norm_on_sphere(self) -> Tensor:
        r"""$\|w\|\,\|\nabla_w L\|$, the norm of the gradient at $w / \|w\|$ if a norm follows the layer."""
        return self.weight_norm * self.gradient_norm


def gradient_norms_by_layer(
    model: nn.Module, loss: Loss, layers: Iterable[str] | None = None
) -> list[LayerGradientNorms]:
    """Measure the norm of the gradient in every layer, in the current mode of the model.

    The model is not changed.

    Arguments:
        model: any network.
        loss: takes the model and returns the loss on a batch as a single number.
        layers: names of submodules that own trainable weights; by default all that own some with two dimensions or
            more, such as linear layers, convolutions and LSTMs.

    Returns:
        One entry for each layer that was called, in the order of the first calls. The gradient is 0 where the loss does
        not depend on it, or where it underflows.

    Raises:
        ValueError: ``layers`` has a name without trainable weights; the model has no such layer; the loss calls none of
            the layers, or is not a single number.

    Example:
        In a network with BN and ReLU the gradient grows by 1.21 per layer in theory:

        >>> model, x, y = models.deep_stack(40, 64, bnlib.BatchNorm), torch.eye(50), torch.arange(50)
        >>> found = probes.gradient_norms_by_layer(model, lambda model: F.cross_entropy(model(x), y))
        >>> round(probes.growth_per_layer([each.output_gradient_norm for each in found[:-1]]), 1)
        1.2
    """
    check_usual(model=model, loss=loss, layers=layers)
    weights = _weight_names_by_layer(model, layers)
    leaves = as_leaves(model, dict(model.named_parameters()))
    outputs: dict[str, list[Tensor]] = {}

    def within(model: nn.Module) -> tuple[Tensor | None, ...]:
        with torch.enable_grad(), _record_outputs(model.get_submodule, weights, outputs):
            value = scalar_loss(loss(model), differentiable=False)
            wanted = [leaves[name] for layer in outputs for name in weights[layer]]
            wanted += [each for kept in outputs.values() for each in kept]
            if not wanted:
                raise ValueError(f"loss must call one of the layers {', '.join(weights)}, got a loss that calls none")
            return torch.autograd.grad(scalar_loss(value), wanted, allow_unused=True)

    found = iter(stateless_call(model, within, leaves))
    at_weights = {layer: [next(found) for _ in weights[layer]] for layer in outputs}
    at_outputs = {layer: [next(found) for _ in kept] for layer, kept in outputs.items()}
    like = next(iter(leaves.values()))
    return [
        LayerGradientNorms(
            layer,
            _total_norm([leaves[name] for name in weights[layer]], like),
            _total_norm(at_weights[layer], like),
            _total_norm(at_outputs[layer], like),
        )
        for layer in outputs
    ]


def growth_per_layer(norms: Sequence[float] | Tensor | np.ndarray) -> float:
    """Return the factor by which numbers grow from each layer to the layer before it.

    The factor is the exponential of the slope of a least-squares line through the logarithms.

    Arguments:
        norms: positive numbers, from the first layer to the last.

    Returns:
        A factor above 1 if the numbers are largest in the first layers.

    Raises:
        ValueError: there are fewer than two numbers, or one is not positive and finite.

    Example:
        >>> round(probes.growth_per_layer([8.0, 4.0, 2.0, 1.0]), 6)
        2.0
    """
    values = number_sequence("norms", norms).numpy()
    if len(values) < 2 or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"norms must be two positive numbers or more, got {values.tolist()}")
    return float(np.exp(-np.polyfit(np.arange(len(values)), np.log(values), 1)[0]))


def _weight_names_by_layer(model: nn.Module, layers: Iterable[str] | None) -> dict[str, list[str]]:
    """Return the names of the trainable parameters with two dimensions or more, by the submodule that owns them."""
    matrices = {name for name, value in model.named_parameters() if value.dim() > 1}
    owned = trainable_parameters_by_module(model)
    found = {layer: [name for name in names if name in matrices] for layer, names in owned.items()}
    found = {layer: names for layer, names in found.items() if names}
    if layers is not None:
        wanted = list(layers)
        for layer in wanted:
            if layer not in found:
                raise ValueError(
                    f"layers must name submodules with trainable weights, such as {list(found)}, got {layer!r}"
                )
        found = {layer: names for layer, names in found.items() if layer in wanted}
    if not found:
        raise ValueError("model must have a layer with trainable weights of two dimensions or more, got none")
    return found


@contextmanager
def _record_outputs(submodule, layers: Iterable[str], outputs: dict[str, list[Tensor]]) -> Iterator[None]:
    """Record the outputs of ``layers`` and pass on copies, because later layers may write into their input."""

    def hook(layer: nn.Module, args: tuple, output: object, *, name: str) -> object:
        first = output[0] if isinstance(output, tuple) else output
        outputs.setdefault(name, [])
        if not first.requires_grad:
            return None
        outputs[name].append(first)
        return (first.clone(), *output[1:]) if isinstance(output, tuple) else first.clone()

    hooks = [
        submodule(layer).register_forward_hook(lambda *passed, name=layer: hook(*passed, name=name)) for layer in layers
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _total_norm(tensors: Iterable[Tensor | None], like: Tensor) -> Tensor:
    """Return the norm of all values together; they are scaled first, because the square of a small number may be 0."""
    values = [at_least_float32(each.detach()).flatten() for each in tensors if each is not None]
    if not values:
        return at_least_float32(like.new_zeros(()))
    joined = torch.cat(values)
    largest = joined.abs().max()
    return largest * (joined / largest).norm() if 0 < largest < torch.inf else joined.norm()
