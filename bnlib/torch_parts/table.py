"""The table: every part, the committed measurements, and rows for ``tables.CaseTable``."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

from bnlib.arguments import check_one_of
from bnlib.experiments.framework.results import read_cells, read_result
from bnlib.tables import powers_of_ten
from bnlib.torch_parts import averages, copies, derivatives, folding, precision, processes, programs, recomputation
from bnlib.torch_parts.diagnosed import diagnosed
from bnlib.torch_parts.measuring import Measured, Numbers, Part, equal, without_warnings

SECTIONS: dict[str, list[Part]] = {
    "forward passes that run again": recomputation.PARTS,
    "compiling and exporting": programs.PARTS,
    "averaging weights": averages.PARTS,
    "copying, loading and freezing": copies.PARTS,
    "several processes": processes.PARTS,
    "number formats": precision.PARTS,
    "folding and quantising": folding.PARTS,
    "functional transforms": derivatives.PARTS,
}
"""The parts of PyTorch by what they do, in the order of the page."""

PARTS: dict[str, Part] = {part.title: part for parts in SECTIONS.values() for part in parts}
"""The same by name and situation."""

_RESULT = "benchmarks/torch_parts_cpu", "python benchmarks/torch_parts.py --save"


def missing(title: str) -> list[str]:
    """Return the modules that are needed to measure a part, and are not installed.

    Raises:
        ValueError: if there is no such part.

    Example:
        >>> torch_parts.missing("`copy.deepcopy`: training a copy")
        []
    """
    check_one_of("title", title, PARTS)
    return [name for name in PARTS[title].needs if importlib.util.find_spec(name) is None]


def measure(title: str) -> Measured:
    """Measure a part of PyTorch in this process, and in two more if it is about processes.

    Arguments:
        title: a key of ``PARTS``.

    Raises:
        ModuleNotFoundError: if an exporter is missing.
        ValueError: if there is no such part.

    Example:
        >>> torch_parts.measure("`requires_grad_(False)`: three more batches in train mode").found["batches"]
        6
    """
    check_one_of("title", title, PARTS)
    if names := missing(title):
        raise ModuleNotFoundError(f"{title} needs {', '.join(names)}: pip install 'bnlib[onnx]'", name=names[0])
    with without_warnings():
        measured = PARTS[title].measure()
    return Measured(*(each and _rounded(each) for each in (measured.expected, measured.found, measured.remedied)))


def _rounded(numbers: Numbers) -> Numbers:
    return {name: _written(value) if isinstance(value, float) else value for name, value in numbers.items()}


def _written(value: float) -> float | str:
    """Return a number with five digits, or as text what JSON has no number for."""
    if math.isfinite(value):
        return float(f"{value:.5g}")
    return "NaN" if math.isnan(value) else "infinite"


def outcome(title: str, measured: Measured) -> str:
    """Return ``"as expected"``, ``"other numbers"`` or ``"an error"``.

    Raises:
        ValueError: if there is no such part.

    Example:
        >>> title = "`copy.deepcopy`: training a copy"
        >>> torch_parts.outcome(title, torch_parts.load()[title])
        'as expected'
    """
    check_one_of("title", title, PARTS)
    if equal(measured.found, measured.expected, PARTS[title].tolerance):
        return "as expected"
    return "an error" if measured.found.get("error", "no") != "no" else "other numbers"


def load() -> dict[str, Measured]:
    """Return the committed measurements by title.

    Raises:
        FileNotFoundError: if there is no such file; the message contains the command that writes it.

    Example:
        >>> torch_parts.load()["`torch.utils.checkpoint`: without compiling, `use_reentrant=False`"].found["batches"]
        6
    """
    cells = read_cells(*_RESULT, ("title",))
    return {key: Measured(cell["expected"], cell["found"], cell["remedied"]) for (key,), cell in cells.items()}


def versions() -> list[dict[str, str]]:
    """Return the packages with which the committed measurements were made, their versions, and the date.

    Example:
        >>> [row["package"] for row in torch_parts.versions()][1]
        'torch'
    """
    saved = read_result(*_RESULT)
    found: dict[str, Any] = saved["provenance"]["versions"] | saved["exporters"]
    date = saved["provenance"]["date"][:10]
    return [{"package": name, "version": version, "measured": date} for name, version in found.items()]


def summary_rows() -> list[dict[str, Any]]:
    """Return for each section how many parts do what is expected, something else without an error, or raise an error.

    Example:
        >>> torch_parts.summary_rows()[0]["as expected"]
        1
    """
    found = load()
    kinds = ("as expected", "other numbers", "an error")
    rows = []
    for name, parts in SECTIONS.items():
        outcomes = [outcome(part.title, found[part.title]) for part in parts]
        rows.append({"section": name, "situations": len(parts)} | {kind: outcomes.count(kind) for kind in kinds})
    return rows


def rows(section: str) -> list[dict[str, str]]:
    """Return a section for ``tables.CaseTable``: what happens, how to tell, what the doctor says, what to do.

    Arguments:
        section: a key of ``SECTIONS``.

    Raises:
        ValueError: if there is no such section.

    Example:
        >>> torch_parts.rows("several processes")[0]["how to tell"]
        '`running_mean` differs between the processes.'
    """
    check_one_of("section", section, SECTIONS)
    found = load()
    return [
        {
            "part": part.title,
            "what happens": part.happens,
            "measured": _sentence(part, found[part.title]),
            "how to tell": part.tell,
            "the doctor": diagnosed(part.title),
            "what to do": part.remedy,
        }
        for part in SECTIONS[section]
    ]


def _sentence(part: Part, measured: Measured) -> str:
    kind = outcome(part.title, measured)
    if kind == "as expected":
        return f"as expected: {_listed(measured.found)}"
    if list(measured.found) == ["error"]:
        return f"`{measured.found['error']}`\nwith the remedy: {_listed(measured.expected)}"
    pairs = zip(measured.found.items(), measured.expected.values(), strict=True)
    differences = [_difference(name, found, expected) for (name, found), expected in pairs]
    return ", ".join(differences) + "\nwith the remedy: as expected"


def _difference(name: str, found: float | int | str, expected: float | int | str) -> str:
    shown = f"{name} {_shown(found)}"
    return shown if found == expected else f"{shown} (expected {_shown(expected)})"


def _listed(numbers: Numbers) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in numbers.items())


def _shown(value: float | int | str) -> str:
    return powers_of_ten(f"{value:.4g}") if isinstance(value, float) else f"{value}"
