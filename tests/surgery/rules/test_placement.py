"""N201 to N206: where norms sit, on models that have it and on models that nearly have it."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from .rows import BN, FIRST, Conv, branches, row

IMAGE = (8, 8, 4)


def blocks(orders, norm=BN):
    """One block per letter: b(efore), a(fter), p(re-activation), i(nput is normalized)."""
    for number, order in enumerate(orders):
        linear, bn, act = Conv(name=f"c{number}"), norm(name=f"n{number}"), kl.ReLU()
        places = {"b": (linear, bn, act), "a": (linear, act, bn)}
        places |= {"p": (bn, act, linear), "i": (bn, linear, act)}
        yield from places[order]


# N201


@pytest.mark.parametrize(
    ("orders", "where", "message"),
    [
        ("bbab", "n2", "linear-act-norm in 1 of 4 norms (n2), linear-norm-act in 3"),
        ("aaba", "n2", "linear-norm-act in 1 of 4 norms (n2), linear-act-norm in 3"),
        ("abaab", "n1", "linear-norm-act in 2 of 5 norms (n1, n4), linear-act-norm in 3"),
    ],
)
def test_mixed_orders_are_found(orders, where, message, build, find):
    (found,) = find(build(IMAGE, *blocks(orders)), "N201")
    assert (found.where, found.message, found.severity) == (where, message, "warning")


@pytest.mark.parametrize("orders", ["", "b", "a", "bbb", "aaa", "ppp", "iii"])
def test_one_order_throughout_is_fine(orders, build, find):
    assert find(build(IMAGE, *blocks(orders), kl.GlobalMaxPooling2D(), kl.Dense(2)), "N201") == []


def test_parts_of_orders_do_not_count(build, find):
    net = build(IMAGE, BN(), *blocks("aa"), Conv(), BN())  # norm, linear-norm
    assert find(net, "N201") == []


def test_stem_before_pre_activation_blocks_is_a_note(build, find):
    def block(x):
        return kl.Add()([x, row(*blocks("pp"))(x)])

    net = build(IMAGE, Conv(), BN(name="stem"), kl.ReLU(), block)
    (found,) = find(net, "N201")
    assert (found.where, found.severity) == ("stem", "note")
    assert "norm-act-linear in 2" in found.message


def test_layer_norms_of_a_transformer_are_counted_on_their_own(build, find):
    def feed_forward(x):
        norm = kl.LayerNormalization()
        return kl.Add()([x, row(norm, kl.Dense(9, activation="gelu"), kl.Dense(4))(x)])

    assert find(build(IMAGE, *blocks("bb"), feed_forward), "N201") == []
    layer_norms = blocks("bab", norm=kl.LayerNormalization)
    assert [f.where for f in find(build(IMAGE, *layer_norms), "N201")] == ["n1"]


# N202

AT_OUTPUT = {
    "norm": ((7,), kl.Dense(3), BN()),
    "norm behind an activation": ((7,), kl.Dense(3, activation="relu"), BN()),
    "softmax": ((7,), kl.Dense(3), BN(), kl.Softmax()),
    "sigmoid": ((7,), kl.Dense(1), BN(), kl.Activation("sigmoid")),
    "softmax, dropout between": ((7,), kl.Dense(3), BN(), kl.Dropout(0.1), kl.Softmax()),
    "pooled": (IMAGE, Conv(), BN(), kl.GlobalAveragePooling2D(), kl.Softmax()),
    "group norm": (IMAGE, Conv(), kl.GroupNormalization(2)),
    "one of two outputs": ((7,), branches(kl.Dense(2), row(kl.Dense(3), BN()))),
}
NOT_AT_OUTPUT = {
    "dense last": ((7,), kl.Dense(5), BN(), kl.ReLU(), kl.Dense(3), kl.Softmax()),
    "dense behind the norm": ((7,), kl.ReLU(), BN(), kl.Dense(3, activation="softmax")),
    "features": (IMAGE, Conv(), BN(), kl.ReLU()),
    "a gate": (
        IMAGE,
        lambda x: kl.Multiply()([x, row(Conv(), BN(), kl.Activation("sigmoid"))(x)]),
        Conv(),
    ),
    "layer norm": ((7,), kl.Dense(3), kl.LayerNormalization()),
    "another reader": ((7,), kl.Dense(3), BN(), branches(kl.Identity(), kl.Dense(2))),
    "behind a sum": (IMAGE, lambda x: kl.Add()([x, BN()(x)])),
}


@pytest.mark.parametrize("name", AT_OUTPUT)
def test_norm_at_output_is_found(name, build, find):
    model = build(*AT_OUTPUT[name])
    (found,) = find(model, "N202")
    norms = [la.name for la in model.layers if isinstance(la, (BN, kl.GroupNormalization))]
    assert [found.where] == norms


@pytest.mark.parametrize("name", NOT_AT_OUTPUT)
def test_norm_elsewhere_is_not_at_output(name, build, find):
    assert find(build(*NOT_AT_OUTPUT[name]), "N202") == []


def test_norm_at_output_says_how(build, find):
    assert find(build(*AT_OUTPUT["norm"]), "N202")[0].message.startswith("is the model's output: ")
    (found,) = find(build(*AT_OUTPUT["softmax"]), "N202")
    assert found.message.startswith("feeds the output's softmax directly: ")


def test_shared_norm_at_output_at_its_second_call(build, find):
    norm = BN(name="shared")
    net = build((7,), kl.Dense(7), norm, kl.ReLU(), kl.Dense(7), norm)
    assert [f.where for f in find(net, "N202")] == ["shared"]


# N203

STACKED = {
    "two batch norms": (IMAGE, BN(), BN(name="second")),
    "batch and layer norm": (IMAGE, Conv(), BN(), kl.LayerNormalization(name="second")),
    "dropout between": (IMAGE, BN(), kl.Dropout(0.2), BN(name="second")),
    "average pool between": (IMAGE, BN(), kl.AveragePooling2D(2), BN(name="second")),
    "flattened": (IMAGE, BN(), kl.Flatten(), BN(name="second")),
}
NOT_STACKED = {
    "activation between": (IMAGE, BN(), kl.ReLU(), BN()),
    "linear layer between": (IMAGE, BN(), Conv(), BN()),
    "max pool between": (IMAGE, BN(), kl.MaxPooling2D(2), BN()),
    "global max pool between": (IMAGE, BN(), kl.GlobalMaxPooling2D(), BN()),
    "largest value between": (IMAGE, BN(), lambda x: keras.ops.max(x, axis=1), BN()),
    "side by side": (IMAGE, branches(BN(), BN())),
    "sum between": (IMAGE, lambda x: BN()(kl.Add()([x, BN()(x)]))),
}


@pytest.mark.parametrize("name", STACKED)
def test_stacked_norms_are_found(name, build, find):
    (found,) = find(build(*STACKED[name]), "N203")
    assert (found.where, found.severity) == ("second", "warning")


@pytest.mark.parametrize("name", NOT_STACKED)
def test_other_norms_are_not_stacked(name, build, find):
    assert find(build(*NOT_STACKED[name]), "N203") == []


def test_shared_norm_stacked_at_its_second_call_only(build, find):
    norm = BN(name="shared")
    net = build(IMAGE, Conv(), norm, kl.ReLU(), Conv(), BN(), norm, kl.ReLU())
    assert [f.where for f in find(net, "N203")] == ["shared"]


# N204

NO_ACTIVATION = {
    "conv, norm, conv": (IMAGE, Conv(name="a"), BN(), Conv(name="b")),
    "dense": ((5,), kl.Dense(7, name="a"), BN(), kl.Dense(6, name="b")),
    "widened": ((4,), kl.Dense(9, name="a"), BN(), kl.Dense(3, name="b")),
    "average pool": (IMAGE, Conv(name="a"), kl.AveragePooling2D(2), BN(), Conv(name="b")),
    "dropout": ((7,), kl.Dense(9, name="a"), BN(), kl.Dropout(0.5), kl.Dense(9, name="b")),
    "two layers behind": (IMAGE, Conv(name="a"), BN(), branches(Conv(name="b"), Conv())),
}
WITH_ACTIVATION = {
    "before": (IMAGE, *blocks("bb")),
    "after": (IMAGE, *blocks("aa")),
    "bottleneck": ((9,), kl.Dense(4), BN(), kl.Dense(9)),
    "depthwise": (IMAGE, kl.DepthwiseConv2D(3), BN(), Conv(size=1)),
    "separable": (IMAGE, kl.SeparableConv2D(4, 3), BN(), kl.SeparableConv2D(4, 3)),
    "grouped": (IMAGE, Conv(groups=2), BN(), Conv()),
    "max pool": (IMAGE, Conv(), BN(), kl.MaxPooling2D(2), Conv()),
    "max pool before the norm": (IMAGE, Conv(), kl.MaxPooling2D(2), BN(), Conv()),
    "layer norm": (IMAGE, Conv(), kl.LayerNormalization(), Conv()),
    "behind a sum": (IMAGE, lambda x: kl.ReLU()(kl.Add()([x, row(Conv(), BN())(x)])), Conv()),
    "activation on one of two paths": (IMAGE, Conv(), BN(), branches(kl.ReLU(), Conv())),
    "output": (IMAGE, Conv(), BN()),
}


@pytest.mark.parametrize("name", NO_ACTIVATION)
def test_missing_activation_is_found(name, build, find):
    (found,) = find(build(*NO_ACTIVATION[name]), "N204")
    assert found.message.startswith("no activation between a and ")
    assert found.fix.endswith("else the two layers are one")
    assert found.severity == "note"


@pytest.mark.parametrize("name", WITH_ACTIVATION)
def test_activation_is_not_missed(name, build, find):
    assert find(build(*WITH_ACTIVATION[name]), "N204") == []


@pytest.mark.parametrize("norm", [BN(), kl.GroupNormalization(2)], ids=["batch", "group"])
def test_two_layers_are_one_only_with_a_norm_that_is_linear(norm, build, find):
    """Conv, batch norm, conv is affine at inference, so that the fix may say so; group norm not."""
    net = build(IMAGE, Conv(), norm, Conv())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, *IMAGE)).astype("float32")
    ends = [keras.ops.convert_to_numpy(net(v)) for v in (x, y, (x + y) / 2)]
    affine = np.allclose((ends[0] + ends[1]) / 2, ends[2], atol=1e-4)
    (found,) = find(net, "N204")
    assert affine == ("the two layers are one" in found.fix)


def test_norm_alone(build, find):
    (found,) = find(build(IMAGE, BN(name="alone")), "N204")
    assert found.message == "no linear layer and no activation before or behind it"
    assert find(build(IMAGE, kl.GlobalAveragePooling2D(), BN()), "N204")


@pytest.mark.parametrize("beside", ["merge", "opaque", "embedding"])
def test_norm_beside_what_is_not_known_is_not_alone(beside, build, find):
    class Mine(kl.Layer):
        def call(self, x):
            return x + 1.0

    net = {
        "merge": lambda: build(IMAGE, lambda x: BN()(kl.Add()([Conv()(x), x]))),
        "opaque": lambda: build(IMAGE, Mine(), BN()),
        "embedding": lambda: build((5,), kl.Embedding(9, 4), BN()),
    }[beside]()
    assert find(net, "N204") == []


# N205

DROPPED = {
    "right before": (IMAGE, Conv(), kl.Dropout(0.5, name="drop"), BN()),
    "before the linear layer": (IMAGE, kl.Dropout(0.5, name="drop"), Conv(), BN(), kl.ReLU()),
    "through an activation": ((7,), kl.Dropout(0.5, name="drop"), kl.ReLU(), BN()),
    "through two layers": ((7,), kl.Dropout(0.5, name="drop"), kl.Dense(4), kl.Dense(4), BN()),
    "spatial": (IMAGE, kl.SpatialDropout2D(0.5, name="drop"), BN()),
    "gaussian": (IMAGE, kl.GaussianDropout(0.5, name="drop"), BN()),
    "noise of one shape": (IMAGE, kl.Dropout(0.5, noise_shape=(None, 8, 1, 4), name="drop"), BN()),
    "one branch": (IMAGE, lambda x: kl.Add()([x, kl.Dropout(0.5, name="drop")(x)]), BN()),
    "joined": (IMAGE, lambda x: kl.Concatenate()([x, kl.Dropout(0.5, name="drop")(x)]), BN()),
    "pooled": (IMAGE, kl.Dropout(0.5, name="drop"), kl.MaxPooling2D(2), BN()),
}
NOT_DROPPED = {
    "behind": (IMAGE, Conv(), BN(), kl.ReLU(), kl.Dropout(0.5)),
    "a layer norm between": (IMAGE, kl.Dropout(0.5), kl.LayerNormalization(), Conv(), BN()),
    "layer norm": (IMAGE, kl.Dropout(0.5), Conv(), kl.LayerNormalization()),
    "group norm": (IMAGE, kl.Dropout(0.5), Conv(), kl.GroupNormalization(2)),
    "nothing dropped": (IMAGE, kl.Dropout(0.0), Conv(), BN()),
    "frozen": (IMAGE, kl.Dropout(0.5), Conv(), BN(trainable=False)),
    "norm in inference mode": (IMAGE, kl.Dropout(0.5), lambda x: BN()(x, training=False)),
    "norm on its batch": (IMAGE, kl.Dropout(0.5), lambda x: BN()(x, training=True)),
    "always dropping": (IMAGE, lambda x: kl.Dropout(0.5)(x, training=True), BN()),
    "alpha": (IMAGE, kl.AlphaDropout(0.5), BN()),
    "noise": (IMAGE, kl.GaussianNoise(0.5), BN()),
    "another branch": (IMAGE, branches(kl.Dropout(0.5), BN())),
    "whole branches": (
        IMAGE,
        lambda x: kl.Add()([x, kl.Dropout(0.5, noise_shape=(None, 1, 1, 1))(x)]),
        BN(),
    ),
}


@pytest.mark.parametrize("name", DROPPED)
def test_dropout_before_norm_is_found(name, build, find):
    model = build(*DROPPED[name])
    (found,) = find(model, "N205")
    assert found.where == next(la.name for la in model.layers if isinstance(la, BN))
    assert found.message.startswith("dropout 'drop' (rate 0.5) lies before it")


@pytest.mark.parametrize("name", NOT_DROPPED)
def test_other_dropout_is_not_found(name, build, find):
    assert find(build(*NOT_DROPPED[name]), "N205") == []


def test_dropout_shifts_the_first_norm_behind_it_only(build, find):
    net = build(IMAGE, kl.Dropout(0.3), Conv(), BN(name="a"), kl.ReLU(), Conv(), BN(name="b"))
    assert [f.where for f in find(net, "N205")] == ["a"]


def test_dropout_before_a_shared_norm_is_said_once(build, find):
    norm = BN(name="shared")
    net = build(IMAGE, kl.Dropout(0.3), Conv(), norm, kl.Dropout(0.3), Conv(), norm)
    assert [f.where for f in find(net, "N205")] == ["shared"]


def test_norm_without_statistics_does_not_shift(make_graph, find):
    def net(arrays, op="batch_norm"):
        return make_graph(
            ("x", "input", "", (4, 6, 6)),
            ("drop", "dropout", "x", (4, 6, 6), {"rate": 0.5}),
            ("bn", op, "drop", (4, 6, 6), {"axis": 1}, arrays),
            framework="torch",
        )

    moving = {"moving_mean": np.zeros(4), "moving_variance": np.ones(4)}
    assert find(net(moving), "N205")
    assert find(net(moving, "instance_norm"), "N205")
    assert not find(net({}), "N205")
    assert not find(net({}, "instance_norm"), "N205")


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_variance_shift_is_there(rate, build):
    """What N205 says: the stored variance is larger by about 1 / (1 - rate) than at inference."""
    keras.utils.set_random_seed(0)
    net = build((64,), kl.Dropout(rate), BN(momentum=0.0, name="bn"))
    x = np.random.default_rng(0).normal(size=(4096, 64)).astype("float32")
    net(x, training=True)
    stored = keras.ops.convert_to_numpy(net.get_layer("bn").moving_variance).mean()
    np.testing.assert_allclose(stored / x.var(axis=0).mean(), 1 / (1 - rate), rtol=0.05)


# N206

WRONG_AXIS = {
    "channels last, axis 1": (IMAGE, Conv(), BN(axis=1)),
    "channels last, axis 2": (IMAGE, Conv(), kl.ReLU(), BN(axis=2)),
    "channels first, axis -1": ((4, 8, 8), Conv(**FIRST), BN(axis=-1)),
    "group norm": ((4, 8, 8), Conv(**FIRST), kl.GroupNormalization(2)),
    "layer norm": ((4, 8, 8), Conv(**FIRST), kl.LayerNormalization()),
    "layer norm over some positions": (IMAGE, Conv(), kl.LayerNormalization(axis=1)),
    "rms norm": ((4, 8, 8), Conv(**FIRST), kl.RMSNormalization()),
    "pool": (IMAGE, kl.ReLU(), kl.MaxPooling2D(2), BN(axis=1)),
    "behind dropout and a sum": (
        IMAGE,
        Conv(),
        lambda x: kl.Add()([x, kl.Dropout(0.1)(x)]),
        BN(axis=1),
    ),
    "joined": (IMAGE, branches(Conv(), Conv()), kl.Concatenate(), BN(axis=1)),
    "only the layer behind says": (IMAGE, kl.Dense(4), BN(axis=1), kl.ReLU(), Conv()),
    "1-D": ((9, 4), kl.Conv1D(4, 3), BN(axis=1)),
    "3-D": ((4, 4, 4, 4), kl.Conv3D(4, 2), BN(axis=1)),
    "depthwise": ((4, 8, 8), kl.DepthwiseConv2D(3, **FIRST), BN()),
    "transposed": ((4, 8, 8), kl.Conv2DTranspose(4, 3, **FIRST), BN()),
    "time distributed": ((2, 4, 8, 8), kl.TimeDistributed(Conv(**FIRST)), BN()),
}
RIGHT_AXIS = {
    "channels last": (IMAGE, Conv(), BN()),
    "channels last, axis 3": (IMAGE, Conv(), BN(axis=3)),
    "channels first": ((4, 8, 8), Conv(**FIRST), BN(axis=1)),
    "channels first, axis -3": ((4, 8, 8), Conv(**FIRST), BN(axis=-3)),
    "group norm": ((4, 8, 8), Conv(**FIRST), kl.GroupNormalization(2, axis=1)),
    "layer norm": ((4, 8, 8), Conv(**FIRST), kl.LayerNormalization(axis=1)),
    "layer norm over all": ((4, 8, 8), Conv(**FIRST), kl.LayerNormalization(axis=(1, 2, 3))),
    "layer norm as instance norm": (IMAGE, Conv(), kl.LayerNormalization(axis=(1, 2))),
    "unit norm": (IMAGE, Conv(), kl.UnitNormalization(axis=1)),
    "dense over positions": ((9, 4), kl.Dense(4), BN(axis=1)),
    "flattened": ((4, 8, 8), Conv(**FIRST), kl.Flatten(), BN()),
    "channels moved": ((4, 8, 8), Conv(**FIRST), kl.Permute((2, 3, 1)), BN()),
    "other rank behind": ((9, 4), kl.Dense(16), BN(axis=1), kl.Reshape((9, 4, 4)), Conv()),
    "time distributed": ((2, 4, 8, 8), kl.TimeDistributed(Conv(**FIRST)), BN(axis=2)),
    "both time distributed": (
        (2, 4, 8, 8),
        kl.TimeDistributed(Conv(**FIRST)),
        kl.TimeDistributed(BN(axis=1)),
    ),
}


@pytest.mark.parametrize("name", WRONG_AXIS)
def test_wrong_axis_is_found(name, build, find):
    model = build(*WRONG_AXIS[name])
    (found,) = find(model, "N206")
    norm = next(la.name for la in model.layers if type(la).__name__.endswith("Normalization"))
    assert (found.where, found.severity) == (norm, "error")


@pytest.mark.parametrize("name", RIGHT_AXIS)
def test_right_axis_is_not_found(name, build, find):
    assert find(build(*RIGHT_AXIS[name]), "N206") == []


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        (
            "channels last, axis 1",
            "normalizes along axis 1, but c is channels_last: its channels are axis 3 of shape "
            "(batch, 8, 8, 4)",
            "axis=-1 in n",
        ),
        (
            "channels first, axis -1",
            "normalizes along axis 3, but c is channels_first: its channels are axis 1 of shape "
            "(batch, 4, 8, 8)",
            "axis=1 in n",
        ),
        (
            "time distributed",
            "normalizes along axis 4, but c is channels_first: its channels are axis 2 of shape "
            "(batch, 2, 4, 8, 8)",
            "axis=2 in n",
        ),
    ],
)
def test_wrong_axis_message(name, message, fix, build, find):
    shape, conv, norm = WRONG_AXIS[name]
    model = keras.models.clone_model(build(shape, conv, norm))
    model.layers[1].name, model.layers[2].name = "c", "n"
    (found,) = find(model, "N206")
    assert (found.message, found.fix) == (message, fix)


def test_unknown_sizes_are_shown_as_such(build, find):
    (found,) = find(build((8, None, 4), Conv(), BN(axis=1)), "N206")
    assert found.message.endswith("(batch, 8, ?, 4)")


def test_another_axis_of_the_models_input_may_be_meant(build, find):
    for layers in ([BN(axis=2), Conv(), kl.ReLU()], [kl.MaxPooling2D(2), BN(axis=1)]):
        (found,) = find(build(IMAGE, *layers), "N206")
        assert found.severity == "warning"


def test_wrong_axis_in_torch_has_no_axis_argument(make_graph, find):
    shape = (4, 6, 6)
    attrs = {"data_format": "channels_first", "padding": "valid", "strides": (1, 1)}
    net = make_graph(
        ("x", "input", "", shape),
        ("conv", "conv", "x", shape, attrs, {"kernel": np.ones((1, 1, 4, 4))}),
        ("ln", "layer_norm", "conv", shape, {"axes": (3,)}),
        framework="torch",
    )
    (found,) = find(net, "N206")
    assert found.fix == "move the channels to where ln looks for them"
