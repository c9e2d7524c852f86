"""Sliders that work twice: with a kernel in a notebook, and without one on the built page."""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bnlib import figures


@dataclass(frozen=True)
class Slider:
    """One setting of an explorer.

    Attributes:
        name: the keyword under which the setting reaches ``lookup``, ``draw`` and ``train``.
        label: what the reader sees, with the unit if there is one.
        values: the positions, in order.
        default: the position at which the slider starts; must be one of ``values``.
        format: how a value is written, as in ``str.format``.

    Example:
        >>> widgets.Slider("lr", "learning rate", values=[0.01, 0.1], default=0.1).texts
        ['0.01', '0.1']
    """

    name: str
    label: str
    values: Sequence[Any]
    default: Any
    format: str = "{:g}"

    def __post_init__(self):
        if self.default not in self.values:
            raise ValueError(
                f"default of slider {self.name!r} must be one of {list(self.values)}, got {self.default!r}"
            )

    @property
    def texts(self) -> list[str]:
        """The positions as the reader sees them."""
        return [self.format.format(value) for value in self.values]


class Explorer:
    """A figure behind sliders, drawn beforehand at every position of a grid.

    With a kernel it is a set of ipywidgets; on a page without one it is plain HTML with every frame inside, moved
    by ``static/explorer.js``. Both show the same frames, made by the same drawing function, which also draws the
    curve of a live run.

    Arguments:
        name: identifies the explorer on its page; letters, digits and ``-``.
        title: what the figure shows, in a few words; its accessible name.
        sliders: one or more ``Slider``.
        lookup: ``lookup(**setting)`` returns the data to draw, computed or read from a committed result.
        draw: ``draw(figure, data, **setting)`` draws them on an empty ``matplotlib`` figure and returns one or two
            sentences that say what is to be seen; they stand below the figure.
        train: None, or ``train(**setting)``, an iterator of ``(done, total, data)``: a real run of the setting,
            whose ``data`` is drawn by ``draw`` as it comes. Gives the *Train* and *Stop* buttons of a notebook.
        size: width and height of the figure in inches.
        budget: the most bytes that the HTML may have.

    Raises:
        ValueError: a ``name`` with other characters; when shown, HTML over the budget.

    Example:
        >>> def draw(figure, data, power):
        ...     figure.add_subplot().plot(data)
        ...     return f"Powers of {power}."
        >>> explorer = widgets.Explorer(
        ...     "powers",
        ...     "Powers of a number",
        ...     [widgets.Slider("power", "power", values=[1, 2, 3], default=2)],
        ...     lookup=lambda power: [x**power for x in range(5)],
        ...     draw=draw,
        ... )
        >>> len(explorer.frames), explorer.html.startswith('<div class="bnb-explorer" id="explorer-powers"')
        (3, True)
    """

    def __init__(
        self,
        name: str,
        title: str,
        sliders: Sequence[Slider],
        lookup: Callable[..., Any],
        draw: Callable[..., str],
        *,
        train: Callable[..., Iterator[tuple[int, int, Any]]] | None = None,
        size: tuple[float, float] = (6.6, 2.8),
        budget: int = 400_000,
    ):
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ValueError(f"name must be of letters, digits and '-', as a part of a page's address, got {name!r}")
        self.name, self.title, self.sliders, self.size, self.budget = name, title, list(sliders), size, budget
        self.lookup, self.draw, self.train = lookup, draw, train
        self.defaults = {slider.name: slider.default for slider in self.sliders}
        # Settings that were trained live, so that coming back to one shows the run again.
        self.runs: dict[tuple, Any] = {}
        # Laid out once, so that the axes stand still while a slider moves.
        self._places: list | None = None

    def settings(self) -> Iterator[dict[str, Any]]:
        """Every position of the grid, the last slider moving fastest."""
        names = [slider.name for slider in self.sliders]
        for values in itertools.product(*(slider.values for slider in self.sliders)):
            yield dict(zip(names, values, strict=True))

    def picture(self, data: Any, setting: Mapping[str, Any]) -> tuple[str, str]:
        """Draw ``data``: the SVG, whose accessible name says the setting too, and the sentences that describe it."""
        places = ", ".join(f"{slider.label} {slider.format.format(setting[slider.name])}" for slider in self.sliders)
        with figures.style():
            figure = figures.new_figure(*self.size)
            note = self.draw(figure, data, **setting)
            if self._places is None:
                figure.draw_without_rendering()
                self._places = [axes.get_position() for axes in figure.axes]
            figure.set_layout_engine("none")
            for axes, place in zip(figure.axes, self._places, strict=True):
                axes.set_position(place)
            return figures.render(figure, f"{self.title}; {places}", salt=self.title), note

    @cached_property
    def frames(self) -> dict[tuple, tuple[str, str]]:
        """The SVG and the note of each setting, keyed by the values of the sliders in order."""
        return {tuple(s.values()): self.picture(self.lookup(**s), s) for s in self.settings()}

    @cached_property
    def html(self) -> str:
        """The explorer for a page without a kernel, within the budget."""
        text = _page(self)
        if len(text.encode()) > self.budget:
            raise ValueError(
                f"explorer {self.name!r} takes {len(text.encode()):,} bytes for {len(self.frames)} frames, over its "
                f"budget of {self.budget:,}; use fewer positions or points, or raise budget="
            )
        return text

    @cached_property
    def panel(self):
        """The explorer for a notebook with a kernel, a ``Panel`` whose ``box`` is the ipywidget."""
        return Panel(self)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        static = {"text/html": self.html, "text/plain": f"[Explorer: {self.title}]"}
        if not _has_reader():
            return static
        return {"application/vnd.jupyter.widget-view+json": self.panel.box.get_view_spec(), **static}


