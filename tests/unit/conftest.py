"""Which tests one process does, of the two that share them, and which come first."""

from __future__ import annotations

import pytest

# They start processes from a fork server, which imports PyTorch once for all that one process starts.
PROCESSES = {
    "distributed.py",
    "test_compatibility.py",
    "test_distributed.py",
    "test_full_norm_processes.py",
    "test_machines_experiments.py",
    "test_measurement.py",
    "test_random_sequences.py",
    "test_sweep.py",
    "test_sync_batch_norm.py",
    "test_torch_parts.py",
}
# Files of which one process does all tests and which take longest. At the end, the other one would wait for it.
FIRST = {"test_equal_to_bnlib.py", "test_mutations.py", "test_claims.py"} | PROCESSES


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in PROCESSES:
            item.add_marker(pytest.mark.xdist_group("processes"))
    items.sort(key=lambda item: item.path.name not in FIRST)
