"""Sphinx hooks that check widget outputs, fix links, and add names for screen readers."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def drop_widget_state(app: Sphinx, doctree) -> None:
    """Warn about an error stored inside a widget, and remove the widgets' state, which is useless without a kernel."""
    scripts = getattr(app.env, "nb_metadata", {}).get(app.env.docname, {}).get("js_files", {})
    _, state = scripts.pop("ipywidgets_state", (None, {}))
    if re.search(r'"output_type":\s*"error"', state.get("body", "")):
        logger.warning("an error is stored inside a widget of this notebook", location=app.env.docname)


def link_tables_to_pages(app: Sphinx, exception: Exception | None) -> None:
    """Change the links to notebooks in tables of claims and of cases into links to the notebooks' pages.

    A report of the doctor names the sections that explain its findings; on the site they become links, too.
    """
    if exception or app.builder.format != "html":
        return
    for page in (Path(app.outdir) / "chapters").glob("*.html"):
        text = page.read_text()
        linked = re.sub(r'(href="(?:claims|frameworks|torch_parts|\d\d_\w+))\.ipynb\b', r"\1.html", text)
        named = r'<cite data-section="chapters/(frameworks|torch_parts|\d\d_\w+)\.ipynb(#[\w-]+)">(.*?)</cite>'
        linked = re.sub(named, r'<a href="\1.html\2">\3</a>', linked)
        if linked != text:
            page.write_text(linked)


def help_screen_readers(app: Sphinx, exception: Exception | None) -> None:
    """Name the arrows in the side bar, and remove the list role of the bibliography, which contains other elements."""
    if exception or app.builder.format != "html":
        return
    nameless = re.compile(r'(<li class="toctree[^>]*><a[^>]*>)([^<]*)(</a><details[^>]*><summary)>')
    for page in Path(app.outdir).rglob("*.html"):
        text = nameless.sub(r'\1\2\3 aria-label="Pages of \2">', page.read_text())
        page.write_text(re.sub(r' role="(?:doc-biblioentry|list(?=" class="citation-list))"', "", text))


def drop_dead_links_of_sources(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Remove viewcode's links to descriptions that do not exist; it assumes one module for all names of a file."""
    if not pagename.startswith("_modules/"):
        return
    described = {entry.node_id for entry in app.env.get_domain("py").objects.values()}
    body = context["body"].replace('<li><a href="builtins.html">builtins</a></li>', "")
    back = re.compile(r'<a class="viewcode-back" href="[^"#]*#([^"]*)">[^<]*</a>')
    context["body"] = back.sub(lambda link: link[0] if link[1] in described else "", body)


def share_side_bar(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Make the list of pages once for all pages of sources in folders of the same depth, whose links are the same."""
    if not pagename.startswith("_modules/"):
        return
    own, kept = context["toctree"], vars(app).setdefault("side_bars", {})

    def toctree(**options) -> str:
        key = pagename.count("/"), *sorted(options.items())
        if key not in kept:
            kept[key] = own(**options)
        return kept[key]

    context["toctree"] = toctree


def setup(app: Sphinx) -> dict:
    """Connect the hooks."""
    app.connect("doctree-read", drop_widget_state)
    app.connect("html-page-context", drop_dead_links_of_sources)
    app.connect("html-page-context", share_side_bar, priority=400)  # before the theme asks for it
    app.connect("build-finished", link_tables_to_pages)
    app.connect("build-finished", help_screen_readers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