def _has_reader() -> bool:
    """Whether somebody may move the sliders: nbconvert, papermill and the site's build let no cell ask for input.

    They would store the widgets' state, and nbconvert would show it, with scripts from another host, and not the HTML.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    request = shell.kernel.get_parent("shell") if hasattr(shell, "kernel") else {}
    asks = request.get("content", {}).get("allow_stdin", True)
    return asks or "voila" in os.environ.get("SERVER_SOFTWARE", "")


def _page(explorer: Explorer) -> str:
    """The HTML of an explorer: lines of SVG that frames share are kept once."""
    lines: dict[str, int] = {}
    frames = [
        _runs([lines.setdefault(line, len(lines)) for line in svg.split("\n")]) for svg, _ in explorer.frames.values()
    ]
    notes = [note for _, note in explorer.frames.values()]
    payload = json.dumps({"lines": list(lines), "frames": frames, "notes": notes}, separators=(",", ":"))
    payload = payload.replace("</", "<\\/")  # "</script>" inside would end the element
    svg, note = explorer.frames[tuple(explorer.defaults.values())]
    return (
        f'<div class="bnb-explorer" id="explorer-{explorer.name}" role="group" '
        f'aria-label="{html.escape(explorer.title)}">'
        f'<div class="bnb-sliders">{"".join(map(_input, explorer.sliders))}</div>'
        f'<div class="bnb-stage">{svg}</div>'
        f'<p class="bnb-note" aria-live="polite">{html.escape(note)}</p>'
        f'<script type="application/json">{payload}</script></div>'
    )


def _runs(places: list[int]) -> list[int]:
    """Start and end of each run of consecutive numbers, flat: [5, 6, 7, 2] becomes [5, 8, 2, 3]."""
    runs: list[int] = []
    for place in places:
        if runs and runs[-1] == place:
            runs[-1] += 1
        else:
            runs += [place, place + 1]
    return runs


def _input(slider: Slider) -> str:
    place, last = list(slider.values).index(slider.default), len(slider.values) - 1
    text = html.escape(slider.texts[place])
    return (
        f'<label class="bnb-slider"><span>{html.escape(slider.label)}</span>'
        f'<input type="range" min="0" max="{last}" step="1" value="{place}" aria-valuetext="{text}" '
        f'autocomplete="off" data-values="{html.escape(json.dumps(slider.texts))}" disabled>'
        # Said once, as the slider's value; without this it would be a part of the label and a live region too.
        f'<output aria-hidden="true">{text}</output></label>'
    )


class Panel:
    """The ipywidgets of one explorer and the thread that trains behind them."""

    def __init__(self, explorer: Explorer):
        import ipywidgets as widgets

        self.explorer = explorer
        self.controls = {
            slider.name: widgets.SelectionSlider(
                options=list(zip(slider.texts, slider.values, strict=True)),
                value=slider.default,
                description=slider.label,
                style={"description_width": "9em"},
                layout={"width": "26em"},
            )
            for slider in explorer.sliders
        }
        self.view, self.note = widgets.HTML(), widgets.HTML()
        for control in self.controls.values():
            control.observe(lambda _: self.move(), "value")
        rows = [*self.controls.values()]
        if explorer.train is not None:
            self.train_button = widgets.Button(description="Train", icon="play", tooltip="Run this setting for real")
            self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True)
            self.progress = widgets.VBox()
            self.train_button.on_click(lambda _: self.start())
            self.stop_button.on_click(lambda _: self.stop())
            rows.append(widgets.HBox([self.train_button, self.stop_button, self.progress]))
        self.box = widgets.VBox([*rows, self.view, self.note])
        self.thread: threading.Thread | None = None
        # Of the newest run; set when it is to end. Held while a picture is chosen and put.
        self.stopping, self.drawing = threading.Event(), threading.RLock()
        self.show()

    @property
    def setting(self) -> dict[str, Any]:
        """The positions of the sliders."""
        return {name: control.value for name, control in self.controls.items()}

    def move(self) -> None:
        """Show what is at the sliders' new positions, and end the run of the old ones."""
        with self.drawing:
            self.stopping.set()
            self.show()

    def show(self) -> None:
        """Show the picture of the sliders' positions: the last live run there, else the frame of the grid."""
        key = tuple(self.setting.values())
        if key in self.explorer.runs:
            self.put(*self.explorer.picture(self.explorer.runs[key], self.setting))
        else:
            self.put(*self.explorer.frames[key])

    def put(self, svg: str, note: str) -> None:
        """Replace what is shown."""
        self.view.value, self.note.value = f'<div class="bnb-figure">{svg}</div>', html.escape(note)

    def start(self) -> None:
        """Train the sliders' setting in the background; does nothing while a run of it goes on."""
        before = self.thread if self.thread is not None and self.thread.is_alive() else None
        if before is not None and not self.stopping.is_set():
            return
        self.stopping = threading.Event()
        self._running(True)
        self.thread = threading.Thread(target=self._run, args=(self.setting, self.stopping, before), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ask the run to end at its next checkpoint; what it has drawn stays."""
        with self.drawing:
            if not self.stopping.is_set():
                self.stopping.set()
                self.note.value += " <em>Stopped by you; Train starts a new run.</em>"

    def _running(self, running: bool) -> None:
        self.train_button.disabled, self.stop_button.disabled = running, not running

    def _run(self, setting: dict[str, Any], stopping: threading.Event, before: threading.Thread | None) -> None:
        from tqdm.notebook import tqdm

        if before is not None:
            before.join()
        bar = tqdm(display=False, unit="step")
        self.progress.children = [bar.container]
        runs = self.explorer.train(**setting)
        try:
            for done, total, data in runs:
                if bar.total != total:
                    bar.reset(total)
                bar.update(done - bar.n)
                picture = self.explorer.picture(data, setting)
                with self.drawing:
                    if stopping.is_set():
                        break
                    self.explorer.runs[tuple(setting.values())] = data
                    self.put(*picture)
        except Exception as error:
            # Nobody sees a traceback from a thread: say it where the reader looks, and keep the last picture.
            problem = html.escape(f"{type(error).__name__}: {error}")
            self.note.value += f" <strong>The run ended early: {problem}</strong> The last good curve is shown."
        finally:
            bar.close()
            # Another run may have begun meanwhile.
            if stopping is self.stopping:
                stopping.set()
                self._running(False)
