"""A rebuilt model is compiled as its source: same loss and metrics, a new optimizer."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate
from relucate.errors import Refused


def net():
    start = keras.Input((6,))
    x = kl.ReLU(name="act")(kl.BatchNormalization(name="norm")(kl.Dense(5, name="d")(start)))
    return keras.Model(start, kl.Dense(3, name="out")(x))


def rebuilt(model):
    return relucate.rebuild(model, "after")[0]


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.5**step

    def get_config(self):
        return {}


def test_loss_metrics_and_optimizer_stay():
    model = net()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(0.003, weight_decay=0.02, clipnorm=1.0)
    model.compile(optimizer, loss, metrics=["accuracy", keras.metrics.SparseCategoricalAccuracy()])
    x, y = np.ones((8, 6), "float32"), np.zeros(8, "int32")
    model.fit(x, y, epochs=2, verbose=0)
    made = rebuilt(model)
    assert made.compiled
    assert made.loss is loss
    assert made.optimizer is not model.optimizer
    assert made.optimizer.get_config() == model.optimizer.get_config()
    assert int(made.optimizer.iterations) == 0
    assert int(model.optimizer.iterations) == 2
    assert set(made.evaluate(x, y, verbose=0, return_dict=True)) == set(
        model.evaluate(x, y, verbose=0, return_dict=True)
    )


def test_what_is_not_compiled_stays_so():
    assert not rebuilt(net()).compiled
    model = net()
    model.compile("sgd", "mse")
    assert not relucate.fold(model)[0].compiled


@pytest.mark.parametrize("rate", [Halving(), keras.optimizers.schedules.CosineDecay(0.1, 10)])
def test_a_schedule_stays(rate):
    model = net()
    model.compile(keras.optimizers.SGD(rate), "mse")
    assert rebuilt(model).optimizer._learning_rate is rate


def test_exclusions_from_weight_decay_stay():
    """They aren't in an optimizer's configuration: by name, and by variable."""
    model = net()
    by_name = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    by_name.exclude_from_weight_decay(var_names=["gamma", "beta"])
    model.compile(by_name, "mse")
    made = rebuilt(model)
    decays = {v.path: made.optimizer._use_weight_decay(v) for v in made.trainable_variables}
    assert not decays["norm/gamma"]
    assert decays["out/kernel"]

    by_variable = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    by_variable.exclude_from_weight_decay(var_list=[model.get_layer("out").kernel])
    model.compile(by_variable, "mse")
    made = rebuilt(model)
    decays = {v.path: made.optimizer._use_weight_decay(v) for v in made.trainable_variables}
    assert not decays["out/kernel"]
    assert decays["norm/gamma"]


class Own(keras.Model):
    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)


def test_an_own_compile_is_refused():
    plain = net()
    model = Own(plain.inputs, plain.outputs)
    model.compile("sgd", "mse")
    with pytest.raises(Refused, match="has its own compile"):
        rebuilt(model)


class NoConfig(keras.metrics.MeanSquaredError):
    def __init__(self, needed):
        super().__init__()
        self.needed = needed


def test_a_metric_without_its_config_is_refused():
    model = net()
    model.compile("sgd", "mse", metrics=[NoConfig(1)])
    with pytest.raises(Refused, match="compiled NoConfig can't be made again"):
        rebuilt(model)
