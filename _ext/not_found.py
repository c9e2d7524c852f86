"""Sphinx hook: the page ``404.html``, which hosts such as GitHub Pages show for addresses that do not exist.

The missing address can be in any folder, so the links of the page are absolute if ``_config.yml`` sets the address of
the site (``html: baseurl``). If it does not, the links are relative, and work for addresses in the top folder only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sphinx.application import Sphinx

PAGE = "404"
_BODY = """
<h1>Page not found</h1>
<p>There is no page at this address. It may have moved, or the link may have a typing error.</p>
<ul>
<li><a href="{front}">Go to the first page of the book</a></li>
<li><a href="{search}">Search the book</a></li>
<li><a href="{index}">Look in the index</a></li>
</ul>
"""


def collect(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """Yield the page for the builder, which puts it into the theme."""
    uri = app.builder.get_target_uri
    body = _BODY.format(front=uri(app.config.root_doc), search=uri("search"), index=uri("genindex"))
    yield PAGE, {"title": "Page not found", "body": body}, "page.html"


def absolute(page: str, prefix: str) -> str:
    """Return the page with ``prefix`` before each of its relative links.

    Example:
        >>> absolute('<html data-content_root="./"><a href="a.html">a</a><a href="#b">b</a>', "/book/")
        '<html data-content_root="/book/"><a href="/book/a.html">a</a><a href="#b">b</a>'
        >>> absolute('<img src="https://example.org/a.png"/>', "/book/")
        '<img src="https://example.org/a.png"/>'
    """
    # Addresses with a scheme, paths from the root, anchors on the same page, and data URLs are not relative.
    relative = re.compile(r' (href|src|action|data-content_root)="(?![a-z]+:|/|#)(?:\./)?([^"]*)"')
    return relative.sub(rf' \1="{prefix}\2"', page)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Make the links of the page absolute if the site has an address."""
    base = app.config.html_baseurl
    if exception or app.builder.format != "html" or not base:
        return
    path = Path(app.outdir) / f"{PAGE}.html"
    path.write_text(absolute(path.read_text(), urlsplit(base).path.rstrip("/") + "/"))


def setup(app: Sphinx) -> dict:
    """Connect the hooks."""
    app.connect("html-collect-pages", collect)
    app.connect("build-finished", finish, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
