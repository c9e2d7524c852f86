"""What all tests share: one thread, and random inputs that are the same in each run of a test."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Another order of the tests, or more of them, gives none of them other inputs."""
    torch.manual_seed(0)
