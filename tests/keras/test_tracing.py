"""Layers that hold layers are read inside if their call can be followed, else left and named."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate
from relucate.keras.reading.reader import read, read_with_calls

AFTER = "linear-act-norm"


class Block(kl.Layer):
    """Convolution, norm, activation, as public models write it."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = kl.Conv2D(filters, 3, padding="same", name="conv")
        self.bn = kl.BatchNormalization(name="bn")

    def build(self, shape):
        self.conv.build(shape)
        self.bn.build((*shape[:-1], self.filters))
        self.built = True

    def call(self, x, training=None):
        return keras.ops.relu(self.bn(self.conv(x), training=training))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.filters)


class Stage(kl.Layer):
    """Blocks within a layer, without a `training` argument, and a residual."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(4, name="a"), Block(4, name="b")]
        self.drop = kl.Dropout(0.5, name="drop")

    def call(self, x):
        y = x
        for block in self.blocks:
            y = block(y)
        return x + self.drop(y)


class Pair(kl.Layer):
    """Two tensors in, two out."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = Block(4, name="one"), Block(5, name="two")

    def call(self, tensors):
        return {"two": self.two(tensors[1]), "one": self.one(tensors[0])}


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stage, self.head = Stage(name="stage"), kl.Conv2D(3, 1, name="head")

    def call(self, x, training=False):
        return self.head(self.stage(x, training=training))


def staged():
    x = image = keras.Input((8, 8, 4))
    return keras.Model(image, kl.Dense(3, name="out")(kl.Flatten()(Stage(name="stage")(x))))


def shared():
    """One layer called twice."""
    image, block = keras.Input((8, 8, 4)), Block(4, name="block")
    return keras.Model(image, block(block(image)))


def paired():
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 2))
    found = Pair(name="pair")([a, b])
    return keras.Model([a, b], [kl.Conv2D(2, 1)(found["one"]), kl.Conv2D(2, 1)(found["two"])])


def subclassed():
    image = keras.Input((8, 8, 4))
    return keras.Model(image, kl.Flatten()(Subclassed(name="inner")(image)))


def unknown_size():
    image = keras.Input((None, None, 4))
    return keras.Model(image, kl.GlobalAveragePooling2D()(Stage(name="stage")(image)))


MODELS = {f.__name__: f for f in (staged, shared, paired, subclassed, unknown_size)}


@pytest.mark.parametrize("name", MODELS)
def test_read_inside_as_keras_computes_it(name, evaluated):
    graph = evaluated(MODELS[name](), unknown=8)
    assert not graph.opaque
    assert any(node.op == "batch_norm" for node in graph)


@pytest.mark.parametrize("name", MODELS)
def test_folded_exactly_into_a_model_without_own_classes(name, randomize):
    net = randomize(MODELS[name]())
    made, report = relucate.fold(net)
    assert report.certificate.passed
    assert report.skipped == ()
    assert {type(x).__module__.split(".")[0] for x in made._flatten_layers()} == {"keras"}
    random = np.random.default_rng(3)
    xs = [random.normal(size=(2, *(n or 9 for n in t.shape[1:]))) for t in net.inputs]
    given = [x.astype("float32") for x in xs]
    given = given if len(given) > 1 else given[0]
    pairs = zip(keras.tree.flatten(net(given)), keras.tree.flatten(made(given)), strict=True)
    for old, new in pairs:
        old, new = (keras.ops.convert_to_numpy(y) for y in (old, new))
        np.testing.assert_allclose(new, old, rtol=0, atol=1e-5 * np.abs(old).max())


@pytest.mark.parametrize("verb", [relucate.convert, relucate.rebuild])
@pytest.mark.parametrize("name", ["staged", "paired", "unknown_size"])
def test_moved_inside_to_the_promised_order(name, verb, randomize):
    made, report = verb(randomize(MODELS[name]()), "after")
    assert {outcome.status for outcome in report.sites} == {"done"}
    assert {site.order for site in relucate.audit(made).sites} == {AFTER}


def test_names_say_where_it_is():
    assert [site.name for site in relucate.audit(staged()).sites] == ["stage/a/bn", "stage/b/bn"]
    made, _ = relucate.fold(staged())
    assert [layer.name for layer in made.layers][1:3] == ["stage_a_conv", "stage_b_conv"]


def test_the_result_is_saved_and_loaded_without_the_classes(randomize, tmp_path):
    made, _ = relucate.convert(randomize(staged()), "after")
    made.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), made.predict(x, verbose=0))


