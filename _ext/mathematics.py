r"""Sphinx hook: convert formulas to MathML when the site is built, so that pages need no script to show them.

A formula that cannot be converted causes a warning, and warnings fail the build. Pages with formulas load
``mathematics.css`` and one font: STIX Two Math (SIL Open Font License 1.1, from the package ziamath), reduced to the
characters in the formulas of the site. Other pages load neither of them.
"""

from __future__ import annotations

import functools
import re
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from unicodedata import normalize

from docutils import nodes
from fontTools import subset
from fontTools.ttLib import TTFont
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

_FONT = "mathematics.woff2"
_FORMULA = re.compile(r"<math\b.*?</math>", re.DOTALL)
_SLANTED = [chr(code) for code in (*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C), 0x210E)]
_CHOOSES_A_SHAPE = "\ufe00"  # a variation selector, which follows script letters and is not visible
# Corrections of math-core 0.9.0's output for browsers: MathML Core has no element for a frame; Chromium stretches a
# bracket with an exponent only if the bracket is alone in a row; and a line above was written as a line below.
_MENDED = [
    (re.compile(r'<menclose notation="box">(.*?)</menclose>', re.DOTALL), r'<mrow class="boxed">\1</mrow>'),
    (re.compile(r"(<m(?:sub|sup|subsup)>)(<mo [^>]*minsize=[^<]*</mo>)"), r"\1<mrow>\2</mrow>"),
    (re.compile('<mo stretchy="true">\u0332</mo>'), '<mo stretchy="true">\u203e</mo>'),
]
# Within a line: the characters of a formula that may be too wide for a phone, and what must not begin the next line.
_LONG = 28
_PUNCTUATION = re.compile(r"[.,;:!?)\]]+")
_convert = LatexToMathML(fancy_error=False).convert_with_local_state


def mathml(tex: str, display: bool) -> str:
    r"""Convert a LaTeX formula to MathML.

    Raises:
        LatexError: if the formula cannot be converted, or the font lacks one of its characters.

    Example:
        >>> mathml(r"\epsilon^2", display=False)
        '<math><msup><mi>ϵ</mi><mn>2</mn></msup></math>'
    """
    formula = _convert(tex, displaystyle=display)
    for found, mended in _MENDED:
        formula = found.sub(mended, formula)
    missing = drawn(formula) - _characters() - {_CHOOSES_A_SHAPE}
    if missing:
        raise LatexError(f"STIX Two Math has no {', '.join(sorted(missing))}")
    return formula


def drawn(formulas: str) -> set[str]:
    """Return the characters that a browser draws for some MathML, including slanted letters and the root sign."""
    written = set(drawn_text(formulas)) | {"√"}
    return written | {letter for letter in _SLANTED if normalize("NFKC", letter) in written}


def drawn_text(formulas: str) -> str:
    """Return the text in some MathML."""
    return unescape(re.sub("<[^>]*>", "", formulas))


@functools.cache
def _font() -> TTFont:
    return TTFont(Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf")


@functools.cache
def _characters() -> frozenset[str]:
    """Return the characters of the font."""
    return frozenset(map(chr, _font().getBestCmap()))


def show(translator, node: nodes.Element) -> None:
    """Write a formula into the page."""
    display = isinstance(node, nodes.math_block)
    tag = "div" if display else "span"
    try:
        formula = mathml(node.astext(), display)
    except LatexError as error:
        place = node if node.source else translator.builder.current_docname
        logger.warning("a formula cannot be shown, %s: %s", error, node.astext(), location=place)
        formula = translator.encode(node.astext())
    # With this class the theme makes a formula that is too wide focusable, so that it can be scrolled by keyboard.
    wide = display or len(drawn_text(formula)) > _LONG
    classes = "math notranslate" + " pst-scrollable-table-container" * wide
    translator.body.append(translator.starttag(node, tag, "", CLASS=classes))
    translator.body.append(f"{formula}</{tag}>" + "\n" * display)
    raise nodes.SkipNode


def keep_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put a formula and the punctuation after it into one element, in which no line is broken."""
    for formula in list(doctree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        after = parent[place + 1] if place + 1 < len(parent) else None
        if not isinstance(after, nodes.Text) or not (found := _PUNCTUATION.match(after)):
            continue
        if len(formula.astext()) <= _LONG:
            parent[place + 1] = nodes.Text(after[found.end() :])
            parent[place] = nodes.inline("", "", formula, nodes.Text(found[0]), classes=["bnb-unbroken"])


def add_styles(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Load the styles and the font on pages with formulas, in parallel."""
    if _FORMULA.search(context.get("body", "")):
        app.add_css_file("mathematics.css")
        font = context["pathto"](f"_static/{_FONT}", resource=True)
        context["metatags"] += f'<link rel="preload" as="font" type="font/woff2" href="{font}" crossorigin />'


def write_font(app: Sphinx, exception: Exception | None) -> None:
    """Write one small font with the characters in the formulas of all pages."""
    if exception or app.builder.format != "html":
        return
    pages = (page.read_text() for page in Path(app.outdir).rglob("*.html"))
    characters = drawn("".join(formula for page in pages for formula in _FORMULA.findall(page)))
    options = subset.Options(flavor="woff2", layout_features=[], hinting=False)
    cut, font = subset.Subsetter(options), TTFont(_font().reader.file.name)
    for table in font["cmap"].tables:
        if "minute.ssty" in font.getGlyphOrder() and 0x2032 in getattr(table, "cmap", ()):
            table.cmap[0x2032] = (
                "minute.ssty"  # use the glyph for a prime in an exponent, which Chromium does not select
            )
    cut.populate(text="".join(characters))
    cut.subset(font)
    subset.save_font(font, str(Path(app.outdir) / "_static" / _FONT), options)


def setup(app: Sphinx) -> dict:
    """Connect the hooks; ``html_math_renderer`` in _config.yml chooses what they register."""
    app.add_html_math_renderer("mathml", (show, None), (show, None))
    app.connect("doctree-resolved", keep_punctuation)
    app.connect("html-page-context", add_styles)
    app.connect("build-finished", write_font)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
