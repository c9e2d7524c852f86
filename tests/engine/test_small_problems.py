"""The two small problems that train in the page are those of chapters 4 and 5: bnlib's own functions give the same."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import training_engine
from engines import in_chromium

from bnlib import mcsgd
from bnlib.experiments.full_normalization import mcsgd_paths
from bnlib.experiments.objective import two_weights
from bnlib.schedules import PowerSchedule

STEPS = 60
CONSTRUCTIONS = {name.replace(" ", "_"): name for name in two_weights.CONSTRUCTIONS}
LARGEST = {"all_subsets": 12, "one_worker": 6, "one_label": 6, "fixed": 12}
# The rates of the chapter, and one with which the path leaves its picture.
RATES = (*two_weights.LEARNING_RATES, 10.0)
ALPHAS: dict[str, Any] = {
    "1": 1,
    "0.3": 0.3,
    "0.03": 0.03,
    "(k/20+1)^-0.4": {"scale": 20, "power": 0.4},
    "(k+1)^-0.4": {"scale": 1, "power": 0.4},
}
# Beyond the grid of the chapter.
OTHER_ALPHAS = [0.7, {"scale": 5, "power": 0.5, "floor": 0.4, "start": 3}]


def two_weights_case(construction: str, batch_size: int, lr: float, seed: int = 5, **more) -> dict[str, Any]:
    settings = {"construction": construction, "batchSize": batch_size, "learningRate": lr, "seed": seed}
    return {"problem": "two_weights", **settings, "steps": STEPS, "checkpoints": STEPS, **more}


def composition_case(oracle: str, alpha: Any, lr: float, seed: int = 5, **more) -> dict[str, Any]:
    settings = {"oracle": oracle, "alpha": alpha, "learningRate": lr, "seed": seed}
    return {"problem": "composition", **settings, "steps": STEPS, "checkpoints": STEPS, **more}


TWO_WEIGHTS = [
    two_weights_case(construction, batch_size, lr, seed=batch_size)
    for construction, most in LARGEST.items()
    for batch_size in range(1, most + 1)
    for lr in RATES
]
"""Each construction at each batch size that it has."""

COMPOSITION = [
    composition_case(oracle, alpha, lr)
    for oracle, alpha, lr in itertools.product(
        mcsgd.ORACLES, [*ALPHAS.values(), *OTHER_ALPHAS], (*mcsgd_paths.LEARNING_RATES, 0.5)
    )
]
"""Each oracle with each weight of the newest sample; at a learning rate of 0.5 some of them diverge."""


def reference(settings: dict[str, Any]) -> dict[str, Any]:
    """What bnlib computes: the path, and the columns of the checkpoints."""
    return (two_weights_of if settings["problem"] == "two_weights" else composition_of)(settings)


def two_weights_of(settings: dict[str, Any]) -> dict[str, Any]:
    batches = two_weights.CONSTRUCTIONS[CONSTRUCTIONS[settings["construction"]]](settings["batchSize"])
    rates = torch.tensor([settings["learningRate"]], dtype=torch.float64)
    iterates = two_weights.sgd_iterates(batches, rates, settings["seed"])
    path = torch.cat(list(itertools.islice(iterates, STEPS + 1))).detach()
    return {
        "path": path.numpy(),
        "objective": two_weights.objective(path, batches).numpy(),
        "fullBatchObjective": two_weights.full_batch_objective(path).numpy(),
    }


def composition_of(settings: dict[str, Any]) -> dict[str, Any]:
    alpha = settings["alpha"]
    schedule = PowerSchedule(**alpha) if isinstance(alpha, dict) else alpha
    copies = mcsgd_paths.COPIES
    start = {"w": torch.full((copies,), mcsgd_paths.START, dtype=torch.float64)}
    run = mcsgd.minimize(
        mcsgd_paths.composition(copies),
        start,
        mcsgd_paths._samples(copies, settings["seed"]),
        settings["learningRate"],
        schedule,
        oracle=settings["oracle"],
    )
    path = np.stack([start["w"].numpy(), *(state.params["w"].numpy() for state in itertools.islice(run, STEPS))])
    return {
        "path": path,
        "parameter": path[:, 0],
        "lowest": path.min(1),
        "median": np.median(path, 1),
        "highest": path.max(1),
    }


def distance(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The largest difference of any number, relative to 1 + its size."""
    if "error" in ours:
        return math.inf
    columns = {"path": ours["path"]} | {
        name: [each[name] for each in ours["checkpoints"]] for name in theirs if name != "path"
    }
    worst = 0.0
    for name, column in columns.items():
        found, expected = np.array(column, dtype=float), theirs[name]
        if found.shape != expected.shape:
            return math.inf
        far = np.abs(found - expected) / (1 + np.abs(expected))
        worst = max(worst, float(far.max()) if np.isfinite(far).all() else math.inf)
    return worst


def too_far(engine, settings: list[dict[str, Any]]) -> dict[str, float]:
    pairs = zip(settings, engine(settings), strict=True)
    far = {str(each): distance(ours, reference(each)) for each, ours in pairs}
    return {name: value for name, value in far.items() if not value <= 1e-10}


def test_two_weights_for_each_construction_and_batch_size(engine):
    assert too_far(engine, TWO_WEIGHTS) == {}


def test_composition_for_each_oracle_and_alpha(engine):
    assert too_far(engine, COMPOSITION) == {}


def test_node_computes_the_same(node_engine):
    assert too_far(node_engine, [*TWO_WEIGHTS[::7], *COMPOSITION[::7]]) == {}


