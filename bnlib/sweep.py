"""Run many trainings: stack similar runs into one model, store each result in a cache, and never train a run twice."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnlib import datasets, distributed, stacked
from bnlib.arguments import check_flags, check_integer, check_kind, check_number, check_one_of, check_usual, shown
from bnlib.cache import cache_folder, note_on_resuming, read_stored, store
from bnlib.datasets import Dataset
from bnlib.processes import run_jobs
from bnlib.samplers import Sampler, shuffled
from bnlib.schedules import Schedule
from bnlib.stacked_differences import difference
from bnlib.training import (
    History,
    OptimiserMaker,
    check_device,
    iterate,
    iterate_many,
    progress_bar,
    step_is_elementwise,
    step_is_proportional_to_rate,
)

_PACKAGE = Path(__file__).parent
# These folders describe runs or draw their results; they do not change the results.
_NOT_IN_HASH = ("compatibility", "experiments", "figures", "widgets")

_MOST_VALUES_UNDER_VMAP = 8192
"""Values in a batch up to which convolutions under vmap are faster on a CPU: 128 images of 8 x 8, or 10 of 28 x 28."""
_SETTINGS = ("batch_size", "optimiser", "schedule", "epochs", "checkpoints", "batches", "record_step_loss")


@functools.lru_cache(maxsize=2)
def _load(data: str | Callable[[], Dataset]) -> Dataset:
    """Return a data set, which must not be changed."""
    return data() if callable(data) else datasets.load(data)


@dataclass(frozen=True)
class Run:
    """A training run: everything that its result depends on, except for the code.

    Attributes:
        model: called with ``seed=``, returns the network; a function or class that can be imported, or a
            ``functools.partial`` of one, such as ``partial(models.mlp, (64, 100, 10), BatchNorm)``.
        data: name of the data set for ``datasets.load``, or a function without arguments that returns the data set.
        batch_size, lr, optimiser, schedule, epochs, checkpoints, batches, record_step_loss: as in ``training.iterate``.
        seed: seed of the initial weights and of the batches.

    Raises:
        TypeError: if an attribute is of the wrong type.
        ValueError: if an attribute is out of range, or ``data`` names no data set.

    Example:
        >>> from functools import partial
        >>> network = partial(models.mlp, (64, 32, 10), bnlib.BatchNorm)
        >>> run = sweep.Run(network, "digits", batch_size=64, lr=0.5, seed=0, epochs=1, checkpoints=1)
        >>> [(step, steps) for step, steps, history in run.iterate()]
        [(0, 22), (22, 22)]
    """

    model: Callable[..., nn.Module]
    data: str | Callable[[], Dataset]
    batch_size: int
    lr: float
    seed: int
    optimiser: OptimiserMaker = torch.optim.SGD
    schedule: Schedule | None = None
    epochs: int = 10
    checkpoints: int = 20
    batches: Sampler = shuffled
    record_step_loss: bool = False

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise TypeError(
                f"model must be a function that takes seed= and returns the network, got {shown(self.model)}"
            )
        if not (callable(self.data) or isinstance(self.data, str)):
            raise TypeError(
                f"data must be the name of a data set or a function that returns one, got {shown(self.data)}"
            )
        if isinstance(self.data, str):
            check_one_of("data", self.data, datasets.NAMES)
        check_usual(seed=self.seed)
        check_flags(record_step_loss=self.record_step_loss)
        for name in ("batch_size", "epochs", "checkpoints"):
            check_integer(name, getattr(self, name))
        check_number("lr", self.lr, at_least=0)
        for name in ("optimiser", "batches"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} must be as in training.iterate, got {shown(getattr(self, name))}")

    def load(self) -> Dataset:
        """Return the data set, as a copy that the caller may change."""
        return _load(self.data).clone()

    def iterate(self, device: torch.device | str = "cpu") -> Iterator[tuple[int, int, History]]:
        """Train this run alone on ``device`` and yield the same as ``training.iterate``."""
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return iterate(
            self.model(seed=self.seed), _load(self.data), lr=self.lr, seed=self.seed, device=device, **settings
        )


def run(
    runs: Iterable[Run],
    cache: str | Path | None = None,
    *,
    max_stacked: int = 64,
    workers: int = 1,
    devices: Sequence[str] = ("cpu",),
    progress: bool = True,
) -> list[History]:
    """Train the runs that are not in the cache, and return the histories of all runs in the order of ``runs``.

    Runs that differ only in learning rate and seed are trained as one stacked model (``bnlib.stacked``) if that is
    faster and the optimiser allows it (``training.step_is_proportional_to_rate``); their curves equal those of separate
    runs up to rounding. Finished runs are stored in the cache, so the same
    call after an interruption (even by SIGKILL) continues and gives exactly the same result. Before the first training
    the call checks that the cache can be written and that its files are complete. A stored result is used only if the
    run, the source code of bnlib and of other functions in the run, the version of PyTorch, the type of
    device, and the number of processes that train together (``bnlib.distributed``) are the same.

    Under ``torchrun`` all processes must make the same call. They train one run after another, and all processes train
    each run together. Process 0 stores the results and shows the progress bar.

    Arguments:
        runs: the runs to train.
        cache: folder of the results; None for the user's cache.
        max_stacked: the most runs to stack into one model; a smaller number needs less memory.
        workers: number of processes that train in parallel; they use ``devices`` in turn.
        devices: devices to train on, e.g. ``("cuda:0", "cuda:1")``.
        progress: show a progress bar with the remaining time.

    Returns:
        The history of each run.

    Raises:
        TypeError: if an argument is of the wrong type, or a part of a run cannot be described in the same way in
            another process, such as a lambda.
        ValueError: if ``max_stacked`` or ``workers`` is below 1, if ``workers`` is above 1 under ``torchrun``, if
            ``devices`` is empty or names a device that this machine does not have, if a run has a setting that
            ``training.iterate`` refuses, or if a file in the cache is broken.
        OSError: if the cache cannot be written.

    Example:
        >>> import tempfile
        >>> rates = (0.1, 1.0)
        >>> runs = [sweep.Run(models.three_point_network, "three_points", batch_size=3, lr=lr, seed=0) for lr in rates]
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     first = sweep.run(runs, cache, progress=False)
        ...     again = sweep.run(runs, cache, progress=False)  # reads the results of the first call
        >>> len(first), again == first
        (2, True)
    """
    check_flags(progress=progress)
    for name, value in (("max_stacked", max_stacked), ("workers", workers)):
        check_integer(name, value)
    if isinstance(devices, str) or not isinstance(devices, Sequence) or not devices:
        raise ValueError(f"devices must be a sequence of at least one device, such as ('cpu',), got {shown(devices)}")
    for device in devices:
        check_device("devices", device)
    rank, processes = distributed.rank_and_world_size()
    if processes > 1 and workers > 1:
        raise ValueError(f"workers must be 1 under torchrun, which starts the processes itself, got {workers}")
    if not isinstance(runs, Iterable):
        raise TypeError(f"runs must be a sequence of sweep.Run, got {shown(runs)}")
    runs = list(runs)
    for each in runs:
        check_kind("runs", each, Run, "a sequence of sweep.Run")
    folder, kind = cache_folder(cache), torch.device(devices[0]).type
    paths = {each: folder / f"{cache_key(each, kind)}.json" for each in runs}
    # By path, because a run is not equal to its copy in another process.
    stored = {path: _read(path) for path in paths.values() if path.exists()} if rank == 0 else {}
    stored = distributed.broadcast_from_rank_0(stored)
    # All runs are divided into chunks, finished or not, so that a resumed sweep stacks the same models as before.
    chunks = _chunks(paths, max_stacked, kind)
    left = [chunk for chunk in chunks if not all(paths[each] in stored for each in chunk)]
    with note_on_resuming([paths[each] for chunk in left for each in chunk]), _bar(left, progress and rank == 0) as add:
        if workers == 1:
            for chunk in left:
                _train(chunk, paths, devices[0], add)
        else:
            jobs = [
                (chunk, {each: paths[each] for each in chunk}, devices[number % len(devices)])
                for number, chunk in enumerate(left)
            ]
            # A fork server imports PyTorch once for all workers; a GPU must not be shared with it.
            preload = [__name__, "torch._dynamo"] if kind == "cpu" else None
            for steps in run_jobs(_work, jobs, workers, preload):
                add(steps)
    trained = {paths[each]: _read(paths[each]) for chunk in left for each in chunk} if rank == 0 else {}
    found = stored | distributed.broadcast_from_rank_0(trained)
    return [found[paths[each]] for each in runs]


def cache_key(run: Run, device_type: str = "cpu") -> str:
    """Return the name of a run's result in the cache: a hash of its description, the code, and the type of device.

    Example:
        >>> from dataclasses import replace
        >>> run = sweep.Run(models.three_point_network, "three_points", batch_size=3, lr=0.1, seed=0)
        >>> key = sweep.cache_key(run)
        >>> key == sweep.cache_key(replace(run)), key == sweep.cache_key(replace(run, seed=1))
        (True, False)
    """
    check_kind("run", run, Run, "a sweep.Run")
    check_kind("device_type", device_type, str, "the name of a type of device")
    text = json.dumps(
        [describe(run), code_hash(), torch.__version__, device_type, distributed.rank_and_world_size()[1]]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def describe(value: Any) -> Any:
    """Describe a value in a form that can be stored as JSON and is the same in every process.

    Functions and classes are described by their names, and by a hash of their source if they are not part of bnlib.

    Raises:
        TypeError: if the value has no such description.

    Example:
        >>> sweep.describe(schedules.StepDecay(every=20, factor=0.2))
        {'a': 'bnlib.schedules.StepDecay', 'every': 20, 'factor': 0.2}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [describe(each) for each in value]
    if isinstance(value, dict):
        if all(isinstance(name, str) for name in value):
            return {name: describe(each) for name, each in sorted(value.items())}
        return {"items": [[describe(name), describe(each)] for name, each in value.items()]}
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if is_dataclass(value) and not isinstance(value, type):
        return {"a": describe(type(value))} | {
            field.name: describe(getattr(value, field.name)) for field in fields(value)
        }
    if inspect.ismethod(value):
        return {"method": value.__name__, "of": describe(value.__self__)}
    name, module = getattr(value, "__qualname__", "<"), getattr(value, "__module__", None)
    if not _is_importable(value, name, module):
        raise TypeError(f"a run must consist of plain values and of functions that can be imported, got {value!r}")
    return f"{module}.{name}" + _source_outside(value)


