import math
from collections import Counter
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate
from relucate.errors import InputError
from relucate.keras import InceptionV3, read
from relucate.keras.inception_v3 import decode_predictions, preprocess_input
from relucate.order import Order
from relucate.torch import lower

TOP = {"classes": 7, "classifier_activation": None, "input_shape": (107, 75, 3)}
SMALL = {"width": 2, "include_top": False}


def table(edition):
    """Every block (name, filters, rows, columns, stride, padding) as Keras's sources list them."""
    old = edition == "1.x"
    rows = [
        ("stem_1", 32, 3, 3, 2, "valid"),
        ("stem_2", 32, 3, 3, 1, "valid"),
        ("stem_3", 64, 3, 3, 1, "same"),
        ("stem_4", 80, 1, 1, 1, "valid"),
        ("stem_5", 192, 3, 3, 1, "valid"),
    ]

    def add(name, filters, height, width, stride=1):
        rows.append((name, filters, height, width, stride, "same" if stride == 1 else "valid"))

    for i, pool in enumerate([32, 32, 32] if old else [32, 64, 64]):
        add(f"mixed{i}_1x1", 64, 1, 1)
        add(f"mixed{i}_5x5_1", 48, 1, 1)
        add(f"mixed{i}_5x5_2", 64, 5, 5)
        add(f"mixed{i}_3x3dbl_1", 64, 1, 1)
        add(f"mixed{i}_3x3dbl_2", 96, 3, 3)
        add(f"mixed{i}_3x3dbl_3", 96, 3, 3)
        add(f"mixed{i}_pool", pool, 1, 1)
    add("mixed3_3x3", 384, 3, 3, 2)
    add("mixed3_3x3dbl_1", 64, 1, 1)
    add("mixed3_3x3dbl_2", 96, 3, 3)
    add("mixed3_3x3dbl_3", 96, 3, 3, 2)
    for i, n in zip([4, 5, 6, 7], [128, 160, 160, 192], strict=True):
        add(f"mixed{i}_1x1", 192, 1, 1)
        add(f"mixed{i}_7x7_1", n, 1, 1)
        add(f"mixed{i}_7x7_2", n, 1, 7)
        add(f"mixed{i}_7x7_3", 192, 7, 1)
        add(f"mixed{i}_7x7dbl_1", 160 if old and i == 7 else n, 1, 1)
        add(f"mixed{i}_7x7dbl_2", n, 7, 1)
        add(f"mixed{i}_7x7dbl_3", n, 1, 7)
        add(f"mixed{i}_7x7dbl_4", n, 7, 1)
        add(f"mixed{i}_7x7dbl_5", 192, 1, 7)
        add(f"mixed{i}_pool", 192, 1, 1)
    add("mixed8_3x3_1", 192, 1, 1)
    add("mixed8_3x3_2", 320, 3, 3, 2)
    add("mixed8_7x7x3_1", 192, 1, 1)
    add("mixed8_7x7x3_2", 192, 1, 7)
    add("mixed8_7x7x3_3", 192, 7, 1)
    add("mixed8_7x7x3_4", 192, 3, 3, 2)
    for i in (9, 10):
        add(f"mixed{i}_1x1", 320, 1, 1)
        add(f"mixed{i}_3x3_1", 384, 1, 1)
        add(f"mixed{i}_3x3_2a", 384, 1, 3)
        add(f"mixed{i}_3x3_2b", 384, 3, 1)
        add(f"mixed{i}_3x3dbl_1", 448, 1, 1)
        add(f"mixed{i}_3x3dbl_2", 384, 3, 3)
        add(f"mixed{i}_3x3dbl_3a", 384, 1, 3)
        add(f"mixed{i}_3x3dbl_3b", 384, 3, 1)
        add(f"mixed{i}_pool", 192, 1, 1)
    return rows


def randomize(model, random):
    """Statistics of no identity norm, and weights with which the images still differ at the end."""
    for variable in model.weights:
        shape, role = variable.shape, variable.name
        if role == "kernel":
            values = 2 * random.normal(size=shape) / math.prod(shape[:-1]) ** 0.5
        elif role == "moving_variance":
            values = random.uniform(0.5, 2.0, shape)
        elif role == "gamma":
            values = random.uniform(0.5, 1.5, shape)
        else:
            values = 0.3 * random.normal(size=shape)
        variable.assign(values.astype("float32"))
    return model


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def images(random):
    return random.normal(size=(3, 107, 75, 3)).astype("float32")


@pytest.fixture(scope="module")
def theirs(random):
    return randomize(keras.applications.InceptionV3(weights=None, **TOP), random)


@pytest.fixture(scope="module")
def ours(theirs):
    model = InceptionV3(**TOP)
    model.set_weights(theirs.get_weights())
    return model


@pytest.fixture(scope="module")
def after(random):
    return randomize(InceptionV3("after", **SMALL), random)


def differs(outputs):
    """Whether the images, and so every layer on the way, matter for the output."""
    return np.ptp(outputs, axis=0).max() > 0.03 * np.abs(outputs).max()


