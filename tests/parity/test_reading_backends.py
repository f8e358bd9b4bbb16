"""What is read by following its own call is read so on every backend that is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relucate.backend import BACKENDS, installed

KERAS = Path(__file__).parents[1] / "keras"


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch"])
@pytest.mark.parametrize("file", ["test_tracing.py", "test_subclassed.py"])
def test_on_every_backend(backend, file):
    if not installed(backend):
        pytest.skip(f"{backend} isn't installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-pno:cacheprovider", str(KERAS / file)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