def _is_importable(value: Any, name: str, module: str | None) -> bool:
    """Return whether a module has the value by its name; a function that a decorator made can have that of another."""
    if "<" in name or module not in sys.modules:
        return False
    found = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _source_outside(value: Any) -> str:
    """Return a hash of the source of a function or class that ``code_hash`` does not cover, else an empty text."""
    module = value.__module__
    if module.split(".")[0] == "torch" or (module.startswith("bnlib.") and not module.startswith("bnlib.experiments")):
        return ""
    return " " + hashlib.sha256(inspect.getsource(value).encode()).hexdigest()[:16]


@functools.cache
def code_hash() -> str:
    """Return a hash of the source files of bnlib that results can depend on.

    Example:
        >>> sweep.code_hash() == sweep.code_hash()
        True
    """
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.relative_to(_PACKAGE).parts[0] not in _NOT_IN_HASH:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _chunks(runs: Iterable[Run], max_stacked: int, device_type: str) -> list[list[Run]]:
    groups: dict[str, list[Run]] = {}
    for each in runs:
        free = ("lr", "seed") if step_is_proportional_to_rate(each.optimiser) else ("seed",)
        shape = {name: value for name, value in describe(each).items() if name not in free}
        groups.setdefault(json.dumps(shape), []).append(each)
    chunks = []
    for group in groups.values():
        size = max_stacked if len(group) > 1 and _stacking_pays(group[0], device_type) else 1
        chunks += [group[i : i + size] for i in range(0, len(group), size)]
    return chunks


