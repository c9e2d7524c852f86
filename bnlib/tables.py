"""Results of experiments as tables (a pandas data frame with a caption), and tables of cases in words."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from html import escape
from numbers import Integral, Real
from typing import Any

import numpy as np

from bnlib.arguments import check_one_of
from bnlib.extras import optional


def spread(values: Any, decimals: int = 1) -> str:
    """Write the median over seeds, and in brackets the lowest and the highest value.

    Of errors these are the best and the worst seed. A seed that diverged (NaN) counts as infinite.

    Arguments:
        values: one number per seed; an array, a tensor on the CPU or a list.
        decimals: digits after the decimal point.

    Raises:
        ValueError: there is no value, or more than one axis.

    Example:
        >>> tables.spread([3.31, 4.04, 2.25])
        '3.3 (2.2–4.0)'
        >>> tables.spread([0.5, 2, float("nan")], decimals=2)
        '2.00 (0.50–∞)'
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"values must be one number per seed, got the shape {array.shape}; select one setting first")
    # Sorted by hand: numpy interpolates between infinities to NaN.
    ordered = np.sort(np.where(np.isnan(array), math.inf, array))
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return f"{_number(middle, decimals)} ({_number(ordered[0], decimals)}–{_number(ordered[-1], decimals)})"


def significant(value: float, digits: int = 2) -> str:
    """Write a number with some significant digits, and with a power of ten if it is tiny or huge.

    For columns whose numbers differ by many orders of magnitude, where a fixed number of decimals would not do.

    Arguments:
        value: a number; NaN becomes a dash.
        digits: significant digits, trailing zeros included.

    Example:
        >>> [tables.significant(value) for value in (0.0251, 5, 28.4, 2.04e-8)]
        ['0.025', '5.0', '28', '2.0 × 10⁻⁸']
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value) or not value:
        return _number(value, 0)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if not -4 < power < 5:
        return f"{mantissa} × {_power_of_ten(power)}"
    return _number(round(value, digits - 1 - power), max(digits - 1 - power, 0))


def powers_of_ten(text: str) -> str:
    """Write the numbers of a text that are in Python's notation with an exponent as powers of ten.

    Example:
        >>> tables.powers_of_ten("eps 1e-05, loss 2.5e-07, 100 steps, 1e+06 samples")
        'eps 10⁻⁵, loss 2.5 × 10⁻⁷, 100 steps, 10⁶ samples'
    """
    return re.sub(r"(?<![\w.])(\d(?:\.\d+)?)e([+-]\d{2,3})\b", _as_power, text)


def _as_power(match: re.Match) -> str:
    power = _power_of_ten(int(match[2]))
    return power if match[1] == "1" else f"{match[1]} × {power}"


def _power_of_ten(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


class Table:
    """Rows of results that a notebook shows as a table, and text where there is no HTML.

    A cell is written by what it holds: one number per seed as ``spread`` does, a float with ``decimals`` digits, an
    integer in full, a truth value as yes or no, ``None`` and NaN as a dash, text as it is but for ``powers_of_ten``.
    Numbers stand at the right, text at the left. The same rows give the same HTML, so that nbval can compare it.

    Arguments:
        rows: one mapping per row, from the header of a column, with its unit, to the cell; all with the same headers.
            The first column heads the rows. A pair ``(group, header)`` in place of a header puts the column under a
            common header.
        caption: what the numbers are, and in which unit if all have one.
        decimals: digits after the decimal point, for the whole table or as a mapping from header to digits.

    Attributes:
        frame: the cells as text, a ``pandas.DataFrame`` whose index is the first column.
        caption: as given.

    Raises:
        ModuleNotFoundError: pandas is missing.
        ValueError: there is no row, a row has other headers than the first, or the caption is empty.

    Example:
        >>> errors = {"batch norm": [0.021, 0.024, 0.019], "layer norm": [0.031, 0.033, 0.036]}
        >>> rows = [{"layer": name, "test error (%)": 100 * np.array(seeds)} for name, seeds in errors.items()]
        >>> tables.Table(rows, "Median over three seeds (best–worst)")
        Median over three seeds (best–worst)
        layer      test error (%)
        batch norm  2.1 (1.9–2.4)
        layer norm  3.3 (3.1–3.6)
    """

    def __init__(
        self, rows: Iterable[Mapping[Any, Any]], caption: str, *, decimals: int | Mapping[Any, int] = 1
    ) -> None:
        rows = [dict(row) for row in rows]
        _check(rows, caption)
        headers = list(rows[0])[1:]
        digits = decimals if isinstance(decimals, Mapping) else dict.fromkeys(rows[0], decimals)
        self.caption = powers_of_ten(caption)
        self.frame = _frame([{key: _cell(row[key], digits.get(key, 1)) for key in row} for row in rows])
        self._left = {n for n, header in enumerate(headers) if all(isinstance(row[header], str) for row in rows)}

    def __repr__(self) -> str:
        lines = self.frame.to_string().split("\n")
        return "\n".join([self.caption, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        table = ET.fromstring(self.frame.to_html(border=0))
        caption = ET.Element("caption", style="caption-side: top; text-align: left")
        caption.text, caption.tail = self.caption, "\n  "
        table.insert(0, caption)
        for row in table.iterfind("thead/tr"):
            _dress_header(row, self._left)
        for row in table.iterfind("tbody/tr"):
            row[0].attrib.update(scope="row", style="text-align: left")
            for place in self._left:
                row[place + 1].set("style", "text-align: left")
        # A wide table scrolls in its own box, which the keyboard reaches.
        box = {"class": "bnb-results", "style": "overflow-x: auto", "tabindex": "0", "role": "group"}
        around = ET.Element("div", {**box, "aria-label": self.caption})
        around.append(table)
        return ET.tostring(around, encoding="unicode", short_empty_elements=False)


class CaseTable:
    """Cases in words, as a table: what heads a case, and beside it a list of all that belongs to the case.

    A narrow screen shows the list below its heading. Texts may contain line breaks, and code and links in Markdown.

    Arguments:
        rows: one mapping per case, from names to texts, all with the same names. The first text heads the case.
        caption: what the cases have in common.
        folded: show only the heading of each case, which opens its list. In a folded table, a text named ``anchor``
            is the address of the case on its page, and cases with the same text named ``part`` stand together below
            it; these two are not listed.

    Attributes:
        rows, caption, folded: as given, the rows as a list.

    Raises:
        ValueError: there is no row, a row has other names than the first, or the caption is empty.

    Example:
        >>> cases = [{"what you see": "the loss is NaN", "cause": "an overflow", "cure": "`layer.float()`"}]
        >>> tables.CaseTable(cases, "Losses")
        Losses
        the loss is NaN
          cause: an overflow
          cure: layer.float()
    """

    def __init__(self, rows: Iterable[Mapping[str, str]], caption: str, *, folded: bool = False) -> None:
        self.rows, self.caption, self.folded = [dict(row) for row in rows], caption, folded
        self._places = {"part", "anchor"} if folded else set()
        _check(self.rows, caption)

    def __repr__(self) -> str:
        lines = [self.caption]
        for row in self.rows:
            (_, head), *others = row.items()
            others = [(name, text) for name, text in others if name not in self._places]
            lines += [_without_marks(head), *(f"  {name}: {_without_marks(text)}" for name, text in others)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cases = []
        for row in self.rows:
            (_, head), *others = row.items()
            others = [(name, text) for name, text in others if name not in self._places]
            listed = "".join(f"<dt>{escape(name)}</dt><dd>{_inline(text)}</dd>" for name, text in others)
            # An address inside of the fold, because browsers open a fold in which the target of a link stands.
            place = f' id="{escape(row["anchor"])}"' if "anchor" in row else ""
            cases.append((_inline(head), f"<dl{place}>{listed}</dl>"))
        if self.folded:
            lines, part = [], ""
            for row, (head, listed) in zip(self.rows, cases, strict=True):
                if row.get("part", "") != part:
                    part = row["part"]
                    lines.append(f'<p class="bnb-part">{escape(part)}</p>')
                lines.append(f"<details><summary>{head}</summary>{listed}</details>")
            folds = "\n".join(lines)
            return f'<div class="bnb-cases" role="group" aria-label="{escape(self.caption)}">\n{folds}\n</div>'
        rows = "\n".join(f'<tr><th scope="row">{head}</th><td>{listed}</td></tr>' for head, listed in cases)
        caption = f'<caption style="caption-side: top; text-align: left">{escape(self.caption)}</caption>'
        return f'<table class="bnb-cases">{caption}<tbody>\n{rows}\n</tbody></table>'


class FilterTable:
    """A table in words whose rows a page can filter: a list for each of some columns, and a field for words.

    The form is made by ``assets/ledger.js``; without JavaScript the table is complete. It scrolls in its own box. As
    text there are the first ``SHOWN`` rows and the number of the others, because a page has the table.

    Arguments:
        rows: one mapping per row, from headers to texts, all with the same headers. The first text heads the row.
        caption: what the rows have in common.
        filters: the headers of the columns that are chosen from a list.
        noun: what the rows are, in the plural.

    Raises:
        ValueError: there is no row, a row has other headers than the first, a filter is no header, or the caption is
            empty.

    Example:
        >>> rows = [{"layer": "batch norm", "uses": "the batch"}]
        >>> tables.FilterTable(rows, "Layers", filters=["uses"], noun="layers")
        Layers
        batch norm
          uses: the batch
    """

    SHOWN = 20

    def __init__(self, rows: Iterable[Mapping[str, str]], caption: str, *, filters: Iterable[str], noun: str) -> None:
        self.rows, self.caption, self.filters, self.noun = [dict(row) for row in rows], caption, list(filters), noun
        _check(self.rows, caption)
        for name in self.filters:
            check_one_of("filters", name, self.rows[0])

    def __repr__(self) -> str:
        more = len(self.rows) - self.SHOWN
        text = repr(CaseTable(self.rows[: self.SHOWN], self.caption))
        return text + (f"\nand {more} more {self.noun}" if more > 0 else "")

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.rows[0])
        body = "\n".join(map(self._row, self.rows))
        caption = f'<caption style="caption-side: top; text-align: left">{escape(self.caption)}</caption>'
        table = f'<table class="bnb-answers" data-filters="{escape(" ".join(self.filters))}" data-noun="{self.noun}">'
        label = escape(self.caption)
        return (
            f'<div class="bnb-answers-box" tabindex="0" role="group" aria-label="{label}">{table}{caption}'
            f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
        )

    @staticmethod
    def _row(row: Mapping[str, str]) -> str:
        (_, head), *others = row.items()
        cells = "".join(f"<td>{_inline(powers_of_ten(text))}</td>" for _, text in others)
        return f'<tr><th scope="row">{_inline(head)}</th>{cells}</tr>'


_CODE = r"`([^`]+)`"
_LINK = r"\[([^\]]+)\]\(([^)]+)\)"


def _inline(text: str) -> str:
    """Return HTML for a text with line breaks, and code and links in Markdown."""
    linked = re.sub(_LINK, r'<a href="\2">\1</a>', escape(text))
    return re.sub(_CODE, r"<code>\1</code>", linked).replace("\n", "<br/>")


def _without_marks(text: str) -> str:
    return re.sub(_CODE, r"\1", re.sub(_LINK, r"\1", text)).replace("\n", " ")


def _check(rows: list[dict], caption: str) -> None:
    if not caption.strip():
        raise ValueError("caption must say what the numbers are, got an empty text")
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    for place, row in enumerate(rows):
        if list(row) != list(rows[0]):
            raise ValueError(f"row {place} has the headers {list(row)}, row 0 has {list(rows[0])}: use the same ones")


def _frame(rows: list[dict[Any, str]]):
    """The data frame whose index is the first column, and whose corner holds the header of that column."""
    pd = optional("pandas", "a table")
    first, *headers = rows[0]
    if any(isinstance(header, tuple) for header in headers):
        pairs = [header if isinstance(header, tuple) else ("", header) for header in headers]
        pairs = [tuple(map(powers_of_ten, pair)) for pair in pairs]
        columns = pd.MultiIndex.from_tuples(pairs, names=["", first])
    else:
        columns = pd.Index([*map(powers_of_ten, headers)], name=first)
    index = pd.Index([row[first] for row in rows], dtype=object)
    return pd.DataFrame([[row[each] for each in headers] for row in rows], index, columns, dtype=object)


def _dress_header(row: ET.Element, left: set[int]) -> None:
    """Say which cells a header is for, and keep a short one in one line; a corner without text heads nothing."""
    row.attrib.clear()
    place = -1  # of the first column under a cell, the header of the rows apart
    for cell in row:
        span = int(cell.get("colspan", 1))
        grouped = "colspan" in cell.attrib
        cell.attrib.pop("halign", None)
        if cell.text:
            cell.set("scope", "colgroup" if grouped else "col")
            cell.text = cell.text.replace(" ", "\N{NO-BREAK SPACE}") if len(cell.text) <= 8 else cell.text
        else:
            cell.tag = "td"
        aligned = "center" if grouped else "left" if place in left | {-1} else "right"
        cell.set("style", f"text-align: {aligned}")
        place += span


def _cell(value: Any, decimals: int) -> str:
    if isinstance(value, str):
        return powers_of_ten(value)
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if np.ndim(value):
        return spread(value, decimals)
    if isinstance(value, Integral):
        return f"{value:,}"
    if isinstance(value, Real):
        return "–" if math.isnan(value) else _number(float(value), decimals)
    raise ValueError(f"a cell must be text, a number, a truth value, None or one number per seed, got {value!r}")


def _number(value: float, decimals: int) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:,.{decimals}f}"
