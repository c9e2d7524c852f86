"""DOC gradient_growth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.probes.stateless import Loss, as_leaves, scalar_loss, stateless_call
from bnlib.probes.tensors import at_least_float32


@dataclass(frozen=True, eq=False)
class LayerGradientNorms:
    r"""The gradient at one layer; 0-dimensional tensors.

    Attributes:
        layer: its name.
        weight_norm: $\|w\|$ of its trained parameters of two dimensions or more.
        gradient_norm: of the gradient at these.
        output_gradient_norm: of the gradient at the layer's output; of all outputs, if it was called several times.
    """

    layer: str
    weight_norm: Tensor
    gradient_norm: Tensor
    output_gradient_norm: Tensor

    @property
    def spherical(self) -> Tensor:
        r"""$\|w\|\,\|\nabla_w L\|$, the gradient at $w / \|w\|$ if a norm follows the layer."""
        return self.weight_norm * self.gradient_norm


def gradient_norms_by_layer(
    model: nn.Module, loss: Loss, layers: Iterable[str] | None = None
) -> list[LayerGradientNorms]:
    """Measure the gradient of every layer, in the mode the model is in; nothing is changed.

    Arguments:
        model: any network.
        loss: function of the model that returns the loss on a batch, a single number.
        layers: names of submodules that have trained weights of their own; by default all that have some of two
            dimensions or more, such as linear layers, convolutions and LSTMs.

    Returns:
        One entry for each layer that was called, in the order of the first calls. The gradient is 0 where the loss does
        not depend on it, or where it is too small for the data type.

    Raises:
        ValueError: ``layers`` has a name without trained weights; no layer has any, or none was called; a loss that is
            no single number.

    Example:
        The gradient grows from each layer with BN and ReLU to the one below, in theory by 1.21:

        >>> model, x, y = models.deep_stack(40, 64, bnlib.BatchNorm), torch.eye(50), torch.arange(50)
        >>> found = probes.gradient_norms_by_layer(model, lambda model: F.cross_entropy(model(x), y))
        >>> round(probes.growth_per_layer([each.output_gradient_norm for each in found[:-1]]), 1)
        1.2
    """
    weights = _weight_names_by_layer(model, layers)
    leaves = as_leaves(model, dict(model.named_parameters()))
    outputs: dict[str, list[Tensor]] = {}

    def within(model: nn.Module) -> tuple[Tensor | None, ...]:
        with torch.enable_grad(), _record_outputs(model.get_submodule, weights, outputs):
            value = scalar_loss(loss(model))
            wanted = [leaves[name] for layer in outputs for name in weights[layer]]
            wanted += [each for kept in outputs.values() for each in kept]
            if not wanted:
                raise ValueError(f"loss must call one of the layers {', '.join(weights)}, got one that calls none")
            return torch.autograd.grad(value, wanted, allow_unused=True)

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
    """The factor by which numbers grow from one layer to the one below: the slope of their logarithm, by least squares.

    Arguments:
        norms: from the first layer to the last, all positive.

    Returns:
        Above 1 if the first layer has the largest.

    Raises:
        ValueError: fewer than two numbers, or one that is not positive and finite.

    Example:
        >>> round(probes.growth_per_layer([8.0, 4.0, 2.0, 1.0]), 6)
        2.0
    """
    values = np.array([float(each) for each in norms])
    if len(values) < 2 or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"norms must be two positive numbers or more, got {values.tolist()}")
    return float(np.exp(-np.polyfit(np.arange(len(values)), np.log(values), 1)[0]))


def _weight_names_by_layer(model: nn.Module, layers: Iterable[str] | None) -> dict[str, list[str]]:
    """Names of the trained parameters of two dimensions or more, by the submodule that has them."""
    found: dict[str, list[str]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad and value.dim() > 1:
            path = name.split(".")[:-1]
            path = path[: path.index("parametrizations")] if "parametrizations" in path else path
            found.setdefault(".".join(path), []).append(name)
    if layers is not None:
        wanted = list(layers)
        for layer in wanted:
            if layer not in found:
                raise ValueError(
                    f"layers must name submodules with trained weights, such as {list(found)}, got {layer!r}"
                )
        found = {layer: names for layer, names in found.items() if layer in wanted}
    if not found:
        raise ValueError("model must have a layer with trained weights of two dimensions or more, got none")
    return found


@contextmanager
def _record_outputs(submodule, layers: Iterable[str], outputs: dict[str, list[Tensor]]) -> Iterator[None]:
    """Collect the outputs of ``layers``, and hand on a copy, for what follows may write into it."""

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
    """Of all values together, each divided by the largest first: the square of a small number may be 0."""
    values = [at_least_float32(each.detach()).flatten() for each in tensors if each is not None]
    if not values:
        return at_least_float32(like.new_zeros(()))
    joined = torch.cat(values)
    largest = joined.abs().max()
    return largest * (joined / largest).norm() if 0 < largest < torch.inf else joined.norm()
