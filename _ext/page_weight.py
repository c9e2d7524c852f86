"""Sphinx hook: reduce the theme's styles, icons and scripts to the parts that the pages of this site use.

Styles: a rule is kept if the pages and scripts use all its classes. Icons: the theme draws them with a script of 1.5
MB; this hook uses the theme's web font instead, reduced to the glyphs in use.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import tinycss2
from fontTools import subset
from sphinx.application import Sphinx

_GROUPS = ("media", "supports", "container", "layer")
_ICON = re.compile(r"\.fa-[\w-]+:before")
_SCRIPT_OF_ICONS = re.compile(r'\s*<script src="[^"]*/fontawesome\.js[^"]*"></script>')
_ICON_IN_PAGE = re.compile(r'<(?:i|span)(?= class="[^"]*\bfa-)')
_PRELOADED_SCRIPT = re.compile(r'\s*<link rel="preload" as="script"[^>]*>')


def names_in_use(site: Path) -> set[str]:
    """Return the classes of all pages and all words in scripts, because scripts may set classes."""
    found = set()
    for page in site.rglob("*.html"):
        for names in re.findall(r'class=\\?"([^"\\]*)', page.read_text()):
            found.update(names.split())
    for script in site.rglob("*.js"):
        if script.name not in ("fontawesome.js", "searchindex.js"):
            found.update(re.findall(r"[\w-]+", script.read_text()))
    return found


def trim(rules: list, used: set[str]) -> str:
    """Return the style rules as text, without rules for classes that are not in use.

    >>> trim(tinycss2.parse_stylesheet("p .a,.b{top:0} @media print{.b{top:0}} .a:not(.b){top:0}"), {"a"})
    'p .a{top:0}.a:not(.b){top:0}'
    """
    return "".join(_trimmed(rules, used))


def _trimmed(rules: list, used: set[str]) -> Iterator[str]:
    for rule in rules:
        if rule.type == "comment" and rule.value.startswith("!"):  # a licence
            yield rule.serialize()
        elif rule.type == "at-rule" and rule.lower_at_keyword in _GROUPS and rule.content is not None:
            content = trim(tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True), used)
            if content:
                yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{content}}}"
        elif rule.type == "at-rule":
            yield rule.serialize()
        elif rule.type == "qualified-rule":
            kept = [selector for selector in _selectors(rule.prelude) if _classes(selector) <= used]
            if kept:
                yield f"{','.join(map(tinycss2.serialize, kept)).strip()}{{{tinycss2.serialize(rule.content).strip()}}}"


def _selectors(prelude: list) -> list[list]:
    selectors = [[]]
    for token in prelude:
        if token == ",":
            selectors.append([])
        else:
            selectors[-1].append(token)
    return selectors


def _classes(selector: list) -> set[str]:
    """Return the classes that a selector requires; those in parentheses are ignored, because they may be negated."""
    return {name.value for dot, name in itertools.pairwise(selector) if dot == "." and name.type == "ident"}


def trim_styles(app: Sphinx, exception: Exception | None) -> None:
    """Reduce every style sheet of the site, and reduce the icon font to the icons that remain in the styles."""
    if exception or app.builder.format != "html":
        return
    site = Path(app.outdir)
    used = names_in_use(site)
    for sheet in (site / "_static").rglob("*.css"):
        rules = tinycss2.parse_stylesheet(sheet.read_text(), skip_whitespace=True)
        sheet.write_text(trim(rules, used))
    theme = site / "_static" / "styles" / "pydata-sphinx-theme.css"
    options = subset.Options(flavor="woff2", layout_features=[], hinting=False)
    path = site / "_static" / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.woff2"
    font, cut = subset.load_font(str(path), options), subset.Subsetter(options)
    cut.populate(text="".join(_glyphs(theme.read_text())))
    cut.subset(font)
    subset.save_font(font, str(path), options)


def _glyphs(style: str) -> list[str]:
    rules = [rule for rule in tinycss2.parse_stylesheet(style) if rule.type == "qualified-rule"]
    icons = [rule for rule in rules if _ICON.search(tinycss2.serialize(rule.prelude))]
    return [token.value for rule in icons for token in rule.content if token.type == "string"]


def lighten_pages(app: Sphinx, exception: Exception | None) -> None:
    """Remove the icon script, hide icons from screen readers, as it did, and load no script before the text."""
    if exception or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = _PRELOADED_SCRIPT.sub("", _SCRIPT_OF_ICONS.sub("", page.read_text()))
        page.write_text(_ICON_IN_PAGE.sub(r'\g<0> aria-hidden="true"', text))


def setup(app: Sphinx) -> dict:
    """Connect the hooks, which must run when the pages are final."""
    app.connect("build-finished", lighten_pages, priority=900)
    app.connect("build-finished", trim_styles, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
