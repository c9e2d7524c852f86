"""The settings of an explorer: ordered numbers on a slider, and names to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Control:
    """One setting of an explorer; use ``Slider`` for ordered numbers and ``Choice`` for everything else.

    Attributes:
        name: the keyword under which the setting reaches ``data``, ``draw`` and ``train``, and its name in a link.
        label: what the reader sees, with the unit if there is one.
        values: the values that can be chosen, in order; two at least.
        default: the value at the start; must be one of ``values``.
        format: how a value is written: a template for ``str.format``, or words for those values that need any.

    Raises:
        ValueError: fewer than two values, a ``default`` that is none of them, words for something that is none of them,
            or two values written alike.
    """

    name: str
    label: str
    values: Sequence[Any]
    default: Any
    format: str | Mapping[Any, str] = "{}"

    def __post_init__(self):
        kind = f"{type(self).__name__} {self.name!r}"
        object.__setattr__(self, "values", list(self.values))
        if len(self.values) < 2:
            raise ValueError(f"values of {kind} must hold at least two to choose from, got {self.values}")
        if self.default not in self.values:
            raise ValueError(f"default of {kind} must be one of {self.values}, got {self.default!r}")
        if not isinstance(self.format, str) and (unknown := [each for each in self.format if each not in self.values]):
            raise ValueError(f"format of {kind} must have words for some of {self.values}, got words for {unknown}")
        if len(set(self.texts)) < len(self.values):
            raise ValueError(f"format of {kind} must write each value differently, got {self.texts}; use more digits")

    def text(self, value: Any) -> str:
        """How ``value`` is written for the reader."""
        return self.format.format(value) if isinstance(self.format, str) else self.format.get(value, str(value))

    @property
    def texts(self) -> list[str]:
        """The values as the reader sees them."""
        return [self.text(value) for value in self.values]


@dataclass(frozen=True)
class Slider(Control):
    """Numbers in order, on a slider that shows its ends and its position.

    Example:
        >>> widgets.Slider("lr", "learning rate", values=[0.01, 0.1], default=0.1).texts
        ['0.01', '0.1']
    """

    format: str | Mapping[Any, str] = "{:g}"


@dataclass(frozen=True)
class Choice(Control):
    """Names without an order: buttons side by side if they are few and short, else a menu.

    Example:
        >>> words = {"torch": "PyTorch's default"}
        >>> widgets.Choice("init", "initialisation", ["torch", "He"], default="He", format=words).texts
        ["PyTorch's default", 'He']
    """

    # So many letters, with a few more for the frame of each button, stand in one row on a phone.
    _ROW = 38

    @property
    def fits_in_one_row(self) -> bool:
        """Whether all names stand beside each other, so that they can be buttons.

        Example:
            >>> widgets.Choice("norm", "norm", ["batch norm", "layer norm"], "batch norm").fits_in_one_row
            True
        """
        return sum(len(text) + 3 for text in self.texts) <= self._ROW
