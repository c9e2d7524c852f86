"""The tests of formulas and chapters can fail: each of these breaks one thing in a copy of the book, to be noticed.

Every mutation is paired with the same run on the unbroken copy, which must pass: red for another reason does not count.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from broken import Broken, passes, whole_passes

from chapters import code_cells, read

pytestmark = pytest.mark.mutation


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
    chapter, path = copy / "chapters" / "01_the_formula.ipynb", copy / "short.ipynb"
    imports, *code = code_cells(chapter)
    notebook = read(chapter)
    notebook.cells = [imports, next(cell for cell in code if "standard_cauchy" in cell.source)]
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
