"""N101, N102, N103, N501: found where they are, not where they nearly are; claims are computed."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers as kl

from .rows import BN, FIRST, Conv, branches, row

IN = partial(kl.GroupNormalization, groups=-1)
IMAGE = (6, 6, 4)


def each(layer):
    """A layer called on every one of several tensors."""
    return lambda xs: [layer(x) for x in xs]


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
    "resized": (IMAGE, Conv(), kl.Resizing(9, 5), BN()),
    "flattened": (IMAGE, Conv(), kl.Flatten(), BN()),
    "flattened, channels first": ((4, 6, 6), Conv(**FIRST), kl.Flatten(**FIRST), BN()),
    "positions in a row": (IMAGE, Conv(), kl.Reshape((36, 4)), BN()),
    "channels moved": ((9, 4), kl.Conv1D(4, 3), kl.Permute((2, 1)), BN(axis=1)),
    "dropout of nothing": (IMAGE, Conv(), kl.Dropout(0.0), BN()),
    "scaled": (IMAGE, Conv(), kl.Rescaling(0.5), BN()),
    "linear activation": (IMAGE, Conv(activation="linear"), BN()),
    "two norms take it": (IMAGE, Conv(), branches(BN(), BN())),
    "concatenated": (IMAGE, merged(kl.Concatenate(), Conv(), row(kl.ReLU())), BN()),
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
    size = next(int(np.prod(v.shape)) for v in first.weights if v.name == "bias")
    assert [(f.where, f.parameters) for f in found] == [(first.name, size)]
    assert found[0].fix == f"use_bias=False in {first.name}"


@pytest.mark.parametrize("name", HAS_BIAS)
def test_redundant_bias_has_no_effect(name, build):
    assert effect_of_biases(build(*HAS_BIAS[name])) < 2e-3


@pytest.mark.parametrize("name", NEARLY_BIAS)
def test_bias_with_an_effect_is_not_found(name, build, find):
    model = build(*NEARLY_BIAS[name])
    assert find(model, "N101") == []
    assert effect_of_biases(model) > 1e-2


def test_bias_before_a_norm_in_inference_mode_is_kept(build, find):
    # Keras's fit would set training=True again; what the call asks for counts.
    assert not find(build(IMAGE, Conv(), lambda x: BN()(x, training=False)), "N101")
    assert find(build(IMAGE, Conv(), lambda x: BN()(x, training=True)), "N101")


def test_each_bias_of_a_model_is_judged_on_its_own(build, find):
    stem, body, head = Conv(name="stem"), Conv(name="body", use_bias=False), kl.Dense(2)
    branch = [Conv(name="left"), BN(name="a")]
    net = build(
        IMAGE, stem, BN(), kl.ReLU(), body, BN(), row(*branch), Conv(name="late"), kl.ReLU(), head
    )
    assert [f.where for f in find(net, "N101")] == ["stem", "left"]
    assert find(net, "N101")[1].message == "its bias (4 parameters) is subtracted again by a"


def torch_conv(bias=True, **attrs):
    attrs = {
        "data_format": "channels_first",
        "padding": ((1, 1), (1, 1)),
        "strides": (1, 1),
        **attrs,
    }
    arrays = {"kernel": np.ones((3, 3, 4, 4))} | ({"bias": np.ones(4)} if bias else {})
    return (4, 6, 6), attrs, arrays


def batch_arrays(size=4):
    roles = ("gamma", "beta", "moving_mean", "moving_variance")
    return {role: np.linspace(0.5, 1.5, size) for role in roles}


def torch_chain(make_graph, *between, norm="batch_norm", norm_attrs=None, arrays=None):
    """A PyTorch conv with bias, what lies between (op, attrs), and a norm."""
    shape, attrs, tensors = torch_conv()
    rows = [("x", "input", "", shape), ("conv", "conv", "x", shape, attrs, tensors)]
    for op, extra in between:
        rows.append((op, op, rows[-1][0], shape, {"data_format": "channels_first", **extra}))
    attrs = {"axis": 1, **(norm_attrs or {})}
    rows.append(
        ("bn", norm, rows[-1][0], shape, attrs, batch_arrays() if arrays is None else arrays)
    )
    return make_graph(*rows, framework="torch")


AVERAGE = {"window": (3, 3), "strides": (1, 1), "count_include_pad": True}


@pytest.mark.parametrize(
    ("between", "redundant"),
    [
        ([], True),
        ([("dropout", {"rate": 0.0})], True),
        ([("dropout", {"rate": 0.5, "forced": False})], True),
        ([("dropout", {"rate": 0.5})], False),
        ([("stochastic_depth", {"rate": 0.5})], False),
        ([("gaussian_noise", {"stddev": 0.5})], True),
        ([("avg_pool", {**AVERAGE, "padding": "valid"})], True),
        ([("avg_pool", {**AVERAGE, "padding": ((0, 0), (0, 0))})], True),
        ([("avg_pool", {**AVERAGE, "padding": ((1, 1), (1, 1))})], False),
        (
            [("avg_pool", {**AVERAGE, "padding": ((1, 1), (1, 1)), "count_include_pad": False})],
            True,
        ),
        ([("pad", {"mode": "reflect", "padding": ((1, 1), (1, 1))})], True),
        ([("pad", {"mode": "constant", "padding": ((1, 1), (1, 1)), "value": 1.0})], False),
        ([("affine", {})], False),
        ([("opaque", {"type": "Mine"})], False),
        ([("resize", {"method": "bilinear"})], True),
        ([("resize", {"method": "lanczos5"})], False),
    ],
    ids=str,
)
def test_torch_bias_through(between, redundant, make_graph, find):
    found = find(torch_chain(make_graph, *between), "N101")
    assert [f.where for f in found] == ["conv"] * redundant
    assert all(f.fix == "bias=False in conv" for f in found)


def test_torch_norms_that_keep_or_cancel_a_bias(make_graph, find):
    def found(**options):
        return bool(find(torch_chain(make_graph, **options), "N101"))

    assert found(norm="instance_norm", arrays={})
    assert found(arrays={})  # batch statistics always
    assert found(norm_attrs={"forced": True})
    assert not found(norm_attrs={"forced": False})
    assert not found(norm_attrs={"frozen": True})
    assert not found(norm_attrs={"renorm": True})
    assert found(norm="group_norm", norm_attrs={"groups": 4})
    assert not found(norm="group_norm", norm_attrs={"groups": 2})
    assert not found(norm="group_norm", norm_attrs={"groups": 1})
    assert not found(norm="layer_norm", norm_attrs={"axes": (1, 2, 3)})


def test_bias_that_leads_nowhere_or_serves_another_node(make_graph, find):
    shape, attrs, arrays = torch_conv()
    rows = [("x", "input", "", shape), ("conv", "conv", "x", shape, attrs, arrays)]
    assert not find(make_graph(*rows, outputs=("x",)), "N101")
    graph = torch_chain(make_graph)
    tied = {**graph.nodes}
    tied["more"] = graph.nodes["bn"].__class__(
        "more", "affine", ("bn",), (None, 4, 6, 6), "more", arrays={"offset": "conv/bias"}
    )
    graph = graph.__class__("g", tied, ("x",), ("more",), graph.tensors)
    assert not find(graph, "N101")


# N102

BARE = {"use_bias": False}
MISSING = {
    "after": (IMAGE, Conv(**BARE), kl.ReLU(), BN()),
    "fused": (IMAGE, Conv(activation="relu", **BARE), BN()),
    "dense": ((7,), kl.Dense(5, activation="tanh", **BARE), BN()),
    "pool between": (IMAGE, Conv(**BARE), kl.MaxPooling2D(2), kl.ReLU(), BN()),
    "layer norm": (IMAGE, Conv(**BARE), kl.ReLU(), kl.LayerNormalization()),
    "x · sigmoid(x)": (
        IMAGE,
        Conv(**BARE),
        lambda x: kl.Multiply()([x, kl.Activation("sigmoid")(x)]),
        BN(),
    ),
    "shared, one call the other way": (
        IMAGE,
        shared(Conv(**BARE), [BN(), kl.ReLU()], [kl.ReLU(), BN()]),
    ),
}
NOT_MISSING = {
    "with bias": (IMAGE, Conv(), kl.ReLU(), BN()),
    "norm before": (IMAGE, Conv(**BARE), BN(), kl.ReLU()),
    "norm of another branch": (
        IMAGE,
        Conv(**BARE),
        branches(BN(), kl.ReLU()),
    ),
    "norm, activation, linear": (IMAGE, BN(), kl.ReLU(), Conv(**BARE)),
    "no activation": (IMAGE, Conv(**BARE), BN()),
    "no norm": (IMAGE, Conv(**BARE), kl.ReLU()),
    "transformer": (
        (3, 7),
        kl.LayerNormalization(),
        kl.Dense(5, activation="gelu", **BARE),
        kl.Dense(7),
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_bias_is_found(name, build, find):
    model = build(*MISSING[name])
    where = next(la.name for la in model.layers if hasattr(la, "use_bias"))
    (found,) = find(model, "N102")
    assert (found.where, found.severity) == (where, "warning")
    assert "comes too late to shift it" in found.message
    assert found.fix == f"use_bias=True in {where}"


@pytest.mark.parametrize("name", NOT_MISSING)
def test_missing_bias_is_not_found(name, build, find):
    assert find(build(*NOT_MISSING[name]), "N102") == []


def test_missing_bias_behind_an_input_norm_is_a_note(build, find):
    (found,) = find(build(IMAGE, BN(name="bn"), Conv(name="c", **BARE), kl.ReLU()), "N102")
    assert (found.where, found.severity) == ("c", "note")
    assert found.message == "has no bias, but relu follows it directly: bn shifts its input only"


def test_a_shift_of_its_own_is_a_bias(make_graph, find):
    def rows(role):
        shape, attrs, arrays = torch_conv(bias=False)
        yield ("x", "input", "", shape)
        yield ("conv", "conv", "x", shape, attrs, arrays)
        yield ("shift", "affine", "conv", shape, {}, {role: np.ones((4, 1, 1))})
        yield ("relu", "relu", "shift", shape)
        yield ("bn", "batch_norm", "relu", shape, {"axis": 1}, batch_arrays())

    assert not find(make_graph(*rows("offset"), framework="torch"), "N102")
    (found,) = find(make_graph(*rows("scale"), framework="torch"), "N102")
    assert (found.where, found.fix) == ("conv", "bias=True in conv")


def test_a_bias_shifts_the_activation_and_a_later_norm_does_not(build):
    """What N102 says: with a bias other units are on, with any beta behind it the same ones."""
    net = build(IMAGE, Conv(name="c", **BARE), kl.ReLU(name="act"), BN(name="bn"))
    x = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype("float32")
    on = keras.Model(net.input, net.get_layer("act").output)
    before = keras.ops.convert_to_numpy(on(x)) > 0
    net.get_layer("bn").beta.assign(np.full(4, -5.0))
    np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(on(x)) > 0)


# N103. Whether a gamma can be absorbed is computed: gamma goes to 1, kernels take it.

ABSORBABLE = {
    "norm, relu, conv": (IMAGE, BN(), kl.ReLU(), Conv()),
    "before": (IMAGE, Conv(), BN(), kl.ReLU(), Conv()),
    "after": (IMAGE, Conv(), kl.ReLU(), BN(), Conv()),
    "leaky relu": (IMAGE, BN(), kl.LeakyReLU(), Conv()),
    "prelu": (IMAGE, BN(), kl.PReLU(), Conv()),
    "padded by hand": (IMAGE, BN(), kl.ZeroPadding2D(2), Conv(padding="valid")),
    "channels first": ((4, 6, 6), BN(axis=1), kl.ReLU(), Conv(**FIRST)),
    "pools": (IMAGE, BN(), kl.MaxPooling2D(2), kl.AveragePooling2D(2, padding="same"), Conv()),
    "global pool": (IMAGE, BN(), kl.ReLU(), kl.GlobalAveragePooling2D(), kl.Dense(3)),
    "flattened": (IMAGE, BN(), kl.ReLU(), kl.Flatten(), kl.Dense(3)),
    "flattened, channels first": ((4, 6, 6), BN(axis=1), kl.Flatten(**FIRST), kl.Dense(3)),
    "dropout": ((7,), BN(), kl.Dropout(0.5), kl.Dense(3)),
    "two layers": (IMAGE, BN(), kl.ReLU(), branches(Conv(), Conv(size=1))),
    "depthwise": (IMAGE, BN(), kl.DepthwiseConv2D(3)),
    "separable": (IMAGE, BN(), kl.ReLU(), kl.SeparableConv2D(5, 3)),
    "transposed": (IMAGE, BN(), kl.Conv2DTranspose(5, 3)),
    "joined": (IMAGE, merged(kl.Concatenate(), row(kl.ReLU()), BN()), Conv()),
    "upsampled": (IMAGE, BN(), kl.UpSampling2D(2, interpolation="bilinear"), Conv()),
    "halved": (IMAGE, BN(), kl.Rescaling(0.5), Conv()),
    "positions in a row": (IMAGE, BN(), kl.Reshape((36, 4)), kl.Dense(3)),
    "moved to the end": ((9, 4), BN(axis=1), kl.Permute((2, 1)), kl.Dense(3)),
    "group norm": (IMAGE, kl.GroupNormalization(2), kl.ReLU(), Conv()),
    "einsum": ((3, 7), BN(), kl.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")),
    "einsum along time": ((3, 7), BN(axis=1), kl.EinsumDense("abc,bd->adc", (5, None))),
}
NOT_ABSORBABLE = {
    "gelu": (IMAGE, BN(), kl.Activation("gelu"), Conv()),
    "relu6": (IMAGE, BN(), kl.ReLU(max_value=1.0), Conv()),
    "threshold": (IMAGE, BN(), kl.ReLU(threshold=0.5), Conv()),
    "sigmoid": (IMAGE, BN(), kl.Activation("sigmoid"), Conv()),
    "softplus": (IMAGE, BN(), kl.Activation("softplus"), Conv()),
    "an output of the model": (IMAGE, BN(), branches(Conv(), kl.ReLU())),
    "added": (IMAGE, BN(), branches(Conv(), lambda x: kl.Add()([x, kl.Conv2D(4, 1)(x)]))),
    "another norm": (IMAGE, BN(), kl.LayerNormalization(), Conv()),
    "joined along rows": (
        IMAGE,
        merged(kl.Concatenate(axis=1), row(kl.ReLU()), BN()),
        Conv(),
    ),
    "dense along another axis": ((4, 5), BN(axis=1), kl.Dense(3)),
    "conv across positions": ((4, 5), BN(axis=1), kl.Conv1D(3, 1)),
    "rows become channels": ((4, 5), BN(), kl.Permute((2, 1)), kl.Dense(3)),
    "einsum along another axis": ((3, 7), BN(), kl.EinsumDense("abc,bd->adc", (5, None))),
    "shifted": (IMAGE, BN(), kl.Rescaling(1.0, offset=1.0), kl.ReLU(), Conv()),
    "noise": (IMAGE, BN(), kl.GaussianNoise(0.5), Conv()),
    "alpha dropout": ((7,), BN(), kl.AlphaDropout(0.5), kl.Dense(3)),
    "no gamma": (IMAGE, BN(scale=False), kl.ReLU(), Conv()),
    "shared norm": (IMAGE, shared(BN(), [Conv()], [Conv()])),
    "shared conv": (IMAGE, branches(BN(), kl.ReLU()), each(Conv())),
    "spectral norm": (IMAGE, BN(), kl.SpectralNormalization(Conv())),
    "layer norm": ((7,), kl.LayerNormalization(), kl.Dense(3)),
    "nothing behind": (IMAGE, Conv(), BN(), kl.ReLU()),
    "gated": (IMAGE, BN(), lambda x: kl.Multiply()([x, kl.Activation("sigmoid")(x)]), Conv()),
}
CAN_STAY_EQUAL = {"no gamma", "noise", "alpha dropout", "spectral norm", "layer norm"} | {
    "nothing behind",
    "shared norm",
    "another norm",
}


def axes_of(layer):
    """The axis of the input that the kernel distinguishes, and the kernel's own axis for it."""
    if isinstance(layer, kl.EinsumDense):
        return (2, 0) if layer.equation.startswith("abc,c") else (1, 0)
    return (
        1 if getattr(layer, "data_format", "") == "channels_first" else -1,
        -1 if isinstance(layer, kl.Conv2DTranspose) else -2,
    )


