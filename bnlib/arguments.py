"""Check arguments: what is wrong is said with the argument's name, its value, and what it must be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def check_integer(name: str, value: Any, at_least: int = 1, at_most: int | None = None) -> None:
    """Raise an error if ``value`` is not an integer from ``at_least`` to ``at_most`` (None: no upper bound).

    Raises:
        TypeError: if the value is not an integer; a truth value is none.
        ValueError: if it is out of range.

    Example:
        >>> arguments.check_integer("epochs", 0.5)
        Traceback (most recent call last):
            ...
        TypeError: epochs must be an integer, at least 1, got 0.5
    """
    bounds = f", at least {at_least}" if at_most is None else f" from {at_least} to {at_most}"
    message = f"{name} must be an integer{bounds}, got {shown(value)}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(message)
    if value < at_least or (at_most is not None and value > at_most):
        raise ValueError(message)


def check_number(
    name: str, value: Any, *, above: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> None:
    """Raise an error if ``value`` is not a finite number within the given bounds.

    Raises:
        TypeError: if the value is not a real number; a truth value or a tensor is none.
        ValueError: if it is not finite or out of range.

    Example:
        >>> arguments.check_number("lr", float("nan"), above=0)
        Traceback (most recent call last):
            ...
        ValueError: lr must be a finite number, above 0, got nan
    """
    bounds = {"above": above, "at least": at_least, "at most": at_most}
    words = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    message = f"{name} must be a finite number{', ' * bool(words)}{words}, got {shown(value)}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(message)
    below = (above is not None and not value > above) or (at_least is not None and not value >= at_least)
    if not math.isfinite(value) or below or (at_most is not None and not value <= at_most):
        raise ValueError(message)


def check_one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise a ValueError if ``value`` is not one of the ``known`` names; the message suggests the nearest one.

    Example:
        >>> arguments.check_one_of("oracle", "runing", ["same", "running"])
        Traceback (most recent call last):
            ...
        ValueError: oracle must be one of 'same', 'running', got 'runing'; did you mean 'running'?
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"{name} must be one of {names}, got {shown(value)}{suggestion(value, known)}")


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Raise a TypeError if ``value`` is not an instance of ``kind``; ``what`` says in words what it must be.

    Example:
        >>> arguments.check_kind("model", "resnet18", nn.Module, "an nn.Module")
        Traceback (most recent call last):
            ...
        TypeError: model must be an nn.Module, got 'resnet18'
    """
    if not isinstance(value, kind):
        hint = "; call it to make one" if isinstance(value, type) and issubclass(value, kind) else ""
        raise TypeError(f"{name} must be {what}, got {shown(value)}{hint}")


def suggestion(value: Any, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` with the name that is most like ``value``, or nothing if none is.

    Example:
        >>> arguments.suggestion("GroupNorm", ["batch_norm", "group_norm"])
        "; did you mean 'group_norm'?"
    """
    by_letters = {_letters(name): name for name in known}
    close = difflib.get_close_matches(_letters(str(value)), by_letters, n=1, cutoff=0.68)
    return f"; did you mean {by_letters[close[0]]!r}?" if close else ""


def shown(value: Any, limit: int = 80) -> str:
    """Return a value as a short text for a message: large ones by their type, tensors by their shape.

    Example:
        >>> arguments.shown(torch.zeros(100, 3)), arguments.shown("sgd")
        ('a Tensor of shape (100, 3)', "'sgd'")
    """
    if hasattr(value, "shape") and hasattr(value, "dtype") and getattr(value, "ndim", 0):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    text = repr(value)
    if len(text) <= limit and "\n" not in text:
        return text
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"a {type(value).__name__}{size}"


def _letters(name: str) -> str:
    """Return a name in lower case without the signs that separate its words."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
