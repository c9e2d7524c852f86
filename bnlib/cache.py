"""The cache of finished work: a folder of JSON files, one for each training run or measurement."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bnlib.arguments import shown
from bnlib.extras import optional

T = TypeVar("T")

_ROOM = 1 << 20
"""Bytes that must fit into a folder before work begins whose result is to be stored there."""


def cache_folder(cache: str | Path | None) -> Path:
    """Return the folder of the finished work, which exists and can be written; None stands for the user's cache.

    Raises:
        ModuleNotFoundError: if ``cache`` is None and pooch, which knows the user's cache, is not installed.
        OSError: as ``writable_folder``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache.cache_folder(f"{folder}/new").exists()
        True
    """
    if cache is None:
        pooch = optional("pooch", "the search for the user's cache", "pass a folder as cache to sweep.run")
        cache = pooch.os_cache("bnlib") / "sweeps"
    return writable_folder("cache", cache)


def writable_folder(name: str, folder: str | Path) -> Path:
    """Create a folder if it does not exist, write a file of 1 MiB into it and remove it again, and return the folder.

    Whoever works for hours should learn at the beginning that the result cannot be stored.

    Raises:
        TypeError: if ``folder`` is not a path.
        OSError: if the folder cannot be made or written, or is full; the message calls it ``name``.

    Example:
        >>> cache.writable_folder("cache", "/dev/null/cache")
        Traceback (most recent call last):
            ...
        OSError: cache must be a folder with room for 1 MiB, got /dev/null/cache: Not a directory
    """
    if not isinstance(folder, (str, os.PathLike)) or folder == "":
        raise TypeError(f"{name} must be the path of a folder, got {shown(folder)}")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(bytes(_ROOM))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OSError(f"{name} must be a folder with room for 1 MiB, got {folder}: {error.strerror}") from error
    return path


def store(value: Any, path: Path) -> None:
    """Write ``value`` as JSON in one step: there is the whole file, or none.

    Raises:
        OSError: if the file cannot be written; the message names it.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "result.json")
        ...     cache.store({"loss": 0.5}, file)
        ...     cache.read_stored(file, dict)
        {'loss': 0.5}
    """
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(json.dumps(value))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"cache must have room for a result, which is lost: {path}: {error.strerror}") from error


def read_stored(path: Path, convert: Callable[[Any], T]) -> T:
    """Read a file that ``store`` has written and return ``convert(content)``, which raises an error for wrong content.

    Raises:
        ValueError: if the file is not JSON, cannot be read, or is refused by ``convert``; the message names the file.

    Example:
        >>> import pathlib
        >>> cache.read_stored(pathlib.Path("no.json"), dict)
        Traceback (most recent call last):
            ...
        ValueError: cache must hold complete results, got the broken file no.json (No such file or directory); delete it
    """
    try:
        return convert(json.loads(path.read_text()))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"cache must hold complete results, got the broken file {path} ({reason}); delete it"
        ) from error


@contextmanager
def note_on_resuming(paths: Sequence[Path]) -> Iterator[None]:
    """Add a note to any error in a ``with`` block: how many of the results with these paths are stored by then.

    Example:
        >>> import pathlib
        >>> try:
        ...     with cache.note_on_resuming([pathlib.Path("nothing.json")]):
        ...         raise KeyboardInterrupt
        ... except KeyboardInterrupt as error:
        ...     print(error.__notes__)
        ['0 of 1 results are stored.']
    """
    try:
        yield
    except BaseException as error:
        done = sum(path.exists() for path in paths)
        more = f" in {paths[0].parent}: make the same call again to continue" if done else ""
        error.add_note(f"{done} of {len(paths)} results are stored{more}.")
        raise
