"""A pytest plugin that stores the notebooks that nbval has executed in the cache from which the site is built.

``pytest -p tools.nbval_cache --nbval --executed FOLDER`` stores each notebook whose cells have all passed, with the
outputs that were compared, in the jupyter-cache in FOLDER. A site built from this cache shows the tested outputs, and
no chapter is executed a second time.
"""

from __future__ import annotations

import time

import nbformat
import pytest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbval.plugin import IPyNbCell

_PASSED, _SECONDS = pytest.StashKey[list[IPyNbCell]](), pytest.StashKey[float]()


def pytest_addoption(parser):
    """Add the option for the folder of the cache."""
    parser.addoption("--executed", metavar="FOLDER", help="store executed notebooks in the jupyter-cache in FOLDER")


def pytest_configure(config):
    """Create the cache before several processes write to it."""
    if config.option.executed and not hasattr(config, "workerinput"):
        get_cache(config.option.executed).clear_cache()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Store a notebook when the last of its cells has passed."""
    began = time.perf_counter()
    outcome = yield
    if not item.config.option.executed or not isinstance(item, IPyNbCell) or outcome.excinfo is not None:
        return
    notebook, stash = item.parent.nb, item.parent.stash
    passed = [*stash.get(_PASSED, []), item]
    stash[_PASSED], stash[_SECONDS] = passed, stash.get(_SECONDS, 0.0) + time.perf_counter() - began
    if len(passed) == sum(cell.cell_type == "code" for cell in notebook.cells):
        for each in passed:
            each.cell.outputs = [nbformat.from_dict(output) for output in each.test_outputs]
        bundle = CacheBundleIn(notebook, str(item.path), data={"execution_seconds": stash[_SECONDS]})
        get_cache(item.config.option.executed).cache_notebook_bundle(bundle, overwrite=True)
