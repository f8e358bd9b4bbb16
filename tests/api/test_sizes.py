"""Models whose inputs have axes of unknown size, and which don't take every size."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate


class Places(kl.Layer):
    """Adds the start of a table of 12 positions: longer texts fail."""

    def build(self, shape):
        self.table = self.add_weight(shape=(12, shape[-1]), initializer="ones")

    def call(self, x):
        length = keras.ops.shape(x)[1]
        return x + keras.ops.slice(self.table, (0, 0), (length, x.shape[-1]))

    def compute_output_shape(self, shape):
        return shape


class Inner(kl.Layer):
    """The same inside a layer that is followed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.places, self.dense, self.norm = Places(), kl.Dense(4), kl.BatchNormalization()

    def build(self, shape):
        for layer in (self.places, self.dense, self.norm):
            layer.build(shape)

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return keras.ops.relu(self.norm(self.dense(self.places(x))))


def text(inside=False):
    x = tokens = keras.Input((None,), dtype="int32")
    x = kl.Embedding(9, 4)(x)
    if inside:
        return keras.Model(tokens, Inner(name="inner")(x))
    return keras.Model(tokens, kl.ReLU()(kl.BatchNormalization()(kl.Dense(4)(Places()(x)))))


def image():
    x = pixels = keras.Input((None, None, 3))
    for _ in range(3):
        x = kl.MaxPooling2D(3, 3)(kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(4, 3)(x))))
    return keras.Model(pixels, kl.Conv2D(2, 1)(x))


@pytest.mark.parametrize("make", [text, lambda: text(inside=True), image])
def test_a_size_that_the_model_takes_is_found(make):
    net = make()
    made, report = relucate.fold(net)
    assert report.certificate.passed
    assert not report.skipped
    assert relucate.verify(net, made).passed


def test_a_model_of_any_size_is_checked_as_before():
    net = keras.Sequential([keras.Input((None, 3)), kl.Dense(2), kl.BatchNormalization()])
    _, report = relucate.fold(net)
    assert report.certificate.passed
    assert np.isfinite(report.certificate.max_rel)
