"""Each committed result of an experiment: complete, with its provenance, and what the code gives when run again."""

import random
import time

import numpy as np
import pytest

from bnlib.experiments.registry import EXPERIMENTS
from bnlib.experiments.results import FOLDER, read_result

QUICK = sorted(EXPERIMENTS)
ALL = [
    (name, scale) for name in EXPERIMENTS for scale in ("quick", "paper") if (FOLDER / f"{name}_{scale}.json").exists()
]
SECONDS = 2.0


@pytest.mark.parametrize(("name", "scale"), ALL)
def test_a_result_is_complete_and_has_its_provenance(name, scale):
    experiment, result = EXPERIMENTS[name], read_result(f"{name}_{scale}", "")
    cells, kept = experiment.cells(scale), experiment.load(scale)
    assert kept.keys() == cells.keys()
    for cell, runs in cells.items():
        assert all(len(kept[cell][curve]) == len(runs) for curve in experiment.curves), cell
    provenance = result["provenance"]
    assert set(provenance) == {"command", "commit", "versions", "device", "seeds", "date", "seconds"}
    assert not provenance["commit"].endswith("-dirty") and result["training_seconds"] > 0
    assert provenance["seeds"] == sorted({run.seed for runs in cells.values() for run in runs})


@pytest.mark.parametrize("name", QUICK)
def test_a_random_part_comes_out_again(name):
    """The beginning of a run of a random cell and seed, another one each time; the message names it.

    Rounding differs between processors and grows along a run, so the curves need not be equal to the digit.
    """
    experiment = EXPERIMENTS[name]
    cells, kept = experiment.cells("quick"), experiment.load("quick")
    cell = random.choice([cell for cell in cells if experiment.settled(*cell)])
    number, run = random.choice(list(enumerate(cells[cell])))
    began = time.perf_counter()
    for _, _, history in run.start():
        if len(history.epoch) > 1 and time.perf_counter() - began > SECONDS:
            break
    assert len(history.epoch) > 1
    for curve in experiment.curves:
        again = getattr(history, curve)
        expected = [np.nan if value is None else value for value in kept[cell][curve][number][: len(again)]]
        tolerance = {"atol": 0.03} if curve.endswith("error") else {"rtol": 0.1, "atol": 0.01}
        np.testing.assert_allclose(again, expected, **tolerance, err_msg=f"{name} {cell} seed {run.seed} {curve}")
