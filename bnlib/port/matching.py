"""Find which batch norm of a source belongs to which layer of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bnlib.arguments import check_kind, check_one_of, shown
from bnlib.port.state import BatchNormState


def pairs(
    states: Mapping[str, BatchNormState], targets: Mapping[str, int], names: Mapping[str, str] | None, ordered: bool
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return names of the source with names of the target, and notes on how they were matched.

    Arguments:
        states: what is carried.
        targets: number of channels of each target.
        names: the target's name by the source's; None matches equal names, else by order.
        ordered: whether the targets are in the order of the network.

    Raises:
        ValueError: if a layer is missing or left over, the channels differ, or the order is not known.
    """
    if names is not None:
        matched, notes = _by_names(states, targets, names), []
    elif states.keys() == targets.keys():
        matched, notes = [(name, name) for name in states], []
    else:
        matched, notes = _by_order(states, targets, ordered)
    for source, target in matched:
        if states[source].channels != targets[target]:
            raise ValueError(
                f"layer {target} must get {targets[target]} channels, got {states[source].channels} from "
                f"{source or 'the state'}; pass names= if they do not belong together"
            )
    return matched, notes


def check_states(states: object) -> dict[str, BatchNormState]:
    """Return states by name, from a mapping or a single state.

    Raises:
        TypeError: if it is neither.
    """
    what = "a BatchNormState or a mapping of names to them"
    check_kind("states", states, (BatchNormState, Mapping), what)
    if isinstance(states, BatchNormState):
        return {states.name: states}
    for name, state in states.items():
        if not isinstance(state, BatchNormState):
            raise TypeError(f"states must be {what}, got {shown(state)} for {name!r}")
    return dict(states)


def known_order(states: object) -> bool:
    """Return whether states come in the order of the network: a mapping that a user made does."""
    return getattr(states, "ordered", True)


def _by_names(
    states: Mapping[str, BatchNormState], targets: Mapping[str, int], names: Mapping[str, str]
) -> list[tuple[str, str]]:
    if not isinstance(names, Mapping):
        raise TypeError(f"names must be a mapping of names in the source to names in the network, got {shown(names)}")
    for source, target in names.items():
        check_one_of("names", source, states)
        check_one_of("names", target, targets)
    twice = [target for target in names.values() if list(names.values()).count(target) > 1]
    if twice:
        raise ValueError(f"names must give each layer to one source, got {twice[0]!r} {twice.count(twice[0])} times")
    _check_complete([*states], [*targets], [*names], [*names.values()])
    return list(names.items())


def _by_order(
    states: Mapping[str, BatchNormState], targets: Mapping[str, int], ordered: bool
) -> tuple[list[tuple[str, str]], list[str]]:
    if len(states) != len(targets):
        common = [name for name in states if name in targets]
        _check_complete([*states], [*targets], common, common)
    channels = [state.channels for state in states.values()]
    if not ordered and len(states) > 1:
        if len({*channels}) < len(channels) or sorted(channels) != sorted(targets.values()):
            raise ValueError(
                "the source sorts its layers by name, so their order in the network is not known, and several have "
                f"the same number of channels: pass names=, a mapping of {', '.join(map(repr, states))} to "
                f"{', '.join(map(repr, targets))}{_in_memory(states)}"
            )
        by_channels = {count: name for name, count in targets.items()}
        matched = [(name, by_channels[state.channels]) for name, state in states.items()]
        return matched, [_told("by their numbers of channels, which all differ", matched)]
    matched = list(zip(states, targets, strict=True))
    single = len(matched) == 1
    return matched, [] if single else [_told("by their order", matched)]


def _in_memory(states: Mapping[str, BatchNormState]) -> str:
    """Return what else helps where a model in memory knows the order that its arrays do not have."""
    known = {"keras", "nnx"} & {state.framework for state in states.values()}
    return "; or read the model itself instead of its arrays, which knows its order" if known else ""


def _told(how: str, matched: list[tuple[str, str]]) -> str:
    listed = ", ".join(f"{source} to {target}" for source, target in matched)
    return f"the layers were matched {how}: {listed}"


def _check_complete(states: list[str], targets: list[str], used: list[str], filled: list[str]) -> None:
    missing, extra = ([each for each in all_ if each not in some] for all_, some in ((targets, filled), (states, used)))
    if missing or extra:
        parts = [
            f"{what}: {', '.join(each or '(no name)' for each in names)}"
            for what, names in (("layers of the network without a state", missing), ("states without a layer", extra))
            if names
        ]
        raise ValueError(
            f"states must fit the network, got {len(states)} for {len(targets)} layers; {'; '.join(parts)}"
        )


def grouped(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Return each note once, with the names of all layers that have it."""
    layers: dict[str, list[str]] = {}
    for layer, note in notes:
        layers.setdefault(note, []).append(layer)
    return [f"{', '.join(names)}: {note}" if any(names) else note for note, names in layers.items()]