def error_of_absorbing(model):
    """Gamma becomes 1, the kernels behind take what is missing: by how much is the output off?"""
    norm = next(layer for layer in model.layers if getattr(layer, "gamma", None) is not None)
    kernels = {
        layer: next(v for v in layer.weights if v.name in {"kernel", "depthwise_kernel"})
        for layer in model.layers[model.layers.index(norm) :]
        if getattr(layer, "use_bias", None) is not None or isinstance(layer, kl.EinsumDense)
    }
    last = {layer: layer._inbound_nodes[-1].arguments.keras_tensors[0] for layer in kernels}
    watch = keras.Model(model.input, [*model.outputs, *last.values()])
    x = np.random.default_rng(3).normal(size=(5, *model.input_shape[1:])).astype("float32")

    def run():
        return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(watch(x))]

    before = run()
    gamma = keras.ops.convert_to_numpy(norm.gamma)
    norm.beta.assign(norm.beta / gamma)
    norm.gamma.assign(np.ones_like(gamma))
    outputs = len(model.outputs)
    for (layer, kernel), old, new in zip(
        kernels.items(), before[outputs:], run()[outputs:], strict=True
    ):
        axis, taken = axes_of(layer)
        rest = tuple(a for a in range(old.ndim) if a != axis % old.ndim)
        scale = np.abs(old).sum(axis=rest) / np.maximum(np.abs(new).sum(axis=rest), 1e-9)
        shape = np.ones(len(kernel.shape), int)
        shape[taken] = scale.size
        kernel.assign(kernel * scale.reshape(shape))
    pairs = zip(before[:outputs], run()[:outputs], strict=True)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


