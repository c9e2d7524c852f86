"""Define a claim: a statement of a source, a measurement, and the conditions that decide the verdict."""

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
VERDICT_MEANINGS: dict[Verdict, str] = {
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


class Results(Protocol):
    """The numbers of all experiments: call with an experiment and a cell to get arrays by name, one row per seed."""

    cells_read: dict[tuple, int]
    scale: Scale

    def __call__(self, name: str, *cell) -> Row:
        """Return the arrays of a cell by name."""
        ...


@dataclass
class CommittedResults:
    """Read numbers from the committed results.

    Attributes:
        scale: scale of the results.
        cells_read: number of seeds of each cell that has been read so far.

    Example:
        >>> results = claims.CommittedResults("quick")
        >>> sorted(results("full_normalization.oracle_bias", 1, "batch", 1))
        ['bias', 'cosine', 'noise']
    """

    scale: Scale = "quick"
    cells_read: dict[tuple, int] = field(default_factory=dict)

    def __call__(self, name: str, *cell) -> Row:
        """Return the arrays of a cell by name.

        Raises:
            KeyError: the experiment has no such cell.
        """
        row = _load(name, self.scale)[cell]
        self.cells_read[name, *cell] = len(next(iter(row.values())))
        return row


@cache
def _load(name: str, scale: Scale) -> dict[tuple, Row]:
    experiment = EXPERIMENTS[name]
    found = experiment.load(scale)
    if isinstance(experiment, Experiment):
        return {cell: {curve: _pad_curves(row[curve]) for curve in experiment.curves} for cell, row in found.items()}
    return found


@dataclass
class FreshResults:
    """Run cells again at the quick scale, with seeds that no committed result has used.

    Attributes:
        seeds: one run per seed.
        cells_read: number of seeds of each cell that has been run so far.
        scale: always ``"quick"``.
    """

    seeds: Sequence[int] = (100, 101, 102)
    cells_read: dict[tuple, int] = field(default_factory=dict)
    scale: Scale = field(default="quick", init=False)
    _done: dict[tuple, Row] = field(default_factory=dict)

    def __call__(self, name: str, *cell) -> Row:
        """Return the arrays of a cell by name; run the cell at the first call.

        Raises:
            KeyError: the experiment has no such cell at the quick scale.
        """
        self.cells_read[name, *cell] = len(self.seeds)
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
            return {curve: _pad_curves([getattr(each, curve) for each in histories]) for curve in experiment.curves}
        found = [experiment.measure_once(cell, seed) for seed in self.seeds]
        return {value: np.array([each[value] for each in found], dtype=float) for value in found[0]}


def _pad_curves(curves: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Return an array (seeds, points) with nan where a run had diverged."""
    return np.array(list(itertools.zip_longest(*curves)), dtype=float).T


def final_values(row: Row, curve: str) -> np.ndarray:
    """Return the last value of a curve for each seed; infinite where a run diverged."""
    return np.nan_to_num(row[curve][:, -1], nan=np.inf)


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
        verdict_if_refuted: the verdict if no condition holds.
        scale: scale of the committed results that the ledger shows.
        note: a caveat that the verdict does not express.
        untestable_because: why nothing in this book can decide the claim; such a claim has no ``measure``.
    """

    id: str
    source: str
    place: str
    statement: str
    chapter: str
    measure: Callable[[Results], Effects] | None = None
    conditions: tuple[tuple[str, Callable[[Effects], bool]], ...] = ()
    verdict_if_refuted: Verdict = "not reproduced"
    scale: Scale = "quick"
    note: str = ""
    untestable_because: str = ""

    def __post_init__(self):
        """Check that there is either a measurement with conditions, or a reason why there is none.

        Raises:
            ValueError: both or neither; an unknown source; ``verdict_if_refuted`` is another verdict.
        """
        testable = self.measure is not None and bool(self.conditions)
        if testable == bool(self.untestable_because):
            raise ValueError(f"{self.id} must have either measure and conditions or untestable_because")
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.verdict_if_refuted not in ("not reproduced", "wrong"):
            raise ValueError(f"verdict_if_refuted must be 'not reproduced' or 'wrong', got {self.verdict_if_refuted!r}")

    @property
    def rule(self) -> str:
        """The conditions, or the reason why the claim is untestable, as one sentence."""
        if self.untestable_because:
            return self.untestable_because
        return f"It holds if {'; '.join(words for words, _ in self.conditions)}."


@dataclass(frozen=True)
class Judgement:
    """The outcome of measuring a claim.

    Attributes:
        claim: the claim.
        effects: measured arrays by name, one number per seed.
        holds: for each condition, in words, whether it holds.
        verdict: the verdict that follows.
        cells_read: number of seeds of each cell behind the effects.
        scale: scale of the results.
    """

    claim: Claim
    effects: Effects
    holds: dict[str, bool]
    verdict: Verdict
    cells_read: dict[tuple, int]
    scale: Scale

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments behind the effects, sorted."""
        return sorted({name for name, *_ in self.cells_read})

    @property
    def seeds(self) -> str:
        """Number of seeds behind an effect, e.g. ``"5"`` or ``"3 or 5"``."""
        counts = {len(values) for values in self.effects.values() if len(values) > 1} if self.cells_read else set()
        return " or ".join(map(str, sorted(counts or set(self.cells_read.values()))))


def judge(claim: Claim, results: Results | None = None) -> Judgement:
    """Measure a claim and decide its verdict.

    Arguments:
        claim: the claim to test.
        results: source of the numbers, by default the committed results at the claim's scale.

    Example:
        >>> found = claims.judge(claims.CLAIMS["kari-ten-layers"])
        >>> found.verdict, found.experiments
        ('reproduced', ['depth.descent'])
    """
    if claim.measure is None:
        return Judgement(claim, {}, {}, "untestable here", {}, claim.scale)
    results = CommittedResults(claim.scale) if results is None else results
    effects = {name: np.atleast_1d(np.asarray(v, dtype=float)) for name, v in claim.measure(results).items()}
    holds = {words: bool(true(effects)) for words, true in claim.conditions}
    if all(holds.values()):
        verdict: Verdict = "reproduced"
    else:
        verdict = "in part" if any(holds.values()) else claim.verdict_if_refuted
    return Judgement(claim, effects, holds, verdict, dict(results.cells_read), results.scale)


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
