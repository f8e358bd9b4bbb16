"""What is read by following its own call is read so on every backend that is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relucate.backend import BACKENDS, installed

TESTS = Path(__file__).parents[1]
FILES = ("keras/test_tracing.py", "keras/test_subclassed.py")
# Some of each kind: what is read computed in NumPy, a written model, a refusal, watching.
SOME = (
    "keras/test_tracing.py::test_read_inside_as_keras_computes_it[staged]",
    "keras/test_tracing.py::test_read_inside_as_keras_computes_it[paired]",
    "keras/test_tracing.py::test_folded_exactly_into_a_model_without_own_classes[shared]",
    "keras/test_tracing.py::test_what_cannot_be_followed_is_named_with_the_reason[random numbers]",
    "keras/test_tracing.py::test_the_training_of_the_call_reaches_what_is_inside",
    "keras/test_subclassed.py::test_rebuilt_in_the_promised_order[named]",
    "parity/test_watch.py::test_every_value_is_the_graphs[keras]",
)
BACKEND = pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch"])


def passed(backend, tests):
    if not installed(backend):
        pytest.skip(f"{backend} isn't installed")
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-pno:cacheprovider"]
    done = subprocess.run(
        [*command, *(str(TESTS / test) for test in tests)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@BACKEND
def test_on_every_backend(backend):
    passed(backend, SOME)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@BACKEND
@pytest.mark.parametrize("file", FILES)
def test_all_of_it_on_every_backend(backend, file):
    passed(backend, [file])
