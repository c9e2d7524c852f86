"""Experiments that train networks: a question, the training runs that answer it, and a stored result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

import torch

from bnlib import distributed
from bnlib.arguments import suggestion
from bnlib.experiments.framework.results import FOLDER, check_curves, read_cells, result_path, write_result
from bnlib.sweep import Run, run
from bnlib.training import History, best_device

Scale = Literal["quick", "paper"]
"""The size of an experiment. ``"quick"`` takes minutes on two cores, ``"paper"`` has the size of the source's runs."""

_live_seed = itertools.count(100)
CURVES = ("train_loss", "train_error", "test_loss", "test_error")
"""The curves of a ``History`` that an experiment stores by default."""


@dataclass(frozen=True)
class Experiment:
    """A grid of training runs that answers a question.

    Attributes:
        name: ``CHAPTER.FILE``, the path of the experiment's file below ``bnlib/experiments``.
        question: the question that the experiment answers.
        source: figure or section of a paper that it reproduces.
        axes: names of the axes of the grid, e.g. ``("norm", "batch size")``.
        cells: function of the scale that returns the runs of each cell, one per seed, keyed by the cell's values on the
            axes.
        curves: names of the curves of each history that are stored.

    Example:
        >>> from bnlib.experiments.framework.registry import EXPERIMENTS
        >>> EXPERIMENTS["full_normalization.lian_figure_4"].question
        'Do BN and Full Normalization learn from batches of one label each?'
        >>> EXPERIMENTS["full_normalization.lian_figure_4"].command("paper")
        'python -m bnlib experiments run full_normalization.lian_figure_4 --scale paper'
        >>> result = EXPERIMENTS["full_normalization.lian_figure_4"].load("quick")
        >>> list(result)[:2]
        [('convolutional', 'BN'), ('convolutional', 'FN, batch')]
    """

    name: str
    question: str
    source: str
    axes: tuple[str, ...]
    cells: Callable[[Scale], dict[tuple, list[Run]]]
    curves: Sequence[str] = CURVES

    def command(self, scale: Scale) -> str:
        """Return the shell command that produces the result."""
        workers = distributed.rank_and_world_size()[1]
        start = "python" if workers == 1 else f"torchrun --nproc-per-node {workers}"
        return f"{start} -m bnlib experiments run {self.name} --scale {scale}"

    def result(self, scale: Scale) -> str:
        """Return the path of the result below ``data/results``, without suffix; it names the number of processes."""
        workers = distributed.rank_and_world_size()[1]
        return result_path(self.name, scale) + f"_{workers}_processes" * (workers > 1)

    def measure(self, scale: Scale = "quick", **settings) -> dict[tuple, list[History]]:
        """Do the runs that are not in the cache and return the histories of each cell.

        Arguments:
            scale: ``"quick"`` or ``"paper"``.
            settings: arguments of ``sweep.run``.
        """
        cells = self.cells(scale)
        histories = iter(run([each for runs in cells.values() for each in runs], **settings))
        return {cell: [next(histories) for _ in runs] for cell, runs in cells.items()}

    def save(self, scale: Scale = "quick", folder=FOLDER, **settings) -> dict[tuple, list[History]]:
        """Do the same as ``measure``, and also write the result to ``folder``."""
        rank, workers = distributed.rank_and_world_size()
        if rank > 0:
            return self.measure(scale, **settings)
        seeds = sorted({each.seed for runs in self.cells(scale).values() for each in runs})
        device = ", ".join(settings.get("devices", ("cpu",))) + f", {workers} processes" * (workers > 1)
        with write_result(self.result(scale), self.command(scale), seeds, folder, **device_entry(device)) as result:
            measured = self.measure(scale, **settings)
            # The time of all runs, including those that an earlier call has done.
            result["training_seconds"] = round(sum(each.seconds for runs in measured.values() for each in runs))
            result["cells"] = [self._row(cell, histories) for cell, histories in measured.items()]
        return measured

    def table(self, measured: Mapping[tuple, Sequence[History]]) -> str:
        """Return the final values of the curves as text: for each cell the median, minimum and maximum over seeds."""
        head = (*self.axes, *(name.replace("_", " ") for name in self.curves), "diverged")
        rows = []
        for cell, histories in measured.items():
            ends = [median_and_range([getattr(each, name)[-1] for each in histories]) for name in self.curves]
            rows.append((*map(str, cell), *ends, f"{sum(each.diverged for each in histories)} of {len(histories)}"))
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        )

    def load(self, scale: Scale = "quick", folder=FOLDER) -> dict[tuple, dict[str, Any]]:
        """Read the committed result.

        Returns:
            For each cell, keyed by its values on the axes, a dictionary with ``"epoch"`` and with each curve as a list
            of one list per seed. The curves of a run that diverged are shorter, and those of its losses end with None.

        Raises:
            FileNotFoundError: if there is no result; the message contains the command that produces it.
            ValueError: if the result is broken.
        """
        name, command = self.result(scale), self.command(scale)
        cells = read_cells(name, command, self.axes, folder)
        check_curves(cells, self.curves, folder / f"{name}.json", command)
        return cells

    def panels(self, scale: Scale = "quick", only: Mapping[str, str] | None = None, folder=FOLDER) -> dict[str, dict]:
        """Group the committed result into panels for ``figures.draw_curves``.

        Arguments:
            scale: scale of the result.
            only: select the cells with these values (as text) of some axes.
            folder: folder of the results.

        Returns:
            For each panel, by its title (the values on all axes except the norm), the cells by norm.

        Raises:
            ValueError: if ``only`` has an unknown axis, or a value that no cell has.
            FileNotFoundError: as ``load``.
        """
        only, made = only or {}, {}
        for axis in only:
            if axis not in self.axes:
                raise ValueError(
                    f"only must have keys among {', '.join(map(repr, self.axes))}, got {axis!r}"
                    f"{suggestion(axis, self.axes)}"
                )
        for row in self.load(scale, folder).values():
            if all(str(row[axis]) == value for axis, value in only.items()):
                title = ", ".join(f"{axis} {row[axis]}" for axis in self.axes if axis != "norm" and axis not in only)
                made.setdefault(title, {})[str(row.get("norm", self.name))] = row
        if not made:
            raise ValueError(f"only must select at least one cell of {self.name}, got {dict(only)}")
        return made

    def live(
        self, cells: Mapping[str, tuple], shown: Mapping[str, dict], device: torch.device | str | None = None
    ) -> Iterator[tuple[int, int, dict[str, dict]]]:
        """Train cells of the quick scale with a new seed, for the *Train* button of a ``widgets.Explorer``.

        Arguments:
            cells: the cells to train at the same time, by name.
            shown: the committed curves by name; the new curves are added as "NAME, your run".
            device: device to train on; None for ``training.best_device()``.

        Yields:
            The number of steps so far, the total number of steps, and all curves. Every call uses another seed, which
            no committed result has used.
        """
        seed, device, made = next(_live_seed), device or best_device(), self.cells("quick")
        runs = {name: replace(made[cell][0], seed=seed).iterate(device) for name, cell in cells.items()}
        shown = dict(shown)
        for steps in zip(*runs.values(), strict=False):
            for name, (_, _, history) in zip(runs, steps, strict=True):
                curves = {curve: [rounded(getattr(history, curve))] for curve in self.curves}
                shown[f"{name}, your run"] = {"epoch": rounded(history.epoch), **curves}
            yield *steps[0][:2], dict(shown)

    def _row(self, cell: tuple, histories: Sequence[History]) -> dict[str, Any]:
        longest = max((history.epoch for history in histories), key=len)
        curves = {name: [rounded(getattr(history, name)) for history in histories] for name in self.curves}
        return {**dict(zip(self.axes, cell, strict=True)), "epoch": rounded(longest), **curves}


def median_and_range(values: Sequence[float]) -> str:
    """Write the median, the minimum and the maximum of the finite values; losses of runs that diverged are not.

    Example:
        >>> from bnlib.experiments.framework.experiment import median_and_range
        >>> median_and_range([0.1, 0.5, 0.3, float("nan")])
        '0.3 [0.1, 0.5]'
    """
    finite = [value for value in values if math.isfinite(value)]
    return f"{median(finite):.3g} [{min(finite):.3g}, {max(finite):.3g}]" if finite else "-"


def rounded(values: Sequence[float]) -> list[float | None]:
    """Round values to four significant digits, and replace those that are not finite by None.

    Example:
        >>> from bnlib.experiments.framework.experiment import rounded
        >>> rounded([0.123456, float("inf")])
        [0.1235, None]
    """
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def device_entry(devices: str) -> dict[str, str]:
    """Return the argument ``device`` for ``write_result``; for the CPU, whose name it finds out itself, return none.

    Example:
        >>> from bnlib.experiments.framework.experiment import device_entry
        >>> device_entry("cpu"), device_entry("cuda:0")
        ({}, {'device': 'cuda:0'})
    """
    return {} if devices == "cpu" else {"device": devices}
