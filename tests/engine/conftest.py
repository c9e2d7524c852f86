"""One page of Chromium for all tests of the engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from engines import Engine, in_chromium, in_firefox, source, under_node

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Let one process run all tests of a file, so that it starts the browser once."""
    for item in items:
        if item.path.parent == FOLDER:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(scope="session")
def page(browser):
    """An empty page."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def engine(page) -> Engine:
    """The engine in Chromium."""
    return in_chromium(page, source())


@pytest.fixture(scope="session")
def firefox_engine(firefox_tab) -> Engine:
    """The same in Firefox."""
    return in_firefox(firefox_tab, source())


@pytest.fixture(scope="session")
def node_engine() -> Engine:
    """The same under Node; the tests with it are skipped where it is missing."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is missing; the same tests run in Chromium")
    return under_node(node, source())
