"""The search of the built site on forty queries (tests/book/queries.yml), and Sphinx's own search as a control."""

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
# What searchtools.js needs of a page.
PAGE = """<html data-content_root="./"><script src="documentation_options.js"></script>
<script src="doctools.js"></script><script src="sphinx_highlight.js"></script><script src="language_data.js"></script>
<script src="searchtools.js"></script><script src="searchindex.js"></script><div id="search-results"></div></html>"""
FIRST = "links => links.slice(0, 3).map(link => link.getAttribute('href'))"


def sphinxs_own(folder: Path) -> None:
    """Write Sphinx's search of the same pages, as they are before citations have their labels."""
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
    """The address of a folder."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def count(page: Page, folder: Path, links: str, ready: str) -> str:
    """How many queries reach their section, and its page, among the first three results."""
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
        told = "document.querySelector('#search-status').textContent"
        print("this book's search:", count(page, BUILT / "html", "#search-results li > a", told))
        sphinxs_own(Path(folder))
        finished = "/finished|did not match/.test(document.querySelector('#search-results').textContent)"
        print("Sphinx's own search:", count(page, Path(folder), "#search-results ul.search > li > a", finished))
        browser.close()


if __name__ == "__main__":
    main()
