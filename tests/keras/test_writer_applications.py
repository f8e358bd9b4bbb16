"""keras.applications, written back: as they were, folded, converted there and back.

The default suite takes one small member per family; `-m nightly` takes all.
"""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from relucate.keras.reading.reader import read, read_with_calls
from relucate.keras.writing import writer
from relucate.surgery.convert import convert_graph
from relucate.surgery.fold import fold_graph
from relucate.surgery.rebuild import rebuild_graph

_PATH = Path(__file__).parent / "test_applications.py"
_SPEC = importlib.util.spec_from_file_location("tables_of_applications", _PATH)
APPLICATIONS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(APPLICATIONS)
FAMILIES, ALL, build = APPLICATIONS.FAMILIES, APPLICATIONS.ALL, APPLICATIONS.build
NESTED = ("ConvNeXt",)  # their layers get the nested model's name in front


def write(graph, model=None, **options):
    """Write a graph that was edited after reading `model`."""
    return writer.write(graph, None if model is None else read_with_calls(model), **options)


def made(name, **options):
    model = build(name, classifier_activation=None, **options)
    APPLICATIONS.randomize(model)
    return model


def outputs(model):
    random = np.random.default_rng(1)
    x = random.uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    return np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(x)), np.float64)


def assert_close(got, expected, tolerance):
    assert expected.std() > 0.01  # an all but constant output would agree by itself
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def assert_same_graph(got, expected, names):
    assert [n.op for n in got] == [n.op for n in expected]
    assert [dict(n.attrs) for n in got] == [dict(n.attrs) for n in expected]
    if names:
        assert list(got) == list(expected)
        assert got.trainable == expected.trainable
    assert len(got.tensors) == len(expected.tensors)
    for one, two in zip(got.tensors.values(), expected.tensors.values(), strict=True):
        np.testing.assert_array_equal(one, two)


def norms_of(model):
    return sum(isinstance(layer, kl.BatchNormalization) for layer in model._flatten_layers())


def check(name, **options):
    model = made(name, **options)
    graph, expected = read(model), outputs(model)
    written = write(graph, model)
    assert_same_graph(read(written), graph, not name.startswith(NESTED))
    np.testing.assert_array_equal(outputs(written), expected)
    plan = fold_graph(graph)
    folded = write(plan.graph, model)
    assert_close(outputs(folded), expected, 1e-5)
    skipped = [o for o in plan.outcomes if o.status != "done"]
    batch = sum(node.op == "batch_norm" for node in graph)
    assert norms_of(model) == batch
    assert norms_of(folded) == len(skipped) - (len(plan.outcomes) - batch)
    return model, graph, plan


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "ResNet50V2"])
def test_channels_first(name):
    kept = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        check(name, first=True)
    finally:
        keras.config.set_image_data_format(kept)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [n for n in ALL if n not in FAMILIES])
def test_every_other_model(name):
    if name in APPLICATIONS.NOT_ON_TORCH and keras.config.backend() == "torch":
        pytest.skip("Keras refuses to build it on the torch backend")
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "InceptionV3"])
def test_convert_there_and_back(name):
    model = made(name)
    expected = outputs(model)
    plan = convert_graph(read(model), "linear-act-norm")
    assert sum(outcome.status == "done" for outcome in plan.outcomes) > 20
    there = write(plan.graph, model)
    assert_close(outputs(there), expected, 1e-5)
    assert norms_of(there) == norms_of(model)
    back = write(convert_graph(read(there), "linear-norm-act").graph, there)
    assert_close(outputs(back), expected, 2e-5)


def test_fresh_weights_in_another_order():
    model = build("MobileNet", alpha=0.25)
    plan = rebuild_graph(read(model), "linear-act-norm")
    assert sum(outcome.status == "done" for outcome in plan.outcomes) > 20
    one, two = write(plan.graph, model, fresh=3), write(read(model), model, fresh=3)
    others = {w.path: keras.ops.convert_to_numpy(w) for w in two.weights}
    kernels = [w for w in one.weights if "kernel" in w.path]
    assert len(kernels) == 28
    for weight in kernels:  # alike in every order of their neighbours
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), others[weight.path])
    assert np.isfinite(outputs(one)).all()
