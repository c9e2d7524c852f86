"""The settings of a training run: what they must be, and what is said if they are wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnlib import samplers
from bnlib.arguments import check_integer, check_kind, check_number, check_one_of, shown, suggestion
from bnlib.datasets import NAMES, Dataset, load
from bnlib.training.optimisers import OptimiserMaker

Callback = Callable[[int, nn.Module, Tensor], object]
"""``callback(steps, model, indices)``, called after each step; a true result ends the run."""


def best_device() -> torch.device:
    """Return the GPU or other accelerator that PyTorch can use, or the CPU if there is none.

    Example:
        >>> data = datasets.load("three_points").to(training.best_device())
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_device(name: str, device: torch.device | str) -> None:
    """Raise a ValueError if PyTorch does not know a device or this machine does not have it.

    Example:
        >>> training.check_device("device", "gpu")
        Traceback (most recent call last):
            ...
        ValueError: device must be a device of this machine, such as 'cpu', got 'gpu'
    """
    try:
        torch.empty(0, device=device)
    except Exception as error:
        # PyTorch names all devices that it was ever built for.
        raise ValueError(f"{name} must be a device of this machine, such as {_devices()}, got {device!r}") from error


def _devices() -> str:
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return " or ".join(repr(name) for name, there in found.items() if there)


def check_settings(
    model: nn.Module,
    *,
    batch_size: int,
    lrs: Iterable[float],
    seeds: Iterable[int],
    optimiser: OptimiserMaker,
    schedule: Callable | None,
    epochs: int,
    checkpoints: int,
    device: torch.device | str,
    batches: samplers.Sampler,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Raise an error if a setting of ``training.iterate`` is wrong; the sampler checks ``batch_size`` further.

    Raises:
        TypeError: if a setting is of the wrong type.
        ValueError: if a setting is out of range, or the model has no parameter to train.
        RuntimeError: if gradients are switched off.

    Example:
        >>> next(training.iterate(nn.Linear(3, 3), "three_points", batch_size=3, lr=0.1, optimiser="sgd"))
        Traceback (most recent call last):
            ...
        TypeError: optimiser must be a class of torch.optim, or a partial of one, got 'sgd'; did you mean 'SGD'?
    """
    check_kind("model", model, nn.Module, "an nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model must have a parameter with requires_grad=True to train, got none")
    for name, value in (("batch_size", batch_size), ("epochs", epochs), ("checkpoints", checkpoints)):
        check_integer(name, value)
    for lr in lrs:
        check_number("lr", lr, at_least=0)
    for seed in seeds:
        check_integer("seed", seed, at_least=0)
    if not torch.is_grad_enabled():  # which generators would find again at every step
        raise RuntimeError("training must run with gradients, got torch.no_grad() or torch.inference_mode() around it")
    known = [name for name, value in vars(torch.optim).items() if inspect.isclass(value)]
    _check_callable("optimiser", optimiser, "a class of torch.optim, or a partial of one", known)
    if schedule is not None:
        _check_callable("schedule", schedule, "a function of the number of epochs, or None")
        check_number("schedule(0.0)", schedule(0.0), at_least=0)
    check_device("device", device)
    known = [name for name, value in vars(samplers).items() if getattr(value, "__module__", "") == samplers.__name__]
    _check_callable("batches", batches, "a sampler, see bnlib.samplers", known)
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks must be a list of functions, got {shown(callbacks)}")


def checked_batches(batches: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Yield the batches of a sampler; raise an error if one is not a row of ``batch_size`` indices.

    Example:
        >>> next(training.settings.checked_batches(iter([torch.arange(3)]), 2))
        Traceback (most recent call last):
            ...
        ValueError: batches must yield 2 indices of samples each, shape (2,), got a Tensor of shape (3,)
    """
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must return an iterator of indices, see bnlib.samplers, got {shown(batches)}")
    return _checked_batches(batches, batch_size)


def _checked_batches(batches: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    for each in batches:
        if not isinstance(each, Tensor) or each.shape != (batch_size,) or each.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"batches must yield {batch_size} indices of samples each, shape ({batch_size},), got {shown(each)}"
            )
        yield each


def check_step(optimiser: Optimizer) -> None:
    """Raise a ValueError if the steps of an optimiser need a function that computes the loss anew.

    Example:
        >>> training.settings.check_step(torch.optim.LBFGS([torch.zeros(1)]))
        Traceback (most recent call last):
            ...
        ValueError: optimiser must take steps without a closure, got LBFGS
    """
    needed = [each for each in inspect.signature(optimiser.step).parameters.values() if each.default is each.empty]
    if any(each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in needed):
        raise ValueError(f"optimiser must take steps without a closure, got {type(optimiser).__name__}")


def _check_callable(name: str, value: Any, what: str, known: Iterable[str] = ()) -> None:
    if not callable(value):
        hint = suggestion(value, known) if isinstance(value, str) else ""
        raise TypeError(f"{name} must be {what}, got {shown(value)}{hint}")


def loaded(data: Dataset | str) -> Dataset:
    """Return a data set that is given itself or by its name; it must have a training and a test set.

    Raises:
        TypeError: if it is neither a data set nor a name.
        ValueError: if no data set has the name, a split was not loaded, or the test set is empty.

    Example:
        >>> training.settings.loaded("three_points").num_classes
        3
    """
    if isinstance(data, str):
        check_one_of("data", data, NAMES)
        data = load(data)
    check_kind("data", data, Dataset, "a Dataset or the name of one, see bnlib.datasets.load")
    if missing := [split for split in ("train", "test") if getattr(data, f"{split}_x") is None]:
        raise ValueError(f"data must have a training and a test set, got {data} without {' and '.join(missing)}")
    if not len(data.test_x):
        raise ValueError(f"data must have a test set of at least one sample, got {data}")
    return data
