"""A downloaded notebook on a machine that has the packages but neither ``bnlib`` nor a checkout, as in Colab."""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

from chapters import read
from tools import notebooks

CHAPTER = notebooks.CHAPTERS / "01_the_formula.ipynb"
IN_COLAB = {"COLAB_RELEASE_TAG": "a test"}


@pytest.fixture
def python(tmp_path_factory) -> Path:
    """The Python of a new environment that sees every package of this one but ``bnlib``."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "packages").mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "bnlib" not in package.name:
            (folder / "packages" / package.name).symlink_to(package)
    venv.create(folder / "venv")
    packages = next((folder / "venv").glob("lib/*/site-packages"))
    (packages / "more.pth").write_text(f"{folder / 'packages'}\n")
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def repository(copy) -> str:
    """The address of a repository with the files of this one."""
    for command in (["init"], ["add", "."], ["-c", "user.name=test", "-c", "user.email=test", "commit", "-m", "all"]):
        subprocess.run(["git", "-C", copy, *command], check=True, capture_output=True)
    return copy.as_uri()


def run(python: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in ``folder`` as another user would: none of this environment's settings, no package index."""
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "HOME": str(folder), "PATH": os.environ["PATH"]}
    settings = {"cwd": folder, "env": {**offline, **environment}, "capture_output": True, "text": True}
    return subprocess.run([str(python), *arguments], **settings)


def test_a_downloaded_notebook_fetches_the_book_and_runs(python, repository, tmp_path):
    notebook = notebooks.with_first_cell(read(CHAPTER), repository)
    first, imports, *code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    some = next(cell for cell in code if "standard_cauchy" in cell.source)  # the tests of the chapters run all
    committed = nbformat.v4.new_code_cell("assert training_curves.final_test_errors('batch norm', 32, 0.1).max() < 0.1")
    notebook.cells = [first, imports, some, committed]
    nbformat.write(notebook, tmp_path / "downloaded.ipynb")
    launch = ["-c", "from nbclient.cli import NbClientApp; NbClientApp.launch_instance()", "downloaded.ipynb"]
    done = run(python, tmp_path, *launch, **IN_COLAB)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "batch-norm-book" / "bnlib").is_dir()
    assert run(python, tmp_path, "-m", "bnlib", "claims", "--help").returncode == 0, "later kernels find it too"


@pytest.mark.parametrize("environment", [{}, IN_COLAB], ids=["nowhere", "no address"])
def test_where_the_book_cannot_be_fetched_the_first_cell_says_what_to_do(python, tmp_path, environment):
    notebook = notebooks.with_first_cell(read(CHAPTER), "" if environment else "https://example.org/book")
    first = next(cell for cell in notebook.cells if notebooks.is_first(cell))
    done = run(python, tmp_path, "-c", first.source, **environment)
    assert done.returncode == 1 and "make lab" in done.stderr and not list(tmp_path.iterdir())
