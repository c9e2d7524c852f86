"""Find which parameters belong to which layer, and in which order the layers are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from bnlib.arguments import check_usual
from bnlib.probes.stateless import Loss, gradients_at


def parameters_by_layer(model: nn.Module, loss: Loss) -> dict[str, list[str]]:
    """Return the names of each layer's parameters, with the layers in the order in which ``loss`` first calls them.

    A layer is a module that owns trainable parameters. A module whose parameters are all vectors, such as the gamma and
    beta of a norm, counts as part of the layer before it. Parameters of a parametrisation
    (``torch.nn.utils.parametrize``) belong to the layer that is parametrised. Parameters that several layers share
    belong to the first of them. Parameters on which the loss does not depend are left out.

    Arguments:
        model: any network.
        loss: takes the model and returns the loss on a batch as a single number.

    Raises:
        ValueError: a module that owns parameters is never called itself (as in ``nn.MultiheadAttention``), so its
            position is unknown. Pass ``groups`` to ``internal_covariate_shift`` instead.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-1, 1, 9).view(3, 3) ** 3
        >>> probes.parameters_by_layer(model, lambda model: model(x).square().sum())
        {'1': ['1.weight', '1.bias', '2.weight', '2.bias'], '4': ['4.weight', '4.bias']}
    """
    check_usual(model=model, loss=loss)
    return group_parameters(model, *gradients_and_call_order(model, loss))


def gradients_and_call_order(model: nn.Module, loss: Loss) -> tuple[dict[str, Tensor], list[str]]:
    """Return the gradient of each parameter that the loss depends on, and the layers in the order of their calls."""
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
    """Assign each parameter that has a gradient to a layer; see ``parameters_by_layer``."""
    owned = {
        layer: [name for name in names if name in gradients]
        for layer, names in trainable_parameters_by_module(model).items()
    }
    owned = {layer: names for layer, names in owned.items() if names}
    if lost := owned.keys() - called:
        raise ValueError(
            f"groups must be given for this model, got None: the modules {', '.join(sorted(lost))} own parameters but "
            "are never called themselves, so their position is unknown"
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
    """Return the names of the trainable parameters of each module that owns some.

    Parameters of a parametrisation belong to the module that is parametrised.
    """
    found: dict[str, list[str]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            path = name.split(".")[:-1]
            path = path[: path.index("parametrizations")] if "parametrizations" in path else path
            found.setdefault(".".join(path), []).append(name)
    return found
