"""Static pictures of figures and explorers, for the notebooks as they are stored.

A viewer that runs nothing shows neither inline SVG nor sliders: GitHub removes SVG from HTML, JupyterLab shows
``image/svg+xml`` only in a notebook that it trusts, VS Code only in a folder that it trusts. All of them show
``image/png``, and nbconvert shows it where no other form is offered. So a stored output holds one PNG and one line of
text.
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
PIXELS = 2  # per point of the drawing
SHOWN = 0.7  # of the pixels, so that the picture is as large as on the site and sharp on a fine screen
COLOURS = 64
_CAPTION = 16  # points of height


def drawing(data: Mapping[str, str]) -> str | None:
    """Return the SVG of a figure, or of an explorer at its default setting with the values of its controls below it.

    ``data`` has the forms of an output by their MIME types; without a form in SVG there is no drawing.
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
    """Draw an SVG in black on white with few colours; the PNG in base64, as a notebook holds it.

    The same SVG becomes the same bytes each time.
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
    """Width and height of a PNG in base64, in pixels."""
    return _opened(picture).size


def _opened(picture: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture)))


def shown_size(picture: str) -> dict[str, int]:
    """Width and height at which a notebook shows a PNG."""
    width, height = size(picture)
    return {"height": round(SHOWN * height), "width": round(SHOWN * width)}


def look_the_same(one: str, other: str) -> bool:
    """Whether no reader could tell two pictures apart: no small patch of one differs from that of the other.

    Another processor rounds differently, so that a line moves by a tenth of a point; a digit of a label is a change.
    """
    if one == other:
        return True
    if size(one) != size(other):
        return False
    patches = [np.asarray(_opened(each).convert("RGB").reduce(4), dtype=int) for each in (one, other)]
    return bool(np.abs(patches[0] - patches[1]).max() <= 24)


def kept(new: str, stored: Iterable[str]) -> str:
    """Return the stored picture that looks the same as ``new``, or ``new``: no change on disk that nobody can see."""
    return next((old for old in stored if look_the_same(old, new)), new)
