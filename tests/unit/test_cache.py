"""The cache: what cannot be stored or read is noticed before the work, not after it."""

import resource
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from bnlib import models, sweep
from bnlib.cache import cache_folder
from bnlib.experiments.framework.experiment import Experiment
from bnlib.experiments.framework.measurement import Measurement
from bnlib.sweep import Run

TRAINED = []


class Counted(nn.Sequential):
    """A network that notes each call in train mode."""

    def forward(self, x):
        TRAINED.append(self.training)
        return super().forward(x)


def counted(seed):
    return Counted(*models.three_point_network(seed=seed))


def measured(cell, seed, device):
    TRAINED.append(True)
    return {"value": cell + seed}


RUNS = [Run(counted, "three_points", 3, 0.1, seed, epochs=2, checkpoints=1) for seed in (0, 1)]
EXPERIMENT = Experiment("tiny", "Does it work?", "nowhere", ("a",), lambda scale: {(0,): RUNS})
MEASUREMENT = Measurement("tiny", "Does it work?", "nowhere", ("a",), lambda scale: {(0,): (0, 1)}, measured)
WORK = {
    "a sweep": lambda folder: sweep.run(RUNS, folder / "cache", progress=False),
    "an experiment": lambda folder: EXPERIMENT.save(
        "quick", folder / "results", cache=folder / "cache", progress=False
    ),
    "a measurement": lambda folder: MEASUREMENT.save("quick", folder / "results", cache=folder / "cache"),
}


@pytest.fixture(autouse=True)
def nothing_done():
    TRAINED.clear()


@pytest.fixture
def full_disk():
    """A limit of the size of a file, which has the effect of a disk that is full."""
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, signal_before)


@pytest.mark.parametrize("name", WORK)
def test_a_full_cache_is_noticed_before_the_work(name, tmp_path, full_disk):
    with pytest.raises(OSError, match=r"(cache|folder) must be a folder with room for 1 MiB, got .*: File too large"):
        WORK[name](tmp_path)
    assert not TRAINED


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("place", ["cache", "results"])
def test_a_folder_that_cannot_be_written_is_noticed_before_the_work(name, place, tmp_path):
    if name == "a sweep" and place == "results":
        return
    (tmp_path / place).write_text("a file where a folder should be")
    argument = {"cache": "cache", "results": "folder"}[place]
    with pytest.raises(OSError, match=f"{argument} must be a folder with room for 1 MiB, got .*{place}"):
        WORK[name](tmp_path)
    assert not TRAINED


BROKEN = {
    "nothing": "",
    "cut off": '{"epoch": [',
    "a list": "[]",
    "a number": "3",
    "no keys": "{}",
    "text for a curve": '{"epoch": "abc"}',
    "text in a curve": '{"epoch": ["a"], "train_loss": [1]}',
    "curves of different lengths": '{"epoch": [0, 1], "train_loss": [1.0]}',
    "another key": '{"epoch": [0], "loss": [1]}',
    "no values": '{"values": {}, "seconds": 1}',
    "text for a value": '{"values": {"value": "abc"}, "seconds": 1}',
    "no time": '{"values": {"value": 1.0}}',
    "text for the time": '{"values": {"value": 1.0}, "seconds": "one"}',
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["a sweep", "a measurement"])
def test_a_broken_result_is_named_before_the_work(name, content, tmp_path):
    WORK[name](tmp_path)
    done, other = sorted((tmp_path / "cache").glob("*.json"))
    done.write_bytes(content.encode() if isinstance(content, str) else content)
    other.unlink()
    TRAINED.clear()
    with pytest.raises(ValueError, match=f"cache must hold complete results, got the broken file {done} .*; delete it"):
        WORK[name](tmp_path)
    assert not TRAINED


def test_a_folder_in_place_of_a_result_is_named(tmp_path):
    for name in ("a sweep", "a measurement"):
        WORK[name](tmp_path)
    for path in (tmp_path / "cache").glob("*.json"):
        path.unlink()
        path.mkdir()
    for name in ("a sweep", "a measurement"):
        with pytest.raises(ValueError, match=r"broken file .* \(Is a directory\)"):
            WORK[name](tmp_path)


@pytest.mark.parametrize("name", ["a sweep", "a measurement"])
def test_a_result_that_does_not_fit_any_more_is_not_said_to_be_kept(name, tmp_path, monkeypatch):
    """The disk fills up during the work: the first result is stored, the second is not."""
    write, written = Path.write_text, []

    def full(path, text):
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(sweep, "_stacking_pays", lambda run, kind: False)
    with pytest.raises(OSError, match=r"room for a result, which is lost: .*: No space left on device") as caught:
        WORK[name](tmp_path)
    assert caught.value.__notes__ == [
        f"1 of 2 results are stored in {tmp_path / 'cache'}: make the same call again to continue."
    ]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(Path, "write_text", write)
    TRAINED.clear()
    WORK[name](tmp_path)
    assert len(list((tmp_path / "cache").glob("*.json"))) == 2 and TRAINED


def test_the_user_is_told_what_finds_the_cache(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bnlib\[notebook\]', or pass a folder as cache"):
        cache_folder(None)


def test_a_run_hands_out_data_that_may_be_changed():
    expected = RUNS[0].load().train_x.clone()
    RUNS[0].load().train_x.zero_()
    assert torch.equal(RUNS[0].load().train_x, expected) and expected.any()
