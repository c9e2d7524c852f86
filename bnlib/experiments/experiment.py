"""What an experiment is: a question, the runs that answer it at two scales, and a result that is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bnlib.experiments.results import FOLDER, read_result, write_result
from bnlib.sweep import Run, run
from bnlib.training import History

Scale = Literal["quick", "paper"]
CURVES = ("train_loss", "test_loss", "test_error")


@dataclass(frozen=True)
class Experiment:
    """Training runs that answer a question.

    Attributes:
        name: of its file in ``bnlib/experiments`` and of its results.
        question: what it answers.
        source: figure or section that it repeats.
        axes: names of what tells the cells apart, e.g. ``("norm", "batch size")``.
        cells: the runs of each cell, one for each seed, by the cell's values on the axes; takes the scale: ``"quick"``
            takes minutes on two cores, ``"paper"`` is the size of the source's.
    """

    name: str
    question: str
    source: str
    axes: tuple[str, ...]
    cells: Callable[[Scale], dict[tuple, list[Run]]]

    def command(self, scale: Scale) -> str:
        """What makes the result."""
        return f"python -m bnlib experiments run {self.name} --scale {scale}"

    def measure(self, scale: Scale = "quick", **settings) -> dict[tuple, list[History]]:
        """Train what is not in the cache yet; ``settings`` are those of ``sweep.run``."""
        cells = self.cells(scale)
        histories = iter(run([each for runs in cells.values() for each in runs], **settings))
        return {cell: [next(histories) for _ in runs] for cell, runs in cells.items()}

    def save(self, scale: Scale = "quick", folder=FOLDER, **settings) -> None:
        """Measure and write ``data/results/NAME_SCALE.json``."""
        seeds = sorted({each.seed for runs in self.cells(scale).values() for each in runs})
        devices = ", ".join(settings.get("devices", ("cpu",)))
        with write_result(f"{self.name}_{scale}", self.command(scale), seeds, folder, **_on(devices)) as result:
            measured = self.measure(scale, **settings)
            # Those of the training, though some of it may have been done by an earlier call.
            result["training_seconds"] = round(sum(each.seconds for runs in measured.values() for each in runs))
            result["cells"] = [self._row(cell, histories) for cell, histories in measured.items()]

    def load(self, scale: Scale = "quick", folder=FOLDER) -> dict[tuple, dict[str, Any]]:
        """The committed result: for each cell ``epoch``, and ``train_loss``, ``test_loss``, ``test_error`` by seed.

        A run that diverged has shorter curves, which end with None.

        Raises:
            FileNotFoundError: there is none; the message says how to make it.
        """
        rows = read_result(f"{self.name}_{scale}", self.command(scale), folder)["cells"]
        return {tuple(row[axis] for axis in self.axes): row for row in rows}

    def _row(self, cell: tuple, histories: Sequence[History]) -> dict[str, Any]:
        longest = max((history.epoch for history in histories), key=len)
        curves = {name: [_rounded(getattr(history, name)) for history in histories] for name in CURVES}
        return {**dict(zip(self.axes, cell, strict=True)), "epoch": _rounded(longest), **curves}


def _rounded(values: Sequence[float]) -> list[float | None]:
    """Four significant digits, None for what is not finite."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def _on(devices: str) -> dict[str, str]:
    return {} if devices == "cpu" else {"device": devices}
