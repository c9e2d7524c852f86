"""Break one thing in a copy of the book and ask whether its tests notice."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path


def passes(copy: Path, *arguments: str, **environment: str) -> bool:
    """Whether pytest, run in the copy on the copy's own package, ends with every test passed."""
    settings = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {**os.environ, **settings, **environment}
    plugins = ["-p", "nbval.plugin"] if "--nbval" in arguments else []  # others take seconds to import
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *plugins, *arguments]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 0 passed, 1 failed; else nothing was tested
    return done.returncode == 0


class Broken:
    """A file of the copy with one text replaced, put right again at the end."""

    def __init__(self, path: Path, old: str, new: str):
        self.path, self.old, self.new = path, old, new

    def __enter__(self):
        self.whole = self.path.read_text()
        assert self.whole.count(self.old) >= 1, f"{self.old!r} is not in {self.path.name}: mend this test"
        self.path.write_text(self.whole.replace(self.old, self.new, 1))

    def __exit__(self, *_):
        self.path.write_text(self.whole)


@cache
def whole_passes(copy: Path, *arguments: str) -> bool:
    """Whether the unbroken copy passes; asked once for each set of tests."""
    return passes(copy, *arguments)
