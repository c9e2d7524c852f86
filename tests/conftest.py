"""What all tests share: one thread, inputs that are the same in each run, the order of the tests, and two browsers."""

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

# They start processes from a fork server, which imports PyTorch once for all that one process starts.
PROCESSES = {
    "distributed.py",
    "test_compatibility.py",
    "test_distributed.py",
    "test_full_norm_processes.py",
    "test_machines_experiments.py",
    "test_measurement.py",
    "test_random_sequences.py",
    "test_sweep.py",
    "test_sync_batch_norm.py",
    "test_torch_parts.py",
}
# Files that take longest. At the end, the other process would wait for the one that does them.
FIRST = {"test_committed_results.py", "test_equal_to_bnlib.py", "test_mutations.py", "test_claims.py"} | PROCESSES


def pytest_collection_modifyitems(config, items):
    """Let one process do all tests of a file, which often share what a fixture or a cached function has computed.

    Besides, the time that xdist needs to hand out a test grows with the number of groups that it has handed out. The
    tests of the site have an order of their own.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if item.path.parent.name == "book":
            continue
        if item.path.name in PROCESSES:
            item.add_marker(pytest.mark.xdist_group("processes"))
        elif item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
    items.sort(key=lambda item: item.path.name not in FIRST)


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
