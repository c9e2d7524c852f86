"""Give claims the numbers of experiments: those of the committed results, or those of new runs."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Protocol

import numpy as np

from bnlib import sweep
from bnlib.experiments.framework.experiment import Experiment, Scale
from bnlib.experiments.framework.registry import EXPERIMENTS

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
