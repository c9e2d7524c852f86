"""What must fail the build: an error in a cell, an error that only a widget has seen, a link to nowhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from PIL import Image

HEALTHY = "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    print(1 / 1)\nout"


def build(
    folder: Path, code: str, prose: str = "# A page", address: str = "", site: str = ""
) -> subprocess.CompletedProcess:
    """Build a book of one notebook with the configuration and the hooks of the real one."""
    for name in ("_ext", "assets", "bnlib"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "chapters").mkdir()
    config = (ROOT / "_config.yml").read_text().replace('&address ""', f'&address "{address}"')
    config = config.replace('baseurl: ""', f'baseurl: "{site}"')
    (folder / "_config.yml").write_text(config)
    shutil.copyfile(ROOT / "chapters" / "references.bib", folder / "chapters" / "references.bib")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: chapters/page\n")
    cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "chapters" / "page.ipynb")
    return jupyter_book(folder)


def jupyter_book(folder: Path) -> subprocess.CompletedProcess:
    """Build the book in ``folder`` as `make book` does."""
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", ".", "-W", "-n", "--keep-going"]
    environment = {**os.environ, "NO_COLOR": "1"}
    settings = {"cwd": folder, "capture_output": True, "text": True, "env": environment}
    try:
        return subprocess.run(command, timeout=150, **settings)
    except subprocess.TimeoutExpired:
        # Seen once in some dozens of runs with other kernels starting at the same moment; a build takes 4 s, and on a
        # busy machine longer.
        shutil.rmtree(folder / "_build", ignore_errors=True)
        return subprocess.run(command, timeout=600, **settings)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """The folder of a book that was built."""
    folder = tmp_path_factory.mktemp("healthy")
    done = build(folder, HEALTHY, address="https://github.com/someone/book", site="https://someone.github.io/book/")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_book_is_built_without_its_widget_state_and_built_again(healthy):
    assert "widget-state" not in (healthy / "_build" / "html" / "chapters" / "page.html").read_text()
    done = jupyter_book(healthy)
    assert done.returncode == 0, done.stdout + done.stderr


def test_with_an_address_the_page_leads_to_its_repository_and_opens_elsewhere(healthy):
    page = BeautifulSoup((healthy / "_build" / "html" / "chapters" / "page.html").read_text(), "html.parser")
    launch, source = page.select_one(".dropdown-launch-buttons"), page.select_one("a.btn-source-repository-button")
    assert source["href"] == "https://github.com/someone/book"
    assert [link["href"] for link in launch.select("a[href]")] == [
        "https://mybinder.org/v2/gh/someone/book/main?urlpath=lab/tree/chapters/page.ipynb",
        "https://colab.research.google.com/github/someone/book/blob/main/chapters/page.ipynb",
        "https://kaggle.com/kernels/welcome?src=https://github.com/someone/book/blob/main/chapters/page.ipynb",
    ]


def test_with_an_address_of_the_site_a_page_has_a_picture_and_search_engines_find_it(healthy):
    site = healthy / "_build" / "html"
    head = BeautifulSoup((site / "chapters" / "page.html").read_text().partition("</head>")[0], "html.parser")
    assert head.select_one("link[rel=canonical]")["href"] == "https://someone.github.io/book/"
    found = {tag["property"]: tag["content"] for tag in head.select("meta[property]")}
    assert found["og:url"] == "https://someone.github.io/book/"
    assert found["og:image"] == "https://someone.github.io/book/_static/card.png"
    card = Image.open(site / "_static" / "card.png")
    assert card.size == (int(found["og:image:width"]), int(found["og:image:height"])) == (1200, 630)
    assert len(card.convert("RGB").getcolors()) > 5 and (site / "_static" / "card.png").stat().st_size < 60_000
    assert head.select_one("meta[name='twitter:card']")["content"] == "summary_large_image"
    listed = re.findall("<loc>(.*)</loc>", (site / "sitemap.xml").read_text())
    assert listed == ["https://someone.github.io/book/"]


def test_with_an_address_of_the_site_the_page_for_lost_readers_works_at_any_depth(healthy):
    site = healthy / "_build" / "html"
    page = BeautifulSoup((site / "404.html").read_text(), "html.parser")
    links = [tag.get("href", tag.get("src")) for tag in page.select("[href], [src]")]
    inside = [link for link in links if not link.startswith(("#", "https://"))]
    assert len(inside) > 15 and all(link.startswith("/book/") for link in inside)
    for link in inside:
        assert (site / link.removeprefix("/book/").partition("?")[0].partition("#")[0]).exists(), link
    assert page.html["data-content_root"] == "/book/"  # from where the search of the theme begins


@pytest.mark.parametrize(
    ("code", "prose", "said"),
    [
        (
            HEALTHY.replace("1 / 1", "1 / 0"),
            "# A page\n\n[nowhere](missing.md) $\\frac{a$ and\n\n$$a\\nosuch\\tag{1.1}$$",
            ["inside a widget", "missing.md", "page.ipynb", "\\frac{a", "a\\nosuch"],
        ),
        ("1 / 0", "# A page", ["ZeroDivisionError"]),
    ],
    ids=["widget, link and formulas", "cell"],
)
def test_a_broken_book_is_not_built(tmp_path, code, prose, said):
    done = build(tmp_path, code, prose)
    assert done.returncode != 0 and all(each in done.stdout + done.stderr for each in said), done.stdout + done.stderr
