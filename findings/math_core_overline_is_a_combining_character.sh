#!/usr/bin/env bash
# The bar over a letter is U+0332, COMBINING LOW LINE, in the MathML that math-core 0.9.0 makes of \overline{x}.
# Expected: U+203E (OVERLINE) or U+00AF, the stretchy operators of MathML; browsers draw the other one too long.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check math-core==0.9.0
"$folder/venv/bin/python" - <<'PY'
import unicodedata
from importlib.metadata import version
from math_core import LatexToMathML
made = LatexToMathML().convert_with_local_state(r"\overline{x}", displaystyle=False)
bars = [f"U+{ord(c):04X} {unicodedata.name(c)}" for c in made if ord(c) > 127]
print("math-core", version("math-core"))
print(r"\overline{x}  ->", ascii(made))
print("the bar is", *bars)
assert bars == ["U+0332 COMBINING LOW LINE"], bars
PY
