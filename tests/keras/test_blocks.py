from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers as kl

from relucate.errors import InputError
from relucate.keras import conv2d_bn, dense_bn
from relucate.keras.reading.reader import read
from relucate.order import Order

ORDERS = ["before", "after", "none", "norm-linear-act", "norm-act-linear", "act-linear-norm"]
DROPS = ["linear-norm-act-drop", "drop-linear-norm-act", "linear-drop-norm-act"]
NORMS = ["batch", "layer", "group", "none"]


def conv_net(order, shape=(7, 6, 4), **options):
    x = keras.Input(shape)
    return keras.Model(x, conv2d_bn(x, 6, 3, 3, name="b", order=order, **options))


def dense_net(order, **options):
    x = keras.Input((5,))
    return keras.Model(x, dense_bn(x, 6, name="b", order=order, **options))


def tokens(model):
    return [node.kind for node in read(model) if node.op != "input"]


@pytest.mark.parametrize("make", [conv_net, dense_net])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("order", ORDERS + DROPS)
def test_the_layers_come_in_the_order(make, norm, order):
    model = make(order, norm=norm, dropout=0.25 if "drop" in order else 0.0)
    wanted = [t for t in Order(order).tokens if t != "norm" or norm != "none"]
    assert tokens(model) == wanted


@pytest.mark.parametrize("make", [conv_net, dense_net])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("order", ORDERS)
def test_keras_numpy_and_torch_agree(agree, make, norm, order):
    model = make(order, norm=norm, activation="elu")
    agree(model, training=True)
    agree(model)


@pytest.mark.parametrize("make", [conv_net, dense_net])
@pytest.mark.parametrize("order", ORDERS + DROPS)
@pytest.mark.parametrize("norm", NORMS)
def test_bias_only_where_no_mean_per_channel_is_taken_away_right_behind(make, order, norm):
    model = make(order, norm=norm)
    linear = next(la for la in model.layers if isinstance(la, (kl.Conv2D, kl.Dense)))
    follows = ("linear", "norm") in pairwise(Order(order).tokens)
    assert linear.use_bias == (not (follows and norm == "batch"))


def test_group_norm_with_a_group_per_channel_makes_the_bias_redundant():
    for groups, bias in ((-1, False), (6, False), (32, False), (3, True), (5, True)):
        model = conv_net("before", norm="group", groups=groups)
        assert model.get_layer("b_conv").use_bias == bias


def test_groups_fall_to_the_largest_divisor():
    for groups, got in ((4, 3), (32, 6), (5, 3), (1, 1), (-1, 6), (None, 1)):
        model = dense_net("before", norm="group", groups=groups)
        assert model.get_layer("b_gn").groups == got


@pytest.mark.parametrize(
    ("units", "groups"), [(1, 1), (3, 1), (7, 1), (32, 8), (100, 25), (256, 32)]
)
def test_by_default_no_unit_of_a_dense_layer_is_a_group_of_its_own(units, groups):
    x = keras.Input((5,))
    model = keras.Model(x, dense_bn(x, units, "b", norm="group"))
    assert model.get_layer("b_gn").groups == groups


def test_group_norm_on_the_input_divides_the_input_channels():
    model = conv_net("norm-linear-act", norm="group", groups=3)
    assert model.get_layer("b_gn").groups == 2  # of the 4 channels of the input


@pytest.mark.parametrize("use_bias", [True, False])
def test_use_bias_wins_over_the_rule(use_bias):
    for model in (conv_net("before", use_bias=use_bias), conv_net("after", use_bias=use_bias)):
        assert model.get_layer("b_conv").use_bias == use_bias
    assert dense_net("before", use_bias=use_bias).get_layer("b_dense").use_bias == use_bias


def test_names():
    for norm, suffix in (("batch", "bn"), ("layer", "ln"), ("group", "gn")):
        model = conv_net("linear-norm-act-drop", norm=norm, dropout=0.1)
        names = [layer.name for layer in model.layers[1:]]
        assert names == ["b_conv", f"b_{suffix}", "b", "b_drop"]
    assert [la.name for la in dense_net("after").layers[1:]] == ["b_dense", "b", "b_bn"]


def test_blocks_without_a_name_can_be_stacked():
    x = keras.Input((8, 8, 3))
    y = conv2d_bn(conv2d_bn(x, 4, 3, 3, dropout=0.1, order="linear-norm-act-drop"), 4, 1, 1)
    assert keras.Model(x, y).output_shape == (None, 8, 8, 4)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("order", ORDERS)
