"""Sphinx extension: the interface of the training in the page, and the directives of the laboratory.

The interface is the modules of ``assets/training``. They are joined to one classic script, ``_static/training.js``, for
the reason that ``training_engine`` gives. A page loads both scripts only when a reader wants to train, and so it does
with the description of what can be trained, which is moved from the page into a script of its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import minify
import training_engine
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parents[1] / "assets" / "training"
NAME, STYLE = "training.js", "training.css"
DESCRIPTIONS = "training_descriptions"
_BEGIN, _END = '<script type="application/json" class="bnb-training-description">', "</script>"
_DESCRIPTION = re.compile(f"({_BEGIN})(.*?)({_END})", re.DOTALL)


class LaboratoryDirective(SphinxDirective):
    """Two networks side by side, with the situations to begin with."""

    def run(self) -> list[nodes.Node]:
        """Describe the laboratory for the page's script."""
        from bnlib.widgets import laboratory

        return [nodes.raw("", laboratory.html(), format="html")]


class SituationsDirective(SphinxDirective):
    """The situations of the laboratory in words, each with a link that opens it."""

    def run(self) -> list[nodes.Node]:
        """Write a definition list."""
        from bnlib.widgets import laboratory

        entries = nodes.definition_list()
        for each in laboratory.SITUATIONS:
            link = nodes.reference("", each.title, refuri=laboratory.address(each), internal=False)
            entries += nodes.definition_list_item(
                "", nodes.term("", "", link), nodes.definition("", nodes.paragraph("", each.text))
            )
        return [entries]


def script() -> str:
    """Return the whole script."""
    joined = training_engine.joined(training_engine.modules("main", FOLDER))
    return minify.string(training_engine.SCRIPT, f"(() => {{\n{joined}trainingEngine();\n}})();") + "\n"


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the script into the site, and the style as short as it can be."""
    if exception or app.builder.format != "html":
        return
    site = Path(app.outdir)
    (site / "_static" / NAME).write_text(script())
    style = minify.string(training_engine.STYLE_SHEET, (FOLDER.parent / STYLE).read_text())
    (site / "_static" / STYLE).write_text(style)
    (site / "_static" / DESCRIPTIONS).mkdir(exist_ok=True)
    for page in [site / "index.html", *(site / "chapters").glob("*.html")]:
        text = page.read_text()
        moved = _DESCRIPTION.sub(lambda found, page=page: _move(found, page, site / "_static"), text)
        if moved != text:
            page.write_text(moved)


def _move(found: re.Match, page: Path, static: Path) -> str:
    """Write a description into a script, and return an element that has its name and the script's."""
    name = json.loads(found[2])["name"]
    file = f"{DESCRIPTIONS}/{page.stem}-{name}.js"
    if f'"file":"{file}"' not in found[2]:  # a page that was not built again has been moved before
        (static / file).write_text(f'(globalThis.bnbDescriptions ??= {{}})["{file}"] = {found[2]};\n')
    return f'{found[1]}{{"name":"{name}","file":"{file}"}}{found[3]}'


def setup(app: Sphinx) -> dict:
    """Add the directives and connect the hook."""
    app.add_directive("laboratory", LaboratoryDirective)
    app.add_directive("laboratory-situations", SituationsDirective)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