def test_paths_are_those_of_the_chapters(engine):
    """With the seeds of the committed figures, as the functions behind the explorers return them."""
    oracle, alpha, lr = "running", "0.03", 0.03
    settings = composition_case(oracle, ALPHAS[alpha], lr, seed=0, steps=mcsgd_paths.STEPS)
    (paths,) = engine([settings])
    found = np.array(paths["path"])[:: mcsgd_paths.EVERY].T
    assert found == pytest.approx(mcsgd_paths.lookup(oracle, alpha, lr).values, abs=1e-10)
    (path,) = engine([two_weights_case("one_worker", 4, 1.0, seed=0, steps=two_weights.STEPS)])
    assert np.array(path["path"]) == pytest.approx(two_weights.sgd_paths("one worker", 4)[1], abs=1e-10)


def test_a_path_that_diverges_ends_at_the_next_checkpoint(engine):
    (found,) = engine([composition_case("same", 1, 1e8, checkpoints=[10, 50, 60])])
    assert 10 < found["divergedAt"] <= 50
    assert [each["step"] for each in found["checkpoints"]] == [0, 10, 50] and len(found["path"]) == 51


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": "three_weights"}, 'problem must be one of two_weights, composition, discriminator, got "three'),
        ({"batchSize": 7}, "batchSize must be from 1 to 6, the number of samples that a batch of one label can have"),
        ({"construction": "shuffled"}, "construction must be one of all_subsets, one_worker, one_label, fixed, got"),
        ({"learningRate": 0}, "learningRate must be a number above 0, got 0"),
        ({"batchSize": 1.5}, "batchSize must be a whole number of at least 1, got 1.5"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"alpha": 1}, "settings must be an object with keys among problem, learningRate, seed, checkpoints, constr"),
    ],
)
def test_a_wrong_setting_is_refused(engine, changes, message):
    (found,) = engine([two_weights_case("one_label", 2, 0.3) | changes])
    assert found["error"].startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": "exact"}, 'oracle must be one of constant, same, independent, running, got "exact"'),
        ({"alpha": 0}, "alpha must be above 0 and at most 1, or a schedule, got 0"),
        ({"alpha": {"power": 1}}, "alpha.scale must be a number above 0, got undefined"),
    ],
)
def test_a_wrong_setting_of_the_composition_is_refused(engine, changes, message):
    (found,) = engine([composition_case("same", 1, 0.3) | changes])
    assert found["error"].startswith(message)


NOTICED_BY = [
    *(two_weights_case(construction, 3, 30.0) for construction in LARGEST),
    *(composition_case(oracle, {"scale": 20, "power": 0.4}, 0.1) for oracle in mcsgd.ORACLES),
]
MUTATIONS = [
    ("two_weights", "0.9 * noise", "noise"),
    ("two_weights", "0.6 * noise[SAMPLES + i]", "0.6 * noise[i]"),
    ("two_weights", "0.7 * label", "0.8 * label"),
    ("two_weights", "i % 4 < 2", "i % 4 < 1"),
    ("two_weights", "items.slice(i + 1)", "items.slice(i)"),
    ("two_weights", "new RandomNumbers(3)", "new RandomNumbers(4)"),
    ("two_weights", "variance + EPS", "variance"),
    ("two_weights", "LINEAR_FROM = 20", "LINEAR_FROM = 10"),
    ("two_weights", "1 / (1 + Math.exp(-value))", "Math.exp(value)"),
    ("two_weights", "(-label * softplusSlope", "(label * softplusSlope"),
    ("two_weights", "slope * x[1]", "slope * x[0]"),
    ("two_weights", "/ this.batches.length", ""),
    ("two_weights", "this.loss(this.all)", "this.loss(this.batches[0])"),
    ("two_weights", "const START = [0.5, 4]", "const START = [0.5, 3]"),
    ("two_weights", "(sum, { x, label }) => sum + softplus(-label", "(sum, { x, label }) => sum + softplus(label"),
    ("composition", "[2, 0.5, -2]", "[2, 0.5, 2]"),
    ("composition", "const START = -0.5", "const START = 0.5"),
    ("composition", "constant: () => 0", "constant: (adjoint) => 0.01 * adjoint"),
    ("composition", "same: (adjoint) => adjoint", "same: (_, earlier) => earlier"),
    ("composition", "independent: (adjoint) => adjoint", "independent: (_, earlier) => earlier"),
    ("composition", "running: (_, earlier) => earlier", "running: (adjoint) => adjoint"),
    ("composition", "this.steps - 1", "this.steps"),
    ("composition", 'oracle === "independent" ? this.draw() : batch', "batch"),
    ("composition", "c * (c * estimates[i] - t)", "c * estimates[i] - t"),
    ("composition", "(1 - alpha) * before", "before"),
    ("composition", "a * parameters[i]", "parameters[i]"),
    ("composition", "sorted[COPIES / 2 - 1] + sorted[COPIES / 2]", "2 * sorted[COPIES / 2]"),
    ("random_numbers", "this.bits.random() % count", "this.bits.random() % (count - 1)"),
    ("random_numbers", "if (start > last)", "if (start > count)"),
    ("random_numbers", "2 * Math.PI * values[i + BLOCK / 2]", "Math.PI * values[i + BLOCK / 2]"),
]


@pytest.mark.mutation
def test_each_change_is_noticed(page):
    """Of a formula, of a sample, of the order in which numbers are drawn."""
    expected = [reference(settings) for settings in NOTICED_BY]
    texts = training_engine.modules()
    unnoticed = []
    for file, old, new in MUTATIONS:
        assert texts[file].count(old) == 1, (file, old, texts[file].count(old))
        changed = training_engine.joined(texts | {file: texts[file].replace(old, new)})
        found = in_chromium(page, changed)(NOTICED_BY)
        if all(distance(ours, theirs) <= 1e-9 for ours, theirs in zip(found, expected, strict=True)):
            unnoticed.append((file, old))
    assert unnoticed == []
