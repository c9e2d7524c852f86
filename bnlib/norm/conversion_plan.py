"""What a conversion will do with each normalisation layer: which are selected, what they become, and why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from bnlib.arguments import shown, suggestion
from bnlib.norm.eps_bound import scale_change

Pattern = str | type
Patterns = Pattern | Iterable[Pattern] | None


@dataclass
class Step:
    """What happens to one layer.

    Arguments:
        name: name of the layer in the model.
        layer: the layer.
        new: the layer that replaces it, or None.
        reason: why no layer replaces it.
        refused: whether it should have been replaced but cannot be.
    """

    name: str
    layer: nn.Module
    new: nn.Module | None = None
    reason: str = ""
    refused: bool = False

    def __str__(self) -> str:
        """Return the line for an error message."""
        return f"  {self.name or 'the model'} ({type(self.layer).__name__}): {self.reason}"

    def row(self) -> tuple[str, str, str, str, str]:
        """Return the cells of the table."""
        channels = str(getattr(self.layer, "num_features", ""))
        becomes = "" if self.new is None else type(self.new).__name__
        note = ("cannot be converted: " if self.refused else "stays: ") + self.reason if self.new is None else ""
        return self.name or "the model", type(self.layer).__name__, channels, becomes, note or self._note_on_eps()

    def _note_on_eps(self) -> str:
        if self.layer.running_var is None or self.layer.running_var.is_meta:
            return ""
        change = scale_change(self.layer, self.new)
        near = None if change is None else change[(change - 1).abs() > 0.01]
        if near is None or not len(near):
            return ""
        return f"variance near eps in {len(near)} channels: factor {near.min():.2f} to {near.max():.2f}"


def table(steps: list[Step]) -> str:
    """Return the plan as a table in plain text, one line per normalisation layer, with a summary."""
    rows = [("layer", "class", "channels", "becomes", "note"), *(step.row() for step in steps)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    count = sum(step.new is not None for step in steps)
    refused = sum(step.refused for step in steps)
    lines.append(f"{count} of {len(steps)} normalisation layers would be converted, {refused} cannot be.")
    return "\n".join(lines)


def select(
    layers: Mapping[nn.Module, list[str]], model: nn.Module, only: Patterns, skip: Patterns
) -> dict[nn.Module, str]:
    """Return the layers that are not selected, each with the reason.

    Arguments:
        layers: all names of each normalisation layer.
        model: the model.
        only: names or classes, one of which a selected layer has; None for all layers.
        skip: names or classes, none of which a selected layer has.

    Raises:
        TypeError: if a pattern is neither a string nor a class.
        ValueError: if a string is no name in the model, or ``only`` selects no layer.
    """
    wanted, unwanted = _as_list("only", only), _as_list("skip", skip)
    modules = {name for name, _ in model.named_modules(remove_duplicate=False)}
    classes = {each.__name__ for layer in layers for each in type(layer).__mro__}
    for argument, patterns in (("only", wanted), ("skip", unwanted)):
        for pattern in patterns:
            if (
                isinstance(pattern, str)
                and pattern not in modules
                and not any(_selects(pattern, *i) for i in layers.items())
            ):
                hint = suggestion(pattern, modules | classes)
                raise ValueError(
                    f"{argument} must name a part of the model or the class of a normalisation layer, got "
                    f"{pattern!r}{hint}"
                )
    left = {}
    for layer, names in layers.items():
        if only is not None and not any(_selects(pattern, layer, names) for pattern in wanted):
            left[layer] = "is not in only"
        elif any(_selects(pattern, layer, names) for pattern in unwanted):
            left[layer] = "is in skip"
    if only is not None and all(reason == "is not in only" for reason in (left.get(layer) for layer in layers)):
        raise ValueError(f"only must select at least one normalisation layer, got {shown(only)}")
    return left


def _as_list(argument: str, patterns: Patterns) -> list[Pattern]:
    if patterns is None:
        return []
    listed = [patterns] if isinstance(patterns, (str, type)) or not isinstance(patterns, Iterable) else [*patterns]
    if not all(isinstance(each, (str, type)) for each in listed):
        raise TypeError(f"{argument} must be a name, a class, or a list of these, got {shown(patterns)}")
    return listed


def _selects(pattern: Pattern, layer: nn.Module, names: list[str]) -> bool:
    """Return whether a pattern is a class of the layer, its name, or the name of its class or of a part around it."""
    if isinstance(pattern, type):
        return isinstance(layer, pattern)
    by_name = any(name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern) for name in names)
    return by_name or any(each.__name__ == pattern for each in type(layer).__mro__)
