"""Check arguments: what is wrong is said with the argument's name, its value, and what it must be."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable
from numbers import Integral, Rational, Real
from typing import Any, TypeVar

from torch import Tensor, nn

V = TypeVar("V")


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
    if not is_number(value):
        raise TypeError(message)
    if isinstance(value, Integral) and abs(value) > sys.float_info.max:
        raise ValueError(message)
    below = (above is not None and not value > above) or (at_least is not None and not value >= at_least)
    if not math.isfinite(value) or below or (at_most is not None and not value <= at_most):
        raise ValueError(message)


def is_number(value: Any) -> bool:
    """Return whether a value is a real number that PyTorch takes for one: not a truth value, not a ``Fraction``.

    Example:
        >>> arguments.is_number(0.1), arguments.is_number(True)
        (True, False)
    """
    fraction = isinstance(value, Rational) and not isinstance(value, Integral)
    return isinstance(value, Real) and not isinstance(value, bool) and not fraction


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


def check_flags(**flags: Any) -> None:
    """Raise a TypeError if a value is not True or False: a text such as ``"no"`` would count as true.

    Example:
        >>> arguments.check_flags(strict="no")
        Traceback (most recent call last):
            ...
        TypeError: strict must be True or False, got 'no'
    """
    for name, value in flags.items():
        check_kind(name, value, bool, "True or False")


def check_usual(**arguments: Any) -> None:
    """Check arguments whose names mean the same in the whole package, such as ``model``, ``loss``, ``x`` and ``seed``.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if a seed is negative.

    Example:
        >>> arguments.check_usual(model=nn.ReLU(), loss=torch.sum, x=torch.ones(3), seed=0)
        >>> arguments.check_usual(x=[1.0, 2.0])
        Traceback (most recent call last):
            ...
        TypeError: x must be a tensor, got [1.0, 2.0]
    """
    for name, value in arguments.items():
        if name == "seed":
            check_integer(name, value, at_least=0)
        elif name in ("model", "module", "network"):
            check_kind(name, value, nn.Module, "an nn.Module")
        elif name in ("loss", "run", "activation"):
            if not callable(value):
                raise TypeError(f"{name} must be a function, got {shown(value)}")
        elif name in ("layers", "parameter_names"):
            if value is not None and (isinstance(value, str) or not isinstance(value, Iterable)):
                raise TypeError(f"{name} must be a list of names or None, got {shown(value)}")
        elif name == "batches":
            if isinstance(value, (str, nn.Module)) or not hasattr(value, "__iter__"):
                raise TypeError(f"{name} must be a list of batches or another iterable, got {shown(value)}")
        else:
            check_kind(name, value, Tensor, "a tensor")
            if value.is_complex():
                raise TypeError(f"{name} must be a tensor of real numbers, got {value.dtype}")


class Names(dict[str, V]):
    """A dictionary by name, whose error for an unknown name suggests the nearest one.

    Example:
        >>> arguments.Names(batch_norm=1, group_norm=2)["groupnorm"]
        Traceback (most recent call last):
            ...
        KeyError: "no 'groupnorm' among 2 names; did you mean 'group_norm'?"
    """

    def __missing__(self, name: Any) -> V:
        """Raise a KeyError with a suggestion."""
        raise KeyError(f"no {shown(name)} among {len(self)} names{suggestion(name, self)}")


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
