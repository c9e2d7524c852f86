"""Appendix B: every public name of bnlib stands in it once, and chapters link to it."""

import ast
import importlib
import inspect
import pkgutil
import posixpath
import re
from collections import Counter
from typing import TypeVar

import pytest
from conftest import PAGES, REFERENCE, ROOT, soup
from sphinx.util.inventory import InventoryFile

import bnlib

# What stands behind a figure is a file a question, which its experiment names; helpers of a package are not for others.
EXPERIMENTS = [f"bnlib.experiments.framework.{name}" for name in ("experiment", "measurement", "registry", "results")]
MODULES = ["bnlib", *(f"bnlib.{found.name}" for found in pkgutil.iter_modules(bnlib.__path__)), *EXPERIMENTS]
MODULES = [name for name in MODULES if name not in ("bnlib.__main__", "bnlib.experiments")]


def public(module) -> list[str]:
    """The names that a module offers: those it lists, or else those that it defines."""
    if hasattr(module, "__all__"):
        return module.__all__
    names = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names += [target.id for target in getattr(node, "targets", [getattr(node, "target", None)])]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
    return [name for name in names if name[0] != "_" and not isinstance(getattr(module, name), TypeVar)]


@pytest.fixture(scope="module")
def inventory(site) -> dict[str, tuple[str, str]]:
    """Page and anchor of each name in the reference, aliases apart."""
    with (site / "objects.inv").open("rb") as file:
        found = InventoryFile.load(file, "", posixpath.join)
    entries = {
        name: entry[2] for role, names in found.items() if role.startswith("py:") for name, entry in names.items()
    }
    return {name: tuple(place.split("#")) for name, place in entries.items() if place.startswith("chapters/reference/")}


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_stands_in_the_reference(inventory, name):
    module = importlib.import_module(name)
    assert public(module)
    also = {id(getattr(bnlib, each)): f"bnlib.{each}" for each in bnlib.__all__}
    missing = [
        each for each in public(module) if not {f"{name}.{each}", also.get(id(getattr(module, each)))} & {*inventory}
    ]
    assert not missing


def test_no_name_stands_there_twice(site):
    described = [signature["id"] for page in REFERENCE for signature in soup(site / page).select("dl.py > dt[id]")]
    assert len(described) > 250
    assert not [name for name, count in Counter(described).items() if count > 1]


@pytest.mark.parametrize("page", [page for page in PAGES if re.match(r"chapters/0[2-8]", page)])
def test_a_chapter_links_the_code_it_names(site, page):
    links = soup(site / page).select('article a[href*="reference/"] > code')
    assert links
    for code in links:
        name = re.match(r"[\w.]+", code.get_text())[0]
        assert code.parent["href"].split("#")[1].endswith(name), code


def test_what_looks_like_code_of_bnlib_resolves(site):
    """A name that was changed in the package and not in a chapter would be code without a link."""
    for page in PAGES:
        for code in soup(site / page).select("article code.literal"):
            if re.match(r"bnlib\.[a-zA-Z_.]+(\(.*\))?$", code.get_text()):
                assert code.find_parent("a"), (page, code.get_text())


@pytest.mark.parametrize("page", REFERENCE)
def test_a_page_of_the_reference_is_light_and_fits_a_phone(visit, page):
    opened = visit(page, viewport={"width": 375, "height": 740})
    assert sum(len(each.body()) for each in opened.responses) <= 1_500_000
    assert opened.complaints == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_all_that_the_doctor_can_find_stands_in_its_page(site):
    rows = soup(site / "chapters/reference/doctor.html").select("#findings tbody tr")
    links = {row.code.get_text(): row.find_all("a")[-1] for row in rows}  # the remedy may link names, too
    found = {code: link["href"] for code, link in links.items()}
    places = {code: advice.section.replace("chapters/", "../") for code, advice in bnlib.doctor.ADVICE.items()}
    assert found == {code: place.replace(".ipynb", ".html") for code, place in places.items()}
    assert all(link.get_text() for link in links.values())


def test_the_readme_says_where_the_reference_is():
    assert "chapters/reference" in (ROOT / "README.md").read_text()
