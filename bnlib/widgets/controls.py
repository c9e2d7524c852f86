"""The controls of an explorer: a slider for ordered numbers, and a choice between names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnlib.tables import powers_of_ten


@dataclass(frozen=True)
class Control:
    """A control of an explorer; use ``Slider`` for ordered numbers and ``Choice`` for everything else.

    Attributes:
        name: keyword argument of ``data``, ``draw`` and ``train`` for the value, and its name in links.
        label: label for the reader, with the unit if there is one.
        values: the values in order, at least two.
        default: the initial value, one of ``values``.
        format: how values are written: a template for ``str.format``, or a dictionary with texts for some values.

    Raises:
        ValueError: if there are fewer than two values, ``default`` or a key of ``format`` is not one of them, or two
            values have the same text.
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
            raise ValueError(f"values of {kind} must hold at least two values, got {self.values}")
        if self.default not in self.values:
            raise ValueError(f"default of {kind} must be one of {self.values}, got {self.default!r}")
        if not isinstance(self.format, str) and (unknown := [each for each in self.format if each not in self.values]):
            raise ValueError(f"format of {kind} must have keys among {self.values}, got {unknown}")
        if len(set(self.texts)) < len(self.values):
            raise ValueError(f"format of {kind} must write each value differently, got {self.texts}; use more digits")

    def text(self, value: Any) -> str:
        """Return the text of ``value`` for the reader."""
        if isinstance(self.format, str):
            return powers_of_ten(self.format.format(value))
        return self.format.get(value, str(value))

    @property
    def texts(self) -> list[str]:
        """The texts of all values."""
        return [self.text(value) for value in self.values]


@dataclass(frozen=True)
class Slider(Control):
    """A slider for ordered numbers; it shows the first and the last number, and the chosen one.

    Example:
        >>> widgets.Slider("lr", "learning rate", values=[0.01, 0.1], default=0.1).texts
        ['0.01', '0.1']
    """

    format: str | Mapping[Any, str] = "{:g}"


@dataclass(frozen=True)
class Choice(Control):
    """A choice between names without an order: buttons if they fit in one row, else a menu.

    Example:
        >>> words = {"torch": "PyTorch's default"}
        >>> widgets.Choice("init", "initialisation", ["torch", "He"], default="He", format=words).texts
        ["PyTorch's default", 'He']
    """

    # The number of letters that fit in one row on a phone, where the frame of a button counts as three letters.
    _ROW = 38

    @property
    def fits_in_one_row(self) -> bool:
        """Whether buttons with all names fit in one row on a phone.

        Example:
            >>> widgets.Choice("norm", "norm", ["batch norm", "layer norm"], "batch norm").fits_in_one_row
            True
        """
        return sum(len(text) + 3 for text in self.texts) <= self._ROW
