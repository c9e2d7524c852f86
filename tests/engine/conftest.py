"""One page of Chromium for all tests of the engine."""

from __future__ import annotations

import shutil

import pytest
from engines import Engine, in_chromium, in_firefox, source, under_node


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
