"""The normaliser of the notebooks."""

import nbformat

from tools.notebooks import normalised, text

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


def test_the_notebook_given_is_left_as_it_was():
    notebook = messy()
    normalised(notebook)
    assert notebook.cells[1].execution_count == 17 and "widgets" in notebook.metadata