@pytest.mark.parametrize("name", ABSORBABLE)
def test_absorbable_scale_is_found(name, build, find):
    model = build(*ABSORBABLE[name])
    norm = next(la for la in model.layers if getattr(la, "gamma", None) is not None)
    (found,) = find(model, "N103")
    assert (found.where, found.severity) == (norm.name, "note")
    assert found.parameters == int(np.prod(norm.gamma.shape))
    assert found.fix.startswith(f"scale=False in {norm.name}")


@pytest.mark.parametrize("name", ABSORBABLE)
def test_absorbable_scale_can_be_absorbed(name, build, randomize):
    model = randomize(keras.models.clone_model(build(*ABSORBABLE[name])), seed=2)
    assert error_of_absorbing(model) < 1e-5


@pytest.mark.parametrize("name", NOT_ABSORBABLE)
def test_other_scales_are_not_found(name, build, find):
    assert find(build(*NOT_ABSORBABLE[name]), "N103") == []


@pytest.mark.parametrize("name", [name for name in NOT_ABSORBABLE if name not in CAN_STAY_EQUAL])
def test_other_scales_cannot_be_absorbed(name, build, randomize):
    model = randomize(keras.models.clone_model(build(*NOT_ABSORBABLE[name])), seed=2)
    assert error_of_absorbing(model) > 1e-3


