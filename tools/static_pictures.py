"""Static pictures of figures and explorers for the stored notebooks.

Viewers that execute nothing show neither inline SVG nor sliders: GitHub removes SVG from HTML, JupyterLab shows
``image/svg+xml`` only in trusted notebooks, and VS Code only in trusted folders. All of them, and nbconvert, show
``image/png``. So a stored output contains one PNG and one line of text.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # matplotlib measured the text with it
PIXELS = 2  # pixels per point of the drawing
SHOWN = 0.7  # displayed size per pixel; the picture is as large as on the site, and sharp on high-resolution screens
COLOURS = 64
_CAPTION = 16  # height of the caption in points


def drawing(data: Mapping[str, str]) -> str | None:
    """Return the SVG of a figure, or of an explorer at its default setting with the values of its controls below it.

    ``data`` is an output by MIME type. The result is None if the output has no SVG.
    """
    svg = data.get("image/svg+xml")
    if svg is None or "bnb-explorer" not in data.get("text/html", ""):
        return svg
    return _with_caption(svg)


def _with_caption(svg: str) -> str:
    """Write the values of the controls, which end the accessible name, below the drawing of an explorer."""
    positions = html.unescape(re.search(r'aria-label="([^"]*)"', svg)[1]).rpartition("; ")[2]
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    text = (
        f'<text x="{width / 2:g}" y="{height + 11:g}" text-anchor="middle" style="font-size: 9px; font-style: italic">'
        f"Shown: {html.escape(positions)}</text>"
    )
    svg = re.sub(r'viewBox="[^"]*"', f'viewBox="0 0 {width:g} {height + _CAPTION:g}"', svg, count=1)
    return svg.removesuffix("</svg>") + text + "</svg>"


def png(svg: str) -> str:
    """Convert an SVG to a PNG in base64, with black ink on white and few colours.

    The same SVG always gives the same bytes.
    """
    import resvg_py

    drawn = resvg_py.svg_to_bytes(
        svg_string=svg,
        background="#ffffff",
        zoom=PIXELS,
        skip_system_fonts=True,
        font_files=[str(FONT)],
        sans_serif_family="DejaVu Sans",
        font_family="DejaVu Sans",
    )
    image = Image.open(io.BytesIO(bytes(drawn))).convert("RGB")
    image = image.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def size(picture: str) -> tuple[int, int]:
    """Return width and height of a PNG in base64, in pixels."""
    return _opened(picture).size


def _opened(picture: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture)))


def shown_size(picture: str) -> dict[str, int]:
    """Return width and height at which a notebook shows a PNG."""
    width, height = size(picture)
    return {"height": round(SHOWN * height), "width": round(SHOWN * width)}


def look_the_same(one: str, other: str) -> bool:
    """Return whether two pictures look the same: all small patches of them have nearly the same colour.

    A different processor rounds differently and moves a line by a tenth of a point, which does not count as a
    difference. A different digit in a label does.
    """
    if one == other:
        return True
    if size(one) != size(other):
        return False
    patches = [np.asarray(_opened(each).convert("RGB").reduce(4), dtype=int) for each in (one, other)]
    return bool(np.abs(patches[0] - patches[1]).max() <= 24)


def kept(new: str, stored: Iterable[str]) -> str:
    """Return the stored picture that looks the same as ``new``, or ``new``; so files change only with their picture."""
    return next((old for old in stored if look_the_same(old, new)), new)
