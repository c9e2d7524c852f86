"""Break one thing in a copy of the book and ask whether its tests notice."""

from __future__ import annotations

import os
import sys
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A process that has imported what the tests need, all but the package that is broken, starts those that run them.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["jupyter_client.manager", "matplotlib.backends.backend_svg", "torch._dynamo"])


def passes(copy: Path, *arguments: str, **environment: str) -> bool:
    """Whether pytest, run in the copy on the copy's own package, ends with every test passed."""
    settings = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ["-p", "nbval.plugin"] if "--nbval" in arguments else []  # others take seconds to import
    command = ["-q", "-x", "-p", "no:cacheprovider", *plugins, *arguments]
    output = copy / "output.txt"
    process = FORKS.Process(target=_run, args=(copy, command, settings | environment, output))
    process.start()
    process.join()
    assert process.exitcode in (0, 1), output.read_text()  # 0 passed, 1 failed; else nothing was tested
    return process.exitcode == 0


def failures(copy: Path, *arguments: str) -> str:
    """The output of pytest for all tests that fail in the copy; ``passes`` ends at the first one."""
    assert not passes(copy, "--maxfail=100", *arguments)
    return (copy / "output.txt").read_text()


def _run(copy: Path, command: list[str], environment: dict[str, str], output: Path) -> None:
    """Run pytest in this process and exit with its status."""
    with output.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(copy)
    os.environ.update(environment)
    sys.dont_write_bytecode = True
    elsewhere = [path for path in sys.path if not Path(path).is_relative_to(ROOT) or "site-packages" in path]
    sys.path[:] = [str(copy), *elsewhere]
    for name in [name for name in sys.modules if name.split(".")[0] == "bnlib"]:
        del sys.modules[name]  # the process that was forked may have imported the whole package
    sys.exit(pytest.main(command))


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
