"""Sphinx hook: write ``sitemap.xml``, the list of pages for search engines, if the site has an address."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from sphinx.application import Sphinx

NAME = "sitemap.xml"


def sitemap(addresses: Iterable[str]) -> str:
    """Return the text of the file for a list of absolute addresses.

    Example:
        >>> print(sitemap(["https://example.org/"]))
        <?xml version="1.0" encoding="utf-8"?>
        <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
        <url><loc>https://example.org/</loc></url>
        </urlset>
    """
    entries = [f"<url><loc>{escape(address)}</loc></url>" for address in addresses]
    head = '<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    return "\n".join([head, *entries, "</urlset>"])


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the sitemap with all pages that come from sources of the book."""
    base = app.config.html_baseurl
    if exception or app.builder.format != "html" or not base:
        return
    base, root = base.rstrip("/") + "/", app.config.root_doc
    pages = [page for page in sorted(app.env.found_docs) if page != root]
    addresses = [base, *(base + app.builder.get_target_uri(page) for page in pages)]
    (Path(app.outdir) / NAME).write_text(sitemap(addresses) + "\n")


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
