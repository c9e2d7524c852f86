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

NOT_SHARED = {"channel axis", "frozen", "names in a checkpoint"}
"""What the second script does not ask, or asks in another way."""

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
    first, second = frameworks.load()[name]["answers"], AGAIN[name]["answers"]
    shared = [question for question in first if question in second]
    missing = {"mlx": {"empty batch"}, "tfjs": {"half precision"}}.get(name, set())
    assert len(shared) == 14 - len(missing) and not NOT_SHARED & set(shared)
    assert differences({each: first[each] for each in shared}, {each: second[each] for each in shared}) == []
    assert second["axis of the channels in four dimensions"] == AXES[str(first["channel axis"]).split()[0]]


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
    assert list(again.again_layers.FRAMEWORKS) == list(again.listed()) == list(AGAIN)
    for name in ("again", "again_half", "again_layers"):
        del sys.modules[name]
