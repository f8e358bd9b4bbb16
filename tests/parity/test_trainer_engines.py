"""The two engines against each other: from the same initial values and data order they give nearly
the same training losses, for both optimizers, with every schedule, decay and regularizer."""

import keras
import numpy as np
import pytest

from relucate.data import make
from relucate.frameworks import lower
from relucate.keras import conv2d_bn, dense_bn
from relucate.keras.framework import FRAMEWORK
from relucate.keras.trainer import train as train_keras
from relucate.torch import train as train_torch
from relucate.train import Recipe

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="both engines' modules share a process with PyTorch"
)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 224)
    centres = random.normal(size=(4, 6, 6, 2))
    x = (centres[y] + 0.8 * random.normal(size=(224, 6, 6, 2))).astype(np.float32)
    return make("blobs", x[:160], y[:160], x[160:], y[160:])


def build(order, regularizer=None):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    x = image = keras.Input((6, 6, 2))
    x = conv2d_bn(x, 8, 3, 3, name="a", order=order, kernel_regularizer=regularizer)
    x = keras.layers.Flatten()(x)
    x = dense_bn(x, 12, name="b", order=order, activation="tanh", momentum=0.9)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(x))


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "onecycle"},
        {"schedule": "constant", "momentum": 0.0, "lr": 0.05},
        {"schedule": "step", "label_smoothing": 0.1},
        {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.05},
        {"decay_all": True, "weight_decay": 0.02},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_both_engines_train_alike(data, order, options):
    recipe = Recipe(**{"epochs": 2, "batch_size": 16, "weight_decay": 5e-3, **options})
    lowered = lower(FRAMEWORK.read(build(order)), check=False)
    torch_result = train_torch(lowered, data, recipe, seed=3)
    keras_result = train_keras(build(order), data, recipe, seed=3)
    ours, theirs = torch_result.curve["train_loss"], keras_result.curve["train_loss"]
    np.testing.assert_allclose(theirs, ours, rtol=2e-3)
    assert keras_result.loss == pytest.approx(torch_result.loss, rel=0.02)
    np.testing.assert_allclose(
        keras_result.curve["accuracy"], torch_result.curve["accuracy"], atol=2 / 64
    )


def test_a_regularizer_is_part_of_both_losses_and_weight_decay_of_neither(data):
    regularizer = keras.regularizers.L2(0.05)
    recipe = Recipe(epochs=1, batch_size=16, schedule="constant", lr=1e-6, weight_decay=0.1)
    losses = [
        train(model, data, recipe, seed=0).curve["train_loss"][0]
        for penalty in (regularizer, None)
        for train, model in (
            (train_torch, lower(FRAMEWORK.read(build("before", penalty)), check=False)),
            (train_keras, build("before", penalty)),
        )
    ]
    kernel = build("before").get_layer("a_conv").kernel
    expected = 0.05 * float((keras.ops.convert_to_numpy(kernel) ** 2).sum())
    np.testing.assert_allclose(losses[:2], np.array(losses[2:]) + expected, rtol=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
