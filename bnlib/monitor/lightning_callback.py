"""A callback of Lightning that watches the norm layers of the trained module."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import Any

from bnlib.extras import optional
from bnlib.monitor.monitor import Monitor


def lightning(every: int = 1000, warn: bool = True) -> Any:
    """Make a callback of Lightning that makes a ``Monitor`` when a training begins.

    The numbers of each measurement go to the loggers of the ``Trainer``. The step in them is ``trainer.global_step``
    plus one. After the training, the callback's ``monitor`` has the findings::

        watch = bnlib.monitor.lightning(every=1000)
        Trainer(callbacks=[watch]).fit(module, loader)
        print(watch.monitor.report())

    The callback is for the package ``lightning``; or for ``pytorch_lightning``, if only this one was imported.

    Arguments:
        every, warn: as for ``Monitor``.

    Raises:
        ModuleNotFoundError: neither of the packages is installed.
    """
    return _callback_class(_package())(every, warn)


def _package() -> str:
    """Return the name of the installed package; the one that was imported, if there is one."""
    older = "pytorch_lightning"
    if "lightning.pytorch" not in sys.modules and (older in sys.modules or _only_older_is_installed(older)):
        return older
    return "lightning.pytorch"


def _only_older_is_installed(older: str) -> bool:
    return importlib.util.find_spec("lightning") is None and importlib.util.find_spec(older) is not None


@cache
def _callback_class(package: str) -> type:
    module = optional(package, "a callback of Lightning") if package == "lightning.pytorch" else None
    base = (module or importlib.import_module(package)).Callback

    class MonitorCallback(base):
        """Watches the norm layers from the beginning to the end of a training."""

        def __init__(self, every: int, warn: bool) -> None:
            self._every, self._warn = every, warn
            self.monitor: Monitor | None = None

        def __reduce__(self) -> tuple:
            return lightning, (self._every, self._warn)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            def log(scalars: dict[str, float], step: int) -> None:
                for logger in trainer.loggers:
                    logger.log_metrics(scalars, step)

            self.monitor = Monitor(pl_module, self._every, log, self._warn)

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.monitor.step = trainer.global_step

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.monitor.remove()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            if self.monitor is not None:
                self.monitor.remove()

    return MonitorCallback