def test_the_layer_is_not_changed(randomize):
    net = randomize(staged())
    stage = net.get_layer("stage")
    nodes = [len(layer._inbound_nodes) for layer in stage._flatten_layers()]
    values = [keras.ops.convert_to_numpy(v) for v in net.variables]
    read(net)
    assert [len(layer._inbound_nodes) for layer in stage._flatten_layers()] == nodes
    for old, variable in zip(values, net.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


def test_reading_twice_gives_the_same_names():
    net = staged()
    assert list(read(net).nodes) == list(read(net).nodes)
    assert any(node.name == "stage/add" for node in read(net))


def test_frozen_layers_stay_frozen():
    net = staged()
    net.get_layer("stage").trainable = False
    assert not any(key.startswith("stage") for key in read(net).trainable)
    made, _ = relucate.rebuild(net, "after")
    assert {v.path.split("/")[0] for v in made.trainable_variables} == {"out"}


def test_the_training_of_the_call_reaches_what_is_inside():
    image = keras.Input((8, 8, 4))
    reading = read_with_calls(keras.Model(image, Block(4, name="block")(image, training=False)))
    (norm,) = (node for node in reading.graph if node.op == "batch_norm")
    assert norm.attrs["forced"] is False
    assert any("'block' is called with training=False" in text for text in reading.graph.obstacles)


# What can't be followed stays one unknown layer, with the reason.


class Hidden(Block):
    """A block with one line of its own: `hide` gets the layer, the tensor and `training`."""

    def __init__(self, hide, **kwargs):
        super().__init__(4, **kwargs)
        self.hide = hide

    def build(self, shape):
        super().build(shape)
        self.gain = self.add_weight(shape=(4,), name="gain", initializer="ones")
        self.seen = self.add_weight(name="seen", initializer="zeros", trainable=False)

    def call(self, x, training=None):
        return self.hide(self, self.bn(self.conv(x), training=training), training)


def counted(layer, x, training):
    layer.seen.assign_add(1.0)
    return x


def lossy(layer, x, training):
    if keras.ops.is_tensor(x):  # Keras refuses a symbolic loss
        layer.add_loss(keras.ops.sum(x))
    return x


HIDING = {
    "depends on values": (lambda layer, x, t: x if keras.ops.sum(x) > 0 else -x, "followed"),
    "depends on training": (lambda layer, x, t: 2 * x if t else x, "in training mode than"),
    "a frozen norm": (lambda layer, x, t: layer.bn(x, training=False), "sets `training` for 'bn'"),
    "a weight of its own": (lambda layer, x, t: x * layer.gain, "weights or arrays of its own"),
    "a computed weight": (
        lambda layer, x, t: x * keras.ops.exp(layer.gain),
        "weights or arrays of its own",
    ),
    "a number made of a weight": (
        lambda layer, x, t: x * float(keras.ops.convert_to_numpy(layer.gain)[0]),
        "at inference than",
    ),
    "random numbers": (
        lambda layer, x, t: x + keras.random.normal((4,), seed=keras.random.SeedGenerator(1)),
        "weights or arrays of its own",
    ),
    "NumPy's random numbers": (
        lambda layer, x, t: x * np.random.default_rng().normal(size=4).astype("float32"),
        "at inference than",
    ),
    "a counter": (counted, "at inference than"),
    "a loss": (lossy, "at inference than"),
    "new layers": (lambda layer, x, t: kl.ReLU()(x), "makes layers while it runs"),
    "its own NumPy": (
        lambda layer, x, t: keras.ops.convert_to_tensor(np.tanh(x)),
        "followed",
    ),
}


@pytest.mark.parametrize("name", HIDING)
def test_what_cannot_be_followed_is_named_with_the_reason(name):
    hide, why = HIDING[name]
    image = keras.Input((8, 8, 4))
    layer = Hidden(hide, name="odd")
    layer.build((None, 8, 8, 4))
    layer.compute_output_spec = lambda x, **more: keras.KerasTensor(x.shape, x.dtype)
    net = keras.Model(image, kl.Flatten()(layer(image)))
    (node,) = read(net).opaque
    assert node.layer == "odd"
    assert why in node.attrs["why"]
    assert node.attrs["norms"] == ("odd/bn",) or node.attrs["norms"] == ("bn",)
    assert list(relucate.audit(net).hidden) == ["odd"]


def test_masks_and_casts_are_not_followed():
    tokens = keras.Input((8,), dtype="int32")
    x = kl.Embedding(9, 4, mask_zero=True)(tokens)

    class Dense(kl.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True
            self.inner, self.bn = kl.Dense(4), kl.BatchNormalization()

        def call(self, x):
            return self.bn(self.inner(x))

    (node,) = read(keras.Model(tokens, Dense(name="d")(x))).opaque
    assert node.attrs["why"] == "called with a mask"
    image = keras.Input((8,))
    (node,) = read(keras.Model(image, Dense(name="d", dtype="float16")(image))).opaque
    assert node.attrs["why"] == "casts its inputs"


def test_leaves_and_replaced_calls_are_left_alone():
    image = keras.Input((8, 8, 4))
    block = Block(4, name="block")
    net = keras.Model(image, block(image))
    block.call = lambda x, training=None: x
    (node,) = read(net).opaque
    assert node.attrs["why"] == "its call was replaced"
