"""The tests can fail: each of these breaks one thing in a copy of the book and expects a test to notice.

Every mutation is paired with the same run on the unbroken copy, which must pass: red for another reason does not count.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, SITE

pytestmark = pytest.mark.mutation


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """What a clone would hold: the tracked files, and those about to be."""
    target = tmp_path_factory.mktemp("copy")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    return target


def passes(copy: Path, *arguments: str, **environment: str) -> bool:
    """Whether pytest, run in the copy on the copy's own package, ends with every test passed."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
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


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("reference.py", "- normalised * _wide(along_normalised, g)", ""),
        ("reference.py", "variance * count / (count - 1)", "variance"),
        ("norm/batch_norm.py", "return super().forward(input)", "return super().forward(input) * 1.001"),
        ("norm/batch_norm.py", "deviation = input - input", "deviation = input"),
    ],
)
def test_a_broken_formula_is_noticed(copy, file, old, new):
    test = f"tests/unit/test_{Path(file).name}"
    assert whole_passes(copy, test)
    with Broken(copy / "bnlib" / file, old, new):
        assert not passes(copy, test)


@pytest.fixture(scope="module")
def short_chapter(copy) -> Path:
    """Chapter 1 up to its first asserted facts that need no training."""
    notebook = nbformat.read(copy / "chapters" / "01_the_formula.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    facts = next(cell for cell in code if "standard_cauchy" in cell.source)
    notebook.cells = [code[0], facts]
    path = copy / "short.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("assert largest <= bound", "assert largest <= bound - 1"),  # the asserted number
        ("normalised values: 4.36", "normalised values: 4.37"),  # the stored number
    ],
)
def test_a_wrong_number_in_a_chapter_is_noticed(copy, short_chapter, old, new):
    assert whole_passes(copy, "--nbval", short_chapter.name)
    with Broken(short_chapter, old, new):
        assert not passes(copy, "--nbval", short_chapter.name)


def test_a_slider_whose_drawing_fails_at_one_position_is_noticed(copy):
    notebook = nbformat.read(copy / "chapters" / "01_the_formula.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [code[0], next(cell for cell in code if "figures.draw_gain" in cell.source)]
    nbformat.write(notebook, copy / "slider.ipynb")
    assert passes(copy, "--nbval", "slider.ipynb")
    drawing = copy / "bnlib" / "figures" / "formula.py"
    with Broken(drawing, "    floor = 1e-9\n", "    floor = 1e-9 if eps < 10 else None\n"):
        assert not passes(copy, "--nbval", "slider.ipynb")


def test_a_slider_that_does_not_move_its_picture_is_noticed(copy, site, browser, tmp_path):
    test = ["tests/book/test_browser.py", "-k", "every_slider_moves and 01_the_formula"]
    broken = shutil.copytree(SITE, tmp_path / "site")
    assert passes(copy, *test, BNLIB_SITE=str(broken))
    with Broken(broken / "_static" / "explorer.js", "stage.innerHTML = svg", "svg = svg"):
        assert not passes(copy, *test, BNLIB_SITE=str(broken))
