"""Every layer that the reader knows: Keras, the NumPy evaluator and the lowered module agree."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

from relucate.errors import Refused
from relucate.graph import evaluate
from relucate.keras.layers import _FUNCTIONS, _LAYERS, activation, steps
from relucate.keras.reader import read
from relucate.torch import lower

ODD = {1: (11, 4), 2: (9, 6, 4), 3: (5, 6, 4, 4)}
EVEN = {1: (8, 3), 2: (8, 10, 3), 3: (4, 6, 5, 3)}
CONV = {1: kl.Conv1D, 2: kl.Conv2D, 3: kl.Conv3D}
MAX = {1: kl.MaxPooling1D, 2: kl.MaxPooling2D, 3: kl.MaxPooling3D}
AVERAGE = {1: kl.AveragePooling1D, 2: kl.AveragePooling2D, 3: kl.AveragePooling3D}


def channels_first(shape):
    return (shape[-1], *shape[:-1])


def net(shape, *layers):
    x = image = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, x)


def case(name, shape, *layers):
    return pytest.param(shape, layers, id=name)


def convolutions():
    for rank in (1, 2, 3):
        for padding in ("same", "valid"):
            for shape in (ODD[rank], EVEN[rank]):
                for window, strides in ((3, 1), (3, 2), (2, 2), (4, 3), (1, 2)):
                    yield (
                        rank,
                        shape,
                        {
                            "kernel_size": window,
                            "strides": strides,
                            "padding": padding,
                        },
                    )


CONVOLUTIONS = [
    case(f"{rank}d-{shape[0]}-{o['kernel_size']}/{o['strides']}-{o['padding']}", shape, kind)
    for rank, shape, o in convolutions()
    for kind in [lambda x, rank=rank, o=o: CONV[rank](5, **o)(x)]
]


@pytest.mark.parametrize(("shape", "layers"), CONVOLUTIONS)
def test_convolution(agree, shape, layers):
    agree(net(shape, *layers))


SHAPES = {
    "conv-dilated": (ODD[2], lambda: kl.Conv2D(3, 3, dilation_rate=2, padding="same")),
    "conv-dilated-valid": (ODD[1], lambda: kl.Conv1D(3, 3, dilation_rate=3)),
    "conv-even-dilated": (ODD[2], lambda: kl.Conv2D(3, (2, 4), dilation_rate=2, padding="same")),
    "conv-groups": (ODD[2], lambda: kl.Conv2D(6, 3, groups=2, strides=2, padding="same")),
    "conv-oblong": (ODD[2], lambda: kl.Conv2D(5, (1, 4), strides=(3, 1), padding="same")),
    "conv-no-bias-act": (ODD[2], lambda: kl.Conv2D(5, 3, use_bias=False, activation="tanh")),
    "conv-first": (
        channels_first(ODD[2]),
        lambda: kl.Conv2D(5, 3, strides=2, padding="same", data_format="channels_first"),
    ),
    "conv1d-first": (
        channels_first(ODD[1]),
        lambda: kl.Conv1D(5, 4, padding="same", data_format="channels_first"),
    ),
    "depthwise1d": (ODD[1], lambda: kl.DepthwiseConv1D(3, strides=2, padding="same")),
    "depthwise": (ODD[2], lambda: kl.DepthwiseConv2D(3, depth_multiplier=3, padding="same")),
    "depthwise-stride": (
        EVEN[2],
        lambda: kl.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same"),
    ),
    "depthwise-dilated": (ODD[2], lambda: kl.DepthwiseConv2D(2, dilation_rate=2, use_bias=False)),
    "depthwise-first": (
        channels_first(ODD[2]),
        lambda: kl.DepthwiseConv2D(
            3, depth_multiplier=2, padding="same", data_format="channels_first", activation="relu"
        ),
    ),
    "separable1d": (ODD[1], lambda: kl.SeparableConv1D(5, 3, strides=2, padding="same")),
    "separable": (
        EVEN[2],
        lambda: kl.SeparableConv2D(
            5, 3, strides=2, depth_multiplier=2, padding="same", activation="relu"
        ),
    ),
    "separable-first": (
        channels_first(ODD[2]),
        lambda: kl.SeparableConv2D(5, 3, padding="same", data_format="channels_first"),
    ),
    "dense": ((5,), lambda: kl.Dense(4)),
    "dense-image": (ODD[2], lambda: kl.Dense(3, use_bias=False, activation="sigmoid")),
    "flatten": (ODD[2], lambda: kl.Flatten()),
    "flatten-first": (ODD[2], lambda: kl.Flatten(data_format="channels_first")),
    "reshape": (ODD[2], lambda: kl.Reshape((6, 9, 4))),
    "reshape-rest": (ODD[2], lambda: kl.Reshape((-1, 8))),
    "permute": (ODD[2], lambda: kl.Permute((3, 1, 2))),
    "zero-pad1d": (ODD[1], lambda: kl.ZeroPadding1D((1, 2))),
    "zero-pad": (ODD[2], lambda: kl.ZeroPadding2D(((1, 0), (2, 3)))),
    "zero-pad-first": (
        ODD[2],
        lambda: kl.ZeroPadding2D(((1, 0), (2, 3)), data_format="channels_first"),
    ),
    "zero-pad3d": (ODD[3], lambda: kl.ZeroPadding3D(((1, 0), (0, 2), (1, 1)))),
    "upsample1d": (ODD[1], lambda: kl.UpSampling1D(3)),
    "upsample": (ODD[2], lambda: kl.UpSampling2D((2, 3))),
    "upsample-first": (ODD[2], lambda: kl.UpSampling2D((2, 3), data_format="channels_first")),
    "upsample3d": (ODD[3], lambda: kl.UpSampling3D((1, 2, 3))),
    "rescale": (ODD[2], lambda: kl.Rescaling(1 / 127.5, offset=-1)),
    "identity": (ODD[2], lambda: kl.Identity()),
    "dropout": (ODD[2], lambda: kl.Dropout(0.5)),
    "spatial-dropout1d": (ODD[1], lambda: kl.SpatialDropout1D(0.5)),
    "spatial-dropout": (ODD[2], lambda: kl.SpatialDropout2D(0.5)),
    "spatial-dropout3d": (ODD[3], lambda: kl.SpatialDropout3D(0.5)),
    "activation-linear": (ODD[2], lambda: kl.Activation("linear")),
    "relu": (ODD[2], lambda: kl.ReLU()),
    "relu-6": (ODD[2], lambda: kl.ReLU(max_value=6)),
    "relu-top": (ODD[2], lambda: kl.ReLU(max_value=0.7)),
    "relu-slope": (ODD[2], lambda: kl.ReLU(negative_slope=0.3)),
    "relu-slope-top": (ODD[2], lambda: kl.ReLU(max_value=0.5, negative_slope=0.3)),
    "relu-threshold": (ODD[2], lambda: kl.ReLU(threshold=0.4)),
    "relu-all": (ODD[2], lambda: kl.ReLU(max_value=1.0, negative_slope=0.2, threshold=0.4)),
    "leaky": (ODD[2], lambda: kl.LeakyReLU(negative_slope=0.1)),
    "elu": (ODD[2], lambda: kl.ELU(alpha=0.6)),
    "prelu": (ODD[2], lambda: kl.PReLU()),
    "prelu-shared": (ODD[2], lambda: kl.PReLU(shared_axes=[1, 2])),
    "softmax": (ODD[2], lambda: kl.Softmax()),
    "softmax-axis": (ODD[2], lambda: kl.Softmax(axis=1)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_layer(agree, name):
    shape, make = SHAPES[name]
    agree(net(shape, make()))


@pytest.mark.parametrize("name", ["relu-slope", "prelu", "spatial-dropout", "zero-pad-first"])
def test_layer_between_convolutions(agree, name):
    """Where the channels are already in front, the layer must not take them for the last axis."""
    shape, make = SHAPES[name]
    agree(net(shape, kl.Conv2D(4, 3, padding="same"), make(), kl.Conv2D(2, 1)))


FOLLOWERS = {
    "dense": lambda: kl.Dense(3),
    "flatten": lambda: kl.Flatten(),
    "reshape": lambda: kl.Reshape((-1, 2)),
    "permute": lambda: kl.Permute((2, 3, 1)),
    "softmax": lambda: kl.Softmax(),
    "softmax-first": lambda: kl.Softmax(axis=1),
    "conv-first": lambda: kl.Conv2D(3, 2, data_format="channels_first", padding="same"),
    "flatten-first": lambda: kl.Flatten(data_format="channels_first"),
    "pool-first": lambda: kl.GlobalAveragePooling2D(data_format="channels_first"),
    "spatial-first": lambda: kl.SpatialDropout2D(0.5, data_format="channels_first"),
    "norm-first": lambda: kl.BatchNormalization(axis=1),
    "norm-middle": lambda: kl.BatchNormalization(axis=2),
    "prelu": lambda: kl.PReLU(),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_layout_after_convolution(agree, name):
    agree(net(ODD[2], kl.Conv2D(4, 3), FOLLOWERS[name](), kl.Activation("tanh")))


def pools():
    for rank in (1, 2, 3):
        for shape in (ODD[rank], EVEN[rank]):
            for window, strides in ((2, None), (3, 2), (3, 1), (2, 3), (2, 1)):
                for padding in ("same", "valid"):
                    yield pytest.param(
                        rank,
                        shape,
                        window,
                        strides,
                        padding,
                        id=f"{rank}d-{shape[0]}-{window}/{strides}-{padding}",
                    )


@pytest.mark.parametrize(("rank", "shape", "window", "strides", "padding"), [*pools()])
def test_pools(agree, rank, shape, window, strides, padding):
    options = {"strides": strides, "padding": padding}
    agree(net(shape, MAX[rank](window, **options)))
    # With "same" padding that is wider on one side Keras on torch repeats the border, against
    # Keras's own rule: there the oracle is the NumPy evaluator alone.
    graph = read(net(shape, AVERAGE[rank](window, **options)))
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    (expected,) = evaluate(graph, x)
    got = lower(graph)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_average_pool_leaves_the_padding_out():
    graph = read(net((4, 1), kl.AveragePooling1D(3, strides=2, padding="same")))
    x = np.array([1.0, 2.0, 3.0, 8.0]).reshape(1, 4, 1)
    expected = np.array([2.0, 5.5]).reshape(1, 2, 1)  # means of 1, 2, 3 and of 3, 8
    np.testing.assert_allclose(evaluate(graph, x)[0], expected)
    got = lower(graph)(torch.from_numpy(x.astype("float32")))
    np.testing.assert_allclose(got.numpy(), expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_average_pool_with_even_borders_agrees_with_keras(agree, padding):
    agree(net(ODD[2], kl.AveragePooling2D(3, strides=1, padding=padding)))
    agree(
        net(channels_first(ODD[2]), kl.AveragePooling2D(3, data_format="channels_first")),
    )


@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_global_pools(agree, kind, rank, keepdims, data_format):
    pool = getattr(kl, f"Global{kind}Pooling{rank}D")
    agree(net(ODD[rank], pool(keepdims=keepdims, data_format=data_format)))
    if rank > 1:
        agree(net(ODD[rank], CONV[rank](4, 2), pool(keepdims=keepdims), kl.Activation("relu")))


def test_global_max_pool_shares_the_gradient_between_ties():
    model = net((2, 2, 1), kl.GlobalMaxPooling2D())
    x = torch.tensor([3.0, 3.0, 1.0, 3.0]).reshape(1, 2, 2, 1)
    gradients = []
    for function in (model, lower(read(model))):
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
        gradients.append(leaf.grad.ravel().tolist())
    assert gradients[0] == gradients[1]
    assert gradients[0] == pytest.approx([1 / 3, 1 / 3, 0.0, 1 / 3])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_value": 6},
        {"max_value": 1.0},
        {"threshold": 1.0},
        {"negative_slope": 0.5},
        {"max_value": 2.0, "negative_slope": 0.5, "threshold": 1.0},
    ],
    ids=str,
)
def test_relu_has_keras_value_and_gradient_at_its_kinks(options):
    model = net((6,), kl.ReLU(**options))
    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0, 6.0, 7.0]])
    found = []
    for function in (model, lower(read(model))):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.sum().backward()
        found.append((y.tolist(), leaf.grad.tolist()))
    assert found[0] == found[1]
    np.testing.assert_allclose(evaluate(read(model), x.numpy())[0], found[0][0])


NORMS = {
    "batch": (ODD[2], lambda: kl.BatchNormalization()),
    "batch-bare": (ODD[2], lambda: kl.BatchNormalization(scale=False, center=False)),
    "batch-beta": (ODD[2], lambda: kl.BatchNormalization(scale=False, epsilon=0.1)),
    "batch-gamma": (ODD[2], lambda: kl.BatchNormalization(center=False, momentum=0.5)),
    "batch-axis1": (ODD[2], lambda: kl.BatchNormalization(axis=1)),
    "batch-dense": ((5,), lambda: kl.BatchNormalization(momentum=0.0)),
    "batch-1d": (ODD[1], lambda: kl.BatchNormalization()),
    "batch-3d": (ODD[3], lambda: kl.BatchNormalization()),
    "layer": (ODD[2], lambda: kl.LayerNormalization()),
    "layer-bare": (ODD[2], lambda: kl.LayerNormalization(scale=False, center=False)),
    "layer-beta": ((5,), lambda: kl.LayerNormalization(scale=False, epsilon=0.1)),
    "layer-two": (ODD[2], lambda: kl.LayerNormalization(axis=[2, 3])),
    "group": (ODD[2], lambda: kl.GroupNormalization(2)),
    "group-one": (ODD[2], lambda: kl.GroupNormalization(1, epsilon=0.1)),
    "group-each": (ODD[2], lambda: kl.GroupNormalization(-1)),
    "group-bare": (ODD[2], lambda: kl.GroupNormalization(2, scale=False, center=False)),
    "group-beta": (ODD[2], lambda: kl.GroupNormalization(2, scale=False)),
    "group-gamma": (ODD[2], lambda: kl.GroupNormalization(2, center=False)),
    "group-axis1": (ODD[2], lambda: kl.GroupNormalization(3, axis=1)),
    "group-dense": ((6,), lambda: kl.GroupNormalization(3)),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_norm(agree, name, training):
    shape, make = NORMS[name]
    agree(net(shape, make()), training=training)


@pytest.mark.parametrize("name", [n for n in NORMS if NORMS[n][0] == ODD[2]])
def test_norm_between_convolutions(agree, name):
    shape, make = NORMS[name]
    agree(net(shape, kl.Conv2D(4, 1), make(), kl.Conv2D(2, 1)), training=True)


@pytest.mark.parametrize("axis", [1, 2, [1, 2], [3, 1], [-1, 1]])
@pytest.mark.parametrize("center", [False, True])
def test_layer_norm_over_other_axes(randomize, axis, center):
    """Keras's torch backend fails there: the oracle is the NumPy evaluator alone."""
    layer = kl.LayerNormalization(axis=axis, center=center, scale=not center)
    graph = read(randomize(net(ODD[2], kl.Conv2D(4, 1), layer)))
    x = np.random.default_rng(0).normal(size=(2, *ODD[2])).astype("float32")
    with torch.no_grad():
        got = lower(graph)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, evaluate(graph, x)[0], atol=1e-5)


