"""Compare the search of the built site with Sphinx's own search on the forty queries of tests/book/queries.yml."""

import contextlib
import functools
import pickle
import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import sphinx.search
import yaml
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
BUILT = next(
    (path for path in (ROOT / "_build", ROOT / "_build" / "strict" / "_build") if path.joinpath("html").exists()), None
)
QUERIES = yaml.safe_load((ROOT / "tests" / "book" / "queries.yml").read_text())
# A minimal page for searchtools.js.
PAGE = """<html data-content_root="./"><script src="documentation_options.js"></script>
<script src="doctools.js"></script><script src="sphinx_highlight.js"></script><script src="language_data.js"></script>
<script src="searchtools.js"></script><script src="searchindex.js"></script><div id="search-results"></div></html>"""
FIRST = "links => links.slice(0, 3).map(link => link.getAttribute('href'))"


def write_sphinx_search(folder: Path) -> None:
    """Write Sphinx's own search for the same pages, in their state before citations get labels."""
    doctrees = BUILT / ".doctrees"
    env = pickle.loads((doctrees / "environment.pickle").read_bytes())
    index = sphinx.search.IndexBuilder(env, "en", {}, None)
    for name in sorted(env.found_docs):
        doctree = pickle.loads((doctrees / f"{name}.doctree").read_bytes())
        number = env.toc_secnumbers.get(name, {}).get("") or ()
        index.feed(name, f"{name}.html", ". ".join([*map(str, number), env.titles[name].astext()]), doctree)
    with (folder / "searchindex.js").open("w") as file:
        index.dump(file, sphinx.search.js_index)
    static = Path(sphinx.__file__).parent / "themes" / "basic" / "static"
    for script in ("doctools.js", "sphinx_highlight.js", "searchtools.js"):
        shutil.copyfile(static / script, folder / script)
    shutil.copyfile(BUILT / "html" / "_static" / "documentation_options.js", folder / "documentation_options.js")
    words = index.context_for_searchtool()
    (folder / "language_data.js").write_text(
        f"var stopwords = {words['search_language_stop_words']};\n{words['search_language_stemming_code']}"
    )
    (folder / "search.html").write_text(PAGE)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder inside a ``with`` block and yield its address."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def count(page: Page, folder: Path, links: str, ready: str) -> str:
    """Count the queries whose section, and whose page, is among the first three results, and return this as text."""
    sections = pages = nothing = 0
    with served(folder) as address:
        for each in QUERIES:
            page.goto(f"{address}search.html?q={quote(each['query'])}")
            page.wait_for_function(ready)
            first = page.eval_on_selector_all(links, FIRST)
            wanted = ["chapters/{}.html#{}".format(*section.split("#")) for section in each["sections"]]
            sections += any(link in wanted for link in first)
            pages += bool({link.split("#")[0] for link in first} & {link.split("#")[0] for link in wanted})
            nothing += not first
    return f"{sections} of {len(QUERIES)} sections, {pages} pages, {nothing} queries without a result"


def main() -> None:
    """Print both counts."""
    if BUILT is None:
        print("search: no site is built; make book builds one")
        return
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        done = "document.querySelector('#search-status').textContent"
        print("this book's search:", count(page, BUILT / "html", "#search-results li > a", done))
        write_sphinx_search(Path(folder))
        finished = "/finished|did not match/.test(document.querySelector('#search-results').textContent)"
        print("Sphinx's own search:", count(page, Path(folder), "#search-results ul.search > li > a", finished))
        browser.close()


if __name__ == "__main__":
    main()
