"""The keras engine through a whole comparison on every backend that is installed, in processes of
their own; and what is chosen where nobody configured a backend."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from relucate.backend import BACKENDS, installed

COMPARE = """
    import json, sys
    import numpy as np, relucate
    random = np.random.default_rng(0)
    y = np.arange(240) % 4
    x = (random.normal(size=(4, 5))[y] + 0.6 * random.normal(size=(240, 5))).astype("f4")
    study = relucate.compare(
        "mlp", ((x[:160], y[:160]), (x[160:], y[160:])), engine="keras", pairs=1, jobs=1,
        orders=["linear-norm-act-drop", "linear-act-norm-drop"], progress=False,
        options={"width": 12, "depth": 1, "dropout": 0.1},
        recipe={"epochs": 3, "batch_size": 16, "weight_decay": 1e-3},
    )
    json.dump(study.to_dict(), sys.stdout, allow_nan=False)
"""


def compared(tmp_path, **environment):
    kept = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMPARE)],
        env={**kept, "KERAS_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "torch"])
def test_a_comparison_on_another_backend(backend, tmp_path):
    if not installed(backend):
        pytest.skip(f"{backend} isn't installed")
    study = compared(tmp_path, KERAS_BACKEND=backend)
    assert (study["engine"]["name"], study["engine"]["backend"]) == ("keras", backend)
    assert backend in study["versions"]
    assert all(run["status"] == "done" for run in study["runs"])
    assert all(run["metric"] > 0.8 for run in study["runs"])  # four classes: chance is 0.25


@pytest.mark.slow
def test_with_nothing_configured_the_first_installed_is_taken(tmp_path):
    first = next(backend for backend in BACKENDS if installed(backend))
    study = compared(tmp_path)
    assert study["engine"]["backend"] == first
    assert [run["status"] for run in study["runs"]] == ["done", "done"]
