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
# Files that take longest. At the end, the other process would wait for the one that does them.
FIRST = {"test_committed_results.py", "test_equal_to_bnlib.py", "test_mutations.py", "test_claims.py"} | PROCESSES


def pytest_collection_modifyitems(items):
    """Let one process do all tests of a file, which often share what a fixture or a cached function has computed.

    Besides, the time that xdist needs to hand out a test grows with the number of groups that it has handed out.
    """
    for item in items:
        if item.path.name in PROCESSES:
            item.add_marker(pytest.mark.xdist_group("processes"))
        elif item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
    items.sort(key=lambda item: item.path.name not in FIRST)
