"""One colour per method in all figures and explorers, and colours that colour-blind readers can tell apart."""

import html
import importlib
import itertools
import json
import pkgutil
import re
from collections import defaultdict
from functools import cache

import numpy as np
import pytest
from colorspacious import cspace_convert
from conftest import CHAPTERS, FRONT

from bnlib import figures
from bnlib.figures.methods import METHOD_COLORS, method_of

PALETTE = {name: getattr(figures, name) for name in ("BLUE", "VERMILLION", "GREEN", "PURPLE", "GREY")}
LEGEND = r'<div class="bnb-legend".*?</div>'
# Arms of one figure that are all the same method, told apart by what else differs: the statistics that BN uses.
SAME_METHOD = {"BN, eval mode, precise statistics", "BN, other statistics"}


def styles() -> list[tuple[str, str, str]]:
    """Each entry of a table of styles in the code of the figures: module, name, first colour."""
    found = []
    for module in pkgutil.iter_modules(figures.__path__):
        for value in vars(importlib.import_module(f"bnlib.figures.{module.name}")).values():
            for name, style in value.items() if isinstance(value, dict) else ():
                parts = style if isinstance(style, tuple) else (style,)
                colours = [part for part in parts if isinstance(part, str) and part.startswith("#")]
                found += [(module.name, str(name), colour) for colour in colours]
    return found


def seen(page: str) -> set[str]:
    """The legends of a page, also those of the positions of its explorers that are not shown yet."""
    found = set(re.findall(LEGEND, page, flags=re.S))
    for script in re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, flags=re.S):
        found |= {line for line in json.loads(script).get("lines", ()) if re.fullmatch(LEGEND, line)}
    return found


@cache
def legends(site) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each legend of the book: its page, and name and sample of each series."""
    found = []
    for page in [FRONT, *CHAPTERS]:
        for legend in seen((site / page).read_text()):
            keys = re.findall(r"<span>(<svg.*?</svg>)(.*?)</span>", legend, flags=re.S)
            found.append((page, [(html.unescape(name), sample) for sample, name in keys]))
    return found


def colour(sample: str) -> str:
    """The colour of the sample of a series; a series that is drawn in ink has none."""
    found = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", sample)) - {"#ffffff"}
    assert len(found) <= 1, sample
    return "".join(found).upper()


def look(sample: str) -> tuple:
    """What tells a sample from others: colour, dashes, whether it is filled, and the marker, whose id depends on it."""
    return colour(sample), tuple(re.findall(r'stroke-dasharray: [^;"]+|fill-opacity: 0\b|href="[^"]+"', sample))


def test_the_styles_in_the_code_give_a_method_its_colour():
    named = [(module, name, style) for module, name, style in styles() if method_of(name)]
    assert len(named) >= 12
    assert [each for each in named if each[2] != METHOD_COLORS[method_of(each[1])]] == []


def test_a_figure_uses_the_colours_of_the_palette(site):
    found = {colour(sample) for _, keys in legends(site) for _, sample in keys} - {""}
    assert found == set(PALETTE.values())


def test_a_name_has_one_colour_in_the_whole_book(site):
    colours = defaultdict(set)
    for _, keys in legends(site):
        for name, sample in keys:
            colours[name.removesuffix(", your run")].add(colour(sample))
    assert len(colours) >= 60
    assert {name: found for name, found in colours.items() if len(found) > 1} == {}


def test_a_method_has_its_colour_in_every_legend(site):
    named = {(page, *key) for page, keys in legends(site) for key in keys if method_of(key[0])}
    assert {method_of(name) for _, name, _ in named} >= {"batch norm", "without normalisation", "Full Normalization"}
    wrong = [(page, name) for page, name, sample in named if colour(sample) != METHOD_COLORS[method_of(name)]]
    assert sorted(each for each in wrong if each[1] not in SAME_METHOD) == []


def test_two_series_of_a_figure_differ_in_colour_or_dashes_or_marker(site):
    for page, keys in legends(site):
        looks = [look(sample) for _, sample in keys]
        assert len(set(looks)) == len(looks), (page, [name for name, _ in keys])


def seen_with(deficiency: str | None, colour: str) -> np.ndarray:
    """A colour as readers see it, in a space where equal distances look equally different (CAM02-UCS)."""
    rgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    if deficiency:
        rgb = cspace_convert(rgb, {"name": "sRGB1+CVD", "cvd_type": deficiency, "severity": 100}, "sRGB1").clip(0, 1)
    return cspace_convert(rgb, "sRGB1", "CAM02-UCS")


@pytest.mark.parametrize("deficiency", [None, "deuteranomaly", "protanomaly"])
@pytest.mark.parametrize("pair", [*itertools.combinations(PALETTE, 2)], ids="-".join)
def test_colour_blind_readers_tell_the_colours_apart(deficiency, pair):
    """One unit is a difference that can just be seen; thin lines need more. Full deuteranopia and protanopia."""
    one, two = (seen_with(deficiency, PALETTE[name]) for name in pair)
    assert np.linalg.norm(one - two) > 10
