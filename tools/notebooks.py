"""Execute the chapters and store them normalised: ``make notebooks``.

A normalised notebook holds the text outputs that the tests compare and nothing that differs from run to run: no
timing, no widget state, no progress bars, and in place of a figure or an explorer the sentence that describes it.
The input of a prediction and the cells of a solution are collapsed in JupyterLab.
Its first code cell is ``tools/first_cell.py``; ``make address`` renews that cell alone and executes nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT = {"text/plain", "text/latex", "application/json"}
PREDICTION = re.compile(r'predictions\.ask\(\s*"([\w-]+)"')


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
    """The id of a cell; ``numbers`` counts, so that predictions and solutions do not renumber the other cells."""
    if is_first(cell):
        return "first-cell"
    if cell.cell_type == "code" and (found := PREDICTION.search(cell.source)):
        return f"prediction-{found[1]}"
    if is_solution_heading(cell):
        return f"solution-{next(numbers['solution']):03d}"
    return f"cell-{next(numbers['cell']):03d}"


def is_solution_heading(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell is the heading under which the solution of an exercise is folded."""
    return cell.cell_type == "markdown" and cell.source == "#### Solution"


def _metadata(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The tags of a cell, and what follows from them for JupyterLab."""
    tags = cell.metadata.get("tags", [])
    metadata: dict = {"tags": tags} if tags else {}
    if "remove-input" in tags:
        metadata["jupyter"] = {"source_hidden": True}
    if is_solution_heading(cell):
        metadata["jp-MarkdownHeadingCollapsed"] = True
    return nbformat.from_dict(metadata)


def with_first_cell(notebook: nbformat.NotebookNode, book: str) -> nbformat.NotebookNode:
    """A copy whose first code cell fetches ``bnlib`` from the address ``book`` where it is missing."""
    notebook = nbformat.from_dict(notebook)
    notebook.cells = [cell for cell in notebook.cells if not is_first(cell)]
    source = (ROOT / "tools" / "first_cell.py").read_text().rstrip().replace('BOOK = ""', f"BOOK = {json.dumps(book)}")
    place = next(number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    first = nbformat.v4.new_code_cell(source, metadata={"tags": ["remove-cell"]})
    notebook.cells.insert(place, first)
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run every cell, in the folder of the chapters; an error in a cell is raised."""
    resources = {"metadata": {"path": str(CHAPTERS)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def normalised(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy with the parts left out that are not the same for every run."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    executed, numbers = 0, {"cell": itertools.count(), "solution": itertools.count(1)}
    for cell in notebook.cells:
        cell.id, cell.metadata = name_of(cell, numbers), _metadata(cell)
        if cell.cell_type == "code":
            # Numbered as one run from top to bottom; nbval takes a cell without a number for one never run.
            executed += 1
            cell.execution_count = executed
            cell.outputs = _merged(
                [_output(output, executed) for output in cell.outputs if output.get("name") != "stderr"]
            )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _output(output: nbformat.NotebookNode, executed: int) -> nbformat.NotebookNode:
    output = nbformat.from_dict(output)
    if "data" in output:
        output.data = nbformat.from_dict({mime: data for mime, data in output.data.items() if _kept(mime, data)})
        output.metadata = nbformat.from_dict({})
    if "execution_count" in output:
        output.execution_count = executed
    return output


def _kept(mime: str, data) -> bool:
    """Whether a form of an output is stored: a prediction's HTML is short, and GitHub shows it."""
    return mime in KEPT or (mime == "text/html" and data.startswith('<div class="bnb-prediction"'))


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
        path.write_text(text(normalised(notebook if only_first else execute(notebook))))


if __name__ == "__main__":
    main()
