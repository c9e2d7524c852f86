"""Compare the size and drawing time of an explorer's frames with those of PNGs of the same figure."""

import io
import time

from matplotlib.backends.backend_agg import FigureCanvasAgg

from bnlib import figures, widgets
from bnlib.experiments.formula import training_curves


def main() -> None:
    """Print the size and drawing time of chapter 1's training explorer and its ratios to PNG frames."""
    sliders = [
        widgets.Slider("batch_size", "batch size", training_curves.BATCH_SIZES, 32, "{:d}"),
        widgets.Slider("lr", "learning rate", training_curves.LEARNING_RATES, 0.1),
    ]
    explorer = widgets.Explorer(
        "bench", "training curves", sliders, training_curves.lookup, figures.draw_training_curves
    )
    began = time.perf_counter()
    size = len(explorer.html)
    drawing = (time.perf_counter() - began) / len(explorer.frames)
    png, began = io.BytesIO(), time.perf_counter()
    with figures.style():
        figure = figures.new_figure()
        figures.draw_training_curves(figure, training_curves.lookup(32, 0.1), 32, 0.1)
        FigureCanvasAgg(figure).print_png(png)
    plain = time.perf_counter() - began
    print(f"{len(explorer.frames)} frames, {size / len(explorer.frames):.0f} bytes and {1000 * drawing:.0f} ms each")
    print(f"size: {len(explorer.frames) * len(png.getvalue()) / size:.1f} times smaller than PNGs at 100 dots per inch")
    print(f"time: {plain / drawing:.1f} times faster than laying out and drawing a PNG")


if __name__ == "__main__":
    main()
