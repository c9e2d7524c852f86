"""The built site and a browser to read it with."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("BNLIB_SITE", ROOT / "_build" / "strict" / "_build" / "html"))
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.glob("chapters/*.html"))
CHAPTERS = [page for page in PAGES if page.split("/")[1][0].isdigit()]
REFERENCE = sorted(str(path.relative_to(SITE)) for path in SITE.glob("chapters/reference/*.html"))

FRONT = "index.html"
SCREEN = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 800}
PATIENCE = 300_000  # of each wait, in milliseconds: on a busy machine all takes long
SHOWS = "scheme => document.documentElement.dataset.theme === scheme"
# The words of the chosen cells whose parts lie on two lines; names with other signs than letters may break.
BROKEN_WORDS = """
selector => [...document.querySelectorAll(selector)].flatMap(cell => {
  const text = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
  for (let node = text.nextNode(); node; node = text.nextNode())
    for (const { 0: word, index } of node.data.matchAll(/(?<!\\S)[A-Za-z]+(?![^\\s,)])/g)) {
      const range = document.createRange();
      range.setStart(node, index);
      range.setEnd(node, index + word.length);
      if (range.getClientRects().length > 1) found.push(word);
    }
  return found;
})
"""
EVERY_CHAPTER = pytest.mark.parametrize("opened_once", CHAPTERS, indirect=True)
WITH_SLIDERS = pytest.mark.parametrize("opened_once", [FRONT, *CHAPTERS], indirect=True)
# Files whose tests share nothing, so that each may run where there is room.
INDEPENDENT = (
    "test_browser.py",
    "test_explorer_controls.py",
    "test_notebooks.py",
    "test_training_of_small_problems.py",
)
# Files whose tests read the same pages, which are parsed once if one process runs all.
OF_THE_FILES = (
    "test_front_page.py",
    "test_ledger.py",
    "test_metadata.py",
    "test_reference_pages.py",
    "test_site.py",
    "test_symptoms_on_the_page.py",
    "test_words.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """Say which tests one process runs: all of a page, of an explorer, or of a file; those of a page in one go."""
    for item in items:
        shared = shared_with(item)
        if shared or item.path.name not in INDEPENDENT:
            file = "the files of the site" if item.path.name in OF_THE_FILES else item.path.name
            item.add_marker(pytest.mark.xdist_group(str(shared or file)))
    result = yield
    order = {page: number for number, page in enumerate([FRONT, *PAGES], 1)}
    items.sort(key=lambda item: (order.get(shared_with(item), 0), width_of(item)))
    return result


def width_of(item) -> int:
    """The width at which a test begins: to set a page anew for another one takes a browser half a second."""
    if "narrow" not in getattr(item, "fixturenames", ()):
        return SCREEN["width"]
    return item.callspec.params.get("narrow", PHONE["width"])


def shared_with(item) -> str | tuple | None:
    """The page or the explorer that a test shares with others."""
    values = item.callspec.params if hasattr(item, "callspec") else {}
    return values.get("opened_once") or values.get("explorer")


@functools.cache
def soup(path: Path) -> BeautifulSoup:
    """A page of the site, to be read only."""
    return BeautifulSoup(path.read_text(), "html.parser")


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the strictly built site."""
    assert (SITE / "index.html").exists(), f"no site at {SITE}: `make test` builds it"
    return SITE


@pytest.fixture(scope="session")
def address(site):
    """Where this machine serves the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def copy(tmp_path_factory) -> Path:
    """What a clone would hold: the tracked files, and those about to be."""
    target = tmp_path_factory.mktemp("copy")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    return target


class Visit:
    """A page opened in a fresh context, with what it asked for and complained about."""

    def __init__(self, browser, url: str, **context):
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.responses: list = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda message: message.type in ("error", "warning") and self.complaints.append(message.text),
        )
        self.page.goto(url, wait_until="load")


def check_that_it_is_at_home(visited: Visit, address: str):
    """No other host was asked, nothing was missing and nothing was complained of."""
    visited.page.wait_for_load_state("networkidle")
    assert [url for url in visited.requests if not url.startswith((address, f"blob:{address}", "data:"))] == []
    assert visited.complaints == []
    assert [response.url for response in visited.responses if response.status >= 400] == []


@pytest.fixture
def visit(browser, address):
    """Open a page of the site: ``visit("chapters/intro.html", color_scheme="dark")``."""
    visits: list[Visit] = []

    def open_page(path: str, **context) -> Visit:
        visits.append(Visit(browser, address + path, **context))
        return visits[-1]

    yield open_page
    for opened in visits:
        opened.context.close()


@pytest.fixture(scope="session", params=[FRONT, *PAGES])
def opened_once(request, browser, address):
    """Each page in turn: to open it takes a browser seconds, longer than to answer what is asked of it."""
    opened = Visit(browser, address + request.param, viewport={**PHONE, "width": 375})
    yield opened
    opened.context.close()


@pytest.fixture
def visited(opened_once):
    """A page on a light screen, which a test may resize, darken and print."""
    return light(opened_once, SCREEN)


@pytest.fixture
def narrow(request, opened_once):
    """A page on a light screen as wide as a phone, or as the test's parameter says."""
    return light(opened_once, {**PHONE, "width": getattr(request, "param", PHONE["width"])})


def light(opened: Visit, screen: dict[str, int]) -> Visit:
    """Put a page on a light screen of this size."""
    if opened.page.viewport_size != screen:
        opened.page.set_viewport_size(screen)
    opened.page.emulate_media(media="screen", color_scheme="light")
    opened.page.wait_for_function(SHOWS, arg="light")
    return opened


# Whether the theme has seen, which takes it 300 ms, what scrolls at the present width and must be reached by keyboard.
STOPS = """
() => [...document.querySelectorAll(
  "pre, .nboutput > .output_area, .cell_output > .output, .jp-RenderedHTMLCommon, .pst-scrollable-table-container"
)].every(part => {
  const scrolls = part.scrollWidth > part.clientWidth || part.scrollHeight > part.clientHeight;
  return part.tabIndex === (scrolls ? 0 : -1);
})
"""


def resize(page, screen: dict[str, int]):
    """Give a page a screen of another size, and wait for the theme."""
    page.set_viewport_size(screen)
    page.wait_for_function(STOPS, polling=100)


@pytest.fixture(scope="session")
def laboratory_visit(browser, address):
    """The laboratory, opened once."""
    opened = Visit(browser, address + "chapters/laboratory.html", viewport=SCREEN)
    opened.page.wait_for_selector(".bnb-situations")
    yield opened
    opened.context.close()


@pytest.fixture
def page(laboratory_visit):
    """The laboratory as after a reset, on a light screen, with no network looked into."""
    opened = light(laboratory_visit, SCREEN).page
    opened.evaluate("for (const inside of document.querySelectorAll('.bnb-inside')) inside.open = false")
    opened.get_by_role("button", name="Reset training").click()
    return opened
