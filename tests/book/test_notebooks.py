"""The stored notebooks: normalised, complete, and with as many checks and sliders as a chapter must have."""

import re

import pytest

from chapters import code_cells, read
from tools import notebooks

CHAPTERS = pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
NUMBERED = pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)


@CHAPTERS
def test_a_notebook_is_stored_normalised_with_the_first_cell_of_all(path):
    renewed = notebooks.with_first_cell(read(path), notebooks.address())
    assert path.read_text() == notebooks.text(notebooks.normalised(renewed)), "run `make notebooks` or `make address`"


@CHAPTERS
def test_a_cell_that_prints_has_its_output_stored(path):
    """Without stored outputs nbval would compare nothing and pass."""
    for cell in code_cells(path):
        if re.search(r"^print\(", cell.source, flags=re.M):
            assert any(output.output_type == "stream" for output in cell.outputs), cell.source


@CHAPTERS
def test_no_output_is_an_error(path):
    assert not [cell for cell in code_cells(path) for output in cell.outputs if output.output_type == "error"]


@CHAPTERS
def test_only_cells_that_show_figures_or_train_are_excused_from_comparison(path):
    """An ignored output hides a changed number, so such a cell must show a figure, or the next one checks it."""
    cells = code_cells(path)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            drawn = re.search(r"^figures\.picture|^widgets\.Explorer|^assert ", cell.source, flags=re.M)
            assert drawn or (following is not None and notebooks.is_check(following)), cell.source


@NUMBERED
def test_a_chapter_has_at_least_three_assertions_and_a_slider(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    assert len(re.findall(r"^\s*assert ", source, flags=re.M)) >= 3
    assert "widgets.Explorer(" in source


@NUMBERED
def test_exercises_have_folded_solutions_that_are_executed(path):
    """A solution is a heading, which JupyterLab collapses with all that follows, its text, and the code that checks."""
    cells = read(path).cells
    exercises = [cell for cell in cells if cell.cell_type == "markdown" and "### Exercise" in cell.source]
    solutions = [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]
    heads, texts, checks = solutions[::3], solutions[1::3], solutions[2::3]
    assert len(exercises) == len(heads) == len(texts) == len(checks) >= 2
    assert all(cell.source == "#### Solution" and cell.metadata["jp-MarkdownHeadingCollapsed"] for cell in heads)
    assert all(cell.cell_type == "markdown" for cell in texts)
    assert all(cell.cell_type == "code" and "assert" in cell.source for cell in checks)
    assert all("hide-input" in cell.metadata["tags"] for cell in checks)
    for head, text, check in zip(heads, texts, checks, strict=True):
        place = cells.index(head)
        assert cells[place : place + 3] == [head, text, check]
        assert cells[place + 3].source.startswith("##"), "what follows would be folded with the solution"


@NUMBERED
def test_a_proof_is_one_cell_that_jupyterlab_collapses_and_the_last_of_its_section(path):
    cells = read(path).cells
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown" and "#### Proof" in cell.source:
            assert cell.source.startswith("#### Proof") and cell.metadata["jp-MarkdownHeadingCollapsed"]
            assert re.match(r"#{2,3} ", cells[place + 1].source), "what follows would be folded with the proof"
            before = "\n".join(each.source for each in cells[:place] if each.cell_type == "markdown")
            assert re.findall(r"^(#+) ", before, flags=re.M)[-1] == "###", "Sphinx wants no level left out"


@CHAPTERS
def test_markdown_is_plain_so_that_it_reads_well_outside_the_site(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"^(```|:::)\s*\{|\{[a-z:]+\}`|\\\[|\\\(", cell.source, flags=re.M), cell.source


@CHAPTERS
def test_papers_that_a_chapter_links_to_are_in_the_bibliography(path):
    known = (path.parent / "references.bib").read_text()
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for url in re.findall(r"\]\((https?://[^)]+)\)", cell.source):
                assert url in known, url
