"""A pytest plugin that starts nbval's kernels from a process that has already imported what every chapter imports.

A kernel that imports PyTorch takes several seconds of a processor before its first cell. With ``pytest -p
tools.nbval_kernels`` one process does it once, and each kernel is a fork of that process: a process of its own, with
nothing executed in it, whose imports are quick.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context

from jupyter_client.provisioning import local_provisioner

IMPORTED = ["ipykernel.kernelapp", "ipywidgets", "matplotlib.backends.backend_svg", "matplotlib.figure", "pandas"]
IMPORTED += ["torch._dynamo"]
"""What a kernel finds imported; nothing of ``bnlib``, which must be imported as it is at the time."""


class ForkedKernel:
    """A kernel with the methods of ``subprocess.Popen`` that ``jupyter_client`` uses."""

    stdin = stdout = stderr = None

    def __init__(self, command: Sequence[str], cwd: str | None, env: Mapping[str, str]):
        forks = get_context("forkserver")
        forks.set_forkserver_preload(IMPORTED)
        self._process = forks.Process(target=_run, args=(list(command), cwd, dict(env)))
        self._process.start()
        self.pid = self._process.pid
        while self.poll() is None and os.getpgid(self.pid) != self.pid:
            time.sleep(0.001)  # until it leads a group of its own, to which jupyter_client will send signals

    def poll(self) -> int | None:
        """Return the exit status, or None while the kernel runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait for the end and return the exit status."""
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel."""
        os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the kernel."""
        self.send_signal(signal.SIGKILL)


def _run(command: list[str], cwd: str | None, env: dict[str, str]) -> None:
    """Become the kernel that ``python -m ipykernel_launcher`` would be."""
    # Searches for garbage, which take an eighth of the time of a drawing, leave out what is imported, and are rarer.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    if cwd is not None:
        os.chdir(cwd)
    with open(os.devnull, "r+") as nowhere:
        for stream in (0, 1, 2):
            os.dup2(nowhere.fileno(), stream)
    sys.argv = command[command.index("ipykernel_launcher") :]
    sys.path[0] = os.getcwd()
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance()


def launch(cmd: Sequence[str], cwd: str | None = None, env: Mapping[str, str] | None = None, **_) -> ForkedKernel:
    """Start a kernel; in the place of ``jupyter_client.launcher.launch_kernel``."""
    return ForkedKernel(cmd, cwd, os.environ if env is None else env)


def pytest_configure(config):
    """Let ``jupyter_client`` start kernels here."""
    local_provisioner.launch_kernel = launch
