"""Garbage is looked for rarely; and what the examples in bnlib's docstrings take for granted: imports, one thread."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

# Each search for garbage walks through all that PyTorch and the pages of the site hold; 700 new objects start one.
gc.set_threshold(100_000, 20, 20)

_REFERENCE = Path(__file__).parent / "chapters" / "reference.md"


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
