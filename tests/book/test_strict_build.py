"""What must fail the build: an error in a cell, an error that only a widget has seen, a link to nowhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

HEALTHY = "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    print(1 / 1)\nout"


def build(folder: Path, code: str, prose: str = "# A page") -> subprocess.CompletedProcess:
    """Build a book of one notebook with the configuration and the hooks of the real one."""
    for name in ("_ext", "assets", "bnlib"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "chapters").mkdir()
    shutil.copyfile(ROOT / "_config.yml", folder / "_config.yml")
    shutil.copyfile(ROOT / "chapters" / "references.bib", folder / "chapters" / "references.bib")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: chapters/page\n")
    cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "chapters" / "page.ipynb")
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", ".", "-W", "-n", "--keep-going"]
    environment = {**os.environ, "NO_COLOR": "1"}
    settings = {"cwd": folder, "capture_output": True, "text": True, "env": environment, "timeout": 90}
    try:
        return subprocess.run(command, **settings)
    except subprocess.TimeoutExpired:
        # Seen once in some dozens of runs with other kernels starting at the same moment; a build takes 4 s.
        shutil.rmtree(folder / "_build", ignore_errors=True)
        return subprocess.run(command, **settings)


def test_a_healthy_book_is_built_without_its_widget_state(tmp_path):
    done = build(tmp_path, HEALTHY)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "_build" / "html" / "chapters" / "page.html").read_text()
    assert "widget-state" not in page


@pytest.mark.parametrize(
    ("code", "prose", "said"),
    [
        (HEALTHY.replace("1 / 1", "1 / 0"), "# A page", "an error is stored inside a widget"),
        ("1 / 0", "# A page", "ZeroDivisionError"),
        (HEALTHY, "# A page\n\n[nowhere](missing.md)", "missing.md"),
    ],
    ids=["widget", "cell", "link"],
)
def test_a_broken_book_is_not_built(tmp_path, code, prose, said):
    done = build(tmp_path, code, prose)
    assert done.returncode != 0 and said in done.stdout + done.stderr, done.stdout + done.stderr