def config(layer):
    """A layer's class and configuration, without what only numbers the layers."""
    found = {k: v for k, v in layer.get_config().items() if k != "name"}
    if "axis" in found:
        found["axis"] %= 4  # 3 or -1
    return type(layer).__name__, found


def data_flow(model):
    """Each node as its op, attributes and the places of the nodes that it reads."""
    graph = read(model)
    place = {name: i for i, name in enumerate(graph.nodes)}
    axis = {"axis": 3}
    return [
        (
            n.op,
            n.shape,
            [place[i] for i in n.inputs],
            {**n.attrs, **(axis if "axis" in n.attrs else {})},
        )
        for n in graph
    ]


def test_before_is_keras_applications_layer_for_layer(theirs, ours):
    assert [config(a) for a in ours.layers] == [config(b) for b in theirs.layers]
    assert data_flow(ours) == data_flow(theirs)
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    named = [la.name for la in theirs.layers if la.name.startswith(("mixed", "avg_pool", "pred"))]
    assert len(named) == 15
    assert {la.name for la in ours.layers} >= set(named)


def test_weights_move_across_and_outputs_agree_exactly(theirs, ours, images):
    expected = theirs.predict(images, verbose=0)
    assert differs(expected)
    np.testing.assert_array_equal(ours.predict(images, verbose=0), expected)


def test_the_same_seed_starts_both_from_the_same_values():
    keras.utils.set_random_seed(3)
    a = InceptionV3(classes=2, input_shape=(75, 75, 3)).get_weights()
    keras.utils.set_random_seed(3)
    b = keras.applications.InceptionV3(weights=None, classes=2, input_shape=(75, 75, 3))
    assert all(np.array_equal(x, y) for x, y in zip(a, b.get_weights(), strict=True))


def test_after_has_the_parameters_of_the_published_file():
    """94,643,872 bytes of float32 in the file of release v0.2, from its list of arrays."""
    model = InceptionV3("after", edition="1.x")
    assert model.count_params() * 4 == 94_643_872
    assert model.input_shape == (None, 299, 299, 3)
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize(("order", "edition"), [("before", "1.x"), ("after", "today")])
def test_the_94_blocks(order, edition):
    model = InceptionV3(order, edition=edition, include_top=False)
    convs = {la.name: la for la in model.layers if isinstance(la, kl.Conv2D)}
    expected = table(edition)
    assert len(expected) == len(convs) == 94
    for name, filters, rows, cols, stride, padding in expected:
        conv = convs[name + "_conv"]
        found = (conv.filters, *conv.kernel_size, *conv.strides, conv.padding)
        assert found == (filters, rows, cols, stride, stride, padding), name
        assert conv.use_bias == (order == "after")
    last = kl.AveragePooling2D if edition == "1.x" else kl.MaxPooling2D
    (pool,) = [
        la
        for la in model.layers
        if la.name.startswith("mixed8_") and "pool" in type(la).__name__.lower()
    ]
    assert isinstance(pool, last)
    assert (pool.pool_size, pool.strides, pool.padding) == ((3, 3), (2, 2), "valid")
    for norm in (la for la in model.layers if isinstance(la, kl.BatchNormalization)):
        assert (norm.scale, norm.epsilon, norm.momentum) == (order == "after", 1e-3, 0.99)


def test_only_the_listed_places_tell_the_editions_apart():
    differ = [a[0] for a, b in zip(table("1.x"), table("today"), strict=True) if a != b]
    assert differ == ["mixed1_pool", "mixed2_pool", "mixed7_7x7dbl_1"]


@pytest.mark.parametrize(
    "order", ["norm-act-linear", "norm-linear-act", "linear-drop-act-norm", "none"]
)
def test_every_block_has_its_tokens_in_the_order(order):
    dropout = 0.1 if "drop" in order else 0.0
    model = InceptionV3(order, input_shape=(75, 75, 3), dropout=dropout, **SMALL)
    graph = read(model)
    tokens = Order(order).tokens
    counts = Counter(node.kind for node in graph)
    assert {kind: counts[kind] for kind in ("linear", "norm", "act", "drop")} == {
        kind: 94 * (kind in tokens) for kind in ("linear", "norm", "act", "drop")
    }
    suffix = {"linear": "_conv", "norm": "_bn", "act": "", "drop": "_drop"}
    for name, *_ in table("today"):
        for first, second in pairwise(tokens):
            assert graph.nodes[name + suffix[second]].inputs == (name + suffix[first],)
    assert model.output_shape == (None, 1, 1, 128)
    audited = Order(order).without("drop") if "drop" in tokens else Order(order)
    assert relucate.audit(model).summary == ({str(audited): 94} if "norm" in tokens else {})


def test_audit_finds_94_sites_all_in_the_order(ours, after):
    for model, order in ((ours, "linear-norm-act"), (after, "linear-act-norm")):
        report = relucate.audit(model)
        assert len(report.sites) == 94
        assert report.summary == {order: 94}


