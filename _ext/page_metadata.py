"""Sphinx hook: add a description to each page for search engines and link previews.

The descriptions are in ``chapters/descriptions.yml``. Tags that need an absolute address are written only if
``_config.yml`` sets the address of the site (``html: baseurl``), because relative addresses would be ignored.
"""

from __future__ import annotations

import html
from pathlib import Path

import yaml
from docutils import nodes
from markupsafe import Markup
from social_card import ALT, NAME, SIZE
from sphinx.application import Sphinx
from sphinx.config import Config

FILE = Path("chapters") / "descriptions.yml"
# The titles of the pages that Sphinx generates; they are not in the page's context.
_TITLES = {"genindex": "Index", "search": "Search", "py-modindex": "Python Module Index"}
LONGEST = 200
"""The largest number of characters of a description that comes from the page itself."""


def read_descriptions(app: Sphinx, config: Config) -> None:
    """Read the descriptions as a setting of the site, so that a change rebuilds the pages."""
    path = Path(app.srcdir) / FILE
    config.page_descriptions = yaml.safe_load(path.read_text()) if path.exists() else {}


def describe(app: Sphinx, pagename: str, doctree: nodes.document | None, title: str) -> str:
    """Return the description of a page: that of the file, else its first paragraph, else its title."""
    written = app.config.page_descriptions.get(pagename)
    if written:
        return written
    if pagename.startswith("_modules/"):
        return f"Source code of {title}, a part of the PyTorch package bnlib of {app.config.html_title}."
    paragraph = next(doctree.findall(nodes.paragraph), None) if doctree is not None else None
    text = (
        " ".join(paragraph.astext().split())
        if paragraph is not None
        else f"{title}, a page of {app.config.html_title}."
    )
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"


def tags(title: str, description: str, site: str, kind: str, address: str | None, image: str | None) -> str:
    """Return the elements for the head of a page; ``address`` and ``image`` are absolute addresses or None.

    Example:
        >>> print(tags("A page", "What it says.", "A book", "article", None, None))
        <meta name="description" content="What it says." />
        <meta property="og:site_name" content="A book" />
        <meta property="og:type" content="article" />
        <meta property="og:title" content="A page" />
        <meta property="og:description" content="What it says." />
        <meta name="twitter:card" content="summary" />
    """
    named = {"description": description}
    properties = {"site_name": site, "type": kind, "title": title, "description": description, "url": address}
    if image:
        width, height = SIZE
        properties |= {"image": image, "image:alt": ALT, "image:width": width, "image:height": height}
    lines = [f'<meta name="{name}" content="{html.escape(value)}" />' for name, value in named.items()]
    lines += [
        f'<meta property="og:{name}" content="{html.escape(str(value))}" />'
        for name, value in properties.items()
        if value
    ]
    # Twitter uses the tags above for everything else.
    return "\n".join(
        [*lines, f'<meta name="twitter:card" content="{"summary_large_image" if image else "summary"}" />']
    )


def add_tags(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Put the elements into the head of a page."""
    base, front = app.config.html_baseurl, pagename == app.config.root_doc
    if base and front:
        context["pageurl"] = base.rstrip("/") + "/"  # the address that readers link to
    if pagename == "404":
        context["pageurl"] = None
    title = str(Markup(context.get("title", _TITLES.get(pagename, pagename))).striptags())
    description = describe(app, pagename, doctree, title)
    image = f"{base.rstrip('/')}/_static/{NAME}" if base else None
    kind = "website" if front else "article"
    written = tags(title, description, app.config.html_title, kind, context.get("pageurl"), image)
    context["metatags"] = f"{context.get('metatags', '')}\n{written}\n"


def setup(app: Sphinx) -> dict:
    """Connect the hooks."""
    app.add_config_value("page_descriptions", {}, "html", types=[dict])
    app.connect("config-inited", read_descriptions)
    app.connect("html-page-context", add_tags)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
