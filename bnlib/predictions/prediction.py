"""A question with options, each of which carries the condition on the measured values that makes it right."""

from __future__ import annotations

import html
import inspect
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """A question, its options and the reason, before the values that decide it are measured.

    Attributes:
        name: identifies the prediction on its page; letters, digits and ``-``.
        question: one or more sentences that a reader understands without the page around them, with measured values
            as in ``str.format`` where they are given.
        options: from the text of each option to its condition: a function whose arguments are measured values, and
            which returns whether the option is right. For every result exactly one condition must hold.
        reason: why the right option is right, with the measured values as in ``str.format``.

    Raises:
        ValueError: a ``name`` with other characters, fewer than two options, or a reason without a measured value.

    Example:
        >>> coin = predictions.Prediction(
        ...     "coin",
        ...     "How often does a fair coin show heads in 100 tosses?",
        ...     {
        ...         "At most 40 times": lambda heads: heads <= 40,
        ...         "41 to 59 times": lambda heads: 40 < heads < 60,
        ...         "At least 60 times": lambda heads: heads >= 60,
        ...     },
        ...     reason="This coin showed heads {heads} times.",
        ... )
        >>> coin.answered(heads=52).right
        '41 to 59 times'
    """

    name: str
    question: str
    options: Mapping[str, Callable[..., Any]]
    reason: str

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.name):
            raise ValueError(
                f"name must be of letters, digits and '-', as a part of a page's address, got {self.name!r}"
            )
        if len(self.options) < 2:
            raise ValueError(f"prediction {self.name!r} must have two or more options, got {list(self.options)}")
        if not _fields(self.reason) & self.measured:
            raise ValueError(
                f"the reason of prediction {self.name!r} must quote a measured value, as in '{{error:.1f}}'"
            )

    @property
    def measured(self) -> set[str]:
        """The names of the values that the conditions and the texts need."""
        conditions = (inspect.signature(condition).parameters for condition in self.options.values())
        return set().union(_fields(self.question), _fields(self.reason), *conditions)

    def answered(self, **measured: Any) -> Answered:
        """Decide the question by the measured values.

        Raises:
            TypeError: a value that the prediction needs is missing, or one is given that it does not use.
            ValueError: no option is right, or more than one.
        """
        if measured.keys() != self.measured:
            raise TypeError(f"prediction {self.name!r} needs {sorted(self.measured)}, got {sorted(measured)}")
        right = [text for text, condition in self.options.items() if condition(**_given(condition, measured))]
        if len(right) != 1:
            values = ", ".join(f"{name}={value!r}" for name, value in measured.items())
            found = f"all of {right}" if right else f"none of {list(self.options)}"
            raise ValueError(
                f"prediction {self.name!r}: with {values}, exactly one option must be right, but {found} "
                f"{'are' if right else 'is'}; change the options' conditions so that they divide up all results"
            )
        question, reason = (text.format(**measured) for text in (self.question, self.reason))
        return Answered(self.name, question, list(self.options), right[0], reason)


@dataclass(frozen=True)
class Answered:
    """A prediction with its answer; a notebook shows it as a list of options to unfold.

    Attributes:
        name: the name of the prediction.
        question: the question.
        options: the texts of the options.
        right: the text of the option whose condition holds.
        reason: the reason, with the measured values.
    """

    name: str
    question: str
    options: Sequence[str]
    right: str
    reason: str

    @property
    def html(self) -> str:
        """The question and a fold for each option, without script or style; to open an option is to choose it."""
        return (
            f'<div class="bnb-prediction" id="prediction-{self.name}" role="group" '
            f'aria-labelledby="question-{self.name}">'
            f'<p id="question-{self.name}"><strong>Predict, then see.</strong> {html.escape(self.question)}</p>'
            f"{''.join(map(self._option, self.options))}</div>"
        )

    def _option(self, text: str) -> str:
        verdict, mark = f"✗ Not quite.</strong> The answer is: <em>{html.escape(self.right)}.</em>", ""
        if text == self.right:
            verdict, mark = "✓ Right.</strong>", " data-right"
        return (
            # Folds of one name close each other, so that one option is chosen at a time.
            f'<details name="prediction-{self.name}"{mark}><summary>{html.escape(text)}</summary>'
            f"<p><strong>{verdict} {html.escape(self.reason)}</p></details>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": f"[Prediction: {self.question}]"}


def _fields(text: str) -> set[str]:
    """The names of the values that a format string asks for."""
    return {re.split(r"[.\[]", field)[0] for _, field, _, _ in string.Formatter().parse(text) if field}


def _given(condition: Callable, measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: measured[name] for name in inspect.signature(condition).parameters}
