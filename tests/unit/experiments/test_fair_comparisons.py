"""The rules of fair comparison, where a committed result can break them: seeds, and best rates inside their grids."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from bnlib.experiments.framework.best_rates import AXES, best_rates
from bnlib.experiments.framework.registry import EXPERIMENTS
from bnlib.experiments.framework.results import FOLDER, result_path

CONTESTS = ("sgd", "momentum", "adam", "images", "local_steps")
SELECTIONS = [f"full_normalization.rivals_{contest}_selection" for contest in CONTESTS]
FEWER_SEEDS = {
    **dict.fromkeys(SELECTIONS, "only chooses rates; the contest tests them with five other seeds"),
    "failing.published_examples": "each seed trains ten networks at once, so two seeds are twenty networks",
    "machines.real_processes": "checks that real processes equal their simulation, which does not depend on chance",
}
NOT_AT_THE_BEST_RATE = {
    **dict.fromkeys(SELECTIONS, "errors on images kept apart; the contest's table marks rates at an end"),
    "covariate_shift.deep_linear_network": "each rate is compared by itself, the published one among them",
    "covariate_shift.gradient_shift": "each rate is compared by itself, and the shift is drawn against the loss",
    "smoothness.distance_to_solution": "each rate is compared by itself",
    "smoothness.landscape_over_training": "each rate is compared by itself, and smoothness is drawn against the loss",
    "smoothness.stable_learning_rates": "a scan for the rates that are stable",
    "smoothness.stable_rates_near_border": "a scan for the rates that are stable",
    "failing.evaluation_statistics": "statistics are compared at the same rate, of the same networks",
    "convergence.stability_map": "each rate is compared with BN at the same rate; which rates train is the question",
    "depth.descent": "jumps of the loss at each rate; which rates are calm is the question",
    "depth.cures": "compared at the best rate by the loss on the training set; see test_depth_cures.py",
    "depth.cures_by_depth": "compared at the best rate by the loss on the training set; see test_depth_cures.py",
    "depth.loss_jumps": "jumps of the loss at each rate; which rates are calm is the question",
    "depth.stacked_lstms": "jumps of the loss at each rate; which rates are calm is the question",
}
AT_THE_EDGE = yaml.safe_load((Path(__file__).parent / "best_rates_at_the_edge.yml").read_text())
"""For each experiment that compares arms at their best rates: the arms whose best rate is an end of the grid."""
RESULTS = [
    (name, scale)
    for name in EXPERIMENTS
    for scale in ("quick", "paper")
    if (FOLDER / f"{result_path(name, scale)}.json").exists()
]


def rates_per_arm(name: str, scale: str) -> int:
    """The largest number of learning rates that a result has for an arm; 0 if it has no axis of rates."""
    experiment = EXPERIMENTS[name]
    place = next((place for place, axis in enumerate(experiment.axes) if axis in (*AXES, "log10_lr")), None)
    cells = experiment.cells(scale)
    arms = [(*cell[:place], *cell[place + 1 :]) for cell in cells] if place is not None else []
    return max(map(arms.count, set(arms)), default=0)


@pytest.mark.parametrize(("name", "scale"), RESULTS)
def test_every_cell_has_at_least_three_seeds(name, scale):
    fewer = {cell for cell, seeds in EXPERIMENTS[name].cells(scale).items() if len(seeds) < 3}
    assert bool(fewer) == (name in FEWER_SEEDS and scale == "quick"), fewer


def test_each_result_with_several_rates_is_known_to_compare_at_the_best_rate_or_not():
    several = {name for name, scale in RESULTS if rates_per_arm(name, scale) >= 3}
    assert several == AT_THE_EDGE.keys() | NOT_AT_THE_BEST_RATE.keys()
    assert not AT_THE_EDGE.keys() & NOT_AT_THE_BEST_RATE.keys()


@pytest.mark.parametrize("name", AT_THE_EDGE)
def test_a_best_rate_lies_inside_its_grid_or_is_named(name):
    """A new arm at the edge: try more rates, or say it in the text and name the arm in the file."""
    experiment = EXPERIMENTS[name]
    found = best_rates(experiment.load("quick"), experiment.axes, "test_error")
    edges = {edge: {as_text(arm) for arm, best in found.items() if best.edge == edge} for edge in ("lowest", "highest")}
    assert edges == {edge: set(AT_THE_EDGE[name].get(edge, ())) for edge in edges}


def as_text(arm: tuple) -> str:
    return ", ".join(map(str, arm))


def test_a_rate_at_an_end_of_the_grid_is_told_from_one_inside():
    runs = {0.1: [[1.0, 0.3]] * 3, 1.0: [[1.0, 0.2]] * 3, 10.0: [[1.0, None]] * 3}
    inside = {("a", lr): {"test_error": each} for lr, each in runs.items()}
    assert best_rates(inside, ("norm", "lr"), "test_error")["a",].edge == ""
    for worst, edge in ((0.1, "highest"), (1.0, "lowest")):
        cells = {**inside, ("a", worst): {"test_error": [[1.0, 0.9]] * 3}}
        del cells["a", 10.0]
        assert best_rates(cells, ("norm", "lr"), "test_error")["a",].edge == edge


def test_the_median_decides_and_then_the_mean():
    rows = {0.1: [0.2, 0.2, 0.9], 0.3: [0.2, 0.2, 0.3], 1.0: [0.1, 0.3, np.nan]}
    cells = {(lr,): {"error": row} for lr, row in rows.items()}
    assert best_rates(cells, ("lr",), "error")[()].rate == 0.3
    with pytest.raises(ValueError, match="axes must include one of 'lr'"):
        best_rates(cells, ("norm",), "error")
