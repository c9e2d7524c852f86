"""The normaliser of the notebooks."""

import nbformat
import pytest

from bnlib.tables import CaseTable
from tools.notebooks import main, normalised, text

HTML = {"text/html": "<div>a megabyte</div>", "text/plain": "[Explorer: it]"}


def messy():
    code = nbformat.v4.new_code_cell("explorer", metadata={"tags": ["hide-input"], "execution": {"iopub.busy": "now"}})
    code.execution_count = 17
    code.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="one\n"),
        nbformat.v4.new_output("stream", name="stdout", text="two\n"),
        nbformat.v4.new_output("stream", name="stderr", text="50%|#####"),
        nbformat.v4.new_output("execute_result", data=HTML, execution_count=17, metadata={"x": 1}),
    ]
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), code], metadata={"widgets": widgets})


def test_what_differs_between_runs_is_left_out():
    code = normalised(messy()).cells[1]
    assert code.metadata == {"tags": ["hide-input"], "jupyter": {"source_hidden": True}} and code.execution_count == 1
    stream, result = code.outputs
    assert stream.text == "one\ntwo\n"
    assert result.data == {"text/plain": "[Explorer: it]"} and result.execution_count == 1 and result.metadata == {}
    assert "widgets" not in normalised(messy()).metadata


def test_normalising_twice_changes_nothing_and_is_valid():
    once = normalised(messy())
    nbformat.validate(once)
    assert text(normalised(once)) == text(once)


def test_cases_that_are_folded_are_stored_as_html():
    cell = nbformat.v4.new_code_cell("tables.CaseTable(rows, 'a', folded=True)")
    shown = CaseTable([{"what you see": "nan", "cure": "none"}], "a", folded=True)
    html = {"text/html": shown._repr_html_(), "text/plain": repr(shown)}
    cell.outputs = [nbformat.v4.new_output("execute_result", data=html, execution_count=1)]
    assert normalised(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs[0].data == html


def test_predictions_solutions_and_checks_are_collapsed_and_renumber_no_other_cell():
    cells = nbformat.v4
    ask = cells.new_code_cell('predictions.ask("how-many", value=x)', metadata={"tags": ["remove-input"]})
    html = {"text/html": '<div class="bnb-prediction">?</div>', "text/plain": "[Prediction: ?]"}
    ask.outputs = [cells.new_output("execute_result", data=html, execution_count=3)]
    solution = cells.new_markdown_cell("#### Solution", metadata={"tags": ["solution"]})
    check = cells.new_code_cell("assert x", metadata={"tags": ["hide-cell"]})
    others = [cells.new_markdown_cell("# A"), cells.new_code_cell("x = 1")]
    found = normalised(cells.new_notebook(cells=[others[0], ask, solution, check, others[1]])).cells
    assert [cell.id for cell in found] == ["cell-000", "prediction-how-many", "solution-001", "check-001", "cell-001"]
    assert found[1].metadata == {"tags": ["remove-input"], "jupyter": {"source_hidden": True}}
    assert found[2].metadata == {"tags": ["solution"], "jp-MarkdownHeadingCollapsed": True}
    assert found[3].metadata == {"tags": ["hide-cell"], "jupyter": {"outputs_hidden": True, "source_hidden": True}}
    assert found[1].outputs[0].data == html


def test_the_notebook_given_is_left_as_it_was():
    notebook = messy()
    normalised(notebook)
    assert notebook.cells[1].execution_count == 17 and "widgets" in notebook.metadata


def test_a_name_that_no_chapter_begins_with_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["notebooks", "10", "13"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "NAME must be the beginning of one of 01_the_formula.ipynb" in told and "got '13'" in told
