"""Orthonormal and LSUV starts of Keras models."""

import keras
import numpy as np
import pytest

from relucate import InputError
from relucate.keras import conv2d_bn, lsuv, orthonormal


def net(order="after"):
    keras.utils.set_random_seed(0)
    x = image = keras.Input((6, 6, 3))
    x = conv2d_bn(x, 8, 3, 3, order=order, activation="tanh", name="block")
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    x = keras.layers.Dense(20, activation="elu", name="dense")(x)
    return keras.Model(image, keras.layers.Dense(5, name="logits")(x))


LINEAR = ["block_conv", "depthwise", "dense", "logits"]


def images(n=64):
    return (np.random.default_rng(0).standard_normal((n, 6, 6, 3)) * 7 + 3).astype("float32")


@pytest.mark.parametrize("order", ["before", "after"])
def test_every_linear_layer_has_outputs_of_unit_variance(order):
    model, x = net(order), images()
    assert len(lsuv(model, x)) == 4
    for norm in (la for la in model.layers if isinstance(la, keras.layers.BatchNormalization)):
        seen = keras.Model(model.inputs, norm.input).predict(x, verbose=0)
        norm.moving_mean.assign(seen.mean((0, 1, 2)))
        norm.moving_variance.assign(seen.var((0, 1, 2)))
    for name in LINEAR:
        layer = model.get_layer(name)
        activation, layer.activation = layer.activation, keras.activations.linear
        seen = keras.Model(model.inputs, layer(layer.input)).predict(x, verbose=0)
        assert np.var(seen) == pytest.approx(1.0, abs=0.011)
        layer.activation = activation


def test_only_kernels_change_and_calls_are_the_layers_own_again():
    model = net()
    before = {v.path: np.array(keras.ops.convert_to_numpy(v.value)) for v in model.variables}
    names = lsuv(model, images(16))
    changed = {
        v.path
        for v in model.variables
        if not np.array_equal(keras.ops.convert_to_numpy(v.value), before[v.path])
    }
    assert changed == set(names)
    assert not any("call" in vars(layer) for layer in model.layers)
    assert model.get_layer("dense").activation is keras.activations.elu


def test_columns_are_orthonormal_and_the_seed_decides():
    one, two, three = net(), net(), net()
    for model, seed in ((one, 1), (two, 1), (three, 2)):
        orthonormal(model, seed=seed)
    kernel = keras.ops.convert_to_numpy(one.get_layer("dense").kernel)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(20), atol=1e-5)
    same, other = (keras.ops.convert_to_numpy(m.get_layer("dense").kernel) for m in (two, three))
    np.testing.assert_array_equal(kernel, same)
    assert not np.allclose(kernel, other)


def test_a_model_without_kernels_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    with pytest.raises(InputError, match="no dense or convolutional layer"):
        orthonormal(model)
