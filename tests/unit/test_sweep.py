"""Sweeps: what separate runs would give, kept, found again, and resumed after a kill to the last bit."""

import functools
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from bnlib import BatchNorm, FullNorm, NoisyBatchNorm, models, sweep, training
from bnlib.datasets import load
from bnlib.samplers import single_label
from bnlib.schedules import StepDecay
from bnlib.sweep import Run, cache_key, describe, run

MODEL, PLAIN = (functools.partial(models.mlp, (64, 12, 10), norm) for norm in (BatchNorm, None))


def grid(model=MODEL, **options):
    settings = {"data": "digits", "batch_size": 64, "epochs": 1, "checkpoints": 4} | options
    return [Run(model, lr=lr, seed=seed, **settings) for lr in (0.1, 1.0) for seed in (0, 1, 2)]


def alone(each: Run) -> training.History:
    data = load(each.data)
    return training.fit(
        each.model(seed=each.seed),
        data,
        batch_size=each.batch_size,
        lr=each.lr,
        optimiser=each.optimiser,
        schedule=each.schedule,
        record_step_loss=each.record_step_loss,
        epochs=each.epochs,
        checkpoints=each.checkpoints,
        seed=each.seed,
        batches=each.batches,
        progress=False,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimiser": functools.partial(torch.optim.SGD, momentum=0.5)},
        {"batches": single_label},
        # Not with BN: Adam makes steps of what BN leaves of a gradient that is 0 but for rounding.
        {"model": PLAIN, "optimiser": torch.optim.Adam, "schedule": StepDecay(0.5, 0.1), "record_step_loss": True},
        {"model": functools.partial(models.mlp, (64, 12, 10), FullNorm)},
        {"model": functools.partial(models.mlp, (64, 12, 10), functools.partial(torch.nn.GroupNorm, 1))},
    ],
)
def test_curves_are_those_of_separate_runs(options, tmp_path):
    runs = grid(**options)
    for each, history in zip(runs, run(runs, tmp_path, progress=False), strict=True):
        expected = alone(each)
        assert history.epoch == expected.epoch and history.diverged == expected.diverged
        assert history.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
        assert history.test_error == pytest.approx(expected.test_error, abs=2 / 360)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, [6]),
        ({"optimiser": torch.optim.Adam}, [6]),
        ({"optimiser": torch.optim.Rprop}, [3, 3]),
        ({"optimiser": torch.optim.Adafactor}, [1] * 6),
        ({"model": models.small_cnn, "batch_size": 256}, [1] * 6),
        ({"model": models.small_cnn, "batch_size": 64}, [6]),
        ({"model": functools.partial(models.mlp, (64, 12, 10), NoisyBatchNorm)}, [1] * 6),
    ],
)
def test_runs_are_trained_as_one_where_that_is_right_and_faster(options, sizes):
    runs = grid(**options)
    chunks = sweep._chunks(runs, 64, "cpu")
    assert [len(chunk) for chunk in chunks] == sizes and sorted(itertools.chain(*chunks), key=runs.index) == runs
    if "optimiser" not in options and "mlp" not in str(options):
        assert [len(chunk) for chunk in sweep._chunks(runs, 4, "cuda")] == [4, 2]


class Shuffled(torch.nn.Module):
    """A network that is not the same for every seed: it takes the pixels in an order of its own."""

    def __init__(self, seed, branch=False):
        super().__init__()
        torch.manual_seed(seed)
        self.order, self.branch, self.linear = torch.randperm(64).tolist(), branch, torch.nn.Linear(64, 10)

    def forward(self, input):
        """Return the logits."""
        output = self.linear(input.flatten(1)[:, self.order] if not self.branch else input.flatten(1))
        return output if not self.branch or output.sum() > 0 else -output


def same_branch(seed):
    model = Shuffled(seed, branch=True)
    model.order = []
    return model


@pytest.mark.parametrize("model", [Shuffled, same_branch], ids=["other attributes", "not for vmap"])
def test_runs_whose_models_cannot_be_stacked_are_trained_one_after_another(model, tmp_path):
    runs = grid(model)[:2]
    assert [len(chunk) for chunk in sweep._chunks(runs, 64, "cpu")] == [2]  # one model alone does not show it
    assert run(runs, tmp_path, progress=False) == [alone(each) for each in runs]


def test_a_run_can_be_watched():
    each = grid()[4]
    *_, (done, total, history) = each.iterate()
    assert done == total == 22 and history == alone(each)


def test_a_run_that_diverges_ends_and_the_others_go_on(tmp_path):
    runs = [Run(functools.partial(models.mlp, (64, 12, 10)), "digits", 64, lr, 0, epochs=2) for lr in (0.1, 1e20)]
    good, bad = run(runs, tmp_path, progress=False)
    assert not good.diverged and len(good.epoch) == 21 and good.train_loss[-1] < good.train_loss[0]
    assert bad.diverged and len(bad.epoch) < 21 and bad.epoch == alone(runs[1]).epoch


def test_a_second_call_trains_nothing(tmp_path, monkeypatch):
    first = run(grid(), tmp_path, progress=False)
    monkeypatch.setattr(sweep, "iterate_many", lambda *args, **options: pytest.fail("trained again"))
    assert run(list(reversed(grid())), tmp_path, progress=False) == first[::-1]


