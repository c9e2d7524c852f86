#!/usr/bin/env bash
# A LaTeX line break outside an environment disappears from the MathML that math-core 0.9.0 makes, without an error.
# Expected: a line break, or an error, as for other commands that it cannot convert. Inside `aligned` the break is kept.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check math-core==0.9.0
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version
from math_core import LatexToMathML
convert = LatexToMathML().convert_with_local_state
broken, joined = convert(r"a \\ b", displaystyle=True), convert("a b", displaystyle=True)
aligned = convert(r"\begin{aligned} a \\ b \end{aligned}", displaystyle=True)
print("math-core", version("math-core"))
print(r"a \\ b  ->", broken)
print(r"a b     ->", joined)
assert "mtr" in aligned and aligned.count("<mtr") == 2, "aligned has two rows"
assert "<mtr" not in broken and "mspace" not in broken and "linebreak" not in broken, "now there is a break"
PY
