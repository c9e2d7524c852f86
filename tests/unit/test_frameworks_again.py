"""Two scripts that share no code ask other frameworks' batch norms the same questions; their answers agree."""

import copy
import importlib
import json
import sys
import tomllib
from pathlib import Path

import pytest

from bnlib import frameworks

FOLDER = Path(__file__).parents[2] / "findings" / "frameworks"
AGAIN = json.loads((FOLDER / "again.json").read_text())
TOLERANCE = 1e-3
"""Relative. Both files keep four digits, so two numbers may differ by one unit of the last digit, or by less."""

MISSING = {"mlx": {"empty batch"}}
"""What a framework is not asked, because it does not return."""

ANOTHER_WAY = {"channel axis", "who chooses the start"}
"""Words of the documentation; the second script measures the axis, and the start."""

IMAGES = "running variance after 1 step with images"

AXES = {"1": [1], "-1": [3], "last": [3], "0": [1]}
"""The channels' axis among four, by the first word of the committed answer; Equinox counts the axes of one sample."""


def differences(first, second):
    """Return where two answers differ: numbers by more than the tolerance, errors by their type, other text at all."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [f"{key}: {found}" for key in first for found in differences(first[key], second[key])]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [found for pair in zip(first, second, strict=True) for found in differences(*pair)]
    if isinstance(first, float | int) and isinstance(second, float | int):
        agree = first == pytest.approx(second, rel=TOLERANCE, abs=1e-12)
    elif str(first).startswith("raises "):
        agree = str(first).partition(":")[0] == str(second).partition(":")[0]
    else:
        agree = first == second
    return [] if agree else [f"{first} and {second}"]


@pytest.mark.parametrize("name", frameworks.load())
def test_the_second_script_finds_the_same_answers(name):
    first, second = dict(frameworks.load()[name]["answers"]), dict(AGAIN[name]["answers"])
    axis, measured = str(first.pop("channel axis")).split()[0], second.pop("axis of the channels in four dimensions")
    assert measured == AXES[axis]
    names = [flat(each.pop("names in a checkpoint")) for each in (first, second)]
    assert len(names[0]) == len(names[1])
    # A file of Equinox has no names; some frameworks return them in another order in each process.
    assert name.startswith("equinox") or sorted(names[0]) == sorted(names[1])
    for each in (first, second):
        for question in MISSING.get(name, ()):
            each.pop(question, None)
    assert first.keys() - ANOTHER_WAY == second.keys() - ({IMAGES} - first.keys())
    shared = first.keys() & second.keys()
    assert len(shared) >= 15 - len(MISSING.get(name, ()))
    assert differences({each: first[each] for each in shared}, {each: second[each] for each in shared}) == []


def flat(names):
    """The names of arrays, those in a group after the name of the group and a slash."""
    return names if isinstance(names, list) else [f"{group}/{name}" for group in names for name in flat(names[group])]


def test_images_have_the_variance_of_vectors_but_in_two_layers_of_tensorflow():
    """Four images of one pixel are four values; the fused operation of TensorFlow divides their variance by three."""
    others = {
        name: (each["answers"]["running variance after 1 and 10 steps"][0], each["answers"][IMAGES])
        for name, each in AGAIN.items()
    }
    assert {name for name, (rows, images) in others.items() if rows != images} == {"tf-keras", "sonnet"}
    assert others["sonnet"] == (1.0, 1.333) and others["tf-keras"] == (1.0, 1.003)


@pytest.mark.parametrize("name", frameworks.load())
def test_both_scripts_asked_the_same_versions(name):
    listed = tomllib.loads((FOLDER / "frameworks.toml").read_text())[name]
    pins = {pin.partition("==")[0].partition("[")[0]: pin.partition("==")[2] for pin in listed["packages"]}
    pins |= {pin.rpartition("@")[0]: pin.rpartition("@")[2] for pin in listed.get("npm", [])}
    found = {package: version.partition("+")[0] for package, version in AGAIN[name]["versions"].items()}
    assert found == pins
    for package, version in frameworks.load()[name]["versions"].items():
        assert package == "run by" or found[package] == version.partition("+")[0]


def test_a_changed_answer_is_noticed():
    answers = frameworks.load()["mindspore"]["answers"]
    for question, changed in (
        ("eps", 1.1e-5),
        ("weight of the new batch", 0.9),
        ("running mean after 1 and 10 steps", [1.0, 6.53]),
        ("variance that is stored", "biased"),
        ("one value per channel", {"output": [0.0], "statistics": [0.5, 0.9]}),
        ("one value per channel", "raises ValueError: Expected more than 1 value per channel"),
        ("running statistics at the start", [0.0]),
    ):
        other = copy.deepcopy(answers) | {question: changed}
        assert len(differences(answers, other)) == 1 and differences(answers, other)[0].startswith(question)
    assert differences("raises ValueError: a message", "raises ValueError") == []
    assert differences("raises ValueError: a message", "raises TypeError") != []


def test_the_second_script_runs_on_this_torch(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    again = importlib.import_module("again")
    assert again.answers("torch") == AGAIN["torch"]["answers"]
    assert {*again.again_layers.FRAMEWORKS} == {*AGAIN} and list(again.listed()) == list(AGAIN)
    for name in [name for name in sys.modules if name.startswith("again")]:
        del sys.modules[name]
