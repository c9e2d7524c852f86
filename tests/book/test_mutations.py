"""The tests of formulas and chapters can fail: each of these breaks one thing in a copy of the book, to be noticed.

Every mutation is paired with the same run on the unbroken copy, which must pass: red for another reason does not count.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import nbformat
import pytest
from broken import Broken, failures, passes, whole_passes

from chapters import code_cells, read

pytestmark = pytest.mark.mutation


FORMULAS = [
    ("reference/batch_norm.py", "- normalised * wide(along_normalised, g)", ""),
    ("reference/batch_norm.py", "variance * count / (count - 1)", "variance"),
    ("norm/batch_norm.py", "else super().forward(input)", "else super().forward(input) * 1.001"),
    ("norm/batch_norm.py", "return torch.batch_norm(input,", "return 1.001 * torch.batch_norm(input,"),
    ("norm/batch_norm.py", "deviation = input - input", "deviation = input"),
]


def unit_tests_of(file: str) -> str:
    folder, name = Path(file).parts
    return f"tests/unit/test_{name}" if folder == "norm" else f"tests/unit/test_{folder}.py"


@pytest.mark.parametrize(("file", "old", "new"), FORMULAS)
def test_a_broken_formula_is_noticed(copy, file, old, new):
    assert whole_passes(copy, *sorted({unit_tests_of(each) for each, *_ in FORMULAS}))
    with Broken(copy / "bnlib" / file, old, new):
        assert not passes(copy, unit_tests_of(file))


@pytest.fixture(scope="module")
def short_chapter(copy) -> Path:
    """Of chapter 1: its first asserted facts that need no training, and a slider."""
    chapter, path = copy / "chapters" / "01_the_formula.ipynb", copy / "short.ipynb"
    imports, *code = code_cells(chapter)
    notebook = read(chapter)
    notebook.cells = [
        imports,
        *(cell for cell in code if re.search("standard_cauchy|largest <= bound|figures.draw_pixel_gains", cell.source)),
    ]
    nbformat.write(notebook, path)
    return path


# What is broken in the short chapter, and what nbval then says of its cell.
IN_A_CHAPTER = [
    ("short.ipynb", "assert largest <= bound", "assert largest <= bound - 1", "AssertionError"),  # the asserted number
    ("short.ipynb", "normalised values: 4.36", "normalised values: 4.37", "mismatch 'stdout'"),  # the stored number
    # one position
    ("bnlib/figures/formula.py", "    floor = 1e-9\n", "    floor = 1e-9 if eps < 10 else None\n", "TypeError"),
]


def test_wrong_numbers_and_a_drawing_that_fails_in_a_chapter_are_noticed(copy, short_chapter):
    """All at once, because each run starts a kernel; each has a cell of its own, which fails for its reason."""
    assert whole_passes(copy, "--nbval", short_chapter.name)
    with ExitStack() as stack:
        for file, old, new, _ in IN_A_CHAPTER:
            stack.enter_context(Broken(copy / file, old, new))
        said = failures(copy, "--nbval", short_chapter.name)
    reports, _ = re.split(r"^=+ short test summary info =+$", said, flags=re.MULTILINE)  # which in CI tells all again
    cells = re.split(r"^_+ .*Cell \d+ _+$", reports, flags=re.MULTILINE)[1:]

    assert len(cells) == len(IN_A_CHAPTER)
    for *_, reason in IN_A_CHAPTER:
        assert sum(reason in cell for cell in cells) == 1, reason
