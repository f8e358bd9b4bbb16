"""Folded and converted Keras models give the same outputs on every other installed backend."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import relucate
from relucate import nets
from relucate.backend import BACKENDS, installed

PREDICT = """
    import sys, keras, numpy as np
    x = np.load("x.npy")
    for name in sys.argv[1:]:
        np.save(name + ".npy", keras.models.load_model(name + ".keras").predict(x, verbose=0))
    assert not [name for name in sys.modules if name.startswith("relucate")]
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with the models' files, the input, and the outputs here."""
    folder = tmp_path_factory.mktemp("written")
    model = nets.build("cnn", "after", (8, 8, 3), 10, width=4, depth=1)
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif "norm" in weight.path or "bn" in weight.path or "bias" in weight.path:
            weight.assign(random.normal(size=weight.shape) * 0.3)
    models = {
        "folded": relucate.fold(model, strategy="ones")[0],
        "converted": relucate.convert(model, "before")[0],
    }
    for name, made in models.items():
        made.save(folder / f"{name}.keras")
    x = random.normal(size=(4, 8, 8, 3)).astype("float32")
    np.save(folder / "x.npy", x)
    outputs = {name: made.predict(x, verbose=0) for name, made in models.items()}
    return folder, model.predict(x, verbose=0), outputs


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch"])
def test_on_every_backend(backend, written):
    if not installed(backend):
        pytest.skip(f"{backend} isn't installed")
    folder, original, here = written
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PREDICT), *here],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    there = {name: np.load(folder / f"{name}.npy") for name in here}
    scale = np.abs(original).max()
    assert keras.backend.backend() == "torch"
    for name, output in there.items():
        np.testing.assert_allclose(output, original, rtol=0, atol=1e-5 * scale)
        np.testing.assert_allclose(output, here[name], rtol=0, atol=1e-5 * scale)
