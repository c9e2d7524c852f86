"""The engine in a browser and under Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import training_engine

DRIVER = (Path(__file__).parent / "driver.js").read_text()


@pytest.fixture(scope="session")
def page(browser):
    """An empty page of Chromium, in which all tests run the engine."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def engine(page):
    """Train with the engine in Chromium: ``engine(cases)`` returns what driver.js returns for each of the settings."""
    return in_chromium(page, training_engine.joined(training_engine.modules()))


def in_chromium(page, source: str):
    """Give the page a version of the engine."""
    start = f"([digits, cases]) => {{ {DRIVER}; {source}; return drive(trainingEngine(), digits, cases); }}"
    return lambda cases: json.loads(page.evaluate(start, [training_engine.digits(), cases]))


@pytest.fixture(scope="session")
def node_engine():
    """The same under Node; the tests with it are skipped where it is missing."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is missing; the same tests run in Chromium")
    source = training_engine.joined(training_engine.modules())
    program = f"{DRIVER}; {source}; const [digits, cases] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
    program += "console.log(drive(trainingEngine(), digits, cases));"

    def run(cases):
        given = json.dumps([training_engine.digits(), cases])
        done = subprocess.run([node, "-e", program], input=given, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run
