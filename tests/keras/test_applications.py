"""All of keras.applications: read without an opaque node, and evaluated as Keras computes them.

The default suite takes one small member per family; `-m nightly` takes all.
"""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers as kl

from relucate.graph import evaluate
from relucate.keras.reading.reader import read

SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # all others: 32
FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
)
NORMS = {"InceptionV3": 94, "ResNet50": 53, "VGG16": 0, "InceptionResNetV2": 204}
ALL = sorted(n for n in dir(keras.applications) if n[0].isupper())
NOT_ON_TORCH = {"NASNetMobile"}  # Keras refuses to build it there


def build(name, *, first=False, **options):
    size = SMALLEST.get(name, 32)
    shape = (3, size, size) if first else (size, size, 3)
    options = {"weights": None, "input_shape": shape, "classes": 10, **options}
    return getattr(keras.applications, name)(**options)


def randomize(model):
    """Random weights that keep the signal's size, and random statistics."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        if "float" not in str(variable.dtype):
            continue
        shape = variable.shape
        value = random.standard_normal(shape, dtype=np.float32)
        if "variance" in variable.name or variable.name.startswith("gamma"):
            value = 0.5 + np.abs(value)
        elif len(shape) < 2:
            value *= 0.1
        else:
            depthwise = "depthwise" in variable.path and shape[-1] == 1
            value /= np.sqrt(np.prod(shape[:-2] if depthwise else shape[:-1]))
        variable.assign(value)


def assert_evaluates(model, graph):
    x = np.random.default_rng(1).uniform(0, 255, (1, *model.input_shape[1:])).astype("float32")
    expected = np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))
    (got,) = evaluate(graph, x)
    assert expected.std() > 0.01  # an all but constant output would agree by itself
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


NORM_LAYERS = (kl.BatchNormalization, kl.LayerNormalization)


def linear_operations(layer):
    """How many of them a layer has: a separable convolution is two."""
    if isinstance(layer, kl.SeparableConv2D):
        return 2
    return int(isinstance(layer, (kl.Conv2D, kl.DepthwiseConv2D, kl.Dense)))


def assert_readable(graph):
    assert graph.opaque == ()
    assert graph.obstacles == ()
    assert len(graph.outputs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name):
    model = build(name, classifier_activation=None)
    randomize(model)
    graph = read(model)
    assert_readable(graph)
    kinds = [node.kind for node in graph]
    layers = list(model._flatten_layers(include_self=False))  # nested models' too
    assert kinds.count("linear") == sum(map(linear_operations, layers))
    assert kinds.count("norm") == sum(isinstance(la, NORM_LAYERS) for la in layers)
    assert kinds.count("norm") == NORMS.get(name, kinds.count("norm"))
    assert graph.count_parameters() == sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert_evaluates(model, graph)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "ResNet50V2", "VGG16"])
def test_channels_first(name):
    kept = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        model = build(name, first=True, classifier_activation=None)
        randomize(model)
        graph = read(model)
        assert_readable(graph)
        formats = {n.attrs["data_format"] for n in graph if n.kind == "linear" and n.op != "dense"}
        assert formats == {"channels_first"}
        assert_evaluates(model, graph)
    finally:
        keras.config.set_image_data_format(kept)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [n for n in ALL if n not in FAMILIES])
def test_every_other_model(name):
    if name in NOT_ON_TORCH and keras.config.backend() == "torch":
        pytest.skip("not on the torch backend: see test_nasnet_on_jax")
    assert_readable(read(build(name)))


NASNET = """
    import keras
    import numpy as np
    from test_applications import assert_evaluates, assert_readable, build, randomize
    from relucate.keras.reading.reader import read

    assert keras.config.backend() == "jax"
    model = build("NASNetMobile", classifier_activation=None)
    randomize(model)
    graph = read(model)
    assert_readable(graph)
    assert_evaluates(model, graph)
    print("agreed")
"""


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_nasnet_on_jax():
    here = os.path.dirname(__file__)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": here}
    command = [sys.executable, "-c", textwrap.dedent(NASNET)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.strip().endswith("agreed"), run.stderr


def test_every_model_is_in_one_of_the_tests():
    assert set(FAMILIES) <= set(ALL)
    assert len(ALL) > 35