FUNCTIONS = sorted(f.__name__ for f in _FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation(agree, name):
    """As a layer, as an argument, and as a function of a symbolic tensor where that is known."""
    graph, _ = agree(net((4, 5), kl.Activation(name), kl.Dense(6, activation=name)))
    assert [node.kind for node in graph] == ["other", "act", "linear", "act"]


def test_every_activation_is_lowered_or_named():
    names = [n for n in dir(keras.activations) if n[0].islower()]
    names = set(names) - {"get", "serialize", "deserialize", "linear", "threshold", "glu"}
    opaque = {n for n in names if activation(keras.activations.get(n))[0].op == "opaque"}
    assert opaque == {"sparsemax"}


MERGES = [kl.Add, kl.Subtract, kl.Multiply, kl.Average, kl.Maximum, kl.Minimum]


@pytest.mark.parametrize("kind", MERGES)
def test_merge(agree, kind):
    image = keras.Input((4, 4, 3))
    left, right = kl.Conv2D(3, 3, padding="same")(image), kl.Conv2D(3, 1)(image)
    agree(keras.Model(image, kind()([left, right])))
    agree(keras.Model(image, kind()([left, image])))  # one with its channels in front, one not


@pytest.mark.parametrize("kind", MERGES)
def test_merge_of_different_ranks(agree, kind):
    """Keras gives the lower rank its missing axes behind the batch, not in front of it."""
    image = keras.Input((4, 5, 3))
    x = kl.Conv2D(3, 3, padding="same")(image)
    rows = kl.Reshape((5, 3))(kl.Dense(15)(kl.GlobalMaxPooling2D()(x)))
    for lower_rank in (kl.GlobalAveragePooling2D()(x), rows):
        agree(keras.Model(image, kind()([x, lower_rank])))
        agree(keras.Model(image, kind()([lower_rank, x])))


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_concatenate(agree, axis):
    image = keras.Input((4, 4, 3))
    left, right = kl.Conv2D(3, 3, padding="same")(image), kl.Conv2D(3, 1)(image)
    agree(keras.Model(image, kl.Concatenate(axis=axis)([left, right, left])))
    agree(keras.Model(image, kl.Concatenate(axis=axis)([left, image])))


@pytest.mark.parametrize(
    "function", ["relu", "relu6", "sigmoid", "tanh", "silu", "softplus", "softsign", "selu"]
)
def test_operation_on_a_tensor(agree, function):
    image = keras.Input((4, 5))
    graph, _ = agree(keras.Model(image, getattr(keras.ops, function)(kl.Dense(3)(image))))
    assert not graph.opaque


def test_arithmetic_on_tensors(agree):
    image = keras.Input((4, 5, 3))
    x = kl.Conv2D(3, 3, padding="same")(image)
    y = (x + image) * x - kl.Conv2D(1, 1)(image)
    graph, _ = agree(keras.Model(image, keras.ops.maximum(y, keras.ops.minimum(x, image))))
    assert not graph.opaque


def test_every_known_layer_is_tested_here():
    """The table can't grow without a comparison in this file."""
    tested = {type(make()) for _, make in [*SHAPES.values(), *NORMS.values()]}
    tested |= {getattr(kl, f"Global{k}Pooling{r}D") for k in ("Max", "Average") for r in (1, 2, 3)}
    tested |= {*CONV.values(), *MAX.values()}
    assert set(_LAYERS) == tested | {*AVERAGE.values(), *MERGES, kl.Concatenate}


class MyConv(kl.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return x


OPAQUE = {
    "subclass": (lambda: MyConv(3, 3, name="odd"), "MyConv"),
    "lambda": (lambda: kl.Lambda(lambda x: x * 2, name="odd"), "Lambda"),
    "lambda activation": (
        lambda: kl.Conv2D(3, 3, activation=lambda x: x * 2, name="odd"),
        "<lambda>.: activation function",
    ),
    "unhashable activation": (
        lambda: kl.Conv2D(3, 3, activation=Unhashable(), name="odd"),
        "Unhashable",
    ),
    "transpose": (lambda: kl.Conv2DTranspose(3, 3, name="odd"), "Conv2DTranspose"),
    "cropping": (lambda: kl.Cropping2D(1, name="odd"), "Cropping2D"),
    "bilinear": (
        lambda: kl.UpSampling2D(2, interpolation="bilinear", name="odd"),
        "interpolation bilinear",
    ),
    "rescale by channel": (lambda: kl.Rescaling([1.0, 2.0, 3.0], name="odd"), "per channel"),
    "softmax over axes": (lambda: kl.Softmax(axis=(1, 2), name="odd"), "several axes"),
    "noise shape": (
        lambda: kl.Dropout(0.5, noise_shape=(None, 1, 1, 3), name="odd"),
        "noise_shape",
    ),
    "noise": (lambda: kl.GaussianNoise(0.1, name="odd"), "GaussianNoise"),
    "activity": (lambda: kl.ActivityRegularization(l2=0.1, name="odd"), "activity_regularizer"),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_unknown_layers_are_kept_and_refused_by_name(name):
    make, why = OPAQUE[name]
    graph = read(net((6, 6, 3), make(), kl.Activation("relu")))
    assert [node.layer for node in graph.opaque] == ["odd"]
    with pytest.raises(Refused, match=f"'odd'.*{why}"):
        lower(graph)
    with pytest.raises(Refused, match="'odd"):
        evaluate(graph, np.zeros((1, 6, 6, 3)))


def test_causal_padding_is_refused():
    graph = read(net((6, 3), kl.Conv1D(2, 3, padding="causal", name="odd")))
    with pytest.raises(Refused, match=r"'odd' \(Conv1D\): causal padding"):
        lower(graph)


def test_changed_kernels_are_refused():
    for change, why in (
        (lambda layer: layer.enable_lora(2), "LoRA"),
        (lambda layer: layer.quantize("int8"), "quantized to int8"),
    ):
        layer = kl.Dense(3, name="odd")
        model = net((4,), layer)
        change(layer)
        with pytest.raises(Refused, match=f"'odd'.*{why}"):
            lower(read(model))


def test_an_activation_layer_keeps_its_weights(agree):
    model = net((4, 5), kl.Dense(3, activation=kl.PReLU(), name="d"))
    with pytest.raises(Refused, match=r"'d'.*call the model once"):
        lower(read(model))
    model(np.zeros((1, 4, 5)))
    graph, _ = agree(model)
    assert [node.op for node in graph] == ["input", "dense", "prelu"]
    assert graph.nodes["d/prelu"].layer == "d"


def test_rms_scaling_is_opaque():
    with pytest.warns(UserWarning, match="rms_scaling"):
        layer = kl.LayerNormalization(rms_scaling=True)
    net((4,), layer)
    assert [(s.op, s.attrs["why"]) for s in steps(layer)] == [("opaque", "rms_scaling")]
