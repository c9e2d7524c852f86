"""Sphinx hook: the picture for link previews of the book, drawn from the results behind its first explorer."""

from __future__ import annotations

import io
from pathlib import Path

from sphinx.application import Sphinx

NAME, SIZE = "card.png", (1200, 630)
"""The name of the file in ``_static``, and its width and height in pixels, as Open Graph recommends."""
ALT = "The Batch Norm Book. A chart: errors against batch size, with batch norm and without."


def card(title: str) -> bytes:
    """Return the picture as a PNG with few colours; the bytes depend only on the results and the package versions."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    dots = 100
    with rc_context({"font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(SIZE[0] / dots, SIZE[1] / dots), dpi=dots, facecolor="white")
        figure.text(0.06, 0.84, title, fontsize=46, weight="bold", va="center")
        figure.text(
            0.06, 0.72, "When batch normalization helps, and when it hurts", fontsize=24, color="#444444", va="center"
        )
        _chart(figure)
        drawn = io.BytesIO()
        FigureCanvasAgg(figure).print_png(drawn, metadata={"Software": None})
    out = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _chart(figure) -> None:
    from digits_explorer import LEARNING_RATE, misread

    from bnlib.experiments.formula.training_curves import BATCH_SIZES
    from bnlib.figures import BLUE, VERMILLION, plain_ticks

    axes = figure.add_axes((0.12, 0.17, 0.82, 0.44))
    for norm, label, color, mark, place, side in (
        ("without normalisation", "without batch norm", VERMILLION, "o--", (128, 80), "right"),
        ("batch norm", "with batch norm", BLUE, "s-", (1.15, 92), "left"),
    ):
        errors = [misread(norm, size) for size in BATCH_SIZES]
        axes.plot(BATCH_SIZES, errors, mark, color=color, lw=4, ms=11)
        axes.text(*place, label, color=color, fontsize=22, ha=side, va="center", weight="bold")
    axes.set(xscale="log", ylim=(0, 100))
    plain_ticks(axes.xaxis, BATCH_SIZES)
    axes.tick_params(labelsize=17)
    axes.set_xlabel(f"batch size (learning rate {LEARNING_RATE:g})", fontsize=19)
    axes.set_ylabel("test error (%)", fontsize=19)


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the picture to the site's static files if the site has an address, so that the pages refer to it."""
    if exception or app.builder.format != "html" or not app.config.html_baseurl:
        return
    (Path(app.outdir) / "_static" / NAME).write_bytes(card(app.config.html_title))


def setup(app: Sphinx) -> dict:
    """Connect the hook."""
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
