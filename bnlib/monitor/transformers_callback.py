"""A callback of Hugging Face transformers that watches the norm layers of the trained model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from bnlib.extras import optional
from bnlib.monitor.monitor import Monitor, send


def transformers(every: int = 1000, to: Callable[[dict[str, float], int], Any] | Any = None, warn: bool = True) -> Any:
    """Make a callback for the ``Trainer`` of Hugging Face that makes a ``Monitor`` when a training begins.

    The numbers of each measurement go to ``trainer.state.log_history``, and to ``to``. The step in them is
    ``trainer.state.global_step`` plus one. After the training, the callback's ``monitor`` has the findings::

        watch = bnlib.monitor.transformers(every=1000)
        Trainer(model, args, train_dataset=data, callbacks=[watch]).train()
        print(watch.monitor.report())

    Arguments:
        every, to, warn: as for ``Monitor``.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """
    return _callback_class()(every, to, warn)


@cache
def _callback_class() -> type:
    base = optional("transformers", "a callback of transformers").TrainerCallback

    class MonitorCallback(base):
        """Watches the norm layers from the beginning to the end of a training."""

        def __init__(self, every: int, to: Any, warn: bool) -> None:
            self._every, self._to, self._warn = every, to, warn
            self.monitor: Monitor | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
            def log(scalars: dict[str, float], step: int) -> None:
                state.log_history.append({**scalars, "step": step})
                if self._to is not None:
                    send(self._to, scalars, step)

            self.monitor = Monitor(model, self._every, log, self._warn)

        def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.monitor.step = state.global_step

        def on_substep_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.monitor.step = state.global_step

        def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.monitor.remove()

    return MonitorCallback
