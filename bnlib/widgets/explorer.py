"""Explorers: figures with controls that are drawn in advance for every setting."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from bnlib import figures
from bnlib.tables import powers_of_ten
from bnlib.widgets.controls import Control
from bnlib.widgets.page import page
from bnlib.widgets.panel import Panel
from bnlib.widgets.train_here import TrainHere


class Explorer:
    """A figure with controls, drawn in advance for every setting on a grid.

    In a notebook with a kernel an explorer is a set of ipywidgets. On a web page it is HTML that contains every frame,
    and the script ``static/explorer.js`` shows the frame of the chosen setting. Both show the same frames from the same
    drawing function, which also draws the curves of a live training run.

    Arguments:
        name: identifies the explorer on its page and in links; letters, digits and ``-``.
        title: what the figure shows, in a few words; it is the accessible name.
        controls: one or more ``Slider`` or ``Choice`` objects.
        data: ``data(**setting)`` returns the data to draw, computed or read from a committed result.
        draw: ``draw(figure, data, **setting)`` draws the data on an empty ``matplotlib`` figure and returns one or two
            sentences that describe the result, which are shown below the figure. It must draw the same axes for every
            setting.
        train: ``train(**setting)`` does a real training run and yields ``(done, total, data)``: the number of steps so
            far, the total number of steps, and the data to draw. It adds *Train* and *Stop* buttons in a notebook. None
            for no training.
        here: the same training in the reader's browser, on a web page without a kernel; None for no training there.
        size: width and height of the figure in inches.
        budget: the largest allowed size of the HTML in bytes.

    Attributes:
        name, title, controls, data, draw, train, here, size, budget: the arguments.
        defaults: the default value of each control, by name.
        runs: the data of the live runs, by the values of the controls.

    Raises:
        ValueError: if ``name`` has other characters, if there are no controls or two with the same name; on display, if
            the HTML is larger than ``budget``.

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
        here: TrainHere | None = None,
        size: tuple[float, float] = (6.6, 2.8),
        budget: int = 400_000,
    ):
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ValueError(f"name must consist of letters, digits and '-', to be part of an address, got {name!r}")
        self.name, self.title, self.controls, self.size, self.budget = name, title, list(controls), size, budget
        self.data, self.draw, self.train, self.here = data, draw, train, here
        self.defaults = {control.name: control.default for control in self.controls}
        if not self.controls or len(self.defaults) < len(self.controls):
            names = [control.name for control in self.controls]
            raise ValueError(f"controls must be one or more with different names, got the names {names}")
        # The data of live runs are kept, so that the reader sees a run again when returning to its setting.
        self.runs: dict[tuple, Any] = {}

    def settings(self) -> Iterator[dict[str, Any]]:
        """Yield every setting of the grid as a dictionary; the last control changes fastest."""
        names = [control.name for control in self.controls]
        for values in itertools.product(*(control.values for control in self.controls)):
            yield dict(zip(names, values, strict=True))

    def picture(self, data: Any, setting: Mapping[str, Any]) -> tuple[str, str]:
        """Draw ``data`` and return the picture, whose accessible name contains the setting, and the sentences."""
        with figures.style():
            figure = figures.new_figure(*self.size)
            note = powers_of_ten(self.draw(figure, data, **setting))
            text, _ = figures.in_panels(figure, self._name_of(setting), salt=self.title, layout=self._layout)
            return text, note

    @cached_property
    def _layout(self) -> figures.Layout:
        """The positions of the axes at the default setting, used for all settings so that the axes do not move."""
        with figures.style():
            figure = figures.new_figure(*self.size)
            self.draw(figure, self.data(**self.defaults), **self.defaults)
            return figures.lay_out(figure)

    @cached_property
    def frames(self) -> dict[tuple, tuple[str, str]]:
        """The picture and the sentences of each setting, keyed by the values of the controls in their order."""
        return {tuple(s.values()): self.picture(self.data(**s), s) for s in self.settings()}

    @cached_property
    def html(self) -> str:
        """The explorer as HTML for a web page; a ValueError if it is larger than the budget."""
        text = page(self.name, self.title, self.controls, self.frames, tuple(self.defaults.values()))
        if len(text.encode()) > self.budget:
            raise ValueError(
                f"budget of explorer {self.name!r} must be at least {len(text.encode()):,} bytes for its "
                f"{len(self.frames)} frames, got {self.budget:,}; draw fewer values or points, or raise the budget"
            )
        # The site moves this part into a file, which a page loads when a reader wants to train.
        training = "" if self.here is None else self.here.html(self.name, self.settings())
        return f"{text.removesuffix('</div>')}{training}</div>"

    @cached_property
    def panel(self):
        """The explorer for a notebook with a kernel, as a ``Panel`` whose attribute ``box`` is the ipywidget."""
        return Panel(self)

    @property
    def svg(self) -> str:
        """The picture of the default setting as one ``<svg>`` element, whose accessible name contains the setting."""
        with figures.style():
            figure = figures.new_figure(*self.size)
            self.draw(figure, self.data(**self.defaults), **self.defaults)
            return figures.render(figure, self._name_of(self.defaults), salt=self.title)

    def _name_of(self, setting: Mapping[str, Any]) -> str:
        places = (f"{control.label} {control.text(setting[control.name])}" for control in self.controls)
        return f"{self.title}; {', '.join(places)}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        static = {"text/html": self.html, "image/svg+xml": self.svg, "text/plain": f"[Explorer: {self.title}]"}
        if not _is_interactive():
            return static
        return {"application/vnd.jupyter.widget-view+json": self.panel.box.get_view_spec(), **static}


def _is_interactive() -> bool:
    """Return whether a reader can use the controls; False under nbconvert, papermill and the site's build.

    These tools do not let a cell ask for input. They would store the state of the widgets, and nbconvert would show the
    widgets, with scripts from another host, instead of the HTML.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    request = shell.kernel.get_parent("shell") if hasattr(shell, "kernel") else {}
    asks = request.get("content", {}).get("allow_stdin", True)
    return asks or "voila" in os.environ.get("SERVER_SOFTWARE", "")
