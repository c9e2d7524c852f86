"""Execute the chapters and store them normalised: ``make notebooks``.

A normalised notebook holds the text outputs that the tests compare and nothing that differs from run to run: no
timing, no widget state, no progress bars, and in place of a figure or an explorer the sentence that describes it.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

CHAPTERS = Path(__file__).parents[1] / "chapters"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT = {"text/plain", "text/latex", "application/json"}


def chapters() -> list[Path]:
    """The notebooks of the book, in order."""
    return sorted(path for path in CHAPTERS.glob("*.ipynb"))


def numbered() -> list[Path]:
    """The chapters proper, without the appendices."""
    return [path for path in chapters() if path.name[0].isdigit()]


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run every cell, in the folder of the chapters; an error in a cell is raised."""
    resources = {"metadata": {"path": str(CHAPTERS)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def normalised(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy with the parts left out that are not the same for every run."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    executed = 0
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
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
        output.data = nbformat.from_dict({mime: data for mime, data in output.data.items() if mime in KEPT})
        output.metadata = nbformat.from_dict({})
    if "execution_count" in output:
        output.execution_count = executed
    return output


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
    """Execute and normalise every chapter in place."""
    for path in tqdm(chapters(), unit="chapter"):
        notebook = execute(nbformat.read(path, as_version=4))
        path.write_text(text(normalised(notebook)))


if __name__ == "__main__":
    main()