def test_scale_message_names_layers_activation_and_signs(build, find):
    net = build(IMAGE, BN(name="bn"), kl.LeakyReLU(), branches(Conv(name="a"), Conv(name="b")))
    (found,) = find(net, "N103")
    assert found.message.startswith("its gamma (4 parameters) could be absorbed by ")
    assert found.message.endswith(("by a, b through leaky_relu", "by b, a through leaky_relu"))
    net.get_layer("bn").gamma.assign([1.0, -1.0, -0.5, 2.0])
    (found,) = find(net, "N103")
    assert "(4 parameters, but for the sign of 2)" in found.message
    straight = build(IMAGE, BN(name="bn"), Conv(name="a"))
    straight.get_layer("bn").gamma.assign([1.0, -1.0, -0.5, 2.0])
    assert "sign" not in find(straight, "N103")[0].message


def test_torch_scale(make_graph, find):
    def found(act="relu", **more):
        shape, attrs, arrays = torch_conv(bias=False)
        return find(
            make_graph(
                ("x", "input", "", shape),
                ("bn", "batch_norm", "x", shape, {"axis": 1}, batch_arrays()),
                ("act", act, "bn", shape),
                ("conv", "conv", "act", shape, {**attrs, **more}, arrays),
                framework="torch",
            ),
            "N103",
        )

    assert found()[0].fix.startswith("no gamma (affine=False drops beta too) in bn")
    assert found(act="rrelu")
    assert not found(act="silu")
    assert not found(reparametrized="spectral_norm")
    assert not found(quantized="int8")
    assert not found(lora="of rank 4")


