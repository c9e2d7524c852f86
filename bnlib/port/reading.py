"""Read batch norms of any framework: ``read`` for one, ``norms`` for all of a network."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from bnlib.arguments import Names, check_kind, check_number, check_one_of, shown
from bnlib.port.conventions import FRAMEWORKS, Convention, convention
from bnlib.port.found import Found, is_numbered
from bnlib.port.sources import opened
from bnlib.port.state import ARRAYS, BatchNormState


class Norms(Names[BatchNormState]):
    """Hold the batch norms of a source by name.

    ``ordered`` says whether they are in the order of the network.
    """

    ordered: bool = True


def norms(
    source: Any,
    framework: str,
    *,
    eps: float | None = None,
    momentum: float | None = None,
    without: str | None = None,
    debias: bool = True,
) -> Norms:
    """Return all batch norms of a source by name.

    A source that holds weights alone, such as ``.weights.h5``, does not say eps and momentum. Pass the numbers of the
    training, as the framework calls them; what you leave out is taken to be the framework's default, and the notes of
    the state say so.

    Arguments:
        source: one of

            - a path: ``.npz``, ``.safetensors``, PyTorch's ``.pt`` or ``.pth`` (opened with ``weights_only=True``),
              Keras's ``.weights.h5``, ``.keras`` and ``.h5``, Flax's ``.msgpack``, ``.onnx``, or a folder that Orbax
              wrote; a pickle, such as Paddle's ``.pdparams``, is not opened, and the error says how to convert it;
            - a mapping of arrays, flat or nested: a ``state_dict``, the variables of flax.linen with ``params`` and
              ``batch_stats``, an ``nnx.State``;
            - a pair: ``(model, state)`` of Equinox, ``(params, state)`` of Haiku; for an ``.eqx`` file, which has no
              names, ``(path, (model, state))`` with the structure that was saved;
            - a model in memory: of PyTorch, Keras or flax.nnx, an ONNX ``ModelProto``;
            - a list of arrays in the framework's order, as ``layer.get_weights()`` of Keras returns them.
        framework: one of ``FRAMEWORKS``, whose conventions the numbers follow.
        eps: of layers whose source does not say it.
        momentum: the same, as the framework has it, such as 0.99 in Keras. Haiku calls it ``decay_rate``.
        without: ``"weight"`` or ``"bias"``, where a layer without one of them has three unnamed arrays.
        debias: for averages that are corrected for their start (Equinox, Haiku), take the corrected ones, which give
            the same outputs; False takes the raw ones.

    Returns:
        ``BatchNormState`` by the name of its layer. ``ordered`` is False if the source sorts its layers by name, as
        safetensors and JAX do.

    Raises:
        ModuleNotFoundError: if a package that the file needs is missing; the message names the extra.
        FileNotFoundError: if there is no such file.
        TypeError: if an argument is of a wrong type.
        ValueError: if the source has no batch norm, or contradicts an argument.

    Example:
        >>> stem = {"gamma": [1.0], "beta": [0.0], "moving_mean": [2.0], "moving_variance": [4.0]}
        >>> for name, state in port.norms({"stem": stem}, "keras", momentum=0.9).items():
        ...     print(name, state.momentum, state.eps, state.notes)
        stem 0.1 0.001 ('epsilon is not in the source: 0.001 was taken, the default of Keras 3',)
    """
    check_one_of("framework", framework, FRAMEWORKS)
    if eps is not None:
        check_number("eps", eps, at_least=0)
    if momentum is not None:
        check_number("momentum", momentum, at_least=0, at_most=1)
    if without is not None:
        check_one_of("without", without, ("weight", "bias"))
    check_kind("debias", debias, bool, "True or False")
    found = opened(source, framework, momentum, without, debias)
    if not found.found:
        raise ValueError(_nothing(source, framework, found.keys))
    names = [each.name for each in found.found]
    twice = [each for each in names if names.count(each) > 1]
    if twice:
        raise ValueError(f"source must have one batch norm per name, got {len(twice)} named {twice[0]!r}")
    settings = {"eps": eps, "momentum": momentum}
    states = Norms((each.name, _state(each, convention(framework), settings)) for each in found.found)
    states.ordered = found.ordered or is_numbered(list(states))
    return states


def read(source: Any, framework: str, name: str | None = None, **settings: Any) -> BatchNormState:
    """Return the batch norm of a source, or the one of this name.

    Arguments:
        source: as in ``norms``.
        framework: as in ``norms``.
        name: name of the layer; it may be left out if the source holds a single batch norm.
        settings: ``eps``, ``momentum``, ``without`` and ``debias``, as in ``norms``.

    Raises:
        KeyError: if no batch norm has this name.
        ValueError: if the source holds several batch norms and ``name`` is None; and as in ``norms``.

    Example:
        >>> state = port.read(nn.BatchNorm2d(3, momentum=0.2), "torch")
        >>> state.momentum, state.running_var.tolist()
        (0.2, [1.0, 1.0, 1.0])
    """
    states = norms(source, framework, **settings)
    if name is not None:
        return states[name]
    if len(states) > 1:
        raise ValueError(f"source must hold one batch norm, got {len(states)}: pass name=, one of {_some(states)}")
    return next(iter(states.values()))


def _some(names: Any, limit: int = 8) -> str:
    shown_names = ", ".join(map(repr, list(names)[:limit]))
    return shown_names + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _nothing(source: Any, framework: str, keys: list[str]) -> str:
    names = f"; its arrays are {_some(keys)}" if keys else ""
    folded = " (an export for inference folds batch norm into the layer before it)" if framework == "onnx" else ""
    text = f"source must hold a running mean and a running variance under names of {framework}{folded}"
    leaves = {re.split(r"[/.]", key)[-1] for key in keys}
    other = [each for each in FRAMEWORKS if convention(each).names.get("running_mean") in leaves]
    hint = f"; names like these are those of {', '.join(other)}" if other and framework not in other else ""
    return f"{text}, got {shown(source)}{names}{hint}"


def _state(found: Found, own: Convention, settings: dict[str, float | None]) -> BatchNormState:
    """Bring one layer into PyTorch's convention, with a note for each number that was not in the source."""
    notes = list(found.notes)
    values = {}
    for key, argument, default in (
        ("eps", own.eps_argument, own.eps),
        ("momentum", own.momentum_argument, own.momentum),
    ):
        values[key] = _setting(key, argument, default, found, settings[key], own, notes)
    arrays = {role: found.arrays.get(role) for role in ARRAYS}
    own_axis = found.facts.get("channel_axis", own.channel_axis)
    if not isinstance(own_axis, int):
        raise ValueError(
            f"layer {found.name} normalises over the axes {own_axis}; only one channel axis can be carried"
        )
    count = found.arrays.get("count")
    state = BatchNormState(
        **arrays,
        eps=values["eps"],
        momentum=own.weight_of_new(values["momentum"]),
        variance=found.facts.get("variance", own.variance),
        count=None if count is None else int(count),
        channel_axis=own_axis,
        framework=found.facts.get("framework", own.framework),
        name=found.name,
    )
    if not (np.isfinite(state.running_mean).all() and np.isfinite(state.running_var).all()):
        notes.append("the running statistics contain NaN or infinity; they were carried as they are")
    return replace(state, notes=tuple(notes))


def _setting(
    key: str,
    argument: str,
    default: float | None,
    found: Found,
    given: float | None,
    own: Convention,
    notes: list[str],
) -> float | None:
    """Return a number of the source, else the argument, else the framework's default."""
    if key in found.facts:
        known = found.facts[key]
        if given is not None and given != known:
            raise ValueError(f"{key} must be {known!r}, which the source says of layer {found.name!r}, got {given}")
        return known
    if given is not None:
        return given
    if default is None:
        raise ValueError(f"{key} must be given with {own.framework}, whose {argument} has no default, got None")
    notes.append(f"{argument} is not in the source: {default:g} was taken, the default of {own.title}")
    return default
