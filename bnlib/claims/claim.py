"""Define a claim: a statement of a source, a measurement, and the conditions that decide the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bnlib.claims.results import CommittedResults, Effects, Results, Row, final_values
from bnlib.claims.rule import QUANTIFIERS, Quantifier, Verdict, verdict_of
from bnlib.experiments.framework.experiment import Scale

__all__ = ["SOURCES", "Claim", "Effects", "Judgement", "Results", "Row", "final_values", "judge", "median_and_range"]

SOURCES: dict[str, str] = {
    "kari2018": "Kari 2018",
    "irpan2017": "Irpan 2017",
    "failing2025": "answer of 2025",
    "kariya2018": "Kariya 2018",
    "santurkar2018": "Santurkar et al. 2018",
    "lian2019": "Lian and Liu 2019",
    "ioffe2015": "Ioffe and Szegedy 2015",
    "ioffe2017": "Ioffe 2017",
    "yang2019": "Yang et al. 2019",
    "bjorck2018": "Bjorck et al. 2018",
    "wu2018": "Wu and He 2018",
    "wu2021": "Wu and Johnson 2021",
    "goyal2017": "Goyal et al. 2017",
    "brock2021": "Brock et al. 2021",
    "cooijmans2017": "Cooijmans et al. 2017",
    "li2016": "Li et al. 2016",
    "chintala2016": "Chintala et al. 2016",
    "vanlaarhoven2017": "van Laarhoven 2017",
    "chollet2020": "Chollet 2020",
    "izmailov2018": "Izmailov et al. 2018",
    "wightman2020": "Wightman 2020",
    "pytorch2026": "PyTorch documentation",
    "issue88474": "PyTorch issue 88474",
    "issue96136": "PyTorch issue 96136",
    "micikevicius2018": "Micikevicius et al. 2018",
    "jacob2018": "Jacob et al. 2018",
    "krishnamoorthi2018": "Krishnamoorthi 2018",
    "hsieh2020": "Hsieh et al. 2020",
    "li2021": "Li et al. 2021",
    "zhong2023": "Zhong et al. 2023",
    "schneider2020": "Schneider et al. 2020",
    "wang2021": "Wang et al. 2021",
    "bhatt2024": "Bhatt et al. 2024",
    "hoffer2017": "Hoffer et al. 2017",
    "zhangsennrich2019": "Zhang and Sennrich 2019",
    "singh2020": "Singh and Krishnan 2020",
    "liu2020": "Liu et al. 2020",
    "zhu2025": "Zhu et al. 2025",
}


@dataclass(frozen=True)
class Claim:
    """A statement of a source and the measurement that tests it.

    Attributes:
        id: its name on the command line and in links.
        source: a key of ``chapters/references.bib``.
        place: section, figure or comment of the source.
        statement: what the source claims, in our words.
        chapter: notebook and anchor of the experiment, e.g. ``"06_perils#two-towers"``.
        measure: function that takes results and returns effects: arrays with one number per seed, by name and unit.
        conditions: what must be true of the effects if the claim holds, each in words and as a function.
        quantifier: what the claim says, a key of ``QUANTIFIERS``; the verdict follows from it and from the conditions.
        scale: scale of the committed results that the ledger shows.
        note: a caveat that the verdict does not express.
        stand_in: what stands for what, e.g. ``"digits in place of CIFAR-10"``, if only that was tested. Such a claim
            gets the mark "stand-in only" and counts neither as reproduced nor as refuted.
        exact_because: why one computation is enough where nothing depends on a seed.
        untested_because: what an experiment that decides the claim would need; such a claim has no ``measure``.
        untestable_because: why no experiment of this book could decide the claim; it has no ``measure`` either.

    Example:
        >>> claims.CLAIMS["lian-bias"].quantifier
        'always'
    """

    id: str
    source: str
    place: str
    statement: str
    chapter: str
    measure: Callable[[Results], Effects] | None = None
    conditions: tuple[tuple[str, Callable[[Effects], bool]], ...] = ()
    quantifier: Quantifier = field(kw_only=True)
    scale: Scale = "quick"
    note: str = ""
    stand_in: str = ""
    exact_because: str = ""
    untested_because: str = ""
    untestable_because: str = ""

    def __post_init__(self):
        """Check that there is either a measurement with conditions, or one reason why there is none.

        Raises:
            ValueError: the fields contradict each other, or the source or the quantifier is unknown.
        """
        reasons = bool(self.untested_because) + bool(self.untestable_because)
        measured = self.measure is not None and bool(self.conditions)
        if measured + reasons != 1 or (self.measure is None) != (not self.conditions):
            raise ValueError(
                f"{self.id} must have either measure and conditions, or untested_because, or untestable_because"
            )
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.quantifier not in QUANTIFIERS:
            raise ValueError(f"quantifier must be one of {', '.join(QUANTIFIERS)}, got {self.quantifier!r}")
        if (self.stand_in or self.exact_because) and not measured:
            raise ValueError(f"{self.id} has no measurement, so stand_in and exact_because must be empty")
        if self.stand_in and " in place of " not in self.stand_in:
            raise ValueError(f"stand_in must say what is 'in place of' what, got {self.stand_in!r}")

    @property
    def reason(self) -> str:
        """Why there is no measurement; empty if there is one."""
        return self.untested_because or self.untestable_because

    @property
    def rule(self) -> str:
        """The conditions and how many of them are needed, or the reason why there are none, as one sentence."""
        if self.reason:
            return self.reason
        join = "; or ".join if self.quantifier == "sometimes" else "; ".join
        return f"It holds if {join(words for words, _ in self.conditions)}."


@dataclass(frozen=True)
class Judgement:
    """The outcome of measuring a claim.

    Attributes:
        claim: the claim.
        effects: measured arrays by name, one number per seed.
        holds: for each condition, in words, whether it holds.
        cells_read: number of seeds of each cell behind the effects.
        scale: scale of the results.
    """

    claim: Claim
    effects: Effects
    holds: dict[str, bool]
    cells_read: dict[tuple, int]
    scale: Scale

    @property
    def verdict(self) -> Verdict:
        """The verdict on the claim, or what leaves it open."""
        if self.claim.untestable_because:
            return "untestable here"
        if self.claim.untested_because:
            return "not tested here"
        return "stand-in only" if self.claim.stand_in else self.outcome

    @property
    def outcome(self) -> Verdict:
        """What follows from the conditions by the rule, even if they were tested on a stand-in only."""
        return verdict_of(self.claim.quantifier, list(self.holds.values())) if self.holds else self.verdict

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments behind the effects, sorted."""
        return sorted({name for name, *_ in self.cells_read})

    @property
    def seeds(self) -> str:
        """Number of seeds behind an effect, e.g. ``"5"`` or ``"3 or 5"``."""
        counts = {len(values) for values in self.effects.values() if len(values) > 1}
        return " or ".join(map(str, sorted(counts or set(self.cells_read.values()))))