# N501

PADDED = {
    "after": (IMAGE, Conv(), kl.ReLU(), BN(), Conv()),
    "input norm": (IMAGE, BN(), Conv()),
    "zero padding layer": (IMAGE, BN(), kl.ZeroPadding2D(1), Conv(padding="valid")),
    "depthwise": (IMAGE, kl.ReLU(), BN(), kl.DepthwiseConv2D(3, padding="same")),
    "separable": (IMAGE, kl.ReLU(), BN(), kl.SeparableConv2D(4, 3, padding="same")),
    "causal": ((9, 4), kl.ReLU(), BN(), kl.Conv1D(4, 3, padding="causal")),
    "channels first": ((4, 6, 6), kl.ReLU(), BN(axis=1), Conv(**FIRST)),
    "stride that leaves a rest": ((7, 7, 4), kl.ReLU(), BN(), Conv(size=2, strides=2)),
    "dropout between": (IMAGE, kl.ReLU(), BN(), kl.Dropout(0.5), Conv()),
    "linear layer has another reader": (
        IMAGE,
        Conv(),
        lambda x: [Conv()(BN()(x)), kl.ReLU()(x)],
    ),
    "linear layer is shared": (IMAGE, shared(Conv(), [BN(), Conv()], [kl.ReLU()])),
    "max pool before it": (IMAGE, Conv(), kl.MaxPooling2D(2), BN(), Conv()),
    "zeros before it": (IMAGE, Conv(), kl.ZeroPadding2D(1), BN(), Conv()),
    "of unknown size": ((None, None, 4), kl.ReLU(), BN(), Conv()),
    "behind a sum": (IMAGE, merged(kl.Add(), Conv(), kl.ReLU()), BN(), Conv()),
}
NOT_PADDED = {
    "before": (IMAGE, Conv(), BN(), kl.ReLU(), Conv()),
    "valid": (IMAGE, kl.ReLU(), BN(), Conv(padding="valid")),
    "one by one": (IMAGE, kl.ReLU(), BN(), Conv(size=1)),
    "stride that fits": (IMAGE, kl.ReLU(), BN(), Conv(size=2, strides=2)),
    "stride that fits, channels first": (
        (3, 6, 6),
        kl.ReLU(),
        BN(axis=1),
        Conv(size=2, strides=2, **FIRST),
    ),
    "folds backwards": (IMAGE, Conv(), BN(), Conv()),
    "folds backwards through an average": (IMAGE, Conv(), kl.AveragePooling2D(2), BN(), Conv()),
    "dense": (IMAGE, kl.ReLU(), BN(), kl.Flatten(), kl.Dense(3)),
    "activation between": (IMAGE, kl.ReLU(), BN(), kl.ReLU(), Conv()),
    "layer norm": (IMAGE, kl.ReLU(), kl.LayerNormalization(), Conv()),
    "group norm": (IMAGE, kl.ReLU(), kl.GroupNormalization(2), Conv()),
    "batch statistics": (IMAGE, kl.ReLU(), lambda x: BN()(x, training=True), Conv()),
    "zero padding of nothing": (IMAGE, BN(), kl.ZeroPadding2D(0), Conv(padding="valid")),
}


