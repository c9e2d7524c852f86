"""What a reader sees of the code: what teaches, and no more. Checks and plumbing are executed, and folded."""

import ast

import pytest

from chapters import code_cells
from tools import notebooks

NUMBERED = pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
FOLDED = {"remove-cell", "remove-input", "hide-input", "hide-cell"}


def tags(cell) -> set[str]:
    """The tags of a cell."""
    return {*cell.metadata.get("tags", [])}


def visible(path) -> list:
    """The code cells of a chapter whose code a reader sees without unfolding anything."""
    return [cell for cell in code_cells(path) if not tags(cell) & FOLDED]


def calls_of_print(tree: ast.AST) -> list[ast.Call]:
    """The calls of ``print`` below a node."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def prints_a_table(source: str) -> bool:
    """Whether a cell writes rows with ``print``: in a loop, or with more than three calls."""
    loops = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.For | ast.While)]
    return len(calls_of_print(ast.parse(source))) > 3 or any(calls_of_print(loop) for loop in loops)


@NUMBERED
def test_a_reader_sees_at_most_a_hundred_lines_of_code(path):
    lines = [line for cell in visible(path) for line in cell.source.splitlines()]
    assert 10 <= len(lines) <= 100


@NUMBERED
def test_no_check_stands_in_the_code_that_a_reader_sees(path):
    for cell in visible(path):
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source))), cell.source


@NUMBERED
def test_a_check_asserts_and_shows_nothing(path):
    checks = [cell for cell in code_cells(path) if "hide-cell" in tags(cell)]
    assert checks
    for cell in checks:
        assert "assert " in cell.source and not cell.outputs, cell.source


@NUMBERED
def test_no_result_is_a_printed_table(path):
    """The code of a solution is no result of the chapter."""
    for cell in code_cells(path):
        if "solution" not in tags(cell):
            assert not prints_a_table(cell.source), cell.source
            text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
            assert len(text.splitlines()) <= 3, text


@pytest.mark.parametrize(
    "source, table",
    [
        ("for x in y:\n    print(x)", True),
        ("print(1)\n" * 4, True),
        ("print(1)", False),
        ("for x in y:\n    f(x)", False),
    ],
)
def test_a_printed_table_is_noticed(source, table):
    assert prints_a_table(source) == table


def only_shows_rows(source: str) -> bool:
    """Whether a cell is one table of the rows that a function of an experiment returns: such code teaches nothing."""
    body = ast.parse(source).body
    call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else None
    if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "tables.Table"):
        return False
    rows = call.args[0]
    return isinstance(rows, ast.Call) and ast.unparse(rows.func).endswith(("_rows", ".rows"))


@NUMBERED
def test_a_table_of_stored_results_hides_its_code(path):
    for cell in code_cells(path):
        assert tags(cell) & FOLDED or not only_shows_rows(cell.source), cell.source


def test_a_table_of_stored_results_is_told_from_code_that_teaches():
    assert only_shows_rows('tables.Table(\n    descent.loss_rows(3),\n    "Losses",\n)')
    assert not only_shows_rows('rows = [f(x) for x in y]\ntables.Table(rows, "Losses")')
    assert not only_shows_rows('model = f()\ntables.Table(descent.loss_rows(model), "Losses")')
