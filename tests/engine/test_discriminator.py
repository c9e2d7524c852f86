"""Chapter 6's discriminator trains in the page as in bnlib."""

from __future__ import annotations

import itertools
import json
import math
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
import training_engine
from engines import in_chromium
from torch import Tensor, nn

from bnlib.experiments.perils import gan_discriminator

STEPS, CHECKPOINTS = 60, 4
# At 0.1, rounding grows in separate batches: bnlib's own parameters then change by up to 6e-3 if only the order of the
# samples in each batch does.
RATE = 0.03
NORMS = {
    "without normalisation": {"norm": "none"},
    "batch norm": {"norm": "batch_norm"},
    "batch norm, layer 2 only": {"norm": "batch_norm", "secondOnly": True},
    "layer norm": {"norm": "layer_norm"},
}
COLUMNS = {"separate": "separate", "mixed": "mixed", "eval": "evalMode"}


def case(norm: str, kind: str, batches: str, batch_size: int = 8, **more) -> dict[str, Any]:
    usual = {"problem": "discriminator", "learningRate": RATE, "width": 16, "seed": 5, "precision": "float64"}
    settings = {"kind": kind, "batches": batches, "batchSize": batch_size, **NORMS[norm]}
    return {**usual, **settings, "steps": STEPS, "checkpoints": CHECKPOINTS, **more}


CASES = [
    case(*cell, batch_size, seed=seed)
    for seed, (batch_size, cell) in enumerate(
        itertools.product((8, 64), itertools.product(NORMS, gan_discriminator.FAKES, gan_discriminator.BATCHES))
    )
]


def ring(count: int, generator: torch.Generator) -> Tensor:
    """As ``gan_discriminator.fake`` draws it, but rounded to float32 only at the end."""
    angle = 2 * math.pi * torch.rand(count, generator=generator).double()
    return (math.sqrt(2) * torch.stack((angle.cos(), angle.sin()), 1)).float()


