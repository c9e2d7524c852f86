"""Tables for the status page: the provenance of the committed results, and the environment that builds the book."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bnlib.experiments.framework.registry import EXPERIMENTS
from bnlib.experiments.framework.results import FOLDER
from bnlib.tables import Table

VERSIONS = ("python", "torch", "numpy")
PACKAGES = ("bnlib", "torch", "numpy", "scikit-learn", "matplotlib", "ipywidgets", "jupyter-book", "sphinx", "myst-nb")


@dataclass(frozen=True)
class Result:
    """A committed result.

    Attributes:
        name: path of its file below ``data/results``, without suffix.
        question: the question that it answers.
        provenance: command, commit, versions, device, seeds and date.
        seconds: time of the work, in seconds.
    """

    name: str
    question: str
    provenance: dict[str, Any]
    seconds: int


def committed_results(folder: Path = FOLDER) -> list[Result]:
    """Return all results in the order of their names; their time is that of all runs, even if they were interrupted."""
    return [_read(path, folder) for path in sorted(folder.rglob("*.json"))]


def _read(path: Path, folder: Path) -> Result:
    result = json.loads(path.read_text())
    provenance = result["provenance"]
    seconds = result.get("training_seconds", result.get("measuring_seconds", provenance["seconds"]))
    place = path.relative_to(folder).with_suffix("").as_posix()
    name = place.rpartition("_")[0].replace("/", ".")
    question = EXPERIMENTS[name].question if name in EXPERIMENTS else f"measured by {provenance['command'].split()[1]}"
    return Result(place, question, provenance, seconds)


def _processor() -> str:
    """Return the name of the processor if Linux provides it, else the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def build_environment() -> Table:
    """Return a table of the date, versions, processor and accelerator that execute this page."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; everything ran on the CPU"
    rows = [("date", datetime.now(UTC).strftime("%d %B %Y")), ("Python", platform.python_version())]
    rows += [(name, version(name)) for name in PACKAGES]
    rows += [("processor", _processor()), ("accelerator", device)]
    return Table([{"what": what, "version or name": name} for what, name in rows], "What this page was executed with")


def results_table(results: Sequence[Result]) -> Table:
    """Return a table with a row per result."""
    return Table(map(_row, results), "The committed results and how each was made")


def devices_and_versions(results: Sequence[Result]) -> Table:
    """Return a table of the number of results from each device and each set of versions."""
    found = Counter(
        (each.provenance["device"], *(each.provenance["versions"][name] for name in VERSIONS)) for each in results
    )
    rows = [{"results": n, **dict(zip(("device", *VERSIONS), each, strict=True))} for each, n in found.most_common()]
    return Table(rows, "Devices and versions that the committed results come from")


def _row(result: Result) -> dict[str, str | int]:
    provenance = result.provenance
    return {
        "result and its question": f"{result.name}: {result.question}",
        "seeds": len(provenance["seeds"]),
        "date": provenance["date"],
        "commit": provenance["commit"],
        "time": f"{result.seconds} s" if result.seconds < 120 else f"{result.seconds / 60:.0f} min",
    }
