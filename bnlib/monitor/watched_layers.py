"""Which layers of a model a monitor watches, and which of them run inside of compiled code."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from bnlib.arguments import shown
from bnlib.doctor.norm_layers import is_norm_layer
from bnlib.monitor.hooks import is_compiled, is_compiled_in_place


def layers_to_watch(model: nn.Module) -> tuple[dict[str, nn.Module], set[str]]:
    """Return the norm layers of a model by name, and the names of those that run inside of a compiled module.

    Raises:
        ValueError: see ``Monitor``.
    """
    if is_compiled_in_place(model):
        raise ValueError(
            "model must be compiled by torch.compile, because model.compile() hides its calls from the monitor, got "
            f"{shown(model)}: use model = torch.compile(model), and then Monitor(model)"
        )
    layers, hidden, compiled = {}, set(), []
    for name, module in model.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(
                f"model must have initialised parameters, but its layer {name!r} is lazy, got {shown(model)}: run a "
                "batch first"
            )
        if is_compiled(module):
            compiled.append(module)
        if is_norm_layer(module):
            plain = name.replace("_orig_mod.", "")
            layers[plain] = module
    inside = {id(part) for each in compiled for part in each.modules()}
    hidden = {name for name, layer in layers.items() if id(layer) in inside}
    if not layers:
        raise ValueError(
            "model must have a layer with batch statistics, such as BatchNorm, or one with running_mean and "
            f"running_var, got {type(model).__name__} with {sum(1 for _ in model.modules())} modules and none of these"
        )
    return layers, hidden
