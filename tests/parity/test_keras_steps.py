"""Ten training steps: Keras's own `train_on_batch` and the lowered module give the same weights.

Losses, weights, gammas, betas and moving statistics are compared after ten steps of SGD with
Nesterov momentum, in every net, order and kind of norm, on images with odd sizes. Most run with a
smooth activation: a ReLU whose input is a rounding error away from zero may fall on either side,
and ten steps later that shows.
"""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import layers as kl

from relucate import nets
from relucate.keras import conv2d_bn, dense_bn
from relucate.keras.reading.reader import read
from relucate.torch import lower
from relucate.torch.trainer import make_optimizer
from relucate.train import Recipe

ORDERS = ["before", "after", "none", "norm-linear-act", "norm-act-linear", "act-linear-norm"]
STEPS, BATCH, CLASSES = 10, 16, 4
NETS = {
    "cnn": ((9, 7, 3), {"width": 8, "depth": 2}),
    "vgg": ((9, 7, 2), {"width": 4, "depth": 11}),
    "mlp": ((5, 3, 1), {"width": 16, "depth": 3}),
    "bn_paper_mlp": ((11,), {"width": 12}),
}
KINDS = [(o, n) for o in ORDERS for n in ("batch", "layer", "group") if o != "none" or n == "batch"]


def batches(shape, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(STEPS):
        x = random.normal(size=(BATCH, *shape)).astype("float32")
        yield x, random.integers(CLASSES, size=BATCH)


def train_both(model, shape, *, smoothing=0.0, rate=0.01):
    """Return both engines' losses and tensors after the same ten batches."""
    graph = read(model)
    module = lower(graph, logits=True).train()
    recipe = Recipe(lr=rate, momentum=0.9, weight_decay=0.0, batch_size=BATCH)
    optimizer = make_optimizer(module, recipe)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=not module.returns_logits, label_smoothing=smoothing
    )
    sgd = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer=sgd, loss=loss)
    losses = []
    for x, y in batches(shape):
        theirs = model.train_on_batch(x, np.eye(CLASSES, dtype="float32")[y])
        value = F.cross_entropy(
            module(torch.from_numpy(x)), torch.from_numpy(y), label_smoothing=smoothing
        )
        penalty = module.penalty()
        value = value if penalty is None else value + penalty
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append((float(value.detach()), float(np.asarray(theirs))))
    return losses, module.get_tensors(), read(model).tensors, graph


def assert_same(losses, ours, theirs, graph, tolerance=3e-5):
    ours_losses, their_losses = zip(*losses, strict=True)
    np.testing.assert_allclose(ours_losses, their_losses, rtol=tolerance)
    for key, array in ours.items():
        scale = max(np.abs(theirs[key]).max(), 1e-2)
        difference = np.abs(array - theirs[key]).max() / scale
        assert difference <= tolerance, f"{key}: {difference:.2g}"
        if key in graph.trainable or "moving" in key:
            assert not np.array_equal(array, graph.tensors[key]), f"{key} wasn't trained"


@pytest.mark.parametrize(("order", "norm"), KINDS)
@pytest.mark.parametrize("name", NETS)
def test_ten_steps_of_every_net(name, order, norm):
    keras.utils.set_random_seed(1)
    shape, options = NETS[name]
    act = "sigmoid" if name == "bn_paper_mlp" else "silu"
    model = nets.build(name, order, shape, CLASSES, norm=norm, act=act, **options)
    assert_same(*train_both(model, shape))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_ten_steps_with_relu(name, order):
    keras.utils.set_random_seed(1)
    shape, options = NETS[name]
    model = nets.build(name, order, shape, CLASSES, act="relu", **options)
    assert_same(*train_both(model, shape), tolerance=1e-3)


def regularized(order):
    image = keras.Input((9, 7, 3))
    options = {"order": order, "kernel_regularizer": "l2", "momentum": 0.8, "activation": "gelu"}
    x = conv2d_bn(image, 6, 3, 3, strides=2, **options)
    x = y = conv2d_bn(x, 6, 2, 3, scale=False, **options)
    x = kl.Add()([y, conv2d_bn(x, 6, 3, 3, **options)])
    x = kl.MaxPooling2D(2, padding="same")(x)
    x = dense_bn(kl.Flatten()(x), 9, order=order, kernel_regularizer=keras.regularizers.L1(1e-3))
    return keras.Model(image, kl.Dense(CLASSES, bias_regularizer="l2", activation="softmax")(x))


@pytest.mark.parametrize("order", ["before", "after", "norm-act-linear"])
def test_ten_steps_with_regularizers_residual_and_label_smoothing(order):
    keras.utils.set_random_seed(2)
    model = regularized(order)
    assert len(model.losses) == 5
    assert_same(*train_both(model, (9, 7, 3), smoothing=0.1))


def odd_layers(image):
    x = kl.SeparableConv2D(6, 3, strides=2, padding="same", depth_multiplier=2)(image)
    x = kl.PReLU(shared_axes=[1, 2])(kl.BatchNormalization(center=False)(x))
    x = kl.DepthwiseConv2D((2, 3), padding="same")(x)
    shared = kl.BatchNormalization(momentum=0.9)
    x = shared(kl.Activation("mish")(shared(x)))
    frozen = kl.BatchNormalization(trainable=False)
    x = frozen(kl.Conv2D(6, 3, groups=2, use_bias=False)(x))
    x = kl.Multiply()([x, kl.Dense(6, activation="sigmoid")(kl.GlobalMaxPooling2D()(x))])
    return kl.Dense(CLASSES)(kl.Flatten()(kl.AveragePooling2D(2)(x)))


def test_ten_steps_of_odd_layers():
    """Shared and frozen norms, PReLU, separable and grouped kernels, a gate, global max pooling."""
    keras.utils.set_random_seed(3)
    image = keras.Input((13, 11, 4))
    losses, ours, theirs, graph = train_both(keras.Model(image, odd_layers(image)), (13, 11, 4))
    still = [n for n in graph if n.attrs.get("frozen")]
    kept = {key for node in still for key in node.arrays.values()}
    for key in kept:
        np.testing.assert_array_equal(ours.pop(key), graph.tensors[key])
    assert_same(losses, ours, theirs, graph)


def test_ten_steps_channels_first():
    keras.utils.set_random_seed(4)
    image = keras.Input((3, 9, 7))
    options = {"data_format": "channels_first"}
    x = conv2d_bn(image, 6, 3, 3, strides=2, order="after", **options)
    x = kl.GlobalAveragePooling2D(**options)(conv2d_bn(x, 5, 3, 3, **options))
    assert_same(*train_both(keras.Model(image, kl.Dense(CLASSES)(x)), (3, 9, 7)))