def drawn(kind: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    ours = gan_discriminator.real(count, generator)
    reshaped = kind == "reshaped"
    theirs = ring(count, generator) if reshaped else gan_discriminator.fake(kind, count, generator)
    return ours.double(), theirs.double()


def name_of(settings: dict[str, Any]) -> str:
    own = {key: settings[key] for key in ("norm", "secondOnly") if key in settings}
    return next(name for name, each in NORMS.items() if each == own)


def reference(settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """What bnlib computes in float64: the columns of the checkpoints, and the parameters in the end."""
    return _reference(json.dumps(settings, sort_keys=True))


@cache
def _reference(text: str) -> dict[str, np.ndarray]:
    settings = json.loads(text)
    draw = partial(drawn, settings["kind"], settings["batchSize"])
    seed, batches = settings["seed"], settings["batches"]
    model = gan_discriminator.network(name_of(settings), seed, settings["width"]).double()

    def accuracies() -> dict[str, float]:
        return gan_discriminator.accuracies_on(model, partial(draw, torch.Generator().manual_seed(seed + 1)))

    rows, losses = [accuracies()], []
    generator = torch.Generator().manual_seed(seed)
    steps = gan_discriminator.training(model, partial(draw, generator), batches, settings["learningRate"])
    for step, loss in enumerate(itertools.islice(steps, STEPS), 1):
        losses.append(loss.item())
        if step % (STEPS // CHECKPOINTS) == 0:
            rows.append(accuracies())
    points = 2 * settings["batchSize"] * 20
    # PyTorch takes the mean of the points in float32.
    counts = {name: np.array([row[key] for row in rows]) * points for key, name in COLUMNS.items()}
    columns = {name: np.round(each) / points for name, each in counts.items()}
    # The loss before the first step is that of the first batches, of which the first step computes its gradient.
    means = np.reshape(losses, (CHECKPOINTS, -1)).mean(1)
    return {"trainLoss": np.array([losses[0], *means]), **columns, "final": parameters(model)}


def parameters(model: nn.Module) -> np.ndarray:
    return torch.cat([each.flatten() for each in model.parameters()]).detach().numpy()


def flat(values: Any) -> list[float]:
    return [number for each in values for number in flat(each)] if isinstance(values, list) else [float(values)]


def distance(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> float:
    """The largest difference of any number, relative to 1 + its size."""
    if "error" in ours:
        return math.inf
    worst = 0.0
    for name, expected in theirs.items():
        found = np.array(flat(ours["final"]) if name == "final" else [each[name] for each in ours["checkpoints"]])
        if found.shape != expected.shape or not np.isfinite(found.astype(float)).all():
            return math.inf
        worst = max(worst, float((np.abs(found - expected) / (1 + np.abs(expected))).max()))
    return worst


def too_far(engine, cases: list[dict[str, Any]]) -> dict[str, float]:
    pairs = zip(cases, engine(cases), strict=True)
    far = {str(each): distance(ours, reference(each)) for each, ours in pairs}
    return {name: value for name, value in far.items() if not value <= 1e-10}


def test_each_norm_with_each_kind_of_points_and_batches(engine):
    assert too_far(engine, CASES) == {}


def test_batches_of_few_points(engine):
    """Up to 7 points are less than 16 numbers, which PyTorch draws in another way."""
    assert too_far(engine, [case("batch norm", "scaled", "mixed", size) for size in (1, 2, 7, 9)]) == {}


def test_node_computes_the_same(node_engine):
    assert too_far(node_engine, CASES[::5]) == {}


@pytest.mark.parametrize("count", [5, 64, 1000])
def test_the_ring_is_that_of_bnlib_to_the_last_bits(count):
    ours, theirs = (
        ring(count, torch.Generator().manual_seed(3)),
        gan_discriminator.fake("reshaped", count, torch.Generator().manual_seed(3)),
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_in_float32_the_results_are_those_of_the_chapter(engine):
    """Of a committed seed: the loss over the last fifth of the training."""
    (found,) = engine(
        [case("batch norm, layer 2 only", "shifted", "separate", 64, width=64, learningRate=0.05, seed=0)
         | {"steps": 1500, "checkpoints": 5, "precision": "float32"}]
    )  # fmt: skip
    committed = gan_discriminator.load()["batch norm, layer 2 only", "shifted", "separate"]
    assert found["checkpoints"][-1]["trainLoss"] == pytest.approx(committed["loss"][0], rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "real"}, 'kind must be one of shifted, scaled, reshaped, got "real"'),
        ({"batches": "shuffled"}, 'batches must be one of separate, mixed, got "shuffled"'),
        ({"norm": "rms_norm"}, 'norm must be one of none, batch_norm, layer_norm, got "rms_norm"'),
        ({"secondOnly": 1}, "secondOnly must be one of false, true, got 1"),
        ({"batchSize": 0}, "batchSize must be a whole number of at least 1, got 0"),
        ({"width": 0.5}, "width must be a whole number of at least 1, got 0.5"),
        ({"precision": "float16"}, 'precision must be one of float32, float64, got "float16"'),
        ({"oracle": "same"}, "settings must be an object with keys among problem, learningRate, seed"),
    ],
)
def test_a_wrong_setting_is_refused(engine, changes, message):
    (found,) = engine([case("batch norm", "shifted", "mixed") | changes])
    assert found["error"].startswith(message)


MUTATIONS = [
    ("random.normal(points, 1)", "random.normal(points, 2)"),
    ("value + 2", "value + 1"),
    ("i % FEATURES === 0 ?", "i % FEATURES === 1 ?"),
    ("=> 2 * value)", "=> 3 * value)"),
    ("2 * Math.PI", "Math.PI"),
    ("Math.cos(angle), Math.sin(angle)", "Math.sin(angle), Math.cos(angle)"),
    ("Math.SQRT2 * value", "value"),
    ("separate: [[-1], [1]]", "separate: [[1], [-1]]"),
    ("mixed: [[-1, 1]]", "mixed: [[-1], [1]]"),
    ("SECOND_SEED = 1000", "SECOND_SEED = 1001"),
    ("EVALUATED = 20", "EVALUATED = 19"),
    ("softplus(sign * judge.logits[i]) / (2 * batchSize)", "softplus(sign * judge.logits[i]) / batchSize"),
    ("(sign * softplusSlope(sign * judge.logits[i]))", "(sign * softplusSlope(judge.logits[i]))"),
    ("    this.optimiser.clear();\n", ""),
    ("judge.forward(rows, true)", "judge.forward(rows, false)"),
    ("this.settings.seed + 1", "this.settings.seed"),
    ('this.right(pair, "separate", true)', 'this.right(pair, "separate", false)'),
    ('this.right(pair, "mixed", true)', 'this.right(pair, "separate", true)'),
    ('this.right(pair, "mixed", false)', 'this.right(pair, "mixed", true)'),
    ("* outputs[i] < 0", "* outputs[i] > 0"),
    ("norms.forEach((norm, place) => norm.restore(trained[place]));", ""),
    ("this.pass();\n    norms.forEach((norm, i) => norm.restore(before[i]));", "this.pass();"),
    ("this.lossSum = this.counted = 0", "this.lossSum = 0"),
    ("body.linears[0] = body.hidden[0].linear;", ""),
]


@pytest.mark.mutation
def test_each_change_is_noticed(page):
    noticed_by = [
        case(norm, kind, batches)
        for norm, kind, batches in [
            ("batch norm", "shifted", "mixed"),
            ("batch norm, layer 2 only", "reshaped", "separate"),
            ("without normalisation", "scaled", "mixed"),
        ]
    ]
    expected = [reference(settings) for settings in noticed_by]
    texts = training_engine.modules()
    unnoticed = []
    for old, new in MUTATIONS:
        text = texts["discriminator"]
        assert text.count(old) == 1, (old, text.count(old))
        changed = training_engine.joined(texts | {"discriminator": text.replace(old, new)})
        found = in_chromium(page, changed)(noticed_by)
        if all(distance(ours, theirs) <= 1e-9 for ours, theirs in zip(found, expected, strict=True)):
            unnoticed.append(old)
    assert unnoticed == []
