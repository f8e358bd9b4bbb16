"""N101, N102, N103, N501: found where they are and nowhere near, and what they claim is computed."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers as kl

BN, IN = kl.BatchNormalization, partial(kl.GroupNormalization, groups=-1)
FIRST = {"data_format": "channels_first"}
IMAGE = (6, 6, 4)


def Conv(filters=4, size=3, **options):
    return kl.Conv2D(filters, size, **{"padding": "same", **options})


def branches(*functions):
    """Several branches from one tensor, none of them dropped: their outputs are all put out."""
    return lambda x: [function(x) for function in functions]


def row(*layers):
    def run(x):
        for layer in layers:
            x = layer(x)
        return x

    return run


def merged(merge, *functions):
    return lambda x: merge([function(x) for function in functions])


def shared(layer, *rows):
    """A layer called once for each row of layers that follows it."""
    return lambda x: [
        row(*layers)(layer(kl.Rescaling(1.0 + number)(x))) for number, layers in enumerate(rows)
    ]


# N101. Whether a bias matters is computed: other biases, the same output in training mode?

HAS_BIAS = {
    "conv": (IMAGE, Conv(), BN(), kl.ReLU()),
    "conv without padding, norm without gamma and beta": (
        IMAGE,
        Conv(padding="valid"),
        BN(scale=False, center=False),
    ),
    "channels first": ((4, 6, 6), Conv(**FIRST), BN(axis=1), kl.ReLU()),
    "conv 1-D": ((9, 4), kl.Conv1D(4, 3, dilation_rate=2), BN()),
    "causal": ((9, 4), kl.Conv1D(4, 3, padding="causal"), BN()),
    "conv 3-D": ((4, 4, 4, 2), kl.Conv3D(3, 2, groups=1), BN()),
    "grouped": (IMAGE, Conv(groups=2, strides=2), BN()),
    "depthwise": (IMAGE, kl.DepthwiseConv2D(3, depth_multiplier=2), BN()),
    "separable": (IMAGE, kl.SeparableConv2D(5, 3), BN()),
    "transposed": (IMAGE, kl.Conv2DTranspose(5, 3, strides=2), BN()),
    "dense": ((7,), kl.Dense(5), BN()),
    "dense over positions": ((3, 7), kl.Dense(5), BN()),
    "einsum": ((3, 7), kl.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"), BN()),
    "einsum, bias along another axis": (
        (3, 7),
        kl.EinsumDense("abc,cd->abd", (3, 5), bias_axes="b"),
        BN(axis=1),
    ),
    "time distributed": ((2, *IMAGE), kl.TimeDistributed(Conv()), BN()),
    "both time distributed": ((2, 4, 6, 6), kl.TimeDistributed(Conv(**FIRST)), BN(axis=2)),
    "instance norm": (IMAGE, Conv(), IN(), kl.ReLU()),
    "max pool": (IMAGE, Conv(), kl.MaxPooling2D(2, padding="same"), BN()),
    "average pool": (IMAGE, Conv(), kl.AveragePooling2D(3, padding="same"), BN()),
    "global average pool": (IMAGE, Conv(), kl.GlobalAveragePooling2D(), BN()),
    "global pool, channels first": (
        (4, 6, 6),
        Conv(**FIRST),
        kl.GlobalMaxPooling2D(**FIRST),
        BN(),
    ),
    "global pool keeps axes": (IMAGE, Conv(), kl.GlobalAveragePooling2D(keepdims=True), BN()),
    "mean": (IMAGE, Conv(), lambda x: keras.ops.mean(x, axis=(1, 2)), BN()),
    "cropped": (IMAGE, Conv(), kl.Cropping2D(1), BN()),
    "upsampled": (IMAGE, Conv(), kl.UpSampling2D(2), BN()),
    "flattened": (IMAGE, Conv(), kl.Flatten(), BN()),
    "flattened, channels first": ((4, 6, 6), Conv(**FIRST), kl.Flatten(**FIRST), BN()),
    "positions in a row": (IMAGE, Conv(), kl.Reshape((36, 4)), BN()),
    "channels moved": ((9, 4), kl.Conv1D(4, 3), kl.Permute((2, 1)), BN(axis=1)),
    "dropout of nothing": (IMAGE, Conv(), kl.Dropout(0.0), BN()),
    "scaled": (IMAGE, Conv(), kl.Rescaling(0.5), BN()),
    "linear activation": (IMAGE, Conv(activation="linear"), BN()),
    "two norms take it": (IMAGE, Conv(), branches(BN(), BN())),
    "concatenated": (IMAGE, merged(kl.Concatenate(), Conv(), row(Conv(), kl.ReLU())), BN()),
    "added": (IMAGE, merged(kl.Add(), Conv(), row(kl.ReLU())), BN()),
    "shared, a norm behind each call": (IMAGE, shared(Conv(), [BN()], [BN(), kl.ReLU()])),
}

NEARLY_BIAS = {
    "activation between": (IMAGE, Conv(), kl.ReLU(), BN()),
    "fused activation": (IMAGE, Conv(activation="relu"), BN()),
    "fused activation of a dense layer": ((7,), kl.Dense(5, activation="tanh"), BN()),
    "second consumer": (IMAGE, Conv(), branches(BN(), kl.ReLU())),
    "second consumer is a sum": (IMAGE, Conv(), lambda x: kl.Add()([x, BN()(x)])),
    "an output of the model": (IMAGE, Conv(), branches(BN(), kl.Identity())),
    "an output behind a pool": (IMAGE, Conv(), branches(BN(), kl.MaxPooling2D(2))),
    "layer norm": (IMAGE, Conv(), kl.LayerNormalization()),
    "rms norm": (IMAGE, Conv(), kl.RMSNormalization()),
    "unit norm": (IMAGE, Conv(), kl.UnitNormalization()),
    "group norm": (IMAGE, Conv(), kl.GroupNormalization(2)),
    "frozen norm": (IMAGE, Conv(), BN(trainable=False)),
    "norm in inference mode": (IMAGE, Conv(), lambda x: BN()(x, training=False)),
    "wrong axis": (IMAGE, Conv(), BN(axis=1)),
    "positions normalized": ((3, 7), kl.Dense(5), BN(axis=1)),
    "einsum, bias along two axes": (
        (3, 7),
        kl.EinsumDense("abc,cd->abd", (3, 5), bias_axes="bd"),
        BN(),
    ),
    "dropout between": (IMAGE, Conv(), kl.Dropout(0.5), BN()),
    "zeros between": (IMAGE, Conv(), kl.ZeroPadding2D(1), BN()),
    "channels moved": ((9, 4), kl.Conv1D(4, 3), kl.Permute((2, 1)), BN()),
    "channels merged with rows": (IMAGE, Conv(), kl.Reshape((6, 24)), BN(axis=1)),
    "joined along rows": (IMAGE, merged(kl.Concatenate(axis=1), Conv(), row(kl.ReLU())), BN()),
    "multiplied": (IMAGE, merged(kl.Multiply(), Conv(), row(kl.ReLU())), BN()),
    "shared, one call without a norm": (IMAGE, shared(Conv(), [BN()], [kl.ReLU()])),
    "shared, one call put out": (IMAGE, shared(Conv(), [BN()], [])),
    "power": (IMAGE, Conv(), lambda x: x * x, BN()),
}


def biases(model):
    return [v for layer in model.layers for v in layer.weights if v.name == "bias"]


def effect_of_biases(model):
    """Largest change of the output in training mode when all biases change, over its own size."""
    random = np.random.default_rng(1)
    x = random.normal(size=(4, *model.input_shape[1:])).astype("float32")
    kept = {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}

    def run(shift):
        for v in model.variables:
            v.assign(kept[v.path])
        for v in biases(model):
            v.assign(kept[v.path] + shift * random.uniform(1, 2, v.shape))
        return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=True))]

    pairs = list(zip(run(0.0), run(1.0), strict=True))
    for v in model.variables:
        v.assign(kept[v.path])
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


@pytest.mark.parametrize("name", HAS_BIAS)
def test_redundant_bias_is_found(name, build, find):
    model = build(*HAS_BIAS[name])
    found = find(model, "N101")
    first = next(la for la in model.layers if any(v.name == "bias" for v in la.weights))
    assert [f.where for f in found] == [first.name]
    assert found[0].parameters == sum(int(np.prod(v.shape)) for v in first.weights if v.name == "bias")
    assert found[0].fix == f"use_bias=False in {first.name}"


@pytest.mark.parametrize("name", [n for n in HAS_BIAS if n != "concatenated"])
def test_redundant_bias_has_no_effect(name, build):
    assert effect_of_biases(build(*HAS_BIAS[name])) < 2e-3


@pytest.mark.parametrize("name", NEARLY_BIAS)
def test_bias_with_an_effect_is_not_found(name, build, find):
    model = build(*NEARLY_BIAS[name])
    assert find(model, "N101") == []
    assert effect_of_biases(model) > 1e-2
