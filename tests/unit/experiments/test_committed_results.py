"""Each committed result of an experiment: complete, with its provenance, and what the code gives when run again."""

import random
import time
from dataclasses import replace
from functools import partial
from operator import attrgetter

import numpy as np
import pytest

from bnlib.datasets import DatasetError, load
from bnlib.experiments.framework.experiment import Experiment
from bnlib.experiments.framework.registry import EXPERIMENTS
from bnlib.experiments.framework.results import FOLDER, as_array, read_result, result_path

CURVES = sorted(name for name, each in EXPERIMENTS.items() if isinstance(each, Experiment))
MEASURED = sorted(EXPERIMENTS.keys() - set(CURVES))
CONTEST = "full_normalization.rivals_"
"""How the names of the twenty experiments of the contest of norms begin.

They share their code, and their runs are the longest, so that a few of them run again each time, chosen at random.
"""
ALL = [
    (name, scale)
    for name in EXPERIMENTS
    for scale in ("quick", "paper")
    if (FOLDER / f"{result_path(name, scale)}.json").exists()
]
SECONDS = 0.5

FROM_A_PACKAGE = [f"full_normalization.{name}" for name in ("rivals_images", "rivals_images_selection")]
"""Experiments on Fashion-MNIST, which a package of the system has; without it their results are only read."""


def a_few_of_the_contest(names, number):
    """The names of other experiments, and as many of the contest as a number says, each chosen when its test runs."""
    contest = [name for name in names if name.startswith(CONTEST)]
    some = [pytest.param(contest, id=f"one-of-the-contest-{k}") for k in range(number)]
    return [*([name] for name in names if name not in contest), *some]


@pytest.mark.parametrize(("name", "scale"), ALL)
def test_a_result_is_complete_and_has_its_provenance(name, scale):
    experiment, result = EXPERIMENTS[name], read_result(result_path(name, scale), "")
    cells, kept = experiment.cells(scale), experiment.load(scale)
    assert kept.keys() == cells.keys()
    trains = isinstance(experiment, Experiment)
    for cell, each in cells.items():
        names = experiment.curves if trains else kept[cell].keys()
        assert names and all(len(kept[cell][name]) == len(each) for name in names), cell
    provenance = result["provenance"]
    assert set(provenance) == {"command", "commit", "versions", "device", "seeds", "date", "seconds"}
    assert not provenance["commit"].endswith("-dirty")
    assert result["training_seconds" if trains else "measuring_seconds"] > 0
    seeds = {each.seed if trains else each for row in cells.values() for each in row}
    assert provenance["seeds"] == sorted(seeds)


def beginning(run, seconds=SECONDS):
    """The checkpoints of so many seconds of this process, at least two: beside other work it does not do less."""
    began = time.process_time()
    for _, _, history in run.iterate():
        if len(history.epoch) > 1 and time.process_time() - began > seconds:
            break
    assert len(history.epoch) > 1 or history.diverged
    return history


def affordable(cells, steps=2000):
    """A random cell whose second checkpoint comes soon: in the contest of norms that is the end of a run."""
    shuffled = random.sample(list(cells), len(cells))

    def first(cell):
        run = cells[cell][0]
        return run.epochs * len(run.load().train_y) / run.batch_size / run.checkpoints

    return next((cell for cell in shuffled if first(cell) <= steps), shuffled[0])


def differ(kept, fresh, same, share=0.0):
    """Whether at more than a share of the points all fresh runs lie on one side of all the kept ones.

    By chance: 2 of 165 for 3 and 8, at each point, so that of many points that are chaotic some must be let through.
    More fresh runs can only make it less true.
    """
    points = min(len(kept[0]), *(len(row) for row in fresh))
    kept, fresh = kept[:, :points], np.array([row[:points] for row in fresh])
    # Where all have diverged there is nothing to compare.
    above = np.fmin.reduce(fresh) > np.fmax.reduce(kept) + same[:points]
    return (above | (np.fmax.reduce(fresh) < np.fmin.reduce(kept) - same[:points])).mean() > share


def all_differ(kept, fresh, value, same, share=0.0):
    """Whether all fresh runs, up to eight, ``differ`` in a value; no more are made than it takes to say no.

    ``fresh`` is the list of runs so far and a function that makes the next one from a seed.
    """
    runs, another = fresh
    while differ(kept, [value(each) for each in runs], same, share):
        if len(runs) == 8:
            return True
        runs.append(another(99 + len(runs)))
    return False


