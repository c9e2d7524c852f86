"""Sphinx hooks for docstrings: formulas in dollar signs, as in the chapters, and readable signatures."""

from __future__ import annotations

import re
import textwrap

from sphinx.application import Sphinx

_DISPLAY = re.compile(r"^([ ]*)\$\$(.+?)\$\$", re.DOTALL | re.MULTILINE)
_OBJECT = re.compile(r"<(?:function|class) '?(?:\w+\.)*(\w+)[^>]*>")
_INLINE = re.compile(r"\$([^$]+)\$")


def _display(found: re.Match) -> str:
    indent, formula = found[1], textwrap.indent(textwrap.dedent(found[2]), found[1] + "   ")
    return f"\n{indent}.. math::\n\n{formula}\n"


def translate(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Replace formulas in dollar signs by reStructuredText's directive or role for mathematics."""
    text = _DISPLAY.sub(_display, "\n".join(lines))
    lines[:] = _INLINE.sub(lambda found: f":math:`{' '.join(found[1].split())}`", text).split("\n")


def skip_fields(app: Sphinx, what: str, name: str, obj, skip: bool, options) -> bool | None:
    """Skip the fields of named tuples, which the class's docstring describes; autodoc would list their values."""
    alias = what == "class" and callable(obj) and getattr(obj, "__name__", name) != name
    numbered = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if alias or numbered else None


def name_defaults(app: Sphinx, what: str, name: str, obj, options, signature: str | None, returns: str | None):
    """Show the name of a default that is a function or a class, instead of its repr with a memory address."""
    return _OBJECT.sub(r"\1", signature or "") or None, returns


def setup(app: Sphinx) -> dict:
    """Connect the hooks; the one for formulas must run after napoleon has parsed the sections."""
    app.connect("autodoc-process-docstring", translate, priority=600)
    app.connect("autodoc-process-signature", name_defaults)
    app.connect("autodoc-skip-member", skip_fields)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
