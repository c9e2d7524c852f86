"""Where the committed results come from and what is building the book, as tables for the status page."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bnlib.experiments.framework.registry import EXPERIMENTS
from bnlib.experiments.framework.results import FOLDER

VERSIONS = ("python", "torch", "numpy")
PACKAGES = ("bnlib", "torch", "numpy", "scikit-learn", "matplotlib", "ipywidgets", "jupyter-book", "sphinx", "myst-nb")


@dataclass(frozen=True)
class Result:
    """A committed result: file, the question it answers, and its provenance."""

    name: str
    question: str
    provenance: dict[str, Any]
    seconds: int


def committed(folder: Path = FOLDER) -> list[Result]:
    """All results, by name; the time is that of the work, which an interrupted run may have shared out over days."""
    return [_read(path, folder) for path in sorted(folder.rglob("*.json"))]


def _read(path: Path, folder: Path) -> Result:
    result = json.loads(path.read_text())
    provenance = result["provenance"]
    seconds = result.get("training_seconds", result.get("measuring_seconds", provenance["seconds"]))
    place = path.relative_to(folder).with_suffix("").as_posix()
    name = place.rpartition("_")[0].replace("/", ".")
    question = EXPERIMENTS[name].question if name in EXPERIMENTS else f"the time of a step, by {path.stem}"
    return Result(place, question, provenance, seconds)


def _processor() -> str:
    """The processor's name where Linux tells it, else the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


class Table:
    """Rows of text that a notebook shows as a table."""

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[str]]):
        self.head, self.rows = tuple(head), [tuple(row) for row in rows]

    def __repr__(self) -> str:
        return "\n".join(" | ".join(row) for row in (self.head, *self.rows))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.head)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in self.rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>"
        return f'<div class="bnb-table" style="overflow-x: auto" tabindex="0">{table}</div>'


def build() -> Table:
    """What executes this: versions, processor, device, date."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; everything ran on the CPU"
    rows = [("date", datetime.now(UTC).strftime("%d %B %Y")), ("Python", platform.python_version())]
    rows += [(name, version(name)) for name in PACKAGES]
    return Table(("what", "version or name"), [*rows, ("processor", _processor()), ("accelerator", device)])


def table(results: Sequence[Result]) -> Table:
    """A row a result."""
    return Table(("result and its question", "seeds", "date", "commit", "time"), list(map(_row, results)))


def origins(results: Sequence[Result]) -> Table:
    """How many results come from each device, with which versions."""
    found = Counter(
        (each.provenance["device"], *(each.provenance["versions"][name] for name in VERSIONS)) for each in results
    )
    return Table(("results", "device", *VERSIONS), [(str(count), *origin) for origin, count in found.most_common()])


def _row(result: Result) -> tuple[str, ...]:
    provenance = result.provenance
    time = f"{result.seconds} s" if result.seconds < 120 else f"{result.seconds / 60:.0f} min"
    seeds = str(len(provenance["seeds"]))
    return f"{result.name}: {result.question}", seeds, provenance["date"], provenance["commit"], time
