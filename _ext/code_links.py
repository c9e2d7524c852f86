"""Sphinx hook: inline code with a name of ``bnlib`` becomes a link to the name's description in the reference.

In a chapter, for example, ``bnlib.diagnose(model, batches)``, ``probes.sharpness`` and ``FullNorm`` (a name in
``bnlib`` itself) become links. A docstring in the reference may also use names of its own module or class. Other
inline code does not change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(\(.*\))?", re.DOTALL)


def _parents(node: nodes.Node) -> Iterator[nodes.Node]:
    while node := node.parent:
        yield node


def _scopes(signatures: list[addnodes.desc_signature]) -> Iterator[str]:
    """Yield the prefixes to try for a name, the innermost scope first."""
    for signature in signatures:
        yield f"{signature['module']}.{signature['fullname']}."
    for signature in signatures:
        yield f"{signature['module']}."
    yield from ("", "bnlib.")


def link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn each literal that names an object of bnlib into a link."""
    objects = app.env.get_domain("py").objects
    for literal in list(doctree.findall(nodes.literal)):
        named, parents = _NAME.fullmatch(literal.astext()), list(_parents(literal))
        if not named or any(isinstance(parent, (nodes.reference, nodes.title)) for parent in parents):
            continue
        signatures = [each[0] for each in parents if isinstance(each, addnodes.desc) and each["domain"] == "py"]
        found = next((scope + named[1] for scope in _scopes(signatures) if scope + named[1] in objects), None)
        if found is None or any(found == f"{each['module']}.{each['fullname']}" for each in signatures):
            continue
        entry = objects[found]
        # A single word that is also the name of a module usually means something else.
        if entry.objtype == "module" and not named[1].startswith("bnlib."):
            continue
        reference = make_refnode(app.builder, docname, entry.docname, entry.node_id, literal.deepcopy(), found)
        literal.replace_self(reference)


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.connect("doctree-resolved", link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
