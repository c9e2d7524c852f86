"""The HTML of an explorer for a web page; the script ``static/explorer.js`` makes it interactive."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

from bnlib.widgets.controls import Choice, Control

_AT_REST = (
    "These controls do nothing here, because this view does not run the script of the book’s site. The figure shows "
    "the setting that they name. To change it, allow JavaScript on the book’s site, or run this cell in a notebook."
)


def page(
    name: str, title: str, controls: Sequence[Control], frames: Mapping[tuple, tuple[str, str]], start: tuple
) -> str:
    """Return an explorer's HTML element: the controls, the picture of the setting ``start``, and all frames as JSON.

    Arguments:
        name: name of the explorer.
        title: accessible name of the explorer.
        controls: the controls.
        frames: picture and sentences of each setting, keyed by the values of the controls. Lines that several pictures
            share are stored once.
        start: values of the controls that are shown first.
    """
    lines: dict[str, int] = {}
    numbers = [
        _runs([lines.setdefault(line, len(lines)) for line in picture.split("\n")]) for picture, _ in frames.values()
    ]
    payload = {
        "lines": list(lines),
        "frames": numbers,
        "notes": [note for _, note in frames.values()],
        "texts": {control.name: control.texts for control in controls},
    }
    # The text "</script>" in the data would end the element.
    data = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    picture, note = frames[start]
    return (
        f'<div class="bnb-explorer" id="explorer-{name}" role="group" aria-label="{html.escape(title)}">'
        f'<p class="bnb-rest">{_AT_REST}</p>'
        f'<div class="bnb-controls">{"".join(_control(name, control) for control in controls)}</div>'
        f'<div class="bnb-stage">{picture}</div>'
        f'<p class="bnb-note" aria-live="polite">{html.escape(note)}</p>'
        f'<script type="application/json">{data}</script></div>'
    )


def _runs(places: list[int]) -> list[int]:
    """Return start and end of each run of consecutive numbers in one list: [5, 6, 7, 2] becomes [5, 8, 2, 3]."""
    runs: list[int] = []
    for place in places:
        if runs and runs[-1] == place:
            runs[-1] += 1
        else:
            runs += [place, place + 1]
    return runs


def _control(explorer: str, control: Control) -> str:
    key, label, texts = f"{explorer}.{control.name}", html.escape(control.label), [*map(html.escape, control.texts)]
    start = control.values.index(control.default)
    if not isinstance(control, Choice):
        last = len(texts) - 1
        return (
            f'<div class="bnb-slider" data-name="{control.name}"><label for="{key}">{label}</label>'
            # A screen reader gets the value from the slider itself; the other texts are hidden from it.
            f'<span class="bnb-range"><span aria-hidden="true">{texts[0]}</span>'
            f'<input type="range" id="{key}" min="0" max="{last}" step="1" value="{start}" '
            f'aria-valuetext="{texts[start]}" autocomplete="off" disabled>'
            f'<span aria-hidden="true">{texts[-1]}</span></span>'
            f'<output for="{key}" aria-hidden="true">{texts[start]}</output></div>'
        )
    if not control.fits_in_one_row:
        options = "".join(
            f'<option value="{place}"{" selected" * (place == start)}>{text}</option>'
            for place, text in enumerate(texts)
        )
        return (
            f'<div class="bnb-choice" data-name="{control.name}"><label for="{key}">{label}</label>'
            f'<select id="{key}" autocomplete="off" disabled>{options}</select></div>'
        )
    buttons = "".join(
        f'<label><input type="radio" name="{key}" value="{place}" autocomplete="off"{" checked" * (place == start)} '
        f"disabled><span>{text}</span></label>"
        for place, text in enumerate(texts)
    )
    return (
        f'<fieldset class="bnb-choice" data-name="{control.name}"><legend>{label}</legend>'
        f'<div class="bnb-buttons">{buttons}</div></fieldset>'
    )
