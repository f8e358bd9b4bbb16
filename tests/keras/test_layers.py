"""Every layer that the reader knows: Keras, the NumPy evaluator and the lowered module agree."""

import functools

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

import relucate
from relucate.errors import Refused
from relucate.graph import evaluate
from relucate.keras.own_activations import RReLU
from relucate.keras.reading.functions import FUNCTIONS as KNOWN_FUNCTIONS
from relucate.keras.reading.layers import LAYERS, SHAPED, activation
from relucate.keras.reading.reader import read
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
    "rrelu": (ODD[2], lambda: RReLU(0.1, 0.4)),
    "crop1d": (ODD[1], lambda: kl.Cropping1D((2, 1))),
    "crop": (ODD[2], lambda: kl.Cropping2D(((1, 0), (2, 1)))),
    "crop-first": (
        channels_first(ODD[2]),
        lambda: kl.Cropping2D(((1, 0), (2, 1)), data_format="channels_first"),
    ),
    "crop3d": (ODD[3], lambda: kl.Cropping3D(((1, 0), (2, 1), (0, 1)))),
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


def value_and_gradient(function, x):
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    y.sum().backward()
    return y.detach().numpy(), leaf.grad.numpy()


KINKS = torch.tensor([[-7.0, -6.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 7.0, 8.0]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_value": 6},
        {"max_value": 1.0},
        {"max_value": 6, "threshold": 1.0},
        {"threshold": 1.0},
        {"negative_slope": 0.5},
        {"max_value": 2.0, "negative_slope": 0.5, "threshold": 1.0},
    ],
    ids=str,
)
def test_relu_has_keras_value_and_gradient_at_its_kinks(options):
    model = net((14,), kl.ReLU(**options))
    expected, found = (value_and_gradient(f, KINKS) for f in (model, lower(read(model))))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(evaluate(read(model), KINKS.numpy())[0], expected[0])