def _stacking_pays(run: Run, device_type: str) -> bool:
    """Return whether stacked runs are faster. On a CPU, convolutions under vmap are slower except for small inputs."""
    model = run.model(seed=run.seed)
    stackable = step_is_elementwise(run.optimiser) and stacked.can_stack(model)
    if distributed.rank_and_world_size()[1] > 1 or not stackable:
        return False
    values = run.batch_size * _load(run.data).train_x[0].numel()
    return device_type != "cpu" or values <= _MOST_VALUES_UNDER_VMAP or stacked.has_stacked_layers(model)


def _train(chunk: list[Run], paths: dict[Run, Path], device: str, advance: Callable[[int], None]) -> None:
    """Train the runs of a chunk and store their results."""
    first, began = chunk[0], time.perf_counter()
    if len(chunk) == 1:
        steps = ((done, total, [history]) for done, total, history in first.iterate(device))
    else:
        models = [each.model(seed=each.seed) for each in chunk]
        if not _can_be_stacked(models, first):
            for each in chunk:
                _train([each], paths, device, advance)
            return
        settings = {name: getattr(first, name) for name in _SETTINGS} | {"device": device}
        settings |= {"lrs": [each.lr for each in chunk], "seeds": [each.seed for each in chunk]}
        steps = iterate_many(models, _load(first.data), **settings)
    before = total = 0
    histories: list[History] = []
    for done, total, histories in steps:  # noqa: B007, the last values are used
        advance((done - before) * len(chunk))
        before = done
    advance((total - before) * len(chunk))
    if distributed.rank_and_world_size()[0] == 0:
        for each, history in zip(chunk, histories, strict=True):
            history.seconds = (time.perf_counter() - began) / len(chunk)
            store(asdict(history), paths[each])


