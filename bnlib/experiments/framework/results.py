"""Read and write the committed results, ``data/results/CHAPTER/NAME_SCALE.json``, with their provenance."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnlib.cache import writable_folder


def results_folder() -> Path:
    """Return the folder in which results are read and written.

    It is the one that the environment variable BNLIB_RESULTS names; else that of an installed package; else
    ``data/results`` of the checkout.

    Example:
        >>> from bnlib.experiments.framework.results import results_folder
        >>> (results_folder() / "formula" / "training_curves_quick.json").exists()
        True
    """
    if named := os.environ.get("BNLIB_RESULTS"):
        return Path(named)
    package = Path(__file__).parents[2]
    installed = package / "results"
    return installed if installed.is_dir() else package.parent / "data" / "results"


FOLDER = results_folder()
"""The folder of the committed results."""

_THIS_CPU = f"cpu ({platform.machine()})"


def read_result(name: str, command: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Read a committed result.

    Arguments:
        name: path of the result below ``folder``, without ``.json``.
        command: shell command that produces the result, for the error message.
        folder: folder of the results.

    Raises:
        FileNotFoundError: if there is no such file; the message contains ``command``.
        ValueError: if the file is not JSON.

    Example:
        >>> from bnlib.experiments.framework.results import read_result
        >>> sorted(read_result("full_normalization/oracle_bias_quick", "see data/README.md")["provenance"])
        ['command', 'commit', 'date', 'device', 'seconds', 'seeds', 'versions']
    """
    path = folder / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the result {path} does not exist; produce it with `{command}`, or set BNLIB_RESULTS to the folder that "
            "holds the results"
        ) from None
    except ValueError as error:
        raise ValueError(f"the result {path} is broken ({error}); produce it again with `{command}`") from error


def read_cells(name: str, command: str, axes: Sequence[str], folder: Path = FOLDER) -> dict[tuple, dict[str, Any]]:
    """Read the cells of a committed result, by their values on the axes.

    Arguments:
        name, command, folder: as in ``read_result``.
        axes: names of the axes.

    Raises:
        FileNotFoundError: if there is no such file; the message contains ``command``.
        ValueError: if the file does not hold cells with these axes, each once.

    Example:
        >>> from bnlib.experiments.framework.results import read_cells
        >>> axes = "depth", "oracle", "batch_size"
        >>> cells = read_cells("full_normalization/oracle_bias_quick", "see data/README.md", axes)
        >>> list(cells)[:2]
        [(1, 'batch', 1), (1, 'batch', 2)]
    """
    result = read_result(name, command, folder)
    try:
        cells = {tuple(row[axis] for axis in axes): row for row in result["cells"]}
        fault = (
            "" if 0 < len(cells) == len(result["cells"]) else f"{len(result['cells'])} cells, {len(cells)} different"
        )
    except (KeyError, TypeError) as error:
        cells, fault = {}, f"{type(error).__name__}: {error}"
    if fault:
        raise ValueError(
            f"the result {folder / name}.json is broken: it must hold cells with the axes {', '.join(axes)}, got "
            f"{fault}; produce it again with `{command}`"
        )
    return cells


def check_curves(cells: Mapping[tuple, Mapping[str, Any]], curves: Sequence[str], path: Path, command: str) -> None:
    """Raise a ValueError if a cell of a result lacks a curve, or a curve is not a list of numbers for each run.

    Arguments:
        cells: as ``read_cells`` returns them.
        curves: the names of the curves.
        path: of the result, for the message.
        command: as in ``read_result``.

    Example:
        >>> import pathlib
        >>> from bnlib.experiments.framework.results import check_curves
        >>> cells = {("BN",): {"epoch": [0, 1], "loss": [[2.3, 0.4], [2.3]]}}
        >>> check_curves(cells, ["loss"], pathlib.Path("a.json"), "see data/README.md")
    """
    for cell, row in cells.items():
        epochs = row.get("epoch")
        wrong = [] if _is_curve(epochs, 10**9) else ["epoch"]
        for name in curves if not wrong else ():
            runs = row.get(name)
            if not isinstance(runs, list) or not runs or not all(_is_curve(each, len(epochs)) for each in runs):
                wrong.append(name)
        if wrong:
            raise ValueError(
                f"the result {path} is broken: its cell {', '.join(map(str, cell))} must hold numbers for {wrong[0]}, "
                f"at most one for each epoch; produce it again with `{command}`"
            )
        _check_runs(cell, {name: row[name] for name in curves}, path, command)


