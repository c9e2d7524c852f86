"""Sphinx directive: the BibTeX entry of the book, generated from ``CITATION.cff`` so that the two always agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FILE = "CITATION.cff"


def bibtex(citation: Mapping) -> str:
    """Return the BibTeX entry of a citation, of type ``@misc``, which every BibTeX style supports.

    Example:
        >>> citation = {"title": "A Book", "version": "1.0", "date-released": "2026-11-20",
        ...             "authors": [{"given-names": "Ada", "family-names": "Lovelace"}, {"name": "Her Friends"}]}
        >>> print(bibtex(citation))
        @misc{abook2026,
          author = {Lovelace, Ada and {Her Friends}},
          title = {{A Book}},
          year = {2026},
          note = {Version 1.0},
        }
    """
    released = str(citation["date-released"])
    fields = {
        "author": " and ".join(map(_author, citation["authors"])),
        "title": f"{{{citation['title']}}}",
        "year": released[:4],
        "note": f"Version {citation['version']}",
        "url": citation.get("url", citation.get("repository-code", "")),
        "doi": citation.get("doi", ""),
    }
    key = "".join(filter(str.isalnum, citation["title"].lower())).removeprefix("the") + released[:4]
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _author(author: Mapping) -> str:
    if "name" in author:
        return f"{{{author['name']}}}"
    return f"{author['family-names']}, {author['given-names']}"


class BibTeX(SphinxDirective):
    """A code block with the entry, which has a copy button."""

    def run(self) -> list[nodes.Node]:
        """Read ``CITATION.cff`` and return the code block."""
        path = Path(self.env.srcdir) / FILE
        self.env.note_dependency(str(path))
        entry = bibtex(yaml.safe_load(path.read_text()))
        return [nodes.literal_block(entry, entry, language="bibtex")]


def setup(app: Sphinx) -> dict:
    """Add the directive."""
    app.add_directive("bibtex", BibTeX)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