def test_channels_first(agree, order, norm):
    model = conv_net(order, shape=(4, 7, 6), norm=norm, data_format="channels_first")
    assert model.output_shape == (None, 6, 7, 6)
    norms = [la for la in model.layers if hasattr(la, "epsilon")]
    assert all(la.axis == 1 for la in norms)
    agree(model)


def test_layer_norm_channels_first_has_the_channel_axis():
    model = conv_net("before", shape=(4, 7, 6), norm="layer", data_format="channels_first")
    assert model.get_layer("b_ln").axis == [1]
    assert model.get_layer("b_ln").gamma.shape == (6,)


def test_data_format_of_the_configuration(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    x = keras.Input((4, 7, 6))
    assert conv2d_bn(x, 5, 3, 3).shape == (None, 5, 7, 6)


def test_drop_in_for_the_helper_of_keras_applications():
    """Positional arguments as keras.applications' Inception v3 passes them."""
    x = keras.Input((9, 9, 3))
    y = conv2d_bn(x, 32, 3, 2, "valid", (2, 2), "stem")
    assert y.shape == (None, 4, 4, 32)
    layer = keras.Model(x, y).get_layer("stem_conv")
    assert (layer.kernel_size, layer.strides, layer.padding) == ((3, 2), (2, 2), "valid")


def test_options_reach_the_layers():
    regularizer = keras.regularizers.L2(0.01)
    model = conv_net(
        "linear-norm-act-drop",
        scale=False,
        momentum=0.8,
        epsilon=0.1,
        dropout=0.3,
        strides=2,
        kernel_initializer="ones",
        kernel_regularizer=regularizer,
    )
    norm, conv = model.get_layer("b_bn"), model.get_layer("b_conv")
    assert (norm.momentum, norm.epsilon, norm.gamma) == (0.8, 0.1, None)
    assert model.get_layer("b_drop").rate == 0.3
    assert conv.kernel_regularizer is regularizer
    assert conv.strides == (2, 2)
    assert np.min(conv.get_weights()[0]) == 1.0
    assert conv_net("before", dilation_rate=2).get_layer("b_conv").dilation_rate == (2, 2)
    dense = dense_net("before", kernel_regularizer=regularizer, kernel_initializer="ones")
    assert dense.get_layer("b_dense").kernel_regularizer is regularizer
    assert np.min(dense.get_layer("b_dense").get_weights()[0]) == 1.0


def relu_twice(x):
    return keras.ops.relu(2 * x)


@pytest.mark.parametrize(
    "activation",
    ["gelu", "leaky_relu", None, keras.activations.tanh, relu_twice, kl.LeakyReLU(0.3), kl.PReLU],
)
def test_any_activation(activation):
    model = dense_net("after", activation=activation)
    assert model.get_layer("b").name == "b"
    assert model(np.ones((2, 5), "float32")).shape == (2, 6)


def test_an_activation_layer_is_made_anew_for_each_block():
    x = keras.Input((5,))
    act = kl.PReLU(alpha_initializer="ones")
    model = keras.Model(x, dense_bn(dense_bn(x, 6, "a", activation=act), 6, "b", activation=act))
    a, b = model.get_layer("a"), model.get_layer("b")
    assert a is not b
    assert a is not act
    assert a.alpha is not b.alpha
    assert np.min(b.get_weights()[0]) == 1.0


@pytest.mark.parametrize("make", [conv_net, dense_net])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "befor"}, "befor"),
        ({"norm": "bacth"}, "unknown norm 'bacth': did you mean 'batch'"),
        ({"activation": "rleu"}, "unknown activation 'rleu': did you mean 'relu"),
        ({"activation": 3}, "unknown activation '3'"),
        ({"kernel_initializer": "he_norml"}, "unknown initializer 'he_norml': did you mean 'he_no"),
        ({"dropout": 1.0, "order": "linear-drop"}, r"in \[0, 1\), got 1.0"),
        ({"dropout": -0.1, "order": "linear-drop"}, r"in \[0, 1\), got -0.1"),
        ({"dropout": float("nan"), "order": "linear-drop"}, r"in \[0, 1\), got nan"),
        ({"dropout": 0.5, "order": "after"}, "no place in the order 'linear-act-norm'.*-norm-drop"),
        ({"norm": "group", "groups": 0}, "groups must be above 0.*got 0"),
    ],
    ids=str,
)
def test_mistakes(make, options, message):
    with pytest.raises(InputError, match=message):
        make(**{"order": "before", **options})


def test_mistaken_data_format():
    with pytest.raises(InputError, match="unknown data format 'channel_last': did you mean"):
        conv_net("before", data_format="channel_last")
