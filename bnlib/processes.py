"""Work shared out to processes of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any

import torch


def run_jobs(
    function: Callable[..., Any], jobs: Iterable[tuple], workers: int, preload: Sequence[str] | None = None
) -> Iterator[Any]:
    """Call ``function`` with each job's arguments in ``workers`` processes; yields what comes back, as it comes.

    The processes are fresh ones, for a fork would share the threads and the GPU; they share out torch's threads. Each
    ends when this process does, however that ends, and what is left of the jobs is dropped after an error.

    Arguments:
        function: one that can be imported.
        jobs: its arguments, which must be such as can be pickled.
        workers: at least 1.
        preload: modules for short calls; a process that has them starts the others (Python's fork server), so that they
            are imported once. Those of the first call count.
    """
    threads, context = max(1, torch.get_num_threads() // workers), get_context("forkserver" if preload else "spawn")
    if preload:
        context.set_forkserver_preload(list(preload))
    with ProcessPoolExecutor(workers, context, _begin, (threads,)) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(threads: int) -> None:
    """Let this worker end when the process that started it is killed; it would work on, or wait for ever."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    torch.set_num_threads(threads)
    threading.Thread(target=watch, daemon=True).start()
