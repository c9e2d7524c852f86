"""Execute the chapters and store them in a normalised form: ``make notebooks``.

A normalised notebook contains the text outputs that the tests compare, and nothing that differs from run to run, such
as timings, widget state or progress bars. Figures, and explorers at their default setting, are stored as PNG, which
every viewer shows (see ``static_pictures.py``). Tables, predictions and folded cases are stored as HTML. JupyterLab
collapses the cells that the web page folds. The first code cell, after the title, is ``tools/first_cell.py``;
``make address`` replaces only this cell and executes nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from tqdm import tqdm

from tools import static_pictures

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT = {"text/plain", "text/latex", "application/json"}
# How the HTML of a result begins that consists of folds: a prediction, and cases in words.
FOLDS = ('<div class="bnb-prediction"', '<div class="bnb-cases"')
PREDICTION = re.compile(r'predictions\.ask\(\s*"([\w-]+)"')
# JupyterLab's metadata that collapses the same parts of a cell as the web page folds.
COLLAPSED = {
    "hide-input": {"source_hidden": True},
    "hide-output": {"outputs_hidden": True},
    "hide-cell": {"outputs_hidden": True, "source_hidden": True},
    "remove-cell": {"source_hidden": True},
    "remove-input": {"source_hidden": True},
}


def chapters() -> list[Path]:
    """Return the paths of all notebooks of the book, in order."""
    return sorted(path for path in CHAPTERS.glob("*.ipynb"))


def numbered() -> list[Path]:
    """Return the paths of the numbered chapters, without the appendices."""
    return [path for path in chapters() if path.name[0].isdigit()]


def address() -> str:
    """Return the address of the book's public repository from ``_config.yml``; empty if there is none yet."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


def is_first(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell is the hidden one that downloads the book if bnlib is not installed."""
    return "remove-cell" in cell.metadata.get("tags", [])


def name_of(cell: nbformat.NotebookNode, numbers: dict[str, itertools.count]) -> str:
    """Return the id of a cell; solutions and checks have their own counters in ``numbers``, predictions have names."""
    if is_first(cell):
        return "first-cell"
    if cell.cell_type == "code" and (found := PREDICTION.search(cell.source)):
        return f"prediction-{found[1]}"
    if is_solution_heading(cell):
        return f"solution-{next(numbers['solution']):03d}"
    if is_check(cell):
        return f"check-{next(numbers['check']):03d}"
    return f"cell-{next(numbers['cell']):03d}"


def is_solution_heading(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell is the heading of an exercise's folded solution."""
    return cell.cell_type == "markdown" and cell.source == "#### Solution"


def is_proof(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell is a proof, which the page folds and JupyterLab collapses."""
    return cell.cell_type == "markdown" and cell.source.startswith("#### Proof")


def is_check(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell contains checks of the results above it; it is executed, and folded on the page."""
    return "hide-cell" in cell.metadata.get("tags", [])


def with_first_cell(notebook: nbformat.NotebookNode, book: str) -> nbformat.NotebookNode:
    """Return a copy whose first code cell downloads ``bnlib`` from the address ``book`` if it is not installed."""
    notebook = nbformat.from_dict(notebook)
    notebook.cells = [cell for cell in notebook.cells if not is_first(cell)]
    source = (ROOT / "tools" / "first_cell.py").read_text().rstrip().replace('BOOK = ""', f"BOOK = {json.dumps(book)}")
    place = next(number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(place, nbformat.v4.new_code_cell(source, metadata={"tags": ["remove-cell"]}))
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run every cell in the folder of the chapters; an error in a cell raises an exception."""
    resources = {"metadata": {"path": str(CHAPTERS)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def normalised(notebook: nbformat.NotebookNode, stored: Sequence[str] = ()) -> nbformat.NotebookNode:
    """Return a copy without the parts that differ from run to run.

    If a PNG in ``stored`` looks the same as a new picture, the stored one is used.
    """
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    executed, numbers = 0, {"cell": itertools.count(), "solution": itertools.count(1), "check": itertools.count(1)}
    for cell in notebook.cells:
        cell.id, cell.metadata = name_of(cell, numbers), nbformat.from_dict(_metadata(cell))
        if cell.cell_type == "code":
            # Number the cells as in one run from top to bottom; nbval treats cells without a number as not executed.
            executed += 1
            cell.execution_count = executed
            cell.outputs = _merged(
                [_output(output, executed, stored) for output in cell.outputs if output.get("name") != "stderr"]
            )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _metadata(cell: nbformat.NotebookNode) -> dict:
    """Return the tags of a cell, and the metadata for JupyterLab and Colab that follow from them."""
    tags = cell.metadata.get("tags", [])
    metadata: dict = {"tags": tags} if tags else {}
    if is_first(cell):
        metadata["cellView"] = "form"
    if is_solution_heading(cell) or is_proof(cell):
        metadata["jp-MarkdownHeadingCollapsed"] = True
    collapsed = {key: value for tag in tags for key, value in COLLAPSED.get(tag, {}).items()}
    if collapsed and cell.cell_type == "code":
        metadata["jupyter"] = collapsed
    return metadata


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the PNGs in the outputs of a notebook, in base64."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data["image/png"].rstrip() for output in outputs if "image/png" in output.get("data", {})]


def _output(output: nbformat.NotebookNode, executed: int, stored: Sequence[str]) -> nbformat.NotebookNode:
    output = nbformat.from_dict(output)
    if "data" in output:
        output.data, output.metadata = _data(output.data, stored)
    if "execution_count" in output:
        output.execution_count = executed
    return output


def _data(data: dict, stored: Sequence[str]) -> tuple[nbformat.NotebookNode, nbformat.NotebookNode]:
    """Return the MIME types of a result that are stored, and the size at which its picture is shown.

    Figures are stored as PNG. Tables, predictions and folded cases are stored as HTML, which GitHub shows and nbval
    compares.
    """
    kept = {mime: content for mime, content in data.items() if mime in KEPT}
    markup = data.get("text/html", "")
    drawing = static_pictures.drawing(data)
    if drawing is not None:
        kept["image/png"] = static_pictures.kept(static_pictures.png(drawing), stored)
    elif "image/png" in data:
        kept["image/png"] = data["image/png"].rstrip()
    elif "<table" in markup or markup.startswith(FOLDS):
        kept["text/html"] = markup
    shown = {mime: static_pictures.shown_size(content) for mime, content in kept.items() if mime == "image/png"}
    return nbformat.from_dict(kept), nbformat.from_dict(shown)


def _merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join neighbouring parts of a stream, because kernels split streams at random places."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def text(notebook: nbformat.NotebookNode) -> str:
    """Return the text of the notebook's file."""
    return nbformat.writes(notebook, indent=1) + "\n"


def main() -> None:
    """Execute and normalise chapters in place, or only replace their first cells."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--first-cell", action="store_true", help="replace the first cells, execute nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginning of a file's name, such as 10; default: all")
    arguments = parser.parse_args()
    only_first = arguments.first_cell
    for name in arguments.names:
        if not any(path.name.startswith(name) for path in chapters()):
            names = ", ".join(path.name for path in chapters())
            parser.error(f"NAME must be the beginning of one of {names}, got {name!r}")
    book = address()
    beginnings = tuple(arguments.names) or ("",)
    for path in tqdm([path for path in chapters() if path.name.startswith(beginnings)], unit="chapter"):
        notebook = with_first_cell(nbformat.read(path, as_version=4), book)
        stored = pictures(notebook)
        path.write_text(text(normalised(notebook if only_first else execute(notebook), stored)))


if __name__ == "__main__":
    main()
