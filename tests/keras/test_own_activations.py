"""PReLU, RReLU and maxout as blocks use them."""

import keras
import numpy as np
import pytest

import relucate
from relucate import InputError
from relucate.keras import conv2d_bn, dense_bn
from relucate.keras.own_activations import RReLU
from relucate.nets import build


def test_prelu_has_one_slope_per_channel():
    x = conv2d_bn(keras.Input((6, 6, 2)), 3, 3, 3, activation="prelu", name="a")
    assert x._keras_history.operation.alpha.shape == (1, 1, 3)


def test_rrelu_draws_in_training_and_takes_the_mean_otherwise():
    layer, x = RReLU(0.1, 0.3), -np.ones((200, 4), "float32")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), -0.2, rtol=1e-6)
    drawn = keras.ops.convert_to_numpy(layer(x, training=True))
    assert -0.3 <= drawn.min() < -0.28
    assert -0.12 < drawn.max() <= -0.1
    assert RReLU.from_config(layer.get_config()).lower == 0.1


def test_maxout_is_the_larger_half():
    model = keras.Model(
        image := keras.Input((5,)), dense_bn(image, 3, order="none", activation="maxout", name="a")
    )
    x = np.random.default_rng(0).standard_normal((7, 5)).astype("float32")
    kernel, bias = model.get_weights()
    both = x @ kernel + bias
    expected = np.maximum(both[:, :3], both[:, 3:])
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_maxout_needs_its_linear_layer_in_front():
    with pytest.raises(InputError, match="maxout"):
        dense_bn(keras.Input((5,)), 3, order="norm-act-linear", activation="maxout")


def test_rrelu_is_read_and_kept():
    net = build("cnn", "before", (8, 8, 1), 10, act="rrelu", width=4, depth=1)
    report = relucate.audit(net)
    assert (report.summary, report.unknown) == ({"linear-norm-act": 2}, ())
    folded, _ = relucate.fold(net)
    assert sum(isinstance(layer, RReLU) for layer in folded.layers) == 2
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    first, second = (np.asarray(keras.ops.convert_to_numpy(folded(x, training=True))) for _ in "ab")
    assert not np.allclose(first, second)  # it still draws in training


@pytest.mark.parametrize("order", ["before", "after"])
def test_norms_around_maxout_are_found_moved_and_folded(order):
    rng, other = np.random.default_rng(0), "after" if order == "before" else "before"
    net = build("cnn", order, (8, 8, 1), 10, act="maxout", width=4, depth=1)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [*(rng.normal(0, 1, w.shape) for w in (gamma, beta, mean)), variance + 0.5]
            )
    x = rng.normal(size=(4, 8, 8, 1)).astype("float32")
    assert relucate.audit(net).summary == {str(relucate.Order(order)): 2}
    moved, _ = relucate.convert(net, other)
    folded, _ = relucate.fold(net)
    for found in (moved, folded):
        wanted = net.predict(x, verbose=0)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found.predict(x, verbose=0), wanted, rtol=0, atol=1e-5 * scale)
    rebuilt, _ = relucate.rebuild(net, other)
    built = build("cnn", other, (8, 8, 1), 10, act="maxout", width=4, depth=1)
    assert rebuilt.count_params() == built.count_params()
