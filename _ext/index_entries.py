"""Sphinx hook: add the entries of ``chapters/index.yml``, which link to sections, to the general index."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
FOLDER, FILE = "chapters", "index.yml"


def add_entries(app: Sphinx, doctree: nodes.document) -> None:
    """Add the entries of a page to the index; warn if the page does not have one of the sections."""
    path = Path(app.srcdir) / FOLDER / FILE
    folder, _, page = app.env.docname.rpartition("/")
    if folder != FOLDER or not path.exists():
        return
    app.env.note_dependency(str(path))
    slugs = app.env.metadata[app.env.docname].get("myst_slugs", {})
    # Not an `index` node, because the domains have already collected these nodes at this stage.
    found = app.env.get_domain("index").entries.setdefault(app.env.docname, [])
    for section, terms in _read(path.read_text()).get(page, {}).items():
        if section not in slugs:
            logger.warning("%s names a section that is not there: %s", FILE, section, location=app.env.docname)
            continue
        found += [("single", term, slugs[section][1], "", None) for term in terms]


@cache
def _read(text: str) -> dict[str, dict[str, list[str]]]:
    return yaml.safe_load(text)


def setup(app: Sphinx) -> dict:
    """Connect the hook, after those that add anchors."""
    app.connect("doctree-read", add_entries, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
