"""The engine in two browsers and under Node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import training_engine

DRIVER = (Path(__file__).parent / "driver.js").read_text()

Engine = Callable[[list[dict]], list[dict]]
"""Trains with each of the settings, and returns what driver.js returns."""


def source() -> str:
    """The engine as it is."""
    return training_engine.joined(training_engine.modules())


@cache
def digits() -> dict[str, str]:
    """The data set as the engine takes it, which tests of changed engines give to hundreds of them."""
    return training_engine.digits()


def in_chromium(page, source: str) -> Engine:
    """Give the page a version of the engine."""
    start = f"([digits, cases]) => {{ {DRIVER}; {source}; return drive(trainingEngine(), digits, cases); }}"
    return lambda cases: json.loads(page.evaluate(start, [digits(), cases]))


def in_firefox(tab, source: str) -> Engine:
    """Give the tab a version of the engine with each call."""
    start = f"(digits, cases) => {{ {DRIVER}; {source}; return drive(trainingEngine(), digits, cases); }}"
    return lambda cases: json.loads(tab.run(start, digits(), cases))


def under_node(node: str, source: str) -> Engine:
    """Start Node for each call."""
    program = f"{DRIVER}; {source}; const [digits, cases] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
    program += "console.log(drive(trainingEngine(), digits, cases));"

    def run(cases: list[dict]) -> list[dict]:
        given = json.dumps([digits(), cases])
        done = subprocess.run([node, "-e", program], input=given, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run
