"""The notebooks of the book as the tests see them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import nbformat

from bnlib.widgets import Explorer
from tools.notebooks import is_first


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    """The code of a notebook from its imports on: without the cell that fetches the book where bnlib is missing."""
    return [cell for cell in read(path).cells if cell.cell_type == "code" and not is_first(cell)]


def with_explorer(path: Path) -> list[str]:
    """The sources of the cells of a notebook that show an explorer."""
    return [cell.source for cell in code_cells(path) if "widgets.Explorer(" in cell.source]


@cache
def explorers(path: Path) -> list[Explorer]:
    """Every explorer of a notebook, made by its cell's own source after the notebook's imports."""
    found = []
    for source in with_explorer(path):
        namespace: dict = {}
        exec(code_cells(path)[0].source, namespace)
        *before, last = ast.parse(source).body
        exec(compile(ast.Module(before, []), str(path), "exec"), namespace)
        found.append(eval(compile(ast.Expression(last.value), str(path), "eval"), namespace))
    return found
