"""Training with a progress bar."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from inspect import signature
from typing import Any

from torch import nn

from bnlib.arguments import check_flags, suggestion
from bnlib.datasets import Dataset
from bnlib.extras import optional
from bnlib.training.history import History
from bnlib.training.loop import iterate


def fit(model: nn.Module, data: Dataset | str, *, progress: bool = True, **settings: Any) -> History:
    """Train a model to the end with a progress bar and return its history.

    After an interruption (Ctrl-C, or the notebook's stop button) the model keeps the weights it has reached.

    Arguments:
        model: the network, trained in place.
        data: the data set, or its name for ``bnlib.datasets.load``.
        progress: show a progress bar.
        settings: the other arguments of ``iterate``, such as ``batch_size`` and ``lr``.

    Raises:
        ModuleNotFoundError: if ``progress`` is True and tqdm is not installed.
        TypeError, ValueError: as ``iterate``.

    Example:
        >>> model = models.mlp((64, 32, 10), bnlib.BatchNorm)
        >>> history = training.fit(model, datasets.load("digits"), batch_size=64, lr=0.5, epochs=3, progress=False)
        >>> history.test_error[0] > 0.7, history.test_error[-1] < 0.1
        (True, True)
    """
    known = signature(iterate).parameters
    for name in settings:
        if name not in known:
            raise TypeError(f"settings must be arguments of iterate, got {name!r}{suggestion(name, known)}")
    check_flags(progress=progress)
    with ExitStack() as stack:
        bar = None
        if progress:
            bar = stack.enter_context(progress_bar(unit="step", leave=False))
        done = total = 0
        try:
            for step, total, history in iterate(model, data, **settings):  # noqa: B007, the last history is returned
                if bar is not None:
                    bar.total = total
                    bar.update(step - done)
                done = step
        except KeyboardInterrupt as error:
            error.add_note(f"The model has its weights after at least {done} of {total} steps.")
            raise
    return history


def progress_bar(iterable: Iterable[Any] | None = None, **settings: Any) -> Any:
    """Return a progress bar of tqdm for the terminal or the notebook; ``settings`` are arguments of tqdm.

    Raises:
        ModuleNotFoundError: if tqdm is not installed.

    Example:
        >>> list(training.progress_bar(range(3), disable=True))
        [0, 1, 2]
    """
    module = optional("tqdm.auto", "a progress bar", "pass progress=False to training.fit or sweep.run")
    return module.tqdm(iterable, **settings)
