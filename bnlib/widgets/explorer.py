"""A figure with controls, drawn beforehand at every setting."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from bnlib import figures
from bnlib.widgets.controls import Control
from bnlib.widgets.page import page
from bnlib.widgets.panel import Panel


class Explorer:
    """A figure with controls, drawn beforehand at every setting of a grid.

    With a kernel it is a set of ipywidgets; on a page without one it is plain HTML with every frame inside, moved
    by ``static/explorer.js``. Both show the same frames, made by the same drawing function, which also draws the
    curve of a live run.

    Arguments:
        name: identifies the explorer on its page and in links to its settings; letters, digits and ``-``.
        title: what the figure shows, in a few words; its accessible name.
        controls: one or more ``Slider`` or ``Choice``.
        data: ``data(**setting)`` returns the data to draw, computed or read from a committed result.
        draw: ``draw(figure, data, **setting)`` draws them on an empty ``matplotlib`` figure and returns one or two
            sentences that say what is to be seen; they stand below the figure. It draws the same axes at every setting.
        train: None, or ``train(**setting)``, an iterator of ``(done, total, data)``: a real run of the setting,
            whose ``data`` is drawn by ``draw`` as it comes. Gives the *Train* and *Stop* buttons of a notebook.
        size: width and height of the figure in inches.
        budget: the most bytes that the HTML may have.

    Raises:
        ValueError: a ``name`` with other characters, no controls, or two with one name; when shown, HTML over the
            budget.

    Example:
        >>> def draw(figure, data, power):
        ...     figure.add_subplot().plot(data)
        ...     return f"Powers of {power}."
        >>> explorer = widgets.Explorer(
        ...     "powers",
        ...     "Powers of a number",
        ...     [widgets.Slider("power", "power", values=[1, 2, 3], default=2)],
        ...     data=lambda power: [x**power for x in range(5)],
        ...     draw=draw,
        ... )
        >>> len(explorer.frames), explorer.html.startswith('<div class="bnb-explorer" id="explorer-powers"')
        (3, True)
    """

    def __init__(
        self,
        name: str,
        title: str,
        controls: Sequence[Control],
        data: Callable[..., Any],
        draw: Callable[..., str],
        *,
        train: Callable[..., Iterator[tuple[int, int, Any]]] | None = None,
        size: tuple[float, float] = (6.6, 2.8),
        budget: int = 400_000,
    ):
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ValueError(f"name must be of letters, digits and '-', as a part of a page's address, got {name!r}")
        self.name, self.title, self.controls, self.size, self.budget = name, title, list(controls), size, budget
        self.data, self.draw, self.train = data, draw, train
        self.defaults = {control.name: control.default for control in self.controls}
        if not self.controls or len(self.defaults) < len(self.controls):
            names = [control.name for control in self.controls]
            raise ValueError(f"controls must be one or more, each with a name of its own, got names {names}")
        # Settings that were trained live, so that coming back to one shows the run again.
        self.runs: dict[tuple, Any] = {}

    def settings(self) -> Iterator[dict[str, Any]]:
        """Every setting of the grid, the last control moving fastest."""
        names = [control.name for control in self.controls]
        for values in itertools.product(*(control.values for control in self.controls)):
            yield dict(zip(names, values, strict=True))

    def picture(self, data: Any, setting: Mapping[str, Any]) -> tuple[str, str]:
        """Draw ``data``: the picture, whose accessible name says the setting too, and the sentences below it."""
        with figures.style():
            figure = figures.new_figure(*self.size)
            note = self.draw(figure, data, **setting)
            text, _ = figures.in_panels(figure, self._name_of(setting), salt=self.title, layout=self._layout)
            return text, note

    @cached_property
    def _layout(self) -> figures.Layout:
        """Where everything stands at the default setting, so that the axes stand still while a control moves."""
        with figures.style():
            figure = figures.new_figure(*self.size)
            self.draw(figure, self.data(**self.defaults), **self.defaults)
            return figures.lay_out(figure)

    @cached_property
    def frames(self) -> dict[tuple, tuple[str, str]]:
        """The picture and the note of each setting, keyed by the values of the controls in order."""
        return {tuple(s.values()): self.picture(self.data(**s), s) for s in self.settings()}

    @cached_property
    def html(self) -> str:
        """The explorer for a page without a kernel, within the budget."""
        text = page(self.name, self.title, self.controls, self.frames, tuple(self.defaults.values()))
        if len(text.encode()) > self.budget:
            raise ValueError(
                f"explorer {self.name!r} takes {len(text.encode()):,} bytes for {len(self.frames)} frames, over its "
                f"budget of {self.budget:,}; use fewer values or points, or raise budget="
            )
        return text

    @cached_property
    def panel(self):
        """The explorer for a notebook with a kernel, a ``Panel`` whose ``box`` is the ipywidget."""
        return Panel(self)

    @property
    def svg(self) -> str:
        """The picture of the default setting as one ``<svg>`` element, whose accessible name says the setting too."""
        with figures.style():
            figure = figures.new_figure(*self.size)
            self.draw(figure, self.data(**self.defaults), **self.defaults)
            return figures.render(figure, self._name_of(self.defaults), salt=self.title)

    def _name_of(self, setting: Mapping[str, Any]) -> str:
        places = (f"{control.label} {control.text(setting[control.name])}" for control in self.controls)
        return f"{self.title}; {', '.join(places)}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        static = {"text/html": self.html, "image/svg+xml": self.svg, "text/plain": f"[Explorer: {self.title}]"}
        if not _has_reader():
            return static
        return {"application/vnd.jupyter.widget-view+json": self.panel.box.get_view_spec(), **static}


def _has_reader() -> bool:
    """Whether somebody may move the controls: nbconvert, papermill and the site's build let no cell ask for input.

    They would store the widgets' state, and nbconvert would show it, with scripts from another host, and not the HTML.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    request = shell.kernel.get_parent("shell") if hasattr(shell, "kernel") else {}
    asks = request.get("content", {}).get("allow_stdin", True)
    return asks or "voila" in os.environ.get("SERVER_SOFTWARE", "")
