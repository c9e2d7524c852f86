"""What a notebook shows where nothing runs: on GitHub and nbviewer, as a converted page, in JupyterLab before a run."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from chapters import code_cells, read
from tools import notebooks

CHAPTERS = pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
SHORT = notebooks.CHAPTERS / "10_many_machines.ipynb"


def shows_picture(cell) -> bool:
    return "figures.picture(" in cell.source or "widgets.Explorer(" in cell.source


def results(cell) -> list:
    """The outputs of a cell that are not printed."""
    return [output for output in cell.outputs if "data" in output]


def converted(notebook: nbformat.NotebookNode) -> BeautifulSoup:
    return BeautifulSoup(HTMLExporter().from_notebook_node(notebook)[0], "html.parser")


@CHAPTERS
def test_a_figure_is_stored_in_the_one_form_that_every_viewer_shows(path):
    """GitHub removes SVG, JupyterLab and VS Code show it only to those who trust; HTML and widgets would come first."""
    for cell in filter(shows_picture, code_cells(path)):
        (output,) = results(cell)
        assert set(output.data) == {"image/png", "text/plain"}, cell.source
        assert output.data["text/plain"].startswith(("[Figure: ", "[Explorer: "))
        assert 300 < output.metadata["image/png"]["width"] < 800


@CHAPTERS
def test_every_other_result_is_a_table_or_text_without_scripts(path):
    for cell in code_cells(path):
        for output in [] if shows_picture(cell) else results(cell):
            markup = output.data.get("text/html", "<table")
            assert "<table" in markup or markup.startswith(notebooks.FOLDS), cell.source
            assert not re.search("<(script|svg|iframe|img)", markup), cell.source
            assert set(output.data) <= {"text/html", "text/plain", "text/latex", "application/json"}


@CHAPTERS
def test_a_table_is_stored_with_its_html_so_that_nbval_compares_it(path):
    for cell in code_cells(path):
        if re.search(r"^tables\.Table\(", cell.source, flags=re.M):
            (output,) = results(cell)
            assert 'class="dataframe"' in output.data["text/html"] and output.data["text/plain"], cell.source


def test_the_notebooks_together_stay_small():
    sizes = {path.name: path.stat().st_size for path in notebooks.chapters()}
    assert sum(sizes.values()) < 4.65e6 and max(sizes.values()) < 600e3, sizes


def test_a_page_that_nbconvert_makes_of_a_stored_notebook_has_its_pictures():
    page = converted(read(SHORT))
    shown = page.select('.jp-OutputArea-output img[src^="data:image/png;base64,"]')
    assert len(shown) == sum(map(shows_picture, code_cells(SHORT))) >= 2
    assert "[Figure" not in page.text and "[Explorer" not in page.text


@CHAPTERS
def test_the_first_thing_that_a_reader_sees_is_the_title(path):
    first, *others = read(path).cells
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    place, fetching = next((n, cell) for n, cell in enumerate(others) if cell.cell_type == "code")
    assert notebooks.is_first(fetching) and not [cell for cell in others[:place] if cell.cell_type == "code"]
    assert fetching.metadata.jupyter.source_hidden and fetching.metadata.cellView == "form"
    assert fetching.source.startswith("# @title ") and len(fetching.source.splitlines()) < 20


@CHAPTERS
def test_what_a_page_folds_jupyterlab_collapses(path):
    for cell in code_cells(path):
        tags, collapsed = {*cell.metadata.get("tags", [])}, cell.metadata.get("jupyter", {})
        no_source = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
        assert collapsed.get("source_hidden", False) == bool(tags & no_source), cell.source
        assert collapsed.get("outputs_hidden", False) == bool(tags & {"hide-output", "hide-cell"}), cell.source