def effects_with(measure: Callable[[Results], Effects], *parts: str) -> Callable[[Results], Effects]:
    """Return a function that measures the same and keeps the effects whose names contain one of the parts."""

    def kept(results: Results) -> Effects:
        found = measure(results)
        return {name: values for name, values in found.items() if any(part in name for part in parts)}

    return kept


def judge(claim: Claim, results: Results | None = None) -> Judgement:
    """Measure a claim and decide its verdict.

    Arguments:
        claim: the claim to test.
        results: source of the numbers, by default the committed results at the claim's scale.

    Raises:
        ValueError: an effect is nan, about which no condition can say anything.

    Example:
        >>> found = claims.judge(claims.CLAIMS["yang-linear"])
        >>> found.verdict, found.experiments
        ('reproduced', ['depth.gradient_growth'])
    """
    if claim.measure is None:
        return Judgement(claim, {}, {}, {}, claim.scale)
    results = CommittedResults(claim.scale) if results is None else results
    effects = {name: np.atleast_1d(np.asarray(v, dtype=float)) for name, v in claim.measure(results).items()}
    if unknown := [name for name, values in effects.items() if np.isnan(values).any()]:
        raise ValueError(
            f"the effects of {claim.id} must be numbers, got nan in {unknown[0]!r}; a run that diverged is inf"
        )
    holds = {words: bool(true(effects)) for words, true in claim.conditions}
    return Judgement(claim, effects, holds, dict(results.cells_read), results.scale)


def median_and_range(values: np.ndarray) -> str:
    """Format the median, followed by the smallest and largest value if they differ.

    Example:
        >>> claims.median_and_range(np.array([0.1, 0.3, 0.2])), claims.median_and_range(np.array([7.0]))
        ('0.2 (0.1 to 0.3)', '7')
    """
    middle, low, high = (_number(each(values)) for each in (np.median, np.min, np.max))
    return middle if len(values) == 1 or low == high else f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    if np.isinf(value):
        return "diverged"
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.3g}"
