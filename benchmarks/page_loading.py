"""Compare how fast two builds of the site load on a slow phone: time until the formulas are readable, and bytes.

``python benchmarks/page_loading.py BEFORE AFTER`` takes the folders of two built sites. Without folders it compares the
first edition, which it builds once (in minutes), with ``_build/html``. The processor is slowed down by a factor of
four, the network has 1.6 Mbit/s and a latency of 150 ms, and there is no compression and no cache.
"""

import argparse
import functools
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
FIRST_EDITION = "55979c1"
PAGES = ("chapters/01_the_formula.html", "chapters/05_full_normalization.html", "chapters/intro.html")
NETWORK = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 1.6e6 / 8}
# Records the time of the first frame in which the page, all formulas and the fonts have been loaded.
WATCH = """
const look = () => {
  const whole = document.readyState !== "loading" && document.fonts.status === "loaded";
  const formulas = [...document.querySelectorAll("article .math")];
  const set = formulas.every(formula => formula.querySelector("math, mjx-container"));
  if (whole && set) window.readable = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


class Quiet(SimpleHTTPRequestHandler):
    """A request handler that serves a folder without a log."""

    def log_message(self, *arguments):
        """Print nothing."""


def first_edition() -> Path:
    """Build the first edition in a separate clone, if that has not been done, and return the folder of its site."""
    clone = ROOT / "_build" / FIRST_EDITION
    if not (clone / "_build" / "html" / "index.html").exists():
        shutil.rmtree(clone, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, clone], check=True)
        subprocess.run(["git", "checkout", "--quiet", FIRST_EDITION], cwd=clone, check=True)
        subprocess.run(["make", "book"], cwd=clone, check=True)
    return clone / "_build" / "html"


def read(browser: Browser, url: str) -> tuple[float, float, int]:
    """Open a page in a new context; return the seconds until it is readable, the megabytes, and the requests."""
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page, sizes = context.new_page(), []
        session = context.new_cdp_session(page)
        session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", NETWORK)
        session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        page.add_init_script(WATCH)
        page.goto(url, wait_until="networkidle", timeout=120_000)
        page.wait_for_function("window.readable", timeout=120_000)
        return page.evaluate("window.readable") / 1000, sum(sizes) / 1e6, len(sizes)


def compare(browser: Browser, sites: list[Path], path: str, times: int) -> list[tuple[float, float, int]]:
    """Read a page of both sites in turn and return the fastest visit of each; other work can only slow a visit down."""
    visits = [[], []]
    for _ in range(times):
        for site, of_site in zip(sites, visits, strict=True):
            with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                of_site.append(read(browser, f"http://127.0.0.1:{server.server_port}/{path}"))
                server.shutdown()
    return list(map(min, visits))


def main() -> None:
    """Print the comparison of each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", nargs="*", type=Path, help="the folders of the earlier and of the later build")
    parser.add_argument("--times", type=int, default=3, help="visits of each page; the shortest counts")
    arguments = parser.parse_args()
    if len(arguments.sites) not in (0, 2):
        parser.error("name two folders, BEFORE and AFTER, or none")
    sites = arguments.sites or [first_edition(), ROOT / "_build" / "html"]
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for path in PAGES:
            before, after = compare(browser, sites, path, arguments.times)
            print(f"{path}: formulas readable after {after[0]:.1f} s, {after[0] / before[0]:.2f} of {before[0]:.1f} s;")
            print(f"    {after[1]:.2f} MB, {after[1] / before[1]:.2f} of {before[1]:.2f} MB; ", end="")
            print(f"{after[2]:.0f} requests, before {before[2]:.0f}")
        browser.close()


if __name__ == "__main__":
    main()
