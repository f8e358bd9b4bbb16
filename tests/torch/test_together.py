"""Small operations of a step done together: the same bits, by fewer operations."""

import numpy as np
import pytest
import torch

from relucate.data import make
from relucate.torch import train, trainer
from relucate.torch.capture import watched
from relucate.torch.lowering.lower import lower
from relucate.torch.together import Together
from relucate.torch.turns import Turn
from relucate.train import Recipe
from relucate.train.task import CLASSIFICATION

keras = pytest.importorskip("keras")
layers = keras.layers


def images():
    random = np.random.default_rng(0)
    y = np.arange(140) % 4
    x = (random.normal(size=(4, 8, 8, 3))[y] + random.normal(size=(140, 8, 8, 3))).astype("float32")
    return make("images", x[:100], y[:100], x[100:], y[100:])


def network():
    """Norms with their own momenta, one reused, one frozen; a penalty, a frozen kernel, biases."""
    from relucate.keras.framework import FRAMEWORK

    keras.utils.set_random_seed(0)
    conv, norm = layers.Conv2D(6, 3, padding="same"), layers.BatchNormalization(momentum=0.8)
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", kernel_regularizer=keras.regularizers.L2(0.1))(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name="own")(x))
    x = layers.ReLU()(norm(conv(layers.ReLU()(norm(conv(x))))))
    frozen = layers.Conv2D(6, 1, strides=2)
    frozen.trainable = False
    still = layers.BatchNormalization(name="still")
    still.trainable = False
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(still(frozen(x))))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(layers.Dense(7)(x)))
    model = keras.Model(image, layers.Dense(4)(x))
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return lower(FRAMEWORK.read(model).graph)


def trained(recipe):
    model = network()
    result = train(model, images(), recipe, seed=3)
    return result, [x.clone() for x in model.state_dict().values()]


def as_on_a_gpu(model, recipe, device):
    return Together(model, cast=recipe.precision == "bf16")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_bits_are_those_of_one_after_another(precision, optimizer, monkeypatch):
    options = {"precision": precision, "optimizer": optimizer, "reestimate": 0}
    recipe = Recipe(epochs=3, batch_size=16, **options)
    theirs, expected = trained(recipe)
    monkeypatch.setattr(trainer, "_together", as_on_a_gpu)
    found, state = trained(recipe)
    assert found.loss == theirs.loss
    assert found.curve == theirs.curve
    for ours, value in zip(state, expected, strict=True):
        assert torch.equal(ours, value)


def operations(monkeypatch, together):
    monkeypatch.setattr(trainer, "_together", together)
    device = torch.device("cpu")
    recipe = Recipe(epochs=1, batch_size=16, precision="bf16")
    with Turn(device, tf32=False) as turn:
        engine = trainer.Engine(network(), images(), recipe, 0, device, False, CLASSIFICATION, turn)
        engine.begin(0)
        engine.step()
        return [str(func) for func, _ in watched(engine.step, engine.model).operations]


def test_it_takes_fewer_operations(monkeypatch):
    def count(found, name):
        return sum(name in operation for operation in found)

    ours = operations(monkeypatch, as_on_a_gpu)
    theirs = operations(monkeypatch, lambda *args: None)
    assert count(ours, "_to_copy") < count(theirs, "_to_copy") - 10
    assert count(ours, "lerp_.Scalar") == 2 + 2  # the reused norm's two calls, two groups
    assert count(theirs, "lerp_.Scalar") == 4


def test_a_cpu_does_them_one_after_another():
    assert trainer._together(network(), Recipe(), torch.device("cpu")) is None


def test_a_failing_forward_pass_leaves_the_norms_as_they_were():
    model = network()
    together = Together(model, cast=False)
    with pytest.raises(RuntimeError):
        together(torch.ones(3, 5))
    norms = [m for m in model.modules() if hasattr(m, "surplus")]
    assert norms
    assert all(norm.surplus is None for norm in norms)
