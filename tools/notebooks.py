"""Execute the chapters and store them normalised: ``make notebooks``.

A normalised notebook holds the text outputs that the tests compare and nothing that differs from run to run: no
timing, no widget state, no progress bars. A figure, and an explorer at its default setting, is a PNG, which every
viewer shows (see ``static_pictures.py``); a table is HTML, and so is a prediction. What a page folds JupyterLab
collapses. The first code cell, behind the title, is ``tools/first_cell.py``; ``make address`` renews that cell alone
and executes nothing.
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
PREDICTION = re.compile(r'predictions\.ask\(\s*"([\w-]+)"')
# What JupyterLab collapses of a cell that a page folds.
COLLAPSED = {
    "hide-input": {"source_hidden": True},
    "hide-output": {"outputs_hidden": True},
    "hide-cell": {"outputs_hidden": True, "source_hidden": True},
    "remove-cell": {"source_hidden": True},
    "remove-input": {"source_hidden": True},
}


def chapters() -> list[Path]:
    """The notebooks of the book, in order."""
    return sorted(path for path in CHAPTERS.glob("*.ipynb"))


def numbered() -> list[Path]:
    """The chapters proper, without the appendices."""
    return [path for path in chapters() if path.name[0].isdigit()]


def address() -> str:
    """The address of the book's public repository, from ``_config.yml``; empty while there is none."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


def is_first(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell is the one that fetches the book where bnlib is missing, which no page shows."""
    return "remove-cell" in cell.metadata.get("tags", [])


def name_of(cell: nbformat.NotebookNode, numbers: dict[str, itertools.count]) -> str:
    """The id of a cell; ``numbers`` counts, so that predictions, solutions and checks do not renumber the others."""
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
    """Whether a cell is the heading under which the solution of an exercise is folded."""
    return cell.cell_type == "markdown" and cell.source == "#### Solution"


def is_check(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell holds the checks of what stands above it: executed, and folded with all it shows."""
    return "hide-cell" in cell.metadata.get("tags", [])


def with_first_cell(notebook: nbformat.NotebookNode, book: str) -> nbformat.NotebookNode:
    """A copy whose first code cell fetches ``bnlib`` from the address ``book`` where it is missing."""
    notebook = nbformat.from_dict(notebook)
    notebook.cells = [cell for cell in notebook.cells if not is_first(cell)]
    source = (ROOT / "tools" / "first_cell.py").read_text().rstrip().replace('BOOK = ""', f"BOOK = {json.dumps(book)}")
    place = next(number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(place, nbformat.v4.new_code_cell(source, metadata={"tags": ["remove-cell"]}))
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run every cell, in the folder of the chapters; an error in a cell is raised."""
    resources = {"metadata": {"path": str(CHAPTERS)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def normalised(notebook: nbformat.NotebookNode, stored: Sequence[str] = ()) -> nbformat.NotebookNode:
    """A copy with the parts left out that are not the same for every run.

    Of the PNGs in ``stored``, one that looks the same as a new picture is used again.
    """
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    executed, numbers = 0, {"cell": itertools.count(), "solution": itertools.count(1), "check": itertools.count(1)}
    for cell in notebook.cells:
        cell.id, cell.metadata = name_of(cell, numbers), nbformat.from_dict(_metadata(cell))
        if cell.cell_type == "code":
            # Numbered as one run from top to bottom; nbval takes a cell without a number for one never run.
            executed += 1
            cell.execution_count = executed
            cell.outputs = _merged(
                [_output(output, executed, stored) for output in cell.outputs if output.get("name") != "stderr"]
            )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _metadata(cell: nbformat.NotebookNode) -> dict:
    """The tags of a cell, and what follows from them for JupyterLab and Colab."""
    tags = cell.metadata.get("tags", [])
    metadata: dict = {"tags": tags} if tags else {}
    if is_first(cell):
        metadata["cellView"] = "form"
    if is_solution_heading(cell):
        metadata["jp-MarkdownHeadingCollapsed"] = True
    collapsed = {key: value for tag in tags for key, value in COLLAPSED.get(tag, {}).items()}
    if collapsed and cell.cell_type == "code":
        metadata["jupyter"] = collapsed
    return metadata


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """The PNGs in the outputs of a notebook, in base64."""
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
    """The forms of a result that are stored, and the size at which its picture is shown.

    A figure is a PNG. Tables and predictions are HTML, which GitHub shows and nbval compares.
    """
    kept = {mime: content for mime, content in data.items() if mime in KEPT}
    markup = data.get("text/html", "")
    drawing = static_pictures.drawing(data)
    if drawing is not None:
        kept["image/png"] = static_pictures.kept(static_pictures.png(drawing), stored)
    elif "image/png" in data:
        kept["image/png"] = data["image/png"].rstrip()
    elif "<table" in markup or markup.startswith('<div class="bnb-prediction"'):
        kept["text/html"] = markup
    shown = {mime: static_pictures.shown_size(content) for mime, content in kept.items() if mime == "image/png"}
    return nbformat.from_dict(kept), nbformat.from_dict(shown)


def _merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join neighbouring pieces of one stream: where a kernel cuts it depends on the moment."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def text(notebook: nbformat.NotebookNode) -> str:
    """The notebook as it stands in its file."""
    return nbformat.writes(notebook, indent=1) + "\n"


def main() -> None:
    """Execute and normalise every chapter in place, or only renew its first cell."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--first-cell", action="store_true", help="renew the first cells, execute nothing")
    only_first = parser.parse_args().first_cell
    book = address()
    for path in tqdm(chapters(), unit="chapter"):
        notebook = with_first_cell(nbformat.read(path, as_version=4), book)
        stored = pictures(notebook)
        path.write_text(text(normalised(notebook if only_first else execute(notebook), stored)))


if __name__ == "__main__":
    main()
