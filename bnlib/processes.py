"""Run jobs in several processes of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_all_start_methods, get_context, parent_process
from typing import Any

import torch

from bnlib.arguments import check_integer


def run_jobs(
    function: Callable[..., Any], jobs: Iterable[tuple], workers: int, preload: Sequence[str] | None = None
) -> Iterator[Any]:
    """Call ``function`` with the arguments of each job in several processes, and yield the results as they arrive.

    The processes are started with "spawn", not forked, because forked processes would share threads and the GPU. They
    divide PyTorch's threads among themselves. They end when this process ends, even if it is killed. After an error the
    remaining jobs are cancelled.

    Arguments:
        function: a function that can be imported.
        jobs: the arguments of each call; they must be picklable.
        workers: number of processes, at least 1.
        preload: modules to import once in a fork server, which then starts the processes; useful for short calls. Only
            the modules of the first call with ``preload`` are imported. Windows has no fork server and imports none.

    Yields:
        The result of each job, in the order in which the jobs finish.
    """
    check_integer("workers", workers)
    forks = bool(preload) and "forkserver" in get_all_start_methods()
    threads, context = max(1, torch.get_num_threads() // workers), get_context("forkserver" if forks else "spawn")
    if forks:
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
    """Set the number of threads, and end this worker when its parent process ends; else it might run forever."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    torch.set_num_threads(threads)
    threading.Thread(target=watch, daemon=True).start()