def test_what_matters_changes_the_key_and_nothing_else(monkeypatch):
    each = grid()[0]
    assert cache_key(each) == cache_key(Run(**{**vars(each)}))
    others = [
        Run(**{**vars(each), **change})
        for change in (
            {"lr": 0.2},
            {"seed": 5},
            {"optimiser": functools.partial(torch.optim.SGD, momentum=0.1)},
            {"epochs": 2},
        )
    ]
    others.append(Run(**{**vars(each), "model": functools.partial(models.mlp, (64, 13, 10), BatchNorm)}))
    assert len({cache_key(other) for other in (each, *others)}) == 6
    assert cache_key(each, "cuda") != cache_key(each)
    before = cache_key(each)
    monkeypatch.setattr(sweep, "code_hash", lambda: "other sources")
    assert cache_key(each) != before


class Wide:
    width = 4

    @classmethod
    def of_class(cls, seed):
        return models.mlp((64, cls.width, 10), seed=seed)

    def of_object(self, seed):
        return models.mlp((64, self.width, 10), seed=seed)


class Wider(Wide):
    width = 8


def decorated(width):
    @functools.wraps(alone)
    def build(seed):
        return models.mlp((64, width, 10), seed=seed)

    return build


def test_functions_of_one_name_do_not_get_each_others_results():
    each = vars(grid()[0])
    keys = [cache_key(Run(**each | {"model": kind.of_class})) for kind in (Wide, Wider, Wide)]
    assert keys[0] != keys[1] and keys[0] == keys[2]
    arguments = [functools.partial(models.mlp, {1: 2}), functools.partial(models.mlp, {"1": 2})]
    assert cache_key(Run(**each | {"model": arguments[0]})) != cache_key(Run(**each | {"model": arguments[1]}))
    for model in (Wide().of_object, decorated(8)):  # the name does not tell which object or width
        with pytest.raises(TypeError, match="of functions that can be imported, got <"):
            cache_key(Run(**each | {"model": model}))


def test_the_code_is_that_of_the_package_but_not_of_its_figures(tmp_path, monkeypatch):
    (tmp_path / "norm").mkdir()
    (tmp_path / "figures").mkdir()
    for name in ("training.py", "figures/training.py", "norm/full_norm.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(sweep, "_PACKAGE", tmp_path)

    def code():
        sweep.code_hash.cache_clear()
        return sweep.code_hash()

    first = code()
    (tmp_path / "figures/training.py").write_text("2")
    assert code() == first
    (tmp_path / "norm/full_norm.py").write_text("2")
    assert code() != first
    sweep.code_hash.cache_clear()


def test_a_lambda_has_no_description():
    with pytest.raises(TypeError, match="functions that can be imported, got <function"):
        run([Run(lambda seed: MODEL(seed=seed), "digits", 64, 0.1, 0)], progress=False)


def test_the_source_of_a_function_from_elsewhere_is_part_of_its_description():
    assert describe(models.mlp) == "bnlib.models.mlp"
    assert describe(alone).startswith(f"{__name__}.alone ")


def test_a_broken_file_is_named(tmp_path):
    runs = grid()
    run(runs, tmp_path, progress=False)
    (tmp_path / f"{cache_key(runs[2])}.json").write_text('{"epoch": [')
    with pytest.raises(ValueError, match=f"{cache_key(runs[2])}.*delete it"):
        run(runs, tmp_path, progress=False)


@pytest.mark.parametrize("options", [{"max_stacked": 0}, {"workers": 0}, {"devices": ()}])
def test_arguments_out_of_range(options, tmp_path):
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name} must be .*at least (1|one).*, got (0|\(\))$"):
        run(grid(), tmp_path, **options)


def test_several_processes_give_the_same(tmp_path):
    one = run(grid(), tmp_path / "one", max_stacked=2, progress=False)
    two = run(grid(), tmp_path / "two", max_stacked=2, workers=2, progress=False)
    assert one == two


def twelve(folder, workers=1):
    torch.set_num_threads(1)
    settings = {"epochs": 1, "checkpoints": 3}
    grid = itertools.product((16, 32, 64), (0.1, 1.0), (0, 1))
    runs = [Run(MODEL, "digits", size, lr, seed, **settings) for size, lr, seed in grid]
    run(runs, folder, max_stacked=2, workers=workers, progress=False)


def started(folder):
    """A process that does the twelve runs; it has bnlib already, so that its time is that of the runs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["bnlib.sweep", "torch._dynamo"])
    process = context.Process(target=twelve, args=(folder,))
    process.start()
    return process


def kept(folder) -> dict[str, dict]:
    """All results, but for the time they took."""
    results = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert all(result.pop("seconds") > 0 for result in results.values())
    return results


def test_a_killed_sweep_goes_on_to_the_identical_result(tmp_path):
    for whole in (tmp_path / "one", tmp_path / "two"):  # the first one imports what is not there yet
        began = time.perf_counter()
        twelve(whole)
        seconds = time.perf_counter() - began
    expected = kept(tmp_path / "one")
    assert len(expected) == 12 and kept(tmp_path / "two") == expected
    folder, chance = tmp_path / "killed", random.Random(os.urandom(8))
    for _ in range(6):
        process = started(folder)
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.join()
        assert all(expected[name] == result for name, result in kept(folder).items())
    last = started(folder)
    last.join()
    assert last.exitcode == 0 and kept(folder) == expected


def test_the_processes_of_a_killed_sweep_end_too(tmp_path):
    """They share its output, which ends only when all of them have."""
    script = f"import sys, {__name__} as tests; tests.twelve(sys.argv[1], workers=2); print('done')"
    command, folder = [sys.executable, "-c", script, str(tmp_path)], Path(__file__).parent
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 300
        while not list(tmp_path.glob("*.json")) and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
    assert output == "" and 0 < len(kept(tmp_path)) < 12
