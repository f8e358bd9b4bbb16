"""Shared by all tests: one Keras backend per process, one thread, no windows, equal numbers."""

import os
import random
import sys

import numpy as np
import pytest

import relucate  # noqa: F401  # chooses the Keras backend, as in a user's process

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from the same random numbers: a weight drawn at random must fail always."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def in_process():
    """Perform the tasks of every study in this process, without workers."""
    from tests.in_process import without_workers

    with without_workers():
        yield


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU is visible to PyTorch"))
