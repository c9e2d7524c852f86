"""Sphinx hook: docstrings write mathematics in dollars, as the chapters do; reStructuredText has a role for it."""

from __future__ import annotations

import re
import textwrap

from sphinx.application import Sphinx

_DISPLAY = re.compile(r"^([ ]*)\$\$(.+?)\$\$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"\$([^$]+)\$")


def _display(found: re.Match) -> str:
    indent, formula = found[1], textwrap.indent(textwrap.dedent(found[2]), found[1] + "   ")
    return f"\n{indent}.. math::\n\n{formula}\n"


def translate(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Put each formula into the directive or the role for mathematics."""
    text = _DISPLAY.sub(_display, "\n".join(lines))
    lines[:] = _INLINE.sub(lambda found: f":math:`{' '.join(found[1].split())}`", text).split("\n")


def setup(app: Sphinx) -> dict:
    """Connect the hook, to run after napoleon has read the sections."""
    app.connect("autodoc-process-docstring", translate, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
