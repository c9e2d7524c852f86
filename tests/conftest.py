"""What all tests share: one thread, random inputs that are the same in each run of a test, and a browser."""

from __future__ import annotations

import os
import shutil
import warnings

import pytest
import torch

torch.set_num_threads(1)

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-site-isolation-trials --disable-threaded-animation "
    "--disable-checker-imaging --js-flags=--expose-gc"
).split()


@pytest.fixture(autouse=True)
def seeded():
    """Another order of the tests, or more of them, gives none of them other inputs."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium; without it the tests are skipped loudly, in CI they fail."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        message = f"NO BROWSER FOUND ({', '.join(names)}): THE SITE WAS NOT TESTED. On Debian: apt install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()
