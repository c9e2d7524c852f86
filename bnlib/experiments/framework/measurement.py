"""Experiments that measure: a grid of settings, and a function that measures numbers in each cell."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnlib.arguments import check_integer
from bnlib.cache import cache_folder, note_on_resuming, read_stored, store
from bnlib.distributed import rank_and_world_size
from bnlib.experiments.framework.experiment import Scale, device_entry, median_and_range, rounded
from bnlib.experiments.framework.results import (
    FOLDER,
    numbers_of_cells,
    read_cells,
    result_path,
    write_result,
)
from bnlib.processes import run_jobs
from bnlib.sweep import code_hash, describe
from bnlib.training import check_device, progress_bar

Measure = Callable[..., Mapping[str, Any]]
"""``measure(*cell, seed=..., device=...)``, which returns numbers, or lists of numbers, by name."""


@dataclass(frozen=True)
class Measurement:
    """A grid of measurements, with several seeds per cell, that answers a question.

    Attributes:
        name: ``CHAPTER.FILE``, the path of the experiment's file below ``bnlib/experiments``.
        question: the question that the experiment answers.
        source: figure or section of a paper that it reproduces.
        axes: names of the axes of the grid.
        cells: function of the scale that returns the seeds of each cell, keyed by the cell's values on the axes.
        measure: function that can be imported; ``measure(*cell, seed=..., device=...)`` returns numbers, or lists of
            numbers, by name.

    Example:
        >>> from bnlib.experiments.framework.registry import EXPERIMENTS
        >>> bias = EXPERIMENTS["full_normalization.oracle_bias"]
        >>> bias.axes
        ('depth', 'oracle', 'batch_size')
        >>> len(bias.load("quick")) == len(bias.cells("quick"))
        True
    """

    name: str
    question: str
    source: str
    axes: tuple[str, ...]
    cells: Callable[[Scale], dict[tuple, Sequence[int]]]
    measure: Measure

    def command(self, scale: Scale) -> str:
        """Return the shell command that produces the result."""
        return f"python -m bnlib experiments run {self.name} --scale {scale}"

    def result(self, scale: Scale) -> str:
        """Return the path of the result below ``data/results``, without suffix."""
        return result_path(self.name, scale)

    def save(
        self,
        scale: Scale = "quick",
        folder: Path = FOLDER,
        *,
        cache: str | Path | None = None,
        workers: int = 1,
        devices: Sequence[str] = ("cpu",),
        **_,
    ) -> dict[tuple, list[Mapping[str, Any]]]:
        """Measure the cells that are not in the cache, write the result to ``folder`` and return the numbers.

        Arguments:
            scale: ``"quick"`` or ``"paper"``.
            folder: folder of the result.
            cache: folder of the finished measurements, None for the user's cache; an interrupted call resumes from it.
            workers: number of processes that measure in parallel; they use ``devices`` in turn.
            devices: devices to use, e.g. ``("cuda:0", "cuda:1")``.

        Raises:
            ValueError: if ``workers`` is below 1, under ``torchrun`` with several processes, or if a file in the cache
                is broken.
        """
        check_integer("workers", workers)
        for device in devices:
            check_device("devices", device)
        if rank_and_world_size()[1] > 1:
            raise ValueError(
                f"{self.name} must be run by one process, got {rank_and_world_size()[1]} of torchrun; see workers"
            )
        cells, kept = self.cells(scale), cache_folder(cache)
        tasks = [(cell, seed) for cell, seeds in cells.items() for seed in seeds]
        paths = {task: kept / f"{self._key(*task, torch.device(devices[0]).type)}.json" for task in tasks}
        stored = {task: read_stored(path, _measured) for task, path in paths.items() if path.exists()}
        left = [task for task in tasks if task not in stored]
        seeds = sorted({seed for _, seed in tasks})
        with write_result(
            self.result(scale), self.command(scale), seeds, folder, **device_entry(", ".join(devices))
        ) as result:
            self._measure_all(left, paths, workers, devices)
            done = stored | {task: read_stored(paths[task], _measured) for task in left}
            # The time of all measurements, including those of earlier calls.
            result["measuring_seconds"] = round(sum(each["seconds"] for each in done.values()))
            measured = {cell: [done[cell, seed]["values"] for seed in seeds] for cell, seeds in cells.items()}
            result["cells"] = [
                dict(zip(self.axes, cell, strict=True)) | {name: [each[name] for each in rows] for name in rows[0]}
                for cell, rows in measured.items()
            ]
        return measured

    def load(self, scale: Scale = "quick", folder: Path = FOLDER) -> dict[tuple, dict[str, np.ndarray]]:
        """Read the committed result.

        Returns:
            For each cell, keyed by its values on the axes, the numbers by name, as arrays whose first dimension are the
            seeds. Values that are not finite are nan.

        Raises:
            FileNotFoundError: if there is no result; the message contains the command that produces it.
            ValueError: if the result is broken.
        """
        name, command = self.result(scale), self.command(scale)
        cells = read_cells(name, command, self.axes, folder)
        return numbers_of_cells(cells, self.axes, folder / f"{name}.json", command)

    def table(self, measured: Mapping[tuple, Sequence[Mapping[str, Any]]]) -> str:
        """Return the numbers as text: for each cell the median, minimum and maximum over seeds; lists are averaged."""
        names = list(dict.fromkeys(name for rows in measured.values() for name in rows[0]))
        rows = [(*self.axes, *(name.replace("_", " ") for name in names))]
        for cell, each in measured.items():
            means = {name: median_and_range([np.mean(np.array(one[name], float)) for one in each]) for name in each[0]}
            rows.append((*map(str, cell), *(means.get(name, "") for name in names)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def measure_once(self, cell: tuple, seed: int, device: str = "cpu") -> dict[str, Any]:
        """Measure one cell with one seed and return the rounded numbers, with None for values that are not finite."""
        return {name: _rounded(value) for name, value in self.measure(*cell, seed=seed, device=device).items()}

    def _key(self, cell: tuple, seed: int, device_type: str) -> str:
        source = inspect.getsource(inspect.getmodule(self.measure))
        text = json.dumps([source, describe(list(cell)), seed, code_hash(), torch.__version__, device_type])
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def _measure_all(self, left: list, paths: Mapping, workers: int, devices: Sequence[str]) -> None:
        jobs = [(self, task, paths[task], devices[number % len(devices)]) for number, task in enumerate(left)]
        # A fork server imports PyTorch once for all workers; a GPU must not be shared with it.
        preload = [__name__, "torch._dynamo"] if set(devices) == {"cpu"} else None
        done = run_jobs(_do, jobs, workers, preload) if workers > 1 else itertools.starmap(_do, jobs)
        with note_on_resuming([paths[task] for task in left]):
            for _ in progress_bar(done, total=len(left), unit="run") if left else ():
                pass


def _do(measurement: Measurement, task: tuple[tuple, int], path: Path, device: str) -> None:
    began = time.perf_counter()
    values = measurement.measure_once(*task, device)
    store({"values": values, "seconds": time.perf_counter() - began}, path)


def _measured(stored: Any) -> dict[str, Any]:
    """Return what a measurement stored; raise an error if it is not one that ended."""
    values, seconds = stored["values"], stored["seconds"]
    if not isinstance(values, dict) or not values or not all(map(_is_numbers, values.values())):
        raise ValueError("its values must be numbers, or lists of numbers, by name")
    if type(seconds) not in (int, float):
        raise ValueError("its seconds must be a number")
    return {"values": values, "seconds": seconds}


def _is_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numbers, value))
    return value is None or type(value) in (int, float)


def _rounded(value: Any) -> Any:
    array = np.asarray(value, dtype=float)
    return rounded([float(array)])[0] if array.ndim == 0 else [_rounded(each) for each in array]
