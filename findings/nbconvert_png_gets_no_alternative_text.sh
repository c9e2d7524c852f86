#!/usr/bin/env bash
# A PNG in a notebook's output gets the same alternative text from nbconvert 7.17.2, "No description has been provided
# for this image", although the output has a text/plain form and metadata that name the picture.
# Expected: one of these as `alt`, as a Markdown image gets its own.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nbconvert==7.17.2 nbformat==5.11.1
"$folder/venv/bin/python" - <<'PY'
import re
from importlib.metadata import version
import nbformat
from nbconvert import HTMLExporter
pixel = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
output = nbformat.v4.new_output(
    "display_data",
    data={"image/png": pixel, "text/plain": "A loss that falls from 2.3 to 0.4."},
    metadata={"image/png": {"alt": "A falling loss."}, "alt": "A falling loss."},
)
cell = nbformat.v4.new_code_cell("plot()", outputs=[output])
page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
(tag,) = re.findall(r"<img[^>]*data:image/png[^>]*>|<img[^>]*alt=[^>]*>", page)[:1]
alts = re.findall(r'alt="([^"]*)"', re.sub(r'src="[^"]*"', "", tag))
print("nbconvert", version("nbconvert"))
print("alt of the picture:", alts)
assert alts == ["No description has been provided for this image"], alts
PY
