"""What an experiment is: a question, the runs that answer it at two scales, and a result that is kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

import torch

from bnlib import distributed
from bnlib.experiments.framework.results import FOLDER, read_result, result_path, write_result
from bnlib.sweep import Run, run
from bnlib.training import History, best_device

Scale = Literal["quick", "paper"]
"""Minutes on two cores, or the size of the source's runs."""

_live_seed = itertools.count(100)
CURVES = ("train_loss", "train_error", "test_loss", "test_error")
"""What is kept of a ``History`` unless an experiment says otherwise."""


@dataclass(frozen=True)
class Experiment:
    """Training runs that answer a question.

    Attributes:
        name: ``CHAPTER.FILE``, the place of its file below ``bnlib/experiments``.
        question: what it answers.
        source: figure or section that it repeats.
        axes: names of what tells the cells apart, e.g. ``("norm", "batch size")``.
        cells: the runs of each cell, one for each seed, by the cell's values on the axes; takes the scale: ``"quick"``
            takes minutes on two cores, ``"paper"`` is the size of the source's.
        curves: what is kept of each history.

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
        """What makes the result."""
        workers = distributed.rank_and_world_size()[1]
        start = "python" if workers == 1 else f"torchrun --nproc-per-node {workers}"
        return f"{start} -m bnlib experiments run {self.name} --scale {scale}"

    def result(self, scale: Scale) -> str:
        """Path of the result below ``data/results``. Several processes that train together answer another question."""
        workers = distributed.rank_and_world_size()[1]
        return result_path(self.name, scale) + f"_{workers}_processes" * (workers > 1)

    def measure(self, scale: Scale = "quick", **settings) -> dict[tuple, list[History]]:
        """Train what is not in the cache yet; ``settings`` are those of ``sweep.run``."""
        cells = self.cells(scale)
        histories = iter(run([each for runs in cells.values() for each in runs], **settings))
        return {cell: [next(histories) for _ in runs] for cell, runs in cells.items()}

    def save(self, scale: Scale = "quick", folder=FOLDER, **settings) -> dict[tuple, list[History]]:
        """Measure, write the result to ``folder`` and return what was measured."""
        rank, workers = distributed.rank_and_world_size()
        if rank > 0:
            return self.measure(scale, **settings)
        seeds = sorted({each.seed for runs in self.cells(scale).values() for each in runs})
        device = ", ".join(settings.get("devices", ("cpu",))) + f", {workers} processes" * (workers > 1)
        with write_result(self.result(scale), self.command(scale), seeds, folder, **device_entry(device)) as result:
            measured = self.measure(scale, **settings)
            # Those of the training, though some of it may have been done by an earlier call.
            result["training_seconds"] = round(sum(each.seconds for runs in measured.values() for each in runs))
            result["cells"] = [self._row(cell, histories) for cell, histories in measured.items()]
        return measured

    def table(self, measured: Mapping[tuple, Sequence[History]]) -> str:
        """The ends of the curves as text: for each cell the median over seeds, the least and the largest."""
        head = (*self.axes, *(name.replace("_", " ") for name in self.curves), "diverged")
        rows = [
            (*map(str, cell), *(median_and_range([getattr(each, name)[-1] for each in histories]) for name in self.curves),
             f"{sum(each.diverged for each in histories)} of {len(histories)}")
            for cell, histories in measured.items()
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        )

    def load(self, scale: Scale = "quick", folder=FOLDER) -> dict[tuple, dict[str, Any]]:
        """The committed result: for each cell ``epoch``, and each of ``curves`` by seed.

        A run that diverged has shorter curves, which end with None.

        Raises:
            FileNotFoundError: there is none; the message says how to make it.
        """
        rows = read_result(self.result(scale), self.command(scale), folder)["cells"]
        return {tuple(row[axis] for axis in self.axes): row for row in rows}

    def panels(self, scale: Scale = "quick", only: Mapping[str, str] | None = None, folder=FOLDER) -> dict[str, dict]:
        """The committed result by all axes but the norm, as text, and then by norm; for ``figures.draw_curves``.

        Arguments:
            only: values, as text, that axes must have.

        Raises:
            ValueError: ``only`` names another axis, or a value that no cell has.
            FileNotFoundError: as ``load``.
        """
        only, made = only or {}, {}
        if unknown := set(only) - set(self.axes):
            raise ValueError(f"only must name axes of {', '.join(map(repr, self.axes))}, got {sorted(unknown)}")
        for row in self.load(scale, folder).values():
            if all(str(row[axis]) == value for axis, value in only.items()):
                title = ", ".join(f"{axis} {row[axis]}" for axis in self.axes if axis != "norm" and axis not in only)
                made.setdefault(title, {})[str(row.get("norm", self.name))] = row
        if not made:
            raise ValueError(f"only must have values of cells, got {dict(only)}")
        return made

    def live(
        self, cells: Mapping[str, tuple], shown: Mapping[str, dict], device: torch.device | str | None = None
    ) -> Iterator[tuple[int, int, dict[str, dict]]]:
        """Train cells of the quick scale for real, with a seed that no result has used, for ``widgets.Explorer``.

        Arguments:
            cells: to be trained side by side, by name.
            shown: the committed curves by name, beside which those of the runs are put as "NAME, your run".
            device: ``training.best_device()`` if None.

        Yields:
            steps done, steps in all, and the curves; a new seed a call.
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
    """Median, least and largest of what is finite; a run that diverged has no last loss.

    Example:
        >>> from bnlib.experiments.framework.experiment import median_and_range
        >>> median_and_range([0.1, 0.5, 0.3, float("nan")])
        '0.3 [0.1, 0.5]'
    """
    finite = [value for value in values if math.isfinite(value)]
    return f"{median(finite):.3g} [{min(finite):.3g}, {max(finite):.3g}]" if finite else "-"


def rounded(values: Sequence[float]) -> list[float | None]:
    """Four significant digits, None for what is not finite.

    Example:
        >>> from bnlib.experiments.framework.experiment import rounded
        >>> rounded([0.123456, float("inf")])
        [0.1235, None]
    """
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def device_entry(devices: str) -> dict[str, str]:
    """What ``write_result`` is to be told of the devices; of the CPU it knows more.

    Example:
        >>> from bnlib.experiments.framework.experiment import device_entry
        >>> device_entry("cpu"), device_entry("cuda:0")
        ({}, {'device': 'cuda:0'})
    """
    return {} if devices == "cpu" else {"device": devices}