@pytest.mark.parametrize("name", PADDED)
def test_padded_fold_is_found(name, build, find):
    model = build(*PADDED[name])
    (found,) = find(model, "N501")
    assert found.where == next(la.name for la in model.layers if isinstance(la, BN))
    assert found.severity == "note"


@pytest.mark.parametrize("name", NOT_PADDED)
def test_padded_fold_is_not_found(name, build, find):
    assert find(build(*NOT_PADDED[name]), "N501") == []


def error_of_folding(model):
    """Fold the norm into the conv behind it as W·s, b + ΣW·t: by how much is the output off?"""
    norm = next(layer for layer in model.layers if isinstance(layer, BN))
    behind = model.layers[model.layers.index(norm) :]
    conv = next(layer for layer in behind if isinstance(layer, (kl.Conv2D, kl.Conv1D)))
    sizes = [6 if n is None else n for n in model.input_shape[1:]]
    x = np.random.default_rng(4).normal(size=(2, *sizes)).astype("float32")
    before = keras.ops.convert_to_numpy(model(x))
    gamma, beta, mean, variance = (keras.ops.convert_to_numpy(v) for v in norm.weights)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    kernel = keras.ops.convert_to_numpy(conv.kernel)
    shift = (kernel * (beta - mean * scale)[:, None]).sum(axis=tuple(range(kernel.ndim - 1)))
    norm.gamma.assign(np.sqrt(variance + norm.epsilon))
    norm.beta.assign(mean)
    conv.kernel.assign(kernel * scale[:, None])
    conv.bias.assign(conv.bias + shift)
    return float(np.abs(keras.ops.convert_to_numpy(model(x)) - before).max())


