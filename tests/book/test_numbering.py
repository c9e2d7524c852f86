"""Numbers of equations and figures, and the links that name them, in the source of the pages."""

import re
from functools import cache

import nbformat
import pytest

from tools import notebooks

NUMBERED = pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
PAGES = [*notebooks.chapters(), *sorted(notebooks.CHAPTERS.glob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)

CAPTION = r"\*\*Figure (\d+\.\d+)\.\*\* \S"
SHOWN = r"^figures\.picture\(|^widgets\.Explorer\("
LINK = r"\[([^\]]+)\]\(([^)\s]+)\)"
# What a text calls an equation ("(4.4)", "objective (4.4)") or a figure.
NAMES = {"equation": r"\((\d+\.\d+)\)", "figure": r"\b[Ff]igure (\d+\.\d+)"}


@cache
def cells(path) -> list:
    """The cells of a notebook; ``chapters.read`` would make every explorer of the book first."""
    return nbformat.read(path, as_version=4).cells


def is_solution(cell) -> bool:
    """Whether a cell is part of the folded solution of an exercise, where nothing needs a number."""
    return "solution" in cell.metadata.get("tags", [])


def prose(path) -> str:
    """The text of a page without its code."""
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")


def expected(path, count: int) -> list[str]:
    """The numbers of ``count`` things in a chapter."""
    return [f"{int(path.name[:2])}.{number}" for number in range(1, count + 1)]


@cache
def anchors() -> set[str]:
    """The address of each equation and figure, as a link has to write it."""
    found = set()
    for path in notebooks.numbered():
        tags = re.findall(r"\\tag\{(\d+\.\d+)\}", prose(path))
        captions = re.findall(f"^{CAPTION}", prose(path), flags=re.M)
        for kind, numbers in (("equation", tags), ("figure", captions)):
            found |= {f"{path.name}#{kind}-{number.replace('.', '-')}" for number in numbers}
    return found


@NUMBERED
def test_equations_are_numbered_in_order(path):
    texts = [cell.source for cell in cells(path) if cell.cell_type == "markdown" and not is_solution(cell)]
    equations = re.findall(r"\$\$(.+?)\$\$", "\n\n".join(texts), flags=re.S)
    tags = [re.findall(r"\\tag\{(.*?)\}", equation) for equation in equations]
    assert equations and tags == [[number] for number in expected(path, len(equations))]


@NUMBERED
def test_each_figure_is_followed_by_its_caption_and_figures_are_numbered_in_order(path):
    shown = [
        place
        for place, cell in enumerate(cells(path))
        if cell.cell_type == "code" and re.search(SHOWN, cell.source, flags=re.M) and not is_solution(cell)
    ]
    captions = [re.match(CAPTION, cells(path)[place + 1].source) for place in shown]
    assert shown and all(captions), [cells(path)[p].source for p, c in zip(shown, captions, strict=True) if not c]
    assert [caption[1] for caption in captions] == expected(path, len(shown))
    # A caption anywhere else would be the caption of nothing.
    assert re.findall(f"^{CAPTION}", prose(path), flags=re.M) == expected(path, len(shown))


@NUMBERED
def test_a_caption_counts_its_panels_which_stand_below_each_other_on_a_phone(path):
    captions = [cell.source.partition("\n\n")[0] for cell in cells(path) if re.match(CAPTION, cell.source)]
    sides = re.compile(r"\b(Left|Right)\b:|\((left|right|above|below)[,)]")
    assert captions and [caption for caption in captions if sides.search(caption)] == []


@EVERY_PAGE
def test_a_link_leads_to_the_number_it_names(path):
    for words, target in re.findall(LINK, prose(path)):
        fragment = target.partition("#")[2]
        named = [(kind, number) for kind, name in NAMES.items() for number in re.findall(name, words)]
        if named or re.fullmatch(r"(equation|figure)-\d+-\d+", fragment):
            assert target in anchors(), f"[{words}]({target})"
            assert [f"{kind}-{number.replace('.', '-')}" for kind, number in named] == [fragment], words


@EVERY_PAGE
def test_a_number_named_without_a_link_exists(path):
    """A dot tells our figures and equations from those of a paper."""
    known = {anchor.split("#")[1] for anchor in anchors()}
    text = prose(path)
    names = [("figure", n) for n in re.findall(NAMES["figure"], text)]
    names += [("equation", n) for n in re.findall(r"\b(?:[Ee]quation|[Oo]bjective) \((\d+\.\d+)\)", text)]
    assert [name for name in names if f"{name[0]}-{name[1].replace('.', '-')}" not in known] == []
