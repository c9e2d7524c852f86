r"""Sphinx hook: numbered equations and figures get anchors to link to, such as ``#equation-4-2`` and ``#figure-6-3``.

The numbers are in the source, as ``\tag{4.2}`` and as captions that begin with ``**Figure 6.3.**``, so JupyterLab shows
them as well. Tests check the numbering.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

_TAG = re.compile(r"\\tag\{(\d+)\.(\d+)\}")
_CAPTION = re.compile(r"Figure (\d+)\.(\d+)\.")


def _numbered(doctree: nodes.document):
    """Yield pairs of an anchor and its node."""
    for block in doctree.findall(nodes.math_block):
        for chapter, number in _TAG.findall(block.astext()):
            yield f"equation-{chapter}-{number}", _taggable(block)
    for strong in doctree.findall(nodes.strong):
        found = _CAPTION.fullmatch(strong.astext())
        if found and strong.parent.astext().startswith(strong.astext()):
            strong.parent["classes"].append("bnb-caption")
            yield f"figure-{found[1]}-{found[2]}", strong.parent


def _taggable(block: nodes.math_block) -> nodes.math_block:
    """Put the block into an environment that allows a tag; Sphinx puts several lines into one that does not."""
    block["nowrap"] = True
    block[:] = [nodes.Text(rf"\begin{{equation}}{block.astext()}\end{{equation}}")]
    return block


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Add the anchors to the nodes, and register them so that links in Markdown find them like headings."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for anchor, node in _numbered(doctree):
        node["ids"].append(anchor)
        slugs[anchor] = (node.line or 0, anchor, anchor.replace("-", " ", 1).replace("-", "."))


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.connect("doctree-read", add_anchors)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
