"""What batch norm means in other frameworks: the committed answers of ``findings/frameworks``, as rows of tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from bnlib.arguments import check_integer, check_number, check_one_of

_INSTALLED = Path(__file__).with_suffix(".json")
FILE = _INSTALLED if _INSTALLED.exists() else Path(__file__).parents[1] / "data" / "frameworks.json"
"""The answers, which ``make frameworks`` measures; an installed package has them beside this file."""

PORTED = FILE.with_name("ported_networks.json")
"""What ``bnlib.port`` keeps of five networks, which ``findings/frameworks/ported_networks.py`` measures."""

MISTAKES = ("axis", "momentum", "unbiased", "eps")
"""The first words of the mistakes of ``mistake_rows``, in its order."""

CONVENTIONS = {"weight of the new batch": "as in PyTorch", "weight of the old average": "as in Keras and Flax"}
"""The two meanings of "momentum", and who uses them."""


@cache
def load() -> dict[str, dict[str, Any]]:
    """Return for each framework its name, its versions, the date of the measurement, and the answers by question.

    Raises:
        FileNotFoundError: if the file is missing, as in an installed package; the message says what to do.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.load()["torch"]["answers"]["eps"]
        1e-05
    """
    if not FILE.exists():
        raise FileNotFoundError(
            f"{FILE} does not exist; it is in a checkout of the book, where make frameworks makes it"
        )
    return json.loads(FILE.read_text())


def version_rows() -> list[dict[str, str]]:
    """Return who was measured: name, versions and date.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.version_rows()[1]["framework"]
        'Keras 3 on JAX'
    """
    return [
        {
            "framework": each["name"],
            "versions": ", ".join(" ".join(pair) for pair in each["versions"].items() if pair[0] != "run by"),
            "measured": each["measured"],
        }
        for each in load().values()
    ]


def momentum_rows() -> list[dict[str, Any]]:
    """Return what each framework's momentum weighs: argument, default, and the measured weight of the new batch.

    Example:
        >>> from bnlib import frameworks
        >>> row = frameworks.momentum_rows()[0]
        >>> row["argument"], row["it weighs"]
        ('momentum=0.1', 'the new batch')
    """
    return [_momentum_row(each["name"], each["answers"]) for each in load().values()]


def _momentum_row(name: str, answers: Mapping[str, Any]) -> dict[str, Any]:
    argument, weight = answers["momentum argument"], answers["weight of the new batch"]
    start = answers["running statistics at the start"]
    first, tenth = answers["running mean after 1 and 10 steps"]
    chosen_by = f" (from {answers['who chooses the start']})" if "who chooses the start" in answers else ""
    default = argument["default"]
    said = f"{argument['name']}={default:g}" if default is not None else f"{argument['name']} (no default; here 0.9)"
    weighs = "the new batch" if default == weight else "the old average"
    return {
        "framework": name,
        "argument": said,
        "it weighs": weighs,
        "weight of the new batch": f"{weight:g}",
        "start: mean, variance": f"{start[0]:g}, {start[1]:g}{chosen_by}",
        "mean after 1 step": f"{first:g}",
        "after 10": f"{tenth:g}",
    }


def variance_rows() -> list[dict[str, str]]:
    """Return eps, which variance is stored, and the output at inference for a value that training normalises to 1.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.variance_rows()[0]["stored variance"]
        'unbiased'
    """
    rows = []
    for each in load().values():
        answers = each["answers"]
        first, tenth = answers["running variance after 1 and 10 steps"]
        rows.append(
            {
                "framework": each["name"],
                "eps": f"{answers['eps']:g}",
                "stored variance": _stored(answers),
                "after 1 step": f"{first:g}",
                "after 10": f"{tenth:g}",
                "output at inference after 1 step": f"{answers['output at inference after 1 step']:g}",
            }
        )
    return rows


def _stored(answers: Mapping[str, Any]) -> str:
    """Return which variance is stored; Keras 2 and Sonnet store another one for images than for vectors."""
    vectors, _ = answers["running variance after 1 and 10 steps"]
    images = answers.get("running variance after 1 step with images", vectors)
    other = "; of images unbiased" if images > vectors else ""
    return answers["variance that is stored"] + other


def unusual_rows() -> list[dict[str, str]]:
    """Return what happens to unusual batches: one value per channel, no samples, a NaN, an offset of 10,000.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.unusual_rows()[0]["one value per channel"]
        'raises ValueError'
    """
    return [
        {
            "framework": each["name"],
            "one value per channel": _batch(each["answers"]["one value per channel"]),
            "empty batch": _batch(each["answers"]["empty batch"]),
            "NaN in one channel: statistics": _spread_of_nan(each["answers"]["NaN in one channel"]),
            "offset of 10,000: output": f"{each['answers']['offset of 10,000']:g}",
        }
        for each in load().values()
    ]


def _batch(answer: Any) -> str:
    if isinstance(answer, str):
        return answer.partition(":")[0]
    mean, variance = answer["statistics"]
    output = f"output {answer['output'][0]:g}; " if answer["output"] else ""
    if [mean, variance] == ["nan", "nan"]:
        return f"{output}both statistics become NaN"
    return f"{output}mean {mean}, variance {variance}"


def _spread_of_nan(answer: Any) -> str:
    if isinstance(answer, str):
        return answer.partition(":")[0]
    where = {"that one": "NaN in that channel", "both": "NaN in both channels", "none": "no NaN"}[answer["statistics"]]
    return where + (", for good" if answer["after a clean batch"] == answer["statistics"] != "none" else "")


def frozen_rows() -> list[dict[str, str]]:
    """Return what the switches that freeze a layer do to its running statistics in training, one row per switch.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.frozen_rows()[0]
        {'framework': 'PyTorch', 'switch': 'requires_grad_(False)', 'statistics': 'move'}
    """
    return [
        {"framework": each["name"], "switch": switch, "statistics": found.removeprefix("statistics ")}
        for each in load().values()
        for switch, found in each["answers"]["frozen"].items()
    ]


def half_rows() -> list[dict[str, str | None]]:
    """Return the types of output and running statistics in half precision, one row per situation.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.half_rows()[0]
        {'framework': 'PyTorch', 'situation': 'input bfloat16', 'output': 'bfloat16', 'statistics': 'float32'}
    """
    rows: dict[tuple[str, str], dict[str, str | None]] = {}
    for each in load().values():
        for question, found in each["answers"]["half precision"].items():
            situation, _, what = (
                question.rpartition(": ") if not found.startswith("raises") else (question, "", "output")
            )
            empty = {"framework": each["name"], "situation": situation, "output": None, "statistics": None}
            rows.setdefault((each["name"], situation), empty)[what] = found
    return list(rows.values())


PROPERTIES = {
    "momentum argument": "argument and default of the momentum",
    "weight of the new batch": "weight of the new batch",
    "eps": "eps",
    "running statistics at the start": "mean and variance at the start",
    "running mean after 1 and 10 steps": "running mean after 1 and 10 steps",
    "running variance after 1 and 10 steps": "running variance after 1 and 10 steps",
    "variance that is stored": "stored variance",
    "output at inference after 1 step": "output at inference after 1 step",
    "training mode normalises with": "training mode normalises with",
    "channel axis": "channel axis",
    "one value per channel": "one value per channel",
    "empty batch": "empty batch",
    "NaN in one channel": "NaN in one channel",
    "offset of 10,000": "output with an offset of 10,000",
    "half precision": "types in half precision",
    "frozen": "frozen",
    "names in a checkpoint": "names in a checkpoint",
}
"""What the frameworks are asked, and its name in ``answer_rows``."""


def answer_rows() -> list[dict[str, str]]:
    """Return one row for each framework and each property of ``PROPERTIES``: all answers.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.answer_rows()[1]
        {'framework': 'PyTorch', 'property': 'weight of the new batch', 'answer': '0.1'}
    """
    return [
        {"framework": each["name"], "property": name, "answer": _answer(question, each["answers"])}
        for each in load().values()
        for question, name in PROPERTIES.items()
    ]


def _answer(question: str, answers: Mapping[str, Any]) -> str:
    answer = answers.get(question)
    if question == "variance that is stored":
        return _stored(answers)
    if question == "momentum argument":
        return f"{answer['name']}={answer['default']}" if answer["default"] is not None else f"{answer['name']} (none)"
    if question in ("one value per channel", "empty batch"):
        return _batch(answer)
    if question == "NaN in one channel":
        return f"output: {answer['output']}\nstatistics: {_spread_of_nan(answer)}"
    return f"{answer:g}" if isinstance(answer, float) else _words(answer)


def _words(answer: Any) -> str:
    if isinstance(answer, float):
        return f"{answer:g}"
    if isinstance(answer, dict):
        return "\n".join(f"{key}: {_words(value)}" for key, value in answer.items())
    return ", ".join(map(_words, answer)) if isinstance(answer, list) else str(answer)


@cache
def ported() -> dict[str, Any]:
    """Return how well five networks from Keras, Flax and ONNX arrive in PyTorch, with ``bnlib.port`` and without it.

    Raises:
        FileNotFoundError: if the file is missing.

    Example:
        >>> from bnlib import frameworks
        >>> len(frameworks.ported()["networks"])
        5
    """
    return json.loads(PORTED.read_text())


def carried_rows() -> list[dict[str, str]]:
    """Return the largest differences of five networks to their copies that ``bnlib.port`` made, relative to the values.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.carried_rows()[0]["network"]
        'Keras, convolutions, from .keras'
    """
    return [
        {
            "network": each["title"],
            "outputs in PyTorch": f"{each['outputs']:.0e}",
            "statistics after one more batch": f"{each['statistics']:.0e}",
            "outputs after the way back": f"{each['outputs back']:.0e}",
        }
        for each in ported()["networks"].values()
    ]


def mistake_rows() -> list[dict[str, str]]:
    """Return what a port without ``bnlib.port`` gets wrong, by mistake: one in a copy that is right otherwise.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.mistake_rows()[0]["mistake"]
        'axis 1 in channels-last images'
    """
    rows = [
        {
            "mistake": mistake,
            "network": each["title"].rpartition(", from")[0],
            "outputs off by": f"{100 * found['outputs off by']:.3g} %",
            "test error": f"{100 * found['test error']:.1f} %",
            "without the mistake": f"{100 * found['test error of the right copy']:.1f} %",
        }
        for each in ported()["networks"].values()
        for mistake, found in each["without"].items()
    ]
    return sorted(rows, key=lambda row: MISTAKES.index(row["mistake"].split(" ")[0]))


def running_average(convention: str, momentum: float, steps: int, spread: float = 0.0) -> np.ndarray:
    """Return a running mean after each step, if the batches have mean 1 and the average starts at 0.

    Arguments:
        convention: a key of ``CONVENTIONS``, what ``momentum`` is the weight of.
        momentum: from 0 to 1.
        steps: number of steps, at least 1.
        spread: standard deviation of the means of the batches, which are the same in each call.

    Returns:
        shape (steps,).

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.running_average("weight of the old average", 0.9, 2).round(2).tolist()
        [0.1, 0.19]
    """
    check_one_of("convention", convention, CONVENTIONS)
    check_number("momentum", momentum, at_least=0, at_most=1)
    check_integer("steps", steps, 1)
    check_number("spread", spread, at_least=0)
    old = momentum if convention == "weight of the old average" else 1 - momentum
    batches = 1 + spread * np.random.default_rng(0).standard_normal(steps)
    averages = accumulate(batches, lambda average, batch: old * average + (1 - old) * batch, initial=0.0)
    return np.array(list(averages)[1:])


def both_averages(momentum: float, steps: int = 100, spread: float = 0.0) -> dict[str, np.ndarray]:
    """Return ``running_average`` by convention, for the same number.

    Example:
        >>> from bnlib import frameworks
        >>> {name: mean.round(2).tolist() for name, mean in frameworks.both_averages(0.9, steps=2).items()}
        {'weight of the new batch': [0.9, 0.99], 'weight of the old average': [0.1, 0.19]}
    """
    return {convention: running_average(convention, momentum, steps, spread) for convention in CONVENTIONS}


def eps_rows(trained: float = 1e-3, loaded: float = 1e-5) -> list[dict[str, str]]:
    """Return by what factor a layer's output is too large if it was trained with one eps and runs with another.

    Arguments:
        trained: the eps of the training.
        loaded: the eps of the layer that the weights were loaded into.

    Example:
        >>> from bnlib import frameworks
        >>> frameworks.eps_rows()[2]
        {'running variance of the channel': '0.001', 'outputs are too large by the factor': '1.41'}
    """
    check_number("trained", trained, above=0)
    check_number("loaded", loaded, above=0)
    variances = (1.0, 1e-2, 1e-3, 1e-4, 1e-5)
    return [
        {
            "running variance of the channel": f"{v:g}",
            "outputs are too large by the factor": f"{_factor(v, trained, loaded):.2f}",
        }
        for v in variances
    ]


def _factor(variance: float, trained: float, loaded: float) -> float:
    return float(np.sqrt((variance + trained) / (variance + loaded)))
