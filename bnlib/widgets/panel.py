"""The ipywidgets of an explorer for a notebook with a kernel, including live training."""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, Any

from bnlib.extras import optional
from bnlib.widgets.controls import Choice, Control

if TYPE_CHECKING:
    from bnlib.widgets.explorer import Explorer

# When the kernel of a widget has ended, Jupyter gives it a CSS class and a broken-chain icon. No Python runs then, so a
# style sheet must show the message.
_GONE = """<style>
.bnb-gone { display: none }
.jupyter-widgets-disconnected .bnb-gone { display: block }
.bnb-panel.jupyter-widgets-disconnected::before, .bnb-panel .jupyter-widgets-disconnected::before { display: none }
.bnb-panel .bnb-live.jupyter-widgets-disconnected { opacity: 0.4; pointer-events: none }
</style><p class="bnb-gone" role="status"><strong>Run this cell again.</strong> The kernel of this figure was restarted
or shut down, so its controls do nothing.</p>"""


class Panel:
    """The ipywidgets of an explorer, and the thread of its live training.

    Attributes:
        explorer: the explorer that is shown.
        controls: the ipywidget of each control, by name.
        view: the ipywidget of the picture.
        note: the ipywidget of the sentences below the picture.
        status: the ipywidget with the state of the training, only with ``explorer.train``, like the next three.
        train_button, stop_button: the two buttons.
        progress: the box that contains the progress bar.
        box: the ipywidget that contains all others.

    Example:
        >>> def draw(figure, data, power):
        ...     figure.add_subplot().plot(data)
        ...     return f"Powers of {power}."
        >>> slider = widgets.Slider("power", "power", values=[1, 2, 3], default=2)
        >>> explorer = widgets.Explorer("powers", "Powers", [slider], lambda power: [power, power**2], draw)
        >>> explorer.panel.controls["power"].value = 3
        >>> explorer.panel.note.value
        'Powers of 3.'
    """

    def __init__(self, explorer: Explorer):
        widgets = optional("ipywidgets", "a panel with sliders")

        self.explorer = explorer
        self.controls = {control.name: _widget(control) for control in explorer.controls}
        self.view, self.note = widgets.HTML(), widgets.HTML()
        for control in explorer.controls:
            self.controls[control.name].observe(lambda _, control=control: self.move(control), "value")
        rows = [_row(control, self.controls[control.name]) for control in explorer.controls]
        if explorer.train is not None:
            self.train_button = widgets.Button(
                description="Train", icon="play", tooltip="Train a network at this setting"
            )
            self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True, tooltip="Stop training")
            self.progress, self.status = widgets.VBox(), widgets.HTML()
            self.train_button.on_click(lambda _: self.start())
            self.stop_button.on_click(lambda _: self.stop())
            rows += [widgets.HBox([self.train_button, self.stop_button, self.progress]), self.status]
        live = widgets.VBox(rows).add_class("bnb-live")
        self.box = widgets.VBox([widgets.HTML(_GONE), live, self.view, self.note]).add_class("bnb-panel")
        self.thread: threading.Thread | None = None
        # stopping: set to end the newest run; training: its setting as text; drawing: locked while a picture changes.
        self.stopping, self.training, self.drawing = threading.Event(), "", threading.RLock()
        self.stopping.set()
        self.show()

    @property
    def setting(self) -> dict[str, Any]:
        """The values of the controls."""
        return {name: control.value for name, control in self.controls.items()}

    def move(self, control: Control) -> None:
        """Show the new setting after the reader has changed ``control``, and stop the training of the old setting."""
        with self.drawing:
            if self.explorer.train is not None:
                was_training = not self.stopping.is_set()
                self.stopping.set()
                self._say(
                    f"Training at {self.training} stopped because you changed the {control.label}. "
                    "Press Train to train the new setting."
                    if was_training
                    else ""
                )
            self.show()

    def show(self) -> None:
        """Show the picture of the current setting: its last live run if there is one, else its frame."""
        key = tuple(self.setting.values())
        if key in self.explorer.runs:
            self.put(*self.explorer.picture(self.explorer.runs[key], self.setting))
        else:
            self.put(*self.explorer.frames[key])

    def put(self, picture: str, note: str) -> None:
        """Replace the picture and the sentences."""
        self.view.value, self.note.value = f'<div class="bnb-figure">{picture}</div>', html.escape(note)

    def start(self) -> None:
        """Train the current setting in the background; do nothing if it is being trained already."""
        before = self.thread if self.thread is not None and self.thread.is_alive() else None
        if before is not None and not self.stopping.is_set():
            return
        self.stopping = threading.Event()
        self.training = ", ".join(
            f"{each.label} {each.text(self.setting[each.name])}" for each in self.explorer.controls
        )
        self._running(True)
        self._say(f"PyTorch is training in the kernel of this notebook at {self.training}.")
        self.thread = threading.Thread(target=self._run, args=(self.setting, self.stopping, before), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop the training at its next checkpoint; the picture stays."""
        with self.drawing:
            if not self.stopping.is_set():
                self.stopping.set()
                self._say(
                    f"Training at {self.training} stopped because you pressed Stop. Press Train to start a new run."
                )

    def _say(self, words: str, strong: bool = False) -> None:
        text = f"<strong>{html.escape(words)}</strong>" if strong else html.escape(words)
        self.status.value = f'<span role="status">{text}</span>'

    def _running(self, running: bool) -> None:
        self.train_button.disabled, self.stop_button.disabled = running, not running

    def _run(self, setting: dict[str, Any], stopping: threading.Event, before: threading.Thread | None) -> None:
        tqdm = optional("tqdm.notebook", "training in a panel").tqdm

        if before is not None:
            before.join()
        bar = tqdm(display=False, unit="step")
        self.progress.children = [bar.container]
        try:
            for done, total, data in self.explorer.train(**setting):
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
            # A traceback from a thread is invisible, so show the error in the status line and keep the last picture.
            self._end(
                stopping,
                f"Training at {self.training} failed with {type(error).__name__}: {error}. The figure shows the last "
                "point before the failure.",
                strong=True,
            )
        else:
            self._end(stopping, f"Training at {self.training} is finished. The figure shows your run.")
        finally:
            if bar.n != bar.total and self.progress.children == (bar.container,):
                self.progress.children = ()  # the status line says what happened; a red bar would look like an error
            bar.close()

    def _end(self, stopping: threading.Event, words: str, strong: bool = False) -> None:
        """Show how a run ended, unless the reader has stopped it or has started another one."""
        with self.drawing:
            if stopping is self.stopping:
                if not stopping.is_set():
                    self._say(words, strong)
                stopping.set()
                self._running(False)


def _widget(control: Control):
    """Return the ipywidget of a control."""
    widgets = optional("ipywidgets", "a panel with sliders")

    options = list(zip(control.texts, control.values, strict=True))
    common = {"options": options, "value": control.default, "description": control.label}
    style = {"description_width": "11em"}
    if not isinstance(control, Choice):
        return widgets.SelectionSlider(**common, style=style, layout={"width": "30em", "max_width": "100%"})
    if control.fits_in_one_row:
        return widgets.ToggleButtons(**common, style={**style, "button_width": "auto"})
    return widgets.Dropdown(**common, style=style, layout={"width": "26em", "max_width": "100%"})


def _row(control: Control, widget):
    """Return the widget of a control; a slider gets a label with its first and last value."""
    widgets = optional("ipywidgets", "a panel with sliders")

    if isinstance(control, Choice):
        return widget
    return widgets.HBox([widget, widgets.Label(f"{control.texts[0]} to {control.texts[-1]}")])
