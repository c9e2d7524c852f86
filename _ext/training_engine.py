"""Sphinx hook: write the script of the engine that trains in the page, ``_static/training_engine.js``.

The engine is the modules of ``assets/engine``. A page that is opened as a file can load neither modules nor workers by
their address, so the script holds all modules, and the digits, as one function; it makes a worker from the function's
text. The page loads the script only when a reader wants to train.
"""

from __future__ import annotations

import itertools
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "assets" / "engine"
ENTRY = "worker"
NAME = "training_engine.js"
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:const|class|function\*?) (\w+))", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?:/\*\*.*?\*/|//[^\n]*)[ \t]*\n", re.MULTILINE | re.DOTALL)
_INLINE_TYPE = re.compile(r"/\*\* @type .*?\*/ ")
_DECLARED = re.compile(r"\b(?:const|let|function\*?) (\w+)")
_SHORT_NAMES = [*string.ascii_letters, *map("".join, itertools.product(string.ascii_letters, string.digits))]
_TEXT = re.compile(r'("[^"]*"|`[^`]*`)')
_CONST = re.compile(r"\bconst\b")
_SPACES = re.compile(r" ?([=,{}()\[\]?:&|;<>!]+) ?| ([-+*/%]=?|\*\*) (?![-+/])")
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

    Example:
        >>> texts = {"a": "export const one = 1;\n", "b": 'import { one } from "./a.js";\nlet two = one;\n'}
        >>> print(joined(texts))
        function trainingEngine() {
        "use strict";
        const modules = {};
        modules.a = (() => {
        let one=1;return{one};
        })();
        modules.b = (() => {
        let{one}=modules.a;let b=one;return{};
        })();
        return modules;
        }
        <BLANKLINE>
    """
    start = ["function trainingEngine() {", '"use strict";', "const modules = {};"]
    return "\n".join([*start, *_scopes(texts), "return modules;", "}\n"])


def _scopes(texts: dict[str, str]) -> Iterator[str]:
    for name, text in texts.items():
        exported = ", ".join(each for _, each in _EXPORT.findall(text))
        text = _IMPORT.sub(r"const \1 = modules.\2;\n", _EXPORT.sub(r"\1", text))
        text = f"{_INLINE_TYPE.sub('', _COMMENT.sub('', text))}return {{ {exported} }};"
        yield f"modules.{name} = (() => {{\n{_compact(_with_short_names(text))}}})();"


def _with_short_names(text: str) -> str:
    r"""Return the code of a module with short names for variables and functions that it declares.

    A name stays if it is anywhere also a property, a key, a method or a word of a text.

    Example:
        >>> _with_short_names("const total = 1;\nconst part = total / 2;\nreturn { part };")
        'const a = 1;\nconst part = a / 2;\nreturn { part };'
    """
    taken = set(re.findall(r"[\w$]+", text))
    fresh = (each for each in _SHORT_NAMES if each not in taken)
    texts = " ".join(_TEXT.findall(text) + [line for line in text.splitlines() if "'" in line])
    for name in dict.fromkeys(_DECLARED.findall(text)):
        word = rf"(?<![\w$]){name}(?![\w$])"
        elsewhere = rf"\.{word}|{word}\s*:|[{{,]\s*{word}\s*[,}}=(]|^\s*(?:\w+ |\*)?{word}\(.*\{{$"
        if len(name) > 1 and not re.search(word, texts) and not re.search(elsewhere, text, re.MULTILINE):
            text = re.sub(word, next(fresh), text)
    return text


def _compact(text: str) -> str:
    r"""Return the code of a module with ``let`` for ``const``, and without spaces and line breaks that mean nothing.

    Lines with single quotes, a text in a text, a regular expression or a comment keep their spaces. No text of a module
    goes over more than one line.

    Example:
        >>> _compact('if (a) {\n  f(b, "c, d" + `e ${f}`);\n}\n')
        'if(a){f(b,"c, d"+`e ${f}`);}\n'
    """
    compact = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        parts = _TEXT.split(line)
        parts[::2] = [_CONST.sub("let", part) for part in parts[::2]]
        code = "".join(parts[::2]).replace(" / ", "")
        if line.count("`") <= 2 and not any(sign in code for sign in "'/") and "\\" not in line:
            parts[::2] = [_SPACES.sub(lambda found: found[1] or found[2], part) for part in parts[::2]]
        line = "".join(parts)
        compact += line if line.endswith(("{", ";", ",", "(", "[", "=")) and "//" not in line else f"{line}\n"
    return compact if compact.endswith("\n") else f"{compact}\n"


def digits() -> dict[str, str]:
    """Return the data set of bnlib with one letter per number, a for 0; a server compresses this to 44 kB."""
    parts = {"trainX": "train_x", "trainY": "train_y", "testX": "test_x", "testY": "test_y"}
    with np.load(ROOT / "bnlib" / "static" / "digits.npz") as stored:
        return {name: "".join(chr(97 + value) for value in stored[key].ravel()) for name, key in parts.items()}


def script() -> str:
    """Return the whole script."""
    # A server compresses code before text better than text before code.
    return f"{{\n{joined(modules())}{_START}const trainingDigits = {json.dumps(digits())};\n}}\n"


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the script into the site."""
    if exception or app.builder.format != "html":
        return
    (Path(app.outdir) / "_static" / NAME).write_text(script())


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
