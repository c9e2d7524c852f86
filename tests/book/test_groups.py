"""The tests of a page or of a file run in one process of several, so that what they share is made once."""

import pytest


def test_a_process_that_runs_part_of_the_tests_runs_the_whole_group(request):
    """pytest and xdist have to agree on where the name of a test is: see the hook in the root's conftest.py."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("all tests run in one process")
    assert request.node.nodeid.endswith("@test_groups.py")