PLAIN_CONV = {"after", "input norm", "zero padding layer", "causal", "channels first"} | {
    "stride that leaves a rest",
    "of unknown size",
    "max pool before it",
}


@pytest.mark.parametrize("name", [name for name in PADDED if name in PLAIN_CONV])
def test_padded_fold_is_inexact(name, build, randomize):
    model = randomize(keras.models.clone_model(build(*PADDED[name])), seed=2)
    assert error_of_folding(model) > 1e-2


@pytest.mark.parametrize(
    "name", ["valid", "one by one", "stride that fits", "zero padding of nothing"]
)
def test_other_folds_are_exact(name, build, randomize):
    model = randomize(keras.models.clone_model(build(*NOT_PADDED[name])), seed=2)
    assert error_of_folding(model) < 1e-5


def test_torch_padded_fold(make_graph, find):
    def found(*between, **more):
        shape, attrs, arrays = torch_conv()
        rows = [
            ("x", "input", "", shape),
            ("bn", "batch_norm", "x", shape, {"axis": 1}, batch_arrays()),
        ]
        for op, extra in between:
            rows.append((op, op, rows[-1][0], shape, {"data_format": "channels_first", **extra}))
        rows.append(("conv", "conv", rows[-1][0], shape, {**attrs, **more}, arrays))
        return find(make_graph(*rows, framework="torch"), "N501")

    assert found()[0].message.startswith("its shift meets the zero padding of conv")
    ones, none = ((1, 1), (1, 1)), ((0, 0), (0, 0))
    assert not found(padding=none)
    assert found(("pad", {"mode": "constant", "padding": ones}), padding=none)
    assert not found(("pad", {"mode": "reflect", "padding": ones}), padding=none)
