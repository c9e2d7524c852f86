"""The rule by which a verdict follows from what a claim says and from the conditions that hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Quantifier = Literal["always", "sometimes", "tendency"]
QUANTIFIERS: dict[Quantifier, str] = {
    "always": "The claim is about every case, or it states a fact, a formula or a cause. One condition that fails is a "
    "counterexample.",
    "sometimes": "The claim says that something can happen. One condition that holds is an example, and one example is "
    "enough.",
    "tendency": "The claim compares, describes what was observed, or says what is usually so. It needs all its "
    "conditions.",
}
"""What a claim says, and what that asks of its conditions."""

Verdict = Literal[
    "reproduced", "in part", "not reproduced", "wrong", "stand-in only", "not tested here", "untestable here"
]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "in part", "not reproduced", "wrong")
OPEN_VERDICTS: tuple[Verdict, ...] = ("stand-in only", "not tested here", "untestable here")
VERDICT_MEANINGS: dict[Verdict, str] = {
    "reproduced": "all conditions hold; of a claim that something can happen, at least one",
    "in part": "a tendency for which some conditions hold and some do not",
    "not reproduced": "no condition holds: what the source observed did not come out here",
    "wrong": "a condition fails, and the claim is about every case: we have a counterexample",
    "stand-in only": "tested, but only on something else than what the claim is about; this decides nothing",
    "not tested here": "an experiment could decide it, and this book has not made it",
    "untestable here": "no experiment of this book could decide it; the reason is given",
}


def verdict_of(quantifier: Quantifier, holds: Sequence[bool]) -> Verdict:
    """Return the verdict that follows from what a claim says and from which of its conditions hold.

    Arguments:
        quantifier: key of ``QUANTIFIERS``.
        holds: for each condition whether it holds.

    Raises:
        ValueError: there is no condition, or ``quantifier`` is unknown.

    Example:
        The same two conditions, of three kinds of claim:

        >>> [claims.verdict_of(quantifier, [True, False]) for quantifier in ("always", "sometimes", "tendency")]
        ['wrong', 'reproduced', 'in part']
    """
    if quantifier not in QUANTIFIERS:
        raise ValueError(f"quantifier must be one of {', '.join(QUANTIFIERS)}, got {quantifier!r}")
    if not holds:
        raise ValueError("holds must have an entry for each condition, got none; a claim needs at least one condition")
    if all(holds):
        return "reproduced"
    if quantifier == "always":
        return "wrong"
    if not any(holds):
        return "not reproduced"
    return "reproduced" if quantifier == "sometimes" else "in part"
