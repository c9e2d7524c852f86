"""The tests of sliders can fail: each of these breaks one in a copy of the book, and the unbroken copy must pass."""

from __future__ import annotations

import shutil

import nbformat
import pytest
from broken import Broken, passes
from conftest import SITE

from chapters import code_cells, read

pytestmark = pytest.mark.mutation


def test_a_slider_whose_drawing_fails_at_one_position_is_noticed(copy):
    chapter = copy / "chapters" / "01_the_formula.ipynb"
    imports, *code = code_cells(chapter)
    notebook = read(chapter)
    notebook.cells = [imports, next(cell for cell in code if "figures.draw_gain" in cell.source)]
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