def numbers_of_cells(
    cells: Mapping[tuple, Mapping[str, Any]], axes: Sequence[str], path: Path, command: str
) -> dict[tuple, dict[str, np.ndarray]]:
    """Return the numbers of each cell by name, as arrays whose first dimension are the seeds.

    Arguments:
        cells: as ``read_cells`` returns them.
        axes: the names of the axes, which are no numbers.
        path: of the result, for the message.
        command: as in ``read_result``.

    Raises:
        ValueError: if a cell holds something else than numbers, one or an array of one shape for each seed.

    Example:
        >>> import pathlib
        >>> from bnlib.experiments.framework.results import numbers_of_cells
        >>> numbers_of_cells({("BN",): {"norm": "BN", "bias": [1, None]}}, ["norm"], pathlib.Path("a"), "a command")
        {('BN',): {'bias': array([ 1., nan])}}
    """
    found = {}
    for cell, row in cells.items():
        values = {name: value for name, value in row.items() if name not in axes}
        found[cell] = {}
        for name, value in values.items():
            try:
                if not isinstance(value, list) or not value or not _holds_numbers(value):
                    raise ValueError
                found[cell][name] = np.array(value, dtype=float)
            except ValueError:
                raise ValueError(
                    f"the result {path} is broken: its cell {', '.join(map(str, cell))} must hold numbers for {name}, "
                    f"one or an array of one shape for each seed; produce it again with `{command}`"
                ) from None
        _check_runs(cell, values, path, command)
    return found


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_holds_numbers, value))
    return value is None or type(value) in (int, float)


def _check_runs(cell: tuple, values: Mapping[str, Sequence], path: Path, command: str) -> None:
    """Raise a ValueError if a cell does not hold as many runs of each value."""
    counts = {len(each) for each in values.values()}
    if len(counts) > 1:
        raise ValueError(
            f"the result {path} is broken: its cell {', '.join(map(str, cell))} must hold as many runs of each value, "
            f"got {min(counts)} and {max(counts)}; produce it again with `{command}`"
        )


def _is_curve(values: Any, longest: int) -> bool:
    """Return whether values are a list of numbers, with None for those that are not finite, that is not too long."""
    is_list = isinstance(values, list) and 0 < len(values) <= longest
    return is_list and all(value is None or type(value) in (int, float) for value in values)


def result_path(name: str, scale: str) -> str:
    """Return the path of an experiment's result below ``FOLDER``, without suffix.

    Example:
        >>> from bnlib.experiments.framework.results import result_path
        >>> result_path("full_normalization.oracle_bias", "quick")
        'full_normalization/oracle_bias_quick'
    """
    return f"{name.replace('.', '/')}_{scale}"


def as_array(runs: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Convert the curves of R runs to an array, shape (R, P), with nan for None and after the end of shorter curves.

    Example:
        >>> from bnlib.experiments.framework.results import as_array
        >>> as_array([[2.3, 0.4], [2.3]])  # the second run diverged
        array([[2.3, 0.4],
               [2.3, nan]])
    """
    table = np.full((len(runs), max(map(len, runs))), np.nan)
    for row, run in zip(table, runs, strict=True):
        row[: len(run)] = [np.nan if value is None else value for value in run]
    return table


@contextmanager
def write_result(
    name: str, command: str, seeds: Sequence[int], folder: Path = FOLDER, device: str = _THIS_CPU
) -> Iterator[dict[str, Any]]:
    """Yield a dictionary for a result, and write it with its provenance when the ``with`` block ends without an error.

    The file is replaced in one step, so an interrupted run does not damage an earlier result.

    Arguments:
        name: path of the result below ``folder``, without ``.json``.
        command: shell command that produces the result.
        seeds: the seeds of the runs.
        folder: folder of the results.
        device: what the runs ran on.

    Raises:
        OSError: before the block, if the folder cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> from bnlib.experiments.framework.results import read_result, write_result
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = pathlib.Path(name)
        ...     with write_result("toy", "python toy.py", seeds=[0], folder=folder) as result:
        ...         result["answer"] = 42
        ...     found = read_result("toy", "python toy.py", folder)
        >>> found["answer"], found["provenance"]["command"]
        (42, 'python toy.py')
    """
    path = folder / f"{name}.json"
    writable_folder("folder", path.parent)
    # The commit is read before the run, because edits during the run do not affect it.
    began, commit = time.perf_counter(), _commit()
    result: dict[str, Any] = {}
    yield result
    result["provenance"] = {
        "command": command,
        "commit": commit,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "device": device,
        "seeds": list(seeds),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - began),
    }
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    os.replace(part, path)


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "not a git checkout"
