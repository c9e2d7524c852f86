"""The notation page: each symbol has one meaning, a name that exists, a place that exists, and is used."""

import ast
import inspect
import re
from functools import cache

import pytest
import torch
from test_numbering import NUMBERED, anchors, is_solution, prose
from test_numbering import cells as cells_of
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from tools import notebooks

TEXT = (notebooks.CHAPTERS / "notation.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| symbol")
]
FORMULA = r"\$\$(.+?)\$\$|\$(.+?)\$"
# What puts a letter into another place or size, and is no part of its name.
SPACING = r"\\[,;!: ]|\\(?:big|Big|left|right|quad|qquad|displaystyle|tag\{[^}]*\})(?![a-z])|[&\s]|\\\\"
TOKEN = r"\\(?:text|mathrm|operatorname)\s*\{[^}]*\}|\\rm [a-z]+|\\[A-Za-z]+|\\.|."
ACCENTS = {r"\hat", r"\bar", r"\tilde", r"\mathcal", r"\mathbf", r"\mathbb"}
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau varphi chi psi omega ell "
    "Delta Sigma Phi Psi Omega Gamma Lambda"
).split()
# Numbers, indices and the number of a step; the expectation is among the conventions.
FREE = {*"ijktE", r"\ell", r"\pi"}


@cache
def tokens(formula: str) -> tuple[str, ...]:
    """A formula in its smallest parts, written in one way only."""
    formula = re.sub(r"\\[lr]?(?:Vert)\b|\\\|", "‖", formula)
    formula = re.sub(r"\\[lr]vert\b", "|", formula)
    formula = re.sub(r"\{(\\?\w)\}", r" \1", re.sub(SPACING, " ", formula))
    return tuple(token for token in re.findall(TOKEN, formula, flags=re.S) if token.strip() and token not in "{}")


def formulas(text: str) -> list[str]:
    return [display or inline for display, inline in re.findall(FORMULA, text, flags=re.S)]


def symbols(cell: str) -> list[tuple[str, ...]]:
    """The symbols that a row is about: of ``u = E e`` it is u."""
    return [tokens(formula.partition("=")[0]) for formula in formulas(cell)]


def occurs(symbol: tuple[str, ...], formula: str) -> bool:
    r"""Whether a formula has this symbol and not one with another index or accent; ``\cdot`` stands for anything."""
    parts, start = tokens(formula), symbol[: symbol.index(r"\cdot")] if r"\cdot" in symbol else symbol
    for place in range(len(parts) - len(start) + 1):
        end = place + len(start)
        before, after = parts[place - 1 : place], parts[end : end + 1]
        if parts[place:end] == start and (
            start is not symbol or (not ACCENTS.intersection(before) and not {"_", "'"}.intersection(after))
        ):
            return True
    return False


def letters(formula: str) -> set[str]:
    """The letters of a formula, with their accents and without indices."""
    parts, found = tokens(re.sub(r"\\(begin|end)\{\w+\}", "", formula)), set()
    for place, token in enumerate(parts):
        if re.fullmatch(r"[A-Za-z]|\\(?:" + "|".join(GREEK) + ")", token):
            accent = parts[place - 1] if place and parts[place - 1] in ACCENTS else ""
            found.add(accent + token)
    return found


def defined(display: str) -> set[str]:
    """The letters that stand alone on the left of an equation, or are drawn from a distribution."""
    found: set[str] = set()
    for line in re.split(r"\\\\|,|\\begin\{\w+\}", display):
        left, sign, _ = re.sub(r"\([^)]*\)|_\{.*?\}|_\w|&", "", line).partition("\\sim" if "\\sim" in line else "=")
        found |= letters(left) if sign and len(letters(left)) == 1 else set()
    return found


@cache
def names() -> set[str]:
    """Every name that bnlib defines, ``Class.attribute`` among them, and those of tensors and BN in torch."""
    found = set(dir(torch.Tensor))
    for path in (notebooks.ROOT / "bnlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            if isinstance(node, ast.ClassDef):
                within = [getattr(each, "name", None) or getattr(each.target, "id", "") for each in attributes(node)]
                found |= {f"{node.name}.{name}" for name in within} | set(within)
            if isinstance(node, ast.arg):
                found.add(node.arg)
    layer = nn.BatchNorm1d(2)
    found |= {*inspect.signature(nn.BatchNorm1d).parameters, *layer.state_dict(), "lr", "input"}
    return found | {name.rpartition(".")[2] for name in weight_norm(nn.Linear(2, 2)).state_dict()}


def attributes(node: ast.ClassDef) -> list:
    """The methods of a class and its annotated attributes."""
    return [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AnnAssign)]


@cache
def used() -> list[str]:
    """The formulas of all chapters."""
    return [formula for path in notebooks.numbered() for formula in formulas(prose(path))]


def test_no_symbol_stands_in_two_rows():
    found = [symbol for cell, *_ in ROWS for symbol in symbols(cell)]
    assert len(found) >= 80
    assert sorted({symbol for symbol in found if found.count(symbol) > 1}) == []


def test_no_row_speaks_of_a_second_meaning():
    second = (
        r"[Ee]lsewhere|nothing to do with|[Tt]his \$|not BN's|which is meant|[Ii]n (?:this )?chapter|something else"
    )
    assert [cell for row in ROWS for cell in row if re.search(second, cell)] == []


@pytest.mark.parametrize("row", [row for row in ROWS if len(row) == 4 and row[2]], ids=lambda row: row[2])
def test_names_in_code_exist(row):
    named = [re.sub(r"\(.*\)$", "", name) for name in re.findall(r"`([^`]+)`", row[2])]
    assert named and [name for name in named if name not in names()] == []


def test_each_equation_that_the_page_names_is_there():
    links = [link for *_, cell in ROWS for link in re.findall(r"\[\((\d+\.\d+)\)\]\(([^)]+)\)", cell)]
    assert len(links) >= 40 and sum(bool(cell) for *_, cell in ROWS) <= len(links)
    for number, target in links:
        assert target in anchors() and target.endswith(f"#equation-{number.replace('.', '-')}"), (number, target)


@pytest.mark.parametrize("symbol", [s for cell, *_ in ROWS for s in symbols(cell)], ids="".join)
def test_each_symbol_of_the_page_is_used_in_a_chapter(symbol):
    assert any(occurs(symbol, formula) for formula in used())


@NUMBERED
def test_the_letters_of_a_numbered_equation_are_explained(path):
    """On the notation page, or in a formula within the text of the same chapter."""
    text = "\n\n".join(cell.source for cell in cells_of(path) if cell.cell_type == "markdown" and not is_solution(cell))
    displays = re.findall(r"\$\$(.+?)\$\$", text, flags=re.S)
    inline = re.sub(r"\$\$.+?\$\$", "", text, flags=re.S)
    known = FREE.union(*(letters(formula) for formula in [*formulas(TEXT), *formulas(inline)]))
    known |= {letter for display in displays for letter in defined(display)}
    assert {display: sorted(letters(display) - known) for display in displays if letters(display) - known} == {}