NORMS = {
    "rms": (ODD[2], lambda: kl.RMSNormalization()),
    "rms-epsilon": ((5, 6), lambda: kl.RMSNormalization(axis=-1, epsilon=0.1)),
    "unit": (ODD[2], lambda: kl.UnitNormalization()),
    "unit-axes": (ODD[2], lambda: kl.UnitNormalization(axis=[1, 3])),
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


FUNCTIONS = sorted({f.__name__ for f in KNOWN_FUNCTIONS} - {"glu", "sparsemax"})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation(agree, name):
    """As a layer, as an argument, and as a function of a symbolic tensor where that is known."""
    model = net((4, 5), kl.Dense(6, activation=name), kl.Activation(name))
    graph, _ = agree(model)
    assert [node.kind for node in graph] == ["other", "linear", "act", "act"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_has_keras_gradient_at_its_kinks(name):
    """Rounded values, as of bfloat16, are often there."""
    model = net((14,), kl.Activation(name))
    expected, found = (value_and_gradient(f, KINKS) for f in (model, lower(read(model))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_glu_as_activation_halves_the_channels(agree):
    """Keras's own shapes forget that."""
    graph, _ = agree(net((4, 5), kl.Dense(6, activation="glu", name="odd")))
    assert [(n.op, n.shape) for n in graph][1:] == [("dense", (None, 4, 6)), ("glu", (None, 4, 3))]


def test_keras_has_a_sparsemax_of_its_own():
    """Its threshold takes the sum of all partial sums instead of the last one."""
    layer = kl.Activation("sparsemax", name="odd")
    graph = read(net((3,), layer))
    x = np.array([[0.5, 0.2, -1.0]])
    theirs = keras.ops.convert_to_numpy(layer(x.astype("float32")))
    assert abs(theirs.sum() - 1.0) > 0.1  # on the simplex it would be one
    with pytest.raises(Refused, match=r"'odd' \(sparsemax\): Keras's isn't the published one"):
        evaluate(graph, x)
    with pytest.raises(Refused, match=r"'odd' \(sparsemax\)"):
        lower(graph)


def test_every_activation_is_known():
    names = {n for n in dir(keras.activations) if n[0].islower()}
    names -= {"get", "serialize", "deserialize", "linear", "threshold"}  # the last takes arguments
    assert not {n for n in names if activation(keras.activations.get(n))[0].op == "opaque"}


OPERATIONS_AS_ACTIVATION = [
    (keras.ops.relu, "relu"),
    (keras.ops.gelu, "gelu"),  # here the default is the approximate one
    (keras.ops.exp, "exponential"),
    (keras.ops.swish, "silu"),
    (functools.partial(keras.activations.gelu, approximate=True), "gelu"),
    (functools.partial(keras.activations.relu, negative_slope=0.3, max_value=0.4), "relu"),
    (functools.partial(keras.ops.leaky_relu, negative_slope=0.4), "leaky_relu"),
    (functools.partial(keras.ops.softmax, axis=1), "softmax"),
]


@pytest.mark.parametrize(("function", "op"), OPERATIONS_AS_ACTIVATION)
def test_function_of_keras_ops_as_activation(agree, function, op):
    graph, _ = agree(net((4, 5), kl.Dense(6, activation=function), kl.Activation(function)))
    assert [node.op for node in graph] == ["input", "dense", op, op]


def test_a_partial_with_more_than_options_is_opaque():
    positional = functools.partial(keras.activations.relu, 0.5)
    assert activation(positional)[0].op == "opaque"
    assert activation(functools.partial(keras.ops.relu, odd=1))[0].op == "opaque"


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


def pooled(rank, **options):
    return {
        f"{word}{rank}{options}": (EVEN[rank], lambda kind=kind: kind(**options))
        for word in ("Average", "Max")
        for kind in [getattr(kl, f"Adaptive{word}Pooling{rank}D")]
    }


# Read and evaluated; lowering refuses them by name.
READ = {
    "transpose": (ODD[2], lambda: kl.Conv2DTranspose(5, 3)),
    **{
        f"transpose{rank}-{window}/{strides}-{padding}-{extra}": (
            ODD[rank],
            lambda rank=rank, w=window, s=strides, p=padding, e=extra: getattr(
                kl, f"Conv{rank}DTranspose"
            )(3, w, strides=s, padding=p, output_padding=e, activation="tanh"),
        )
        for rank, window, strides, padding, extra in [
            (1, 3, 2, "same", None),
            (1, 2, 3, "valid", None),
            (1, 4, 2, "same", 1),
            (1, 5, 3, "valid", 2),
            (2, (3, 2), (2, 3), "same", None),
            (2, (2, 5), (3, 2), "valid", (1, 0)),
            (2, 3, 2, "same", (0, 1)),
            (3, 3, 2, "same", None),
        ]
    },
    "transpose-dilated": (ODD[2], lambda: kl.Conv2DTranspose(3, 3, dilation_rate=(2, 1))),
    "transpose-dilated-same": (
        ODD[2],
        lambda: kl.Conv2DTranspose(3, (2, 3), dilation_rate=2, padding="same", use_bias=False),
    ),
    "transpose-first": (
        channels_first(ODD[2]),
        lambda: kl.Conv2DTranspose(3, 3, 2, padding="same", data_format="channels_first"),
    ),
    "einsum": ((4, 6), lambda: kl.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")),
    "einsum-act": ((4, 6), lambda: kl.EinsumDense("...x,xy->...y", (4, 3), activation="relu")),
    "einsum-heads": (
        (4, 6),
        lambda: kl.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
    ),
    "renorm": (ODD[2], lambda: kl.BatchNormalization(renorm=True)),
    "normalization": (
        ODD[2],
        lambda: kl.Normalization(mean=[0.3, -1.0, 2.0, 0.5], variance=[2.0, 0.5, 1.0, 0.0]),
    ),
    "normalization-invert": (
        ODD[2],
        lambda: kl.Normalization(mean=[0.3, -1, 2.0, 0.5], variance=[2.0, 0.5, 1, 4], invert=True),
    ),
    "normalization-number": ((5,), lambda: kl.Normalization(axis=None, mean=3.0, variance=2.0)),
    "normalization-adapted": ((5,), lambda: kl.Normalization()),
    "normalization-first": (
        channels_first(ODD[2]),
        lambda: kl.Normalization(axis=1, mean=[0.3, -1.0, 2.0, 0.5], variance=[2.0, 0.5, 1.0, 4]),
    ),
    "rescale by channel": (
        ODD[2],
        lambda: kl.Rescaling([1.0, 2.0, 3.0, 0.1], offset=[0.5, 0, 0, 1]),
    ),
    "softmax over axes": (ODD[2], lambda: kl.Softmax(axis=(1, 2))),
    "noise shape": (ODD[2], lambda: kl.Dropout(0.5, noise_shape=(None, 1, 1, 4))),
    "alpha dropout": (ODD[2], lambda: kl.AlphaDropout(0.4)),
    "gaussian dropout": (ODD[2], lambda: kl.GaussianDropout(0.4)),
    "noise": (ODD[2], lambda: kl.GaussianNoise(0.1)),
    "penalty": (ODD[2], lambda: kl.ActivityRegularization(l2=0.1)),
    "repeat": ((5,), lambda: kl.RepeatVector(3)),
    "causal": (ODD[1], lambda: kl.Conv1D(5, 3, padding="causal", strides=2)),
    "causal-dilated": (
        channels_first(ODD[1]),
        lambda: kl.Conv1D(5, 3, 1, "causal", "channels_first", dilation_rate=2),
    ),
    **pooled(1, output_size=4),
    **pooled(2, output_size=(4, 5)),
    **pooled(2, output_size=1),
    **pooled(3, output_size=(2, 3, 5)),
    "spectral": (ODD[2], lambda: kl.SpectralNormalization(kl.Conv2D(5, 3, activation="relu"))),
    "spectral-dense": ((6,), lambda: kl.SpectralNormalization(kl.Dense(5))),
    "time-dense": ((5, 6), lambda: kl.TimeDistributed(kl.Dense(4, activation="relu"))),
    "time-conv": ((3, 6, 5, 2), lambda: kl.TimeDistributed(kl.Conv2D(4, 3, 2, padding="same"))),
    "time-norm": ((3, 6, 5, 2), lambda: kl.TimeDistributed(kl.BatchNormalization(axis=1))),
    "time-separable": ((3, 6, 5, 2), lambda: kl.TimeDistributed(kl.SeparableConv2D(4, 3))),
    "time-flatten": ((3, 6, 2), lambda: kl.TimeDistributed(kl.Flatten())),
    "time-reshape": ((3, 6, 2), lambda: kl.TimeDistributed(kl.Reshape((-1, 4)))),
    "time-pool": ((3, 6, 5, 2), lambda: kl.TimeDistributed(kl.GlobalMaxPooling2D())),
    "time-spectral": ((3, 6, 2), lambda: kl.TimeDistributed(kl.SpectralNormalization(kl.Dense(4)))),
    "time-repeat": ((3, 6), lambda: kl.TimeDistributed(kl.RepeatVector(2))),
}


@pytest.mark.parametrize("name", READ)
def test_layer_that_is_read(evaluated, name):
    shape, make = READ[name]
    layer = make()
    model = net(shape, layer)
    graph = evaluated(model)
    assert not graph.opaque
    last = graph.nodes[graph.outputs[0]]
    assert last.shape == model.output_shape
    assert last.layer == layer.name


def test_every_known_layer_is_tested_here():
    """The table can't grow without a comparison in this file."""
    cases = [*SHAPES.values(), *NORMS.values(), *READ.values()]
    tested = {type(make()) for _, make in cases}
    tested |= {getattr(kl, f"Global{k}Pooling{r}D") for k in ("Max", "Average") for r in (1, 2, 3)}
    tested |= {*CONV.values(), *MAX.values(), *AVERAGE.values(), *MERGES, kl.Concatenate}
    apart = {kl.Embedding, kl.ReversibleEmbedding, kl.Resizing, kl.Dot, *ATTENTION}
    assert set(LAYERS) | set(SHAPED) == tested | apart


class MyConv(kl.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return x


OPAQUE = {
    "subclass": (lambda: MyConv(3, 3, name="odd"), "MyConv"),
    "lambda": (lambda: kl.Lambda(lambda x: x * 2, name="odd"), "Lambda.: any Python code"),
    "lambda activation": (
        lambda: kl.Conv2D(3, 3, activation=lambda x: x * 2, name="odd"),
        "<lambda>.: activation function",
    ),
    "unhashable activation": (
        lambda: kl.Conv2D(3, 3, activation=Unhashable(), name="odd"),
        "Unhashable",
    ),
    "recurrent": (
        lambda: kl.TimeDistributed(kl.Bidirectional(kl.LSTM(2)), name="odd"),
        "Bidirectional.: recurrent",
    ),
    "spectral lambda": (
        lambda: kl.SpectralNormalization(Weighted(), name="odd"),
        "SpectralNormalization.: around a Weighted",
    ),
    "uneven windows": (
        lambda: kl.AdaptiveMaxPooling2D((4, 6), name="odd"),
        "its windows have several sizes",
    ),
    "time in time": (
        lambda: kl.TimeDistributed(kl.TimeDistributed(kl.Dense(2)), name="odd"),
        "within another TimeDistributed",
    ),
    "replaced call": (lambda: replaced(kl.Dense(2, name="odd")), "its call was replaced"),
}


class Weighted(kl.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(1,), name="kernel")

    def call(self, x):
        return x * self.kernel

    def compute_output_shape(self, shape):
        return shape


def replaced(layer):
    layer.call = lambda x: x
    return layer


@pytest.mark.parametrize("name", OPAQUE)
def test_unknown_layers_are_kept_and_refused_by_name(name):
    make, why = OPAQUE[name]
    graph = read(net((6, 6, 3), make(), kl.Activation("relu")))
    assert [node.layer for node in graph.opaque] == ["odd"]
    with pytest.raises(Refused, match=f"'odd'.*{why}"):
        lower(graph)
    with pytest.raises(Refused, match="'odd"):
        evaluate(graph, np.zeros((1, 6, 6, 3)))


NOT_LOWERED = {
    "bilinear": (lambda: kl.UpSampling2D(2, interpolation="bilinear"), r"\(resize\)"),
    "resizing": (lambda: kl.Resizing(3, 4), r"\(resize\)"),
    "softmax over axes": (READ["softmax over axes"][1], "over several axes"),
    "alpha dropout": (lambda: kl.AlphaDropout(0.4), r"\(alpha_dropout\)"),
    "noise": (lambda: kl.GaussianNoise(0.1), r"\(gaussian_noise\)"),
    "spectral": (
        lambda: kl.SpectralNormalization(kl.Conv2D(5, 3)),
        "reparametrized='spectral_norm'",
    ),
    "transpose": (lambda: kl.Conv2DTranspose(5, 3), r"\(conv_transpose\)"),
    "einsum": (lambda: kl.EinsumDense("...x,xy->...y", (6, 6, 3)), r"\(einsum\)"),
}


@pytest.mark.parametrize("name", NOT_LOWERED)
def test_what_is_read_but_not_lowered_is_refused_by_name(name):
    make, why = NOT_LOWERED[name]
    layer = make()
    graph = read(net((6, 6, 3), layer, kl.Activation("relu")))
    assert not graph.opaque
    with pytest.raises(Refused, match=f"'{layer.name}'.*{why}"):
        lower(graph)


def test_a_penalty_on_activations_is_refused():
    graph = read(net((6,), kl.ActivityRegularization(l2=0.1, name="odd")))
    with pytest.raises(Refused, match="'odd' has an activity_regularizer"):
        lower(graph)


def test_merged_lora_kernels_are_read_and_not_lowered(evaluated):
    layer = kl.Dense(3, name="odd")
    model = net((4,), layer)
    layer.enable_lora(2)
    graph = evaluated(model)  # with random low-rank weights
    assert graph.nodes["odd"].kind == "linear"
    assert "odd/kernel" in graph.tensors
    with pytest.raises(Refused, match=r"'odd' \(dense\) with lora='of rank 2'"):
        lower(graph)


def test_quantized_kernels_stay_linear_layers_and_are_refused():
    for layer in (kl.Dense(3, name="odd"), kl.EinsumDense("ab,bc->ac", 3, name="odd")):
        model = net((4,), layer)
        layer.quantize("int8")
        graph = read(model)
        assert graph.nodes["odd"].kind == "linear"
        assert graph.tensors["odd/kernel"].dtype == np.int8
        with pytest.raises(Refused, match=r"'odd' \((dense\) with quantized='int8'|einsum\))"):
            lower(graph)
        with pytest.raises(Refused, match=r"'odd'.*quantized to int8"):
            evaluate(graph, np.zeros((1, 4)))


def test_an_activation_layer_keeps_its_weights(agree):
    model = net((4, 5), kl.Dense(3, activation=kl.PReLU(), name="d"))
    with pytest.raises(Refused, match=r"'d'.*call the model once"):
        lower(read(model))
    model(np.zeros((1, 4, 5)))
    graph, _ = agree(model)
    assert [node.op for node in graph] == ["input", "dense", "prelu"]
    assert graph.nodes["d/prelu"].layer == "d"


def test_rms_scaling(agree):
    """It divides by the standard deviation and subtracts no mean: Keras calls it deprecated."""
    with pytest.warns(UserWarning, match="rms_scaling"):
        layer = kl.LayerNormalization(rms_scaling=True, epsilon=0.1, name="odd")
    with pytest.warns(UserWarning, match="rms_scaling"):
        graph, _ = agree(net((4, 5), layer))
    assert graph.nodes["odd"].op == "rms_norm"


def test_normalization_that_was_adapted(evaluated):
    layer = kl.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2.0, 3.0, (50, 5)).astype("float32"))
    x = image = keras.Input((5,))
    graph = read(keras.Model(image, layer(x)))
    data = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
    expected = keras.ops.convert_to_numpy(layer(data))
    np.testing.assert_allclose(evaluate(graph, data)[0], expected, atol=1e-5)
    assert abs(expected.mean()) > 0.3


@pytest.mark.parametrize("kind", [kl.Embedding, kl.ReversibleEmbedding])
def test_embedding(evaluated, kind):
    image = keras.Input((4,), dtype="int32")
    tokens = np.random.default_rng(0).integers(0, 7, (3, 4))
    graph = evaluated(keras.Model(image, kl.Dense(2)(kind(7, 3, name="e")(image))), tokens)
    assert graph.nodes["e"].op == "embedding"
    with pytest.raises(Refused, match=r"'e' \(embedding\)"):
        lower(graph)


def test_an_embedding_that_is_called_backwards_is_opaque():
    image = keras.Input((4, 3))
    graph = read(keras.Model(image, kl.ReversibleEmbedding(7, 3, name="e")(image, reverse=True)))
    assert graph.nodes["e"].attrs["why"] == "called with extra arguments ['reverse']"


ATTENTION = [kl.Attention, kl.AdditiveAttention, kl.MultiHeadAttention, kl.GroupQueryAttention]


def attend(kind, query, value, **options):
    if kind is kl.MultiHeadAttention:
        return kind(2, 3, name="a")(query, value, **options)
    if kind is kl.GroupQueryAttention:
        return kind(4, 2, 2, name="a")(query, value, **options)
    return kind(name="a")([query, value], **options)


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_is_known_and_not_evaluated(kind):
    query, value = keras.Input((4, 6)), keras.Input((5, 6))
    y = attend(kind, query, value)
    graph = read(keras.Model([query, value], kl.LayerNormalization()(y)))
    node = graph.nodes["a"]
    assert (node.op, node.attrs["type"], len(node.inputs)) == ("attention", kind.__name__, 2)
    assert node.shape == (None, 4, 6)
    assert len(node.arrays) == {kl.MultiHeadAttention: 8, kl.GroupQueryAttention: 8}.get(
        kind, len(node.arrays)
    )
    for function in (lower, lambda g: evaluate(g, np.zeros((1, 4, 6)), np.zeros((1, 5, 6)))):
        with pytest.raises(Refused, match=rf"'a' \({kind.__name__}\)"):
            function(graph)


def test_attention_with_scores_and_masks():
    x, mask = keras.Input((4, 6)), keras.Input((4, 4), dtype="bool")
    layer = kl.MultiHeadAttention(2, 3, dropout=0.1, name="a")
    y, scores = layer(x, x, attention_mask=mask, return_attention_scores=True, training=True)
    graph = read(keras.Model([x, mask], [y, scores]))
    assert [(n.name, n.op, n.shape) for n in graph][2:] == [
        ("a/0", "attention", (None, 4, 6)),
        ("a/1", "opaque", (None, 2, 4, 4)),
    ]
    assert graph.nodes["a/0"].attrs["forced"] is True
    assert graph.obstacles == ("'a' is called with training=True",)


def test_dot_is_known_and_not_evaluated():
    x, y = keras.Input((4, 6)), keras.Input((4, 6))
    graph = read(keras.Model([x, y], kl.Dot(axes=2, normalize=True, name="d")([x, y])))
    assert graph.nodes["d"].attrs == {"axes": 2, "normalize": True}
    with pytest.raises(Refused, match=r"'d' \(dot\)"):
        evaluate(graph, np.zeros((1, 4, 6)), np.zeros((1, 4, 6)))


def test_resizing_keeps_its_word_about_the_method():
    graph = read(net((6, 6, 3), kl.Resizing(3, 4, interpolation="nearest", name="r")))
    assert graph.nodes["r"].attrs["method"] == "nearest"
    odd = read(net((6, 6, 3), kl.Resizing(3, 4, crop_to_aspect_ratio=True, name="r")))
    assert odd.nodes["r"].attrs["why"] == "keeps the aspect ratio"


class OwnArguments(kl.BatchNormalization):
    """A norm with an `__init__` of its own, as many libraries have one, and a method."""

    def __init__(self, kind="batch", **kwargs):
        super().__init__(momentum=0.9, epsilon=1e-5, **kwargs)
        self.own = kind

    def describe(self):
        return self.own


class OwnDense(kl.Dense):
    pass


class Scaled(kl.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class OwnKernel(kl.Dense):
    @property
    def kernel(self):
        return 2 * super().kernel


class Mixed(Scaled, OwnArguments):
    pass


def test_a_plain_subclass_is_read_as_what_it_is(evaluated):
    model = net((6, 6, 3), kl.Conv2D(4, 3), OwnArguments(name="own"), kl.ReLU(), OwnDense(3))
    graph = evaluated(model)
    assert not graph.opaque
    assert graph.nodes["own"].op == "batch_norm"
    assert graph.nodes["own"].attrs["epsilon"] == 1e-5


@pytest.mark.parametrize("kind", [Scaled, Mixed, OwnKernel])
def test_a_subclass_that_overrides_what_computes_is_unknown(kind):
    layer = kind(3, name="odd") if kind is OwnKernel else kind(name="odd")
    graph = read(net((6, 6, 3), layer))
    assert [node.layer for node in graph.opaque] == ["odd"]
    assert bool(graph.hidden_norms) == (kind is not OwnKernel)


@pytest.mark.parametrize("verb", [relucate.fold, relucate.convert, relucate.rebuild])
def test_every_verb_knows_a_plain_subclass(verb, randomize):
    """Its `__init__` doesn't take its own configuration, so Keras's layer replaces it."""
    layers = kl.Conv2D(4, 3, name="c"), OwnArguments(name="own"), kl.ReLU(), kl.Flatten()
    model = randomize(net((6, 6, 3), *layers, kl.Dense(2)))
    made, report = verb(model) if verb is relucate.fold else verb(model, "after")
    assert [outcome.status for outcome in report.sites] == ["done"]
    if verb is not relucate.fold:
        norm = made.get_layer("own")
        assert (type(norm), norm.momentum) == (kl.BatchNormalization, 0.9)
        assert norm.epsilon == 1e-5
