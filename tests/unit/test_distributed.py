"""Training in several processes: the same weights in all, gradients over all batches, shards that are their own."""

import copy
import json
import os
import pickle
import runpy
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import bnlib
from bnlib import datasets, distributed, models, training
from bnlib.samplers import PerWorker

SETTINGS = {"batch_size": 8, "lr": 0.1, "epochs": 1, "checkpoints": 2, "seed": 3, "record_step_loss": True}


def build(norm):
    return models.mlp((64, 12, 10), norm).double()


def digits():
    data = datasets.load("digits")
    return datasets.Dataset(
        "digits", data.train_x.double(), data.train_y, data.test_x.double(), data.test_y, data.num_classes
    )


def of_one(folder):
    torch.set_num_threads(1)
    results = {}
    for norm in (None, bnlib.BatchNorm, bnlib.FullNorm):
        model, seen = build(norm), []
        *_, (_, total, history) = training.iterate(
            model, digits(), callbacks=[lambda step, model, index, seen=seen: seen.append(index)], **SETTINGS
        )
        results[getattr(norm, "__name__", "none")] = total, vars(history), model.state_dict(), torch.stack(seen)
    copies_keep_their_group(model, folder)
    torch.save(results, f"{folder}/{distributed.rank_and_world_size()[0]}.pt")


def copies_keep_their_group(model, folder):
    half = torch.distributed.new_group([0, 1])
    other = nn.Sequential(model, bnlib.SyncBatchNorm(10, process_group=half))
    torch.save(model, f"{folder}/model{distributed.rank_and_world_size()[0]}.pt")
    for made in (copy.deepcopy(other), AveragedModel(other).module, pickle.loads(pickle.dumps(other))):
        assert made[0][2].process_group is model[2].process_group is torch.distributed.group.WORLD
        assert made[1].process_group is half


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    distributed.run_in_processes(of_one, 2, str(folder))
    # A process that works alone has no group.
    assert torch.load(folder / "model1.pt", weights_only=False)[2].process_group is None
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("norm", ["none", "BatchNorm", "FullNorm"])
def test_processes_have_one_history_and_the_same_weights(two, norm):
    (total, history, state, seen), (_, other, other_state, other_seen) = (each[norm] for each in two)
    assert history == other and total == len(history["step_loss"]) == 1437 // 16
    for name, value in state.items():
        # Statistics of BN are those of a worker's own batches, until the next forward pass.
        if "running" not in name or norm == "FullNorm":
            torch.testing.assert_close(value, other_state[name], msg=lambda text, name=name: f"{name}: {text}")
    assert not set(seen.flatten().tolist()) & set(other_seen.flatten().tolist())


@pytest.mark.parametrize("norm", [None, bnlib.FullNorm])
def test_two_processes_train_as_one_does_on_both_batches(two, norm):
    """Without statistics of a batch the mean of the gradients is the gradient of the joined batch."""
    model, data = build(norm), digits()
    optimiser = torch.optim.SGD(model.parameters(), lr=SETTINGS["lr"])
    shards = [PerWorker(rank, 2)(data.train_y, 8, SETTINGS["seed"]) for rank in range(2)]
    losses = []
    for _ in range(1437 // 16):
        index = torch.cat([next(shard) for shard in shards])
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(data.train_x[index]), data.train_y[index])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    _, history, state, _ = two[0][getattr(norm, "__name__", "none")]
    assert history["step_loss"] == pytest.approx(losses, rel=1e-6)
    for name, value in model.state_dict().items():
        if "grad" not in name:
            torch.testing.assert_close(value, state[name], msg=lambda text, name=name: f"{name}: {text}")


TINY = """
    import functools, sys
    from bnlib import BatchNorm, __main__, models
    from bnlib.experiments.framework import registry
    from bnlib.experiments.framework.experiment import Experiment
    from bnlib.sweep import Run

    model = functools.partial(models.mlp, (64, 8, 10), BatchNorm)
    def cells(scale):
        return {(size,): [Run(model, "digits", size, 0.1, seed, epochs=1, checkpoints=2) for seed in (3, 4)] for size in (64, 128)}
    registry.EXPERIMENTS["tiny"] = Experiment("tiny", "Does it work?", "nowhere", ("batch size",), cells)
    Experiment.save.__defaults__ = ("quick", __import__("pathlib").Path(sys.argv[1]))
    sys.exit(__main__.main(["experiments", "run", "tiny"]))
"""  # noqa: E501


def run_again(script, folder):
    os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
    sys.argv[:] = [script, folder]
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    return ended.value.code


def test_torchrun_runs_an_experiment_and_what_is_done_is_not_trained_again(tmp_path):
    script = tmp_path / "tiny.py"
    script.write_text(textwrap.dedent(TINY))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), str(tmp_path)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tiny: Does it work?") == 1
    result = json.loads((tmp_path / "tiny_quick_2_processes.json").read_text())
    assert result["provenance"]["device"] == "cpu, 2 processes"
    assert result["provenance"]["command"].startswith("torchrun --nproc-per-node 2 -m bnlib experiments run tiny")
    assert len(result["cells"]) == 2 and len(result["cells"][0]["train_loss"]) == 2
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("sweeps/*.json")}
    assert len(kept) == 4
    assert distributed.run_in_processes(run_again, 2, str(script), str(tmp_path)) == [0, 0]
    again = json.loads((tmp_path / "tiny_quick_2_processes.json").read_text())
    assert again["cells"] == result["cells"] and again["provenance"]["date"] >= result["provenance"]["date"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("sweeps/*.json")} == kept


def test_alone_nothing_is_changed(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model = models.mlp((3, 3))
    assert (
        distributed.rank_and_world_size() == (0, 1)
        and distributed.data_parallel(model) is model
        and distributed.broadcast_from_rank_0(5) == 5
    )
    assert distributed.mean_over_processes(torch.ones(2)).tolist() == [1, 1]
    with distributed.join_process_group("cpu") as device:
        assert device == "cpu"


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1000")
    with (
        pytest.raises(ValueError, match="one process for each GPU of this machine"),
        distributed.join_process_group("cuda"),
    ):
        pass


def when_it_ends(folder):
    rank, _ = distributed.rank_and_world_size()
    leave = torch.distributed.destroy_process_group

    def note_the_time_and_leave():
        (folder / f"{rank}").write_text(str(time.monotonic()))
        torch.distributed.destroy_process_group = leave
        leave()

    torch.distributed.destroy_process_group = note_the_time_and_leave
    time.sleep(rank)  # rank 0 is done at once
    return time.monotonic()


def test_no_process_leaves_before_all_are_done(tmp_path):
    """A process that has left cannot be reached by one that still connects to a new group."""
    done = distributed.run_in_processes(when_it_ends, 2, tmp_path)
    assert min(float((tmp_path / f"{rank}").read_text()) for rank in range(2)) >= max(done)


def fail_in_one():
    if distributed.rank_and_world_size()[0] == 1:
        time.sleep(0.5)
        raise KeyError("the second process")


def test_the_error_of_one_process_is_the_error_of_the_call():
    with pytest.raises(KeyError, match="the second process"):
        distributed.run_in_processes(fail_in_one, 2)


def test_who_is_done_at_once_does_not_hang_up_on_those_still_connecting():
    assert distributed.run_in_processes(distributed.rank_and_world_size, 3) == [(0, 3), (1, 3), (2, 3)]
