"""What all tests share: one thread, random inputs that are the same in each run of a test, and two browsers."""

from __future__ import annotations

import os
import shutil
import warnings

import pytest
import torch

torch.set_num_threads(1)

# ``torch.manual_seed`` also notes for the GPUs from where it was called, which takes half a millisecond in each test.
seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-site-isolation-trials --disable-threaded-animation "
    "--disable-checker-imaging --js-flags=--expose-gc"
).split()


@pytest.fixture(autouse=True)
def seeded():
    """Another order of the tests, or more of them, gives none of them other inputs."""
    seed(0)


def installed(names: tuple[str, ...], package: str) -> str:
    """Where a browser is; without it the tests are skipped loudly, in CI they fail."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        message = f"NO BROWSER FOUND ({', '.join(names)}): THE SITE WAS NOT TESTED. On Debian: apt install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium."""
    path = installed(("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"), "chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def firefox_tab(tmp_path_factory):
    """A tab of Debian's Firefox."""
    path = installed(("firefox-esr", "firefox"), "firefox-esr")
    from firefox import Firefox

    running = Firefox(path, tmp_path_factory.mktemp("firefox"))
    yield running.tab()
    running.close()
