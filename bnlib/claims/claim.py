"""What a claim is: a statement of a source, what we measured, and the conditions from which the verdict follows."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal, Protocol

import numpy as np

from bnlib import sweep
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.framework.registry import EXPERIMENTS

Verdict = Literal["reproduced", "in part", "not reproduced", "wrong", "untestable here"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "in part", "not reproduced", "wrong", "untestable here")
MEANINGS: dict[Verdict, str] = {
    "reproduced": "all conditions hold",
    "in part": "some conditions hold and some do not",
    "not reproduced": "no condition holds: what the source observed did not come out here",
    "wrong": "no condition holds, and the statement is of a kind that one counterexample refutes",
    "untestable here": "nothing in this book can decide it; the reason is given",
}
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
    "cooijmans2017": "Cooijmans et al. 2017",
    "li2016": "Li et al. 2016",
    "chintala2016": "Chintala et al. 2016",
    "vanlaarhoven2017": "van Laarhoven 2017",
}
Row = Mapping[str, np.ndarray]
Effects = dict[str, np.ndarray]


class Rows(Protocol):
    """Where numbers come from: ``rows(experiment, *cell)`` has them by name, the first dimension that of the seeds."""

    asked: dict[tuple, int]
    scale: Scale

    def __call__(self, name: str, *cell) -> Row:
        """Numbers of a cell."""
        ...


@dataclass
class Committed:
    """The committed results at a scale. ``asked``: the cells that were read, and how many seeds they have.

    Example:
        >>> rows = claims.Committed("quick")
        >>> sorted(rows("full_normalization.oracle_bias", 1, "batch", 1))
        ['bias', 'cosine', 'noise']
    """

    scale: Scale = "quick"
    asked: dict[tuple, int] = field(default_factory=dict)

    def __call__(self, name: str, *cell) -> Row:
        """Numbers of a cell.

        Raises:
            KeyError: the experiment has no such cell.
        """
        row = _load(name, self.scale)[cell]
        self.asked[name, *cell] = len(next(iter(row.values())))
        return row


@cache
def _load(name: str, scale: Scale) -> dict[tuple, Row]:
    experiment = EXPERIMENTS[name]
    found = experiment.load(scale)
    if isinstance(experiment, Experiment):
        return {cell: {curve: _padded(row[curve]) for curve in experiment.curves} for cell, row in found.items()}
    return found


@dataclass
class Fresh:
    """The same cells run anew at the quick scale, with ``seeds`` that no result has used."""

    seeds: Sequence[int] = (100, 101, 102)
    asked: dict[tuple, int] = field(default_factory=dict)
    scale: Scale = field(default="quick", init=False)
    _done: dict[tuple, Row] = field(default_factory=dict)

    def __call__(self, name: str, *cell) -> Row:
        """Run a cell, once, and return its numbers.

        Raises:
            KeyError: the experiment has no such cell at the quick scale.
        """
        self.asked[name, *cell] = len(self.seeds)
        if (name, *cell) not in self._done:
            self._done[name, *cell] = self._run(name, cell)
        return self._done[name, *cell]

    def _run(self, name: str, cell: tuple) -> Row:
        experiment = EXPERIMENTS[name]
        given = experiment.cells("quick")[cell]
        if isinstance(experiment, Experiment):
            runs = [replace(given[0], seed=seed) for seed in self.seeds]
            with tempfile.TemporaryDirectory() as cache:
                histories = sweep.run(runs, cache, progress=False)
            return {curve: _padded([getattr(each, curve) for each in histories]) for curve in experiment.curves}
        found = [experiment.once(cell, seed) for seed in self.seeds]
        return {value: np.array([each[value] for each in found], dtype=float) for value in found[0]}


def _padded(curves: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Shape (seeds, points); nan where a run had diverged."""
    return np.array(list(itertools.zip_longest(*curves)), dtype=float).T


def last(row: Row, curve: str) -> np.ndarray:
    """The ends of a curve, one a seed; infinite where a run diverged."""
    return np.nan_to_num(row[curve][:, -1], nan=np.inf)


