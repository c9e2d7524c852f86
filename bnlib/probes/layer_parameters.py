"""DOC layer_parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from bnlib.probes.stateless import Loss, gradients_at


def parameters_by_layer(model: nn.Module, loss: Loss) -> dict[str, list[str]]:
    """Which parameters make up which layer, in the order in which ``loss`` first calls the layers.

    A layer is a module that owns parameters to be trained. One whose parameters are vectors, such as the gamma and beta
    of a norm, belongs to the layer before it, if there is one. A parametrisation belongs to its layer, parameters that
    layers share belong to the first. What the loss does not depend on is left out.

    Arguments:
        model, loss: see ``internal_covariate_shift``.

    Raises:
        ValueError: the place of a parameter is unknown, because its module is not called itself (as in
            ``nn.MultiheadAttention``); then name the groups.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-1, 1, 9).view(3, 3) ** 3
        >>> probes.parameters_by_layer(model, lambda model: model(x).square().sum())
        {'1': ['1.weight', '1.bias', '2.weight', '2.bias'], '4': ['4.weight', '4.bias']}
    """
    return group_parameters(model, *gradients_and_call_order(model, loss))


def gradients_and_call_order(model: nn.Module, loss: Loss) -> tuple[dict[str, Tensor], list[str]]:
    """The gradient of each parameter that the loss depends on, and the layers in the order of their first call."""
    called: dict[str, None] = {}
    hooks = [
        model.get_submodule(layer).register_forward_pre_hook(lambda *_, layer=layer: called.setdefault(layer))
        for layer in trainable_parameters_by_module(model)
    ]
    parameters = dict(model.named_parameters())
    try:
        wanted = [name for name, value in parameters.items() if value.requires_grad]
        return gradients_at(model, loss, parameters, wanted), list(called)
    finally:
        for hook in hooks:
            hook.remove()


def group_parameters(model: nn.Module, gradients: Mapping[str, Tensor], called: Sequence[str]) -> dict[str, list[str]]:
    owned = {
        layer: [name for name in names if name in gradients]
        for layer, names in trainable_parameters_by_module(model).items()
    }
    owned = {layer: names for layer, names in owned.items() if names}
    if lost := owned.keys() - called:
        raise ValueError(
            f"groups must be given, for nothing shows where the parameters of {', '.join(sorted(lost))} come in: these "
            "modules are not called themselves; got None"
        )
    groups: dict[str, list[str]] = {}
    for layer in called:
        names = owned.get(layer, [])
        if groups and all(gradients[name].dim() < 2 for name in names):
            groups[next(reversed(groups))] += names
        elif names:
            groups[layer] = names
    return groups


def trainable_parameters_by_module(model: nn.Module) -> dict[str, list[str]]:
    """Names of the trained parameters of each module that owns some; those of a parametrisation are its layer's."""
    found: dict[str, list[str]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            path = name.split(".")[:-1]
            path = path[: path.index("parametrizations")] if "parametrizations" in path else path
            found.setdefault(".".join(path), []).append(name)
    return found
