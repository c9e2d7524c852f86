"""Sphinx hook: write the script of the engine that trains in the page, ``_static/training_engine.js``.

The engine is the modules of ``assets/engine``. A page that is opened as a file can load neither modules nor workers by
their address, so the script holds all modules, and the digits, as one function; it makes a worker from the function's
text. The page loads the script only when a reader wants to train.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import minify
import numpy as np
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "assets" / "engine"
ENTRY = "worker"
NAME = "training_engine.js"
SCRIPT, STYLE_SHEET = "application/javascript", "text/css"
"""What the minifier is given."""
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:const|class|function\*?) (\w+))", re.MULTILINE)
_START = """globalThis.startTrainingWorker = () => {
const source = `const { Runs } = (${trainingEngine}).call().worker;
const runs = new Runs(${JSON.stringify(trainingDigits)}, (report) => postMessage(report));
onmessage = ({ data }) => runs.handle(data);`;
const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
const worker = new Worker(address);
URL.revokeObjectURL(address);
return worker;
};
"""


def modules(entry: str = ENTRY, folder: Path = ENGINE) -> dict[str, str]:
    """Return the text of a module and of all modules that it imports, by name, each after those it imports."""
    found: dict[str, str] = {}

    def add(name: str) -> None:
        text = (folder / f"{name}.js").read_text()
        for _, imported in _IMPORT.findall(text):
            if imported not in found:
                add(imported)
        found[name] = text

    add(entry)
    return found


def joined(texts: dict[str, str]) -> str:
    r"""Return a function that runs all modules, each in a scope of its own, and returns what they export, by module.

    Local names, spaces and comments are as short as the minifier makes them.

    Example:
        >>> texts = {"a": "export const one = 1;\n", "b": 'import { one } from "./a.js";\nlet two = one;\n'}
        >>> joined(texts)[:67]
        'function trainingEngine(){"use strict";const e={};return e.a=(()=>{'
    """
    start = ["function trainingEngine() {", '"use strict";', "const modules = {};"]
    return minify.string(SCRIPT, "\n".join([*start, *_scopes(texts), "return modules;", "}"])) + "\n"


def _scopes(texts: dict[str, str]) -> Iterator[str]:
    for name, text in texts.items():
        exported = ", ".join(each for _, each in _EXPORT.findall(text))
        text = _IMPORT.sub(r"const \1 = modules.\2;\n", _EXPORT.sub(r"\1", text))
        yield f"modules.{name} = (() => {{\n{text}return {{ {exported} }};\n}})();"


def digits() -> dict[str, str]:
    """Return the data set of bnlib with one letter per number, a for 0; a server compresses this to 44 kB."""
    parts = {"trainX": "train_x", "trainY": "train_y", "testX": "test_x", "testY": "test_y"}
    with np.load(ROOT / "bnlib" / "static" / "digits.npz") as stored:
        return {name: "".join(chr(97 + value) for value in stored[key].ravel()) for name, key in parts.items()}


def script() -> str:
    """Return the whole script."""
    # A server compresses code before text better than text before code.
    return (
        f"{{\n{joined(modules())}{minify.string(SCRIPT, _START)}\nconst trainingDigits = {json.dumps(digits())};\n}}\n"
    )


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the script into the site."""
    if exception or app.builder.format != "html":
        return
    (Path(app.outdir) / "_static" / NAME).write_text(script())


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