@dataclass(frozen=True)
class Claim:
    """A statement of a source beside what was measured.

    Attributes:
        id: names it on the command line.
        source: a key of ``chapters/references.bib``.
        place: where in the source.
        says: what the source claims, in our words.
        chapter: notebook and anchor where the experiment stands, e.g. ``"06_perils#two-towers"``.
        measure: takes rows and returns effects by name, with their units, each with one number a seed.
        conditions: what must be true of the effects if the claim holds, in words and as a function.
        refuted: the verdict if no condition holds.
        scale: of the committed result that the ledger shows.
        note: what the verdict does not say.
        why_not: the reason, if nothing here can decide the claim; then there is nothing to measure.
    """

    id: str
    source: str
    place: str
    says: str
    chapter: str
    measure: Callable[[Rows], Effects] | None = None
    conditions: tuple[tuple[str, Callable[[Effects], bool]], ...] = ()
    refuted: Verdict = "not reproduced"
    scale: Scale = "quick"
    note: str = ""
    why_not: str = ""

    def __post_init__(self):
        """Check that there is either a measurement with conditions, or a reason why there is none.

        Raises:
            ValueError: both or neither; an unknown source; ``refuted`` is another verdict.
        """
        testable = self.measure is not None and bool(self.conditions)
        if testable == bool(self.why_not):
            raise ValueError(f"{self.id} must have either measure and conditions or why_not")
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.refuted not in ("not reproduced", "wrong"):
            raise ValueError(f"refuted must be 'not reproduced' or 'wrong', got {self.refuted!r}")

    @property
    def rule(self) -> str:
        """The conditions as one sentence."""
        if self.why_not:
            return self.why_not
        return f"It holds if {'; '.join(words for words, _ in self.conditions)}."


@dataclass(frozen=True)
class Judgement:
    """A claim measured: the effects, which conditions hold, the verdict, and the cells it rests on, of which scale."""

    claim: Claim
    effects: Effects
    holds: dict[str, bool]
    verdict: Verdict
    asked: dict[tuple, int]
    scale: Scale

    @property
    def experiments(self) -> list[str]:
        """Names in the registry, without repetition."""
        return sorted({name for name, *_ in self.asked})

    @property
    def seeds(self) -> str:
        """The number of runs that an effect rests on, as many as it has values, or as the cells have for a median."""
        counts = {len(values) for values in self.effects.values() if len(values) > 1} if self.asked else set()
        return " or ".join(map(str, sorted(counts or set(self.asked.values()))))


def judge(claim: Claim, rows: Rows | None = None) -> Judgement:
    """Measure a claim, on its committed result unless told otherwise, and apply its conditions.

    Example:
        >>> found = claims.judge(claims.CLAIMS["kari-ten-layers"])
        >>> found.verdict, found.experiments
        ('reproduced', ['depth.descent'])
    """
    if claim.measure is None:
        return Judgement(claim, {}, {}, "untestable here", {}, claim.scale)
    rows = Committed(claim.scale) if rows is None else rows
    effects = {name: np.atleast_1d(np.asarray(v, dtype=float)) for name, v in claim.measure(rows).items()}
    holds = {words: bool(true(effects)) for words, true in claim.conditions}
    if all(holds.values()):
        verdict: Verdict = "reproduced"
    else:
        verdict = "in part" if any(holds.values()) else claim.refuted
    return Judgement(claim, effects, holds, verdict, dict(rows.asked), rows.scale)


def shown(values: np.ndarray) -> str:
    """The median, and least and largest where there are several seeds.

    Example:
        >>> claims.shown(np.array([0.1, 0.3, 0.2])), claims.shown(np.array([7.0]))
        ('0.2 (0.1 to 0.3)', '7')
    """
    middle, low, high = (_number(each(values)) for each in (np.median, np.min, np.max))
    return middle if len(values) == 1 or low == high else f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    if np.isinf(value):
        return "diverged"
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.3g}"
