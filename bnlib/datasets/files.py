"""Find the files of data sets in folders of the user, download them, and report files that are missing or wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bnlib.arguments import check_kind
from bnlib.extras import optional


class DatasetError(RuntimeError):
    """The error for a missing or wrong file of a data set; its message names the file and says what to do."""


def user_folders(root: str | Path | None, name: str) -> list[Path]:
    """Return the folder of ``root`` or ``BNLIB_DATA`` and its subfolder ``name``; an empty list if neither is given."""
    given = root if root is not None else os.environ.get("BNLIB_DATA")
    if given is None:
        return []
    check_kind("root", given, (str, os.PathLike), "the path of a folder")
    folder = Path(given).expanduser()
    return [folder, folder / name]


def missing_file(what: str, folders: Sequence[Path], root: str | Path | None, url: str) -> DatasetError:
    """Return the error for a file that is in none of the user's folders."""
    where = "root" if root is not None else "the environment variable BNLIB_DATA"
    return DatasetError(
        f"{what}, in {folders[0]} and {folders[1]}, given by {where}. "
        f"Download it from {url} into this folder, give another folder, or give none to have it downloaded."
    )


def fetch(folder: str, url: str, sha256: str) -> Path:
    """Return the path of a file in the user's cache; download it and check its hash if it is not there yet."""
    file = url.rsplit("/", 1)[-1]
    pooch = optional("pooch", f"downloading {file}", "set BNLIB_DATA to a folder that contains the file")
    cache = pooch.os_cache("bnlib") / folder
    try:
        # pooch writes to a temporary file and moves it into place once its hash is right.
        return Path(pooch.retrieve(url, f"sha256:{sha256}", file, cache, progressbar=True))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{file} is not in the cache {cache} and could not be downloaded from {url}: {error}. Try "
            "again, or get the file elsewhere and set BNLIB_DATA to the folder that contains it."
        ) from error


def check_head(path: Path, expected: str) -> bytes:
    """Return the first bytes of a file; raise an error if it does not exist or is a web page."""
    if not path.is_file():
        raise wrong_file(path, "a folder" if path.is_dir() else "nothing", expected)
    with path.open("rb") as raw:
        head = raw.read(64)
    if head.lstrip()[:1] == b"<":
        raise wrong_file(path, "what looks like a web page", f"{expected}; the download got an error page")
    return head


def wrong_file(path: Path | str, found: str, expected: str) -> DatasetError:
    """Return the error for a file whose content is not what it should be."""
    return DatasetError(f"{path}: found {found}, expected {expected}. Remove the file and get it again.")