def test_channels_first_computes_the_same(after, images):
    first = InceptionV3("after", data_format="channels_first", **SMALL)
    first.set_weights(after.get_weights())
    assert first.input_shape == (None, 3, None, None)
    assert {la.axis for la in first.layers if isinstance(la, kl.BatchNormalization)} == {1}
    expected = after.predict(images, verbose=0).transpose(0, 3, 1, 2)
    assert differs(expected)
    got = first.predict(images.transpose(0, 3, 1, 2), verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_channels_first_by_keras_configuration(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert InceptionV3(**SMALL).output_shape == (None, 128, None, None)


def test_pooling(after, images):
    features = after.predict(images, verbose=0)
    assert features.shape == (3, 2, 1, 128)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        model = InceptionV3("after", pooling=pooling, **SMALL)
        model.set_weights(after.get_weights())
        assert model.output_shape == (None, 128)
        assert [la.name for la in model.layers[:-1]] == [la.name for la in after.layers]
        expected = reduce(features, axis=(1, 2))
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-5)


def test_lowered_it_computes_the_same(after, images):
    module = lower(read(after)).eval()
    import torch

    with torch.no_grad():
        got = module(torch.from_numpy(images)).numpy()
    expected = after.predict(images, verbose=0)
    assert differs(expected)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_names_are_the_same_in_every_order(after):
    before = InceptionV3("before", name="mine", **SMALL)
    assert {la.name for la in before.layers} == {la.name for la in after.layers}
    assert before.name == "mine"


def test_input_tensor():
    image = keras.Input((80, 90, 3), name="image")
    scaled = kl.Dense(3, name="mix")(image)
    model = InceptionV3("after", input_tensor=scaled, **SMALL)
    assert model.inputs[0] is image
    assert model.layers[1].name == "mix"


def test_width_scales_the_filters():
    model = InceptionV3(width=8, include_top=False)
    for name, filters, *_ in table("today"):
        assert model.get_layer(name + "_conv").filters == filters // 4


def test_the_classifier():
    model = InceptionV3(classes=5, classifier_activation=None, input_shape=(75, 75, 1), width=2)
    assert model.layers[-1].activation is keras.activations.linear
    assert (model.input_shape, model.output_shape) == ((None, 75, 75, 1), (None, 5))


def test_preprocessing_is_kerass():
    x = np.array([[[[0.0, 127.5, 255.0]]]])
    np.testing.assert_allclose(preprocess_input(x.copy()), [[[[-1, 0, 1]]]])
    # Keras 1.x wrote it as x / 255, minus 0.5, times 2.
    y = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3))
    np.testing.assert_allclose(preprocess_input(y.copy()), (y / 255 - 0.5) * 2)
    assert decode_predictions is keras.applications.inception_v3.decode_predictions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "befor"}, "befor"),
        ({"edition": "2.x"}, r"unknown edition of InceptionV3 '2.x'.*today, 1.x"),
        ({"data_format": "channel_last"}, "unknown data format 'channel_last'"),
        ({"pooling": "mean"}, "unknown pooling 'mean'"),
        ({"width": 0}, "width must be a whole number above 0, got 0"),
        ({"width": 2.0}, "width must be a whole number above 0, got 2.0"),
        ({"input_shape": (74, 80, 3)}, r"75×75 pixels or more, got the shape \(74, 80, 3\)"),
        ({"input_shape": (80, 3)}, r"input_shape is \(rows, columns, channels\), got \(80, 3\)"),
        (
            {"input_shape": (None, 80, 3)},
            "include_top=True, all sizes in input_shape must be known",
        ),
        ({"input_shape": (80, 80, None)}, "a number of channels got|with a number of channels"),
        (
            {"data_format": "channels_first", "input_shape": (80, 80, 3)},
            r"75×75 pixels or more, got the shape \(80, 80, 3\)",
        ),
        ({"input_tensor": np.zeros((1, 80, 80, 3))}, "symbolic Keras tensor.*got ndarray"),
        ({"input_tensor": keras.Input((5,))}, r"symbolic Keras tensor.*\(None, 5\)"),
        ({"input_tensor": keras.Input((60, 99, 3))}, r"75×75 pixels.*\(60, 99, 3\)"),
        ({"norm": "bacth"}, "unknown norm 'bacth'"),
        ({"dropout": 0.5}, "no place in the order"),
        ({"weights": "imagnet"}, "None.*'imagenet', or the path.*'imagnet', which is no file"),
        ({"weights": 3}, "got 3, which is no file"),
        ({"weights": "imagenet", "classes": 10}, "1000 classes, got classes=10"),
        ({"weights": "imagenet", "width": 16}, "for width=32.*got width=16"),
        ({"weights": "imagenet", "activation": "elu"}, "activation='elu'"),
        ({"weights": "imagenet", "order": "norm-act-linear"}, "not in 'norm-act-linear'"),
        ({"weights": "imagenet", "input_shape": (80, 80, 3)}, r"input_shape=\(299, 299, 3\), got"),
        (
            {"weights": "imagenet", "include_top": False, "input_shape": (80, 80, 1)},
            r"with 3 channels.*\(80, 80, 1\)",
        ),
        (
            {"weights": "imagenet", "classifier_activation": "sigmoid"},
            "classifier_activation is None or 'softmax', got 'sigmoid'",
        ),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        InceptionV3(**options)