def _can_be_stacked(models: list[nn.Module], run: Run) -> bool:
    """Return whether models that differ in their seeds are alike in all else, and vmap, if needed, can run them."""
    if difference(models):
        return False
    whole = stacked.stack(models)
    if isinstance(whole, stacked.VmapStack):
        x = _load(run.data).train_x[: run.batch_size].cpu()
        try:
            with torch.random.fork_rng([]):
                whole(x.expand(len(models), *x.shape))
        except RuntimeError:
            return False
    return True


def _read(path: Path) -> History:
    return read_stored(path, _history)


def _history(stored: Any) -> History:
    """Return a history from what its file holds; raise an error if it is not one of a run that ended."""
    history = History(**stored)
    curves = [history.epoch, history.train_loss, history.train_error, history.test_loss, history.test_error]
    for curve in (*curves, history.step_loss):
        if not isinstance(curve, list) or not all(type(value) in (int, float) for value in curve):
            raise ValueError("its curves must be lists of numbers")
    lengths = {len(curve) for curve in curves}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError("its curves must have the same number of points, at least one")
    if type(history.diverged) is not bool or type(history.seconds) not in (int, float):
        raise ValueError("diverged must be true or false, and seconds a number")
    return history


def _work(chunk: list[Run], paths: dict[Run, Path], device: str) -> int:
    steps: list[int] = []
    _train(chunk, paths, device, steps.append)
    return sum(steps)


def _model_steps(run: Run) -> int:
    return run.epochs * (len(_load(run.data).train_x) // (run.batch_size * distributed.rank_and_world_size()[1]))


@contextmanager
def _bar(left: list[list[Run]], progress: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of new steps."""
    if not (progress and left):
        yield lambda steps: None
        return
    with progress_bar(
        total=sum(_model_steps(chunk[0]) * len(chunk) for chunk in left), unit="step", unit_scale=True
    ) as bar:
        yield bar.update
