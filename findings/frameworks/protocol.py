"""The questions that every framework answers about its batch norm, and the inputs with which they are asked.

An adapter is a module with ``versions()``, ``Layer`` and ``OTHER``, which is what can only be asked in the words of
the framework. ``Layer(channels)`` is a batch norm with the framework's defaults. It has ``train(x)``, which normalises
NumPy values (N, C) in training mode, moves the statistics and returns the output, ``evaluate(x)``, and
``statistics()``, which returns the running mean and variance as they are stored. ``NOT_ASKED``, if there, has the
questions that are left out, each with the reason; ``STEPS``, if there, is how many batches the layer needs to forget
its start.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from types import ModuleType
from typing import Any

import numpy as np

MEAN = 10.0
FOUR = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)
"""Four values with mean 10, variance 1 (biased) or 4/3 (unbiased)."""


def ask(adapter: ModuleType) -> dict[str, Any]:
    """Return the versions and the answers of a framework; a question that it refuses is answered by its error."""
    questions = {
        "eps": epsilon,
        "weight of the new batch": new_weight,
        "running statistics at the start": at_the_start,
        "running mean after 1 and 10 steps": means,
        "running variance after 1 and 10 steps": variances,
        "variance that is stored": kind_of_variance,
        "output at inference after 1 step": early_inference,
        "training mode normalises with": used_in_training,
        "one value per channel": one_value,
        "empty batch": empty_batch,
        "NaN in one channel": nan_in_one_channel,
        "offset of 10,000": large_offset,
    }
    skipped = getattr(adapter, "NOT_ASKED", {})
    answers = {
        name: f"not asked: {skipped[name]}" if name in skipped else _tried(question, adapter)
        for name, question in questions.items()
    }
    for name, question in adapter.OTHER.items():
        answers[name] = _tried(lambda _, question=question: question(), adapter)
    return {"versions": adapter.versions(), "answers": answers}


def _tried(question, adapter: ModuleType) -> Any:
    try:
        return question(adapter)
    except Exception as error:  # whatever a framework raises is its answer
        first = (str(error).strip().splitlines() or [""])[0]
        return f"raises {type(error).__name__}: {first[:160]}"


def _after(adapter: ModuleType, steps: int) -> tuple[float, float]:
    layer = adapter.Layer(1)
    for _ in range(steps):
        layer.train(FOUR)
    mean, variance = layer.statistics()
    return float(np.ravel(mean)[0]), float(np.ravel(variance)[0])


def epsilon(adapter: ModuleType) -> float:
    """Measured: the output for values of variance 1e-6 is 1e-3 / sqrt(1e-6 + eps)."""
    tiny = np.array([[-1e-3], [1e-3]] * 32, np.float32)
    output = float(np.abs(adapter.Layer(1).train(tiny)).max())
    return rounded((1e-3 / output) ** 2 - 1e-6)


def new_weight(adapter: ModuleType) -> float:
    """Measured after many batches of mean 0 and one of mean 10, when no correction for the start is left."""
    layer = adapter.Layer(1)
    for _ in range(getattr(adapter, "STEPS", 200)):
        layer.train(FOUR - 10)
    layer.train(FOUR)
    return rounded(float(np.ravel(layer.statistics()[0])[0]) / MEAN)


def at_the_start(adapter: ModuleType) -> list[float]:
    """Mean and variance as stored before the first step."""
    return [rounded(float(np.ravel(each)[0])) for each in adapter.Layer(1).statistics()]


def means(adapter: ModuleType) -> list[float]:
    """Running mean after batches whose mean is 10."""
    return [rounded(_after(adapter, steps)[0]) for steps in (1, 10)]


def variances(adapter: ModuleType) -> list[float]:
    """Running variance after batches whose variance is 1, or 4/3 if it is divided by N - 1."""
    return [rounded(_after(adapter, steps)[1]) for steps in (1, 10)]


def kind_of_variance(adapter: ModuleType) -> str:
    """After 1,500 equal steps, when nothing is left of the start: 1 is the biased variance, 4/3 the unbiased one."""
    variance = _after(adapter, 1_500)[1]
    if abs(variance - 1) < 1e-2:
        return "biased"
    return "unbiased" if abs(variance - 4 / 3) < 1e-2 else f"neither: {variance:.4g}"


def early_inference(adapter: ModuleType) -> float:
    """Value of the output at inference for 11, which training mode normalises to 1."""
    layer = adapter.Layer(1)
    layer.train(FOUR)
    return rounded(float(np.ravel(layer.evaluate(FOUR))[1]))


def used_in_training(adapter: ModuleType) -> str:
    """After 200 batches with mean 0, the output for 11 in a batch with mean 10: 1 if the batch normalises itself."""
    layer = adapter.Layer(1)
    for _ in range(200):
        layer.train(FOUR - 10)
    output = float(np.ravel(layer.train(FOUR))[1])
    return "the batch" if abs(output - 1) < 1e-2 else f"the running averages: {output:.4g} in place of 1"


def one_value(adapter: ModuleType) -> dict[str, Any]:
    """A batch of one sample with the value 5: the output, and the statistics after it."""
    layer = adapter.Layer(1)
    output = layer.train(np.array([[5.0]], np.float32))
    return _told(output, layer)


def empty_batch(adapter: ModuleType) -> dict[str, Any]:
    """A batch of no samples."""
    layer = adapter.Layer(1)
    output = layer.train(np.zeros((0, 1), np.float32))
    return {"shape": list(np.shape(output))} | _told(output, layer)


def nan_in_one_channel(adapter: ModuleType) -> dict[str, Any]:
    """One NaN in the first of two channels: where output and statistics are NaN, also after a clean batch."""
    layer = adapter.Layer(2)
    x = np.concatenate([FOUR, FOUR], 1)
    bad = x.copy()
    bad[0, 0] = np.nan
    output = np.asarray(layer.train(bad))
    found = {"output": _nan_channels(output), "statistics": _nan_channels(np.stack(layer.statistics()))}
    layer.train(x)
    return found | {"after a clean batch": _nan_channels(np.stack(layer.statistics()))}


def large_offset(adapter: ModuleType) -> float:
    """Largest output, in training mode, for values 9,999 and 10,001, which should be 1."""
    x = np.array([[9_999.0], [10_001.0]] * 32, np.float32)
    return rounded(float(np.abs(adapter.Layer(1).train(x)).max()))


def _told(output, layer) -> dict[str, Any]:
    values = [rounded(float(each)) for each in np.ravel(output)]
    return {"output": values, "statistics": [rounded(float(np.ravel(each)[0])) for each in layer.statistics()]}


def _nan_channels(values: np.ndarray) -> str:
    first, second = (bool(np.isnan(values[..., channel]).any()) for channel in (0, 1))
    return {(True, True): "both", (True, False): "that one", (False, True): "the other", (False, False): "none"}[
        first, second
    ]


def types(situations: dict[str, Any]) -> dict[str, str]:
    """Return the types of output and running statistics by situation, each by its plain name: bfloat16, float32.

    A situation is such a pair, or a function that returns one; if it raises an error, that is the answer.
    """
    found = {}
    for situation, pair in situations.items():
        try:
            kinds = pair() if callable(pair) else pair
        except Exception as error:  # whatever a framework raises is its answer
            found[situation] = f"raises {type(error).__name__}"
            continue
        for what, each in zip(("output", "statistics"), kinds, strict=True):
            name = re.split(r"[.\s]", str(each).strip("<>'"))[-1].lower()
            found[f"{situation}: {what}"] = {"float": "float32", "half": "float16"}.get(name, name)
    return found


def argument(function, name: str) -> dict[str, Any]:
    """Return the name and the default of an argument as the framework's signature states them."""
    default = inspect.signature(function).parameters[name].default
    return {"name": name, "default": None if default is inspect.Parameter.empty else default}


def rounded(value: float) -> float | str:
    """Round to four digits; text if the value is not finite, because JSON has no such numbers."""
    return str(value) if not np.isfinite(value) else float(f"{value:.4g}")


def main(adapter: ModuleType) -> None:
    """Print the answers as JSON."""
    json.dump(ask(adapter), sys.stdout, indent=1)
    print()
