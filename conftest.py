"""For all tests: rare searches for garbage, groups that xdist heeds, and what docstrings' examples take for granted."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

# Each search for garbage walks through all that PyTorch and the pages of the site hold; 700 new objects start one.
gc.set_threshold(100_000, 20, 20)

_REFERENCE = Path(__file__).parent / "chapters" / "reference.md"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Give each test the name that xdist has made for it, which ends in its group.

    xdist 3.8 writes the name into an attribute that pytest 9.2 does not read, so that `--dist loadgroup` would group
    nothing; a test of the site's tests notices that. A version of xdist that writes it elsewhere leaves nothing to do.
    """
    result = yield
    for item in items if config.getoption("loadgroup", False) else ():
        name = vars(item).get("_nodeid", item.nodeid)
        if name != item.nodeid:
            item._id = type(item._id).parse(name)
    return result


@pytest.fixture(scope="session")
def imports() -> dict:
    """The names that the reference's own lines of imports define."""
    import torch

    torch.set_num_threads(1)
    (lines,) = re.findall(r"^```python\n(.*?)^```", _REFERENCE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {}
    exec(lines, names)
    return names


@pytest.fixture(autouse=True)
def _examples(request):
    """Give an example its imports; other tests have their own."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("doctest_namespace").update(request.getfixturevalue("imports"))