@pytest.mark.parametrize("names", a_few_of_the_contest(CURVES, 3), ids=" ".join)
def test_a_random_part_comes_out_again(names):
    """The beginning of a run of a random cell and seed, another one each time; the message names it.

    Rounding differs between processors and grows along a run: where training is chaotic it does what another seed does.
    So a point may differ by the spread over seeds. Of those there are few: more runs are made if one lies outside.
    """
    name = random.choice(names)
    experiment = EXPERIMENTS[name]
    cells, kept = experiment.cells("quick"), experiment.load("quick")
    if name in FROM_A_PACKAGE:
        try:
            load("fashion_mnist")
        except DatasetError:
            pytest.skip("no Fashion-MNIST: apt install dataset-fashion-mnist")
    cell = affordable(cells)
    number, run = random.choice(list(enumerate(cells[cell])))
    history = beginning(run)
    fresh = [history], lambda seed: beginning(replace(run, seed=seed))
    for curve in experiment.curves:
        again, seeds = np.array(getattr(history, curve)), as_array(kept[cell][curve])
        points = min(len(again), seeds.shape[1])  # another processor may diverge a checkpoint earlier or later
        again, seeds = again[:points], seeds[:, :points]
        where = f"{name} {cell} seed {run.seed} {curve}: {again} and {seeds}"
        apart = np.abs(again - seeds[number])
        assert apart[0] <= (1e-3 if curve.endswith("error") else 1e-3 * (1 + abs(again[0]))), where
        same = np.full(len(again), 0.03) if curve.endswith("error") else 0.01 + 0.1 * np.abs(seeds[number])
        ranges = np.fmax.reduce(seeds) - np.fmin.reduce(seeds)
        # Three seeds may agree by chance at one point, but not at its neighbours too.
        spread = np.array([np.fmax.reduce(ranges[max(0, point - 2) : point + 3]) for point in range(len(ranges))])
        if (apart > same + 3 * spread).any():
            assert not all_differ(seeds, fresh, attrgetter(curve), same), where


def test_a_changed_run_is_told_from_a_chaotic_one():
    name, cell = "objective.lian_figure_2", ("BN", 8, 0.1)
    run, kept = EXPERIMENTS[name].cells("quick")[cell][0], EXPERIMENTS[name].load("quick")[cell]
    seeds, same = as_array(kept["test_loss"]), np.full(11, 0.01)
    assert not differ(seeds, [beginning(replace(run, seed=seed), 0.25).test_loss for seed in range(100, 105)], same)
    changed = [beginning(replace(run, seed=seed, lr=0.01), 0.25).test_loss for seed in range(100, 105)]
    assert differ(seeds, changed, same)


def flattened(value, measured):
    """One value of a measurement as one row of numbers."""
    return np.array(measured[value], dtype=float).ravel()


@pytest.mark.parametrize("names", a_few_of_the_contest(MEASURED, 2), ids=" ".join)
def test_a_random_measurement_comes_out_again(names):
    """Up to a multiple of the spread over seeds, as above; the message names the cell and the seed."""
    name = random.choice(names)
    experiment = EXPERIMENTS[name]
    cells, kept = experiment.cells("quick"), experiment.load("quick")
    cell = random.choice(list(cells))
    number, seed = random.choice(list(enumerate(cells[cell])))
    found = experiment.measure_once(cell, seed)
    fresh = [found], partial(experiment.measure_once, cell)
    for value, again in found.items():
        seeds, again = kept[cell][value], np.array(again, dtype=float)
        same = 0.02 * np.abs(seeds).max(initial=1e-6, where=np.isfinite(seeds))
        allowed = same + 3 * np.ptp(seeds, axis=0)
        where = f"{name} {cell} seed {seed} {value}: {again} and {seeds[number]}"
        assert again.shape == seeds[number].shape, where
        # Where some seeds diverge, rounding may decide which.
        if np.isnan(allowed).any() or (np.abs(again - seeds[number]) <= allowed).all():
            continue
        flat, same = seeds.reshape(len(seeds), -1), np.full(again.size, same)
        assert not all_differ(flat, fresh, partial(flattened, value), same, share=0.1), where
