"""TimeDistributed around layers and models: read, moved, folded and trained as it is."""

import re

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

import relucate
from relucate.errors import Refused
from relucate.keras.framework import FRAMEWORK
from relucate.keras.reading.reader import read, read_with_calls
from relucate.keras.writing.writer import write
from relucate.torch import lower
from relucate.torch.lowering.check import lower_checked

T = kl.TimeDistributed
FRAMES = (3, 6, 5, 3)


def norm(**options):
    return T(kl.BatchNormalization(name="inner", **options), name="norm")


def conv(filters=4, name="conv", **options):
    return T(kl.Conv2D(filters, 3, **options), name=name)


def chain(*layers, shape=FRAMES):
    x = image = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, kl.Dense(2, name="head")(kl.Flatten(name="flat")(x)))


def relu(name="act"):
    return T(kl.ReLU(), name=name)


def taken(model, name="t"):
    """A model that a TimeDistributed applies, under a head."""
    image = keras.Input(FRAMES)
    return keras.Model(image, kl.Dense(2, name="head")(kl.Flatten()(T(model, name=name)(image))))


def residual(pool=kl.GlobalAveragePooling2D, scale=2.0):
    x = image = keras.Input(FRAMES[1:])
    x = kl.BatchNormalization(name="n1")(kl.Conv2D(4, 3, padding="same", name="c1")(x))
    x = short = kl.ReLU(name="r1")(x)
    x = kl.BatchNormalization(name="n2")(kl.Conv2D(4, 3, padding="same", name="c2")(x))
    x = kl.Activation("relu", name="r2")(kl.Add(name="add")([x, short]))
    x = keras.ops.silu(kl.Concatenate(axis=3, name="both")([x, short])) * scale
    return keras.Model(image, pool(name="pool")(x), name="m")


def nested():
    block = [kl.Conv2D(4, 3, name="c"), kl.BatchNormalization(name="n"), kl.ReLU(name="r")]
    block = keras.Sequential([keras.Input((6, 5, 4)), *block], name="block")
    image = keras.Input(FRAMES[1:])
    x = block(kl.Conv2D(4, 3, padding="same", activation="relu", name="first")(image))
    return keras.Model(image, kl.Flatten(name="f")(x), name="m")


# Models, and the order that their norm has.
CHAINS = {
    "in front of the activation": lambda: chain(conv(), norm(), relu(), conv(name="next")),
    "behind a fused activation, in front of zero padding": lambda: chain(
        conv(activation="relu"), norm(), conv(name="next", padding="same")
    ),
    "zero padding of its own": lambda: chain(
        conv(), relu(), norm(), T(kl.ZeroPadding2D(1), name="pad"), conv(name="next")
    ),
    "an activation for all steps at once": lambda: chain(
        conv(), norm(scale=False), kl.ReLU(name="act"), conv(name="next")
    ),
    "a norm over all steps at once": lambda: chain(
        conv(), kl.BatchNormalization(name="norm"), relu(), conv(name="next")
    ),
    "separable": lambda: chain(
        T(kl.SeparableConv2D(4, 3, activation="relu"), name="conv"), norm(), conv(name="next")
    ),
    "depthwise": lambda: chain(
        T(kl.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), name="conv"),
        norm(), relu(), conv(name="next"),
    ),
    "transposed": lambda: chain(
        T(kl.Conv2DTranspose(4, 3, strides=2), name="conv"), relu(), norm(),
        T(kl.Conv2DTranspose(2, 3, padding="same"), name="next"),
    ),
    "dense": lambda: chain(
        T(kl.Dense(5), name="conv"), norm(), T(kl.Activation("tanh"), name="act"),
        T(kl.Dense(3), name="next"), shape=(4, 6),
    ),
    "layers over the steps": lambda: chain(
        kl.Dense(5, name="conv"), relu(), norm(), kl.Conv1D(3, 3, padding="same", name="next"),
        shape=(4, 6),
    ),
    "flatten": lambda: chain(
        conv(), relu(), norm(), T(kl.Flatten(), name="f"), T(kl.Dense(3), name="next")
    ),
    "reshape": lambda: chain(
        conv(), relu(), norm(), T(kl.Reshape((12, 4)), name="f"), T(kl.Conv1D(3, 2), name="next")
    ),
    "global pool": lambda: chain(
        conv(), relu(), norm(), T(kl.GlobalAveragePooling2D(), name="f"), kl.Dense(3, name="next")
    ),
    "channels first": lambda: chain(
        conv(), relu(), T(kl.Permute((3, 1, 2)), name="p"), norm(axis=1),
        T(kl.Flatten(data_format="channels_first"), name="f"), T(kl.Dense(3), name="next"),
    ),
    "steps of another number": lambda: chain(
        conv(), norm(), relu(), kl.Conv3D(3, (2, 3, 3), name="next")
    ),
    "residual model": lambda: taken(residual()),
    # Small outputs: with a scale of 2 SGD diverges in two steps (weights of 1e5), and the gradient
    # of a bias in front of a norm, which is rounding alone, isn't small any more.
    "residual model of maxima": lambda: taken(residual(kl.GlobalMaxPooling2D, 0.1)),
    "nested model": lambda: taken(nested()),
}  # fmt: skip


def values(model, x):
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), np.float64)


def images(model, seed=5):
    shape = [4 if size is None else size for size in model.inputs[0].shape[1:]]
    return np.random.default_rng(seed).normal(size=(6, *shape)).astype("float32")


@pytest.mark.parametrize("name", CHAINS)
def test_the_norm_is_folded_and_moved_and_the_function_stays(randomize, name):
    model = randomize(CHAINS[name]())
    if name == "in front of the activation":  # a negative scale too
        model.get_layer("norm").layer.gamma.assign([-1.0, 0.5, 0.0, 2.0])
    x = images(model)
    expected = values(model, x)
    graph = read(model)
    assert not graph.opaque
    (order,) = {site.order for site in relucate.audit(model).sites if site.act and site.order}
    other = "before" if order == "linear-act-norm" else "after"
    found = {
        "fold": relucate.fold(model),
        "convert": relucate.convert(model, other, data=x),
        "norm first": relucate.convert(model, "norm-linear-act"),
    }
    for made, report in found.values():
        assert any(site.status == "done" for site in report.sites), [s.reason for s in report.sites]
        np.testing.assert_allclose(values(made, x), expected, atol=1e-5 * np.abs(expected).max())
    assert not relucate.audit(found["fold"][0]).sites
    assert relucate.Order(other).tokens == tuple(
        next(s.order for s in relucate.audit(found["convert"][0]).sites if s.act).split("-")
    )


@pytest.mark.parametrize("strategy", ["map", "ones", "branch", "shift"])
def test_every_border_can_be_written(randomize, strategy):
    for pad in ([conv(name="next", padding="same")], [T(kl.ZeroPadding2D(2)), conv(name="next")]):
        model = randomize(chain(conv(), relu(), norm(), *pad))
        made, report = relucate.fold(model, strategy=strategy)
        assert [site.strategy for site in report.sites] == [strategy]
        x = images(model)
        expected = values(model, x)
        np.testing.assert_allclose(values(made, x), expected, atol=1e-5 * np.abs(expected).max())


def trained(model, x, y):
    model.compile(keras.optimizers.SGD(0.05), "mse")
    for _ in range(2):
        model.train_on_batch(x, y)
    return [keras.ops.convert_to_numpy(v.value) for v in model.weights]


WITHOUT_EMITTER = {"transposed"}


@pytest.mark.parametrize("name", CHAINS)
def test_it_trains_step_by_step_in_either_engine(randomize, name):
    """Batch norms take their statistics from one step at a time, and move them at each step."""
    model = randomize(CHAINS[name]())
    x = images(model)
    y = np.random.default_rng(6).normal(size=(6, 2)).astype("float32")
    reading = read_with_calls(model)
    written = write(reading.graph, reading)  # a model within it is taken apart
    if name not in WITHOUT_EMITTER:
        module = lower_checked(FRAMEWORK.read(model).lowerable())
        optimizer = torch.optim.SGD(module.parameters(), 0.05)
        for _ in range(2):
            optimizer.zero_grad()
            (module.train()(torch.from_numpy(x)) - torch.from_numpy(y)).square().mean().backward()
            optimizer.step()
    expected = trained(model, x, y)
    for one, other in zip(trained(written, x, y), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    if name not in WITHOUT_EMITTER:
        for key, value in module.get_tensors().items():
            other = keras.ops.convert_to_numpy(reading.variables[key].value)
            np.testing.assert_allclose(value, other, atol=1e-4 * max(1, np.abs(other).max()))


def test_rebuilt_it_is_time_distributed_around_each_layer():
    model = chain(conv(use_bias=False), norm(momentum=0.7), relu(), conv(name="next"))
    made, report = relucate.rebuild(model, "after")
    assert [site.reason for site in report.sites] == ["norm moved"]
    assert [layer.name for layer in made.layers][1:5] == ["conv", "act", "norm", "next"]
    moved = made.get_layer("norm")
    assert (type(moved), moved.layer.momentum, moved.layer.name) == (T, 0.7, "inner")
    assert made.get_layer("conv").layer.use_bias
    again, _ = relucate.rebuild(made, "before")
    assert not again.get_layer("conv").layer.use_bias


def test_a_model_that_is_applied_twice_keeps_one_set_of_weights(randomize):
    steps = T(residual(), name="t")
    image = keras.Input(FRAMES)
    both = kl.Concatenate()([steps(image), steps(kl.Rescaling(0.5)(image))])
    model = randomize(keras.Model(image, kl.Dense(2)(kl.Flatten()(both))))
    made, report = relucate.convert(model, "after")
    assert {site.name: site.status for site in report.sites}["t/n1"] == "done"
    assert len(made.weights) == len(model.weights)
    x = images(model)
    np.testing.assert_allclose(values(made, x), values(model, x), rtol=1e-4, atol=1e-5)


def several_calls():
    shared = kl.BatchNormalization(name="shared")
    x = image = keras.Input(FRAMES[1:])
    for name in "ab":
        x = kl.ReLU()(shared(kl.Conv2D(4, 3, padding="same", name=name)(x)))
    return keras.Model(image, kl.Flatten()(x))


def mean_of_positions():
    image = keras.Input(FRAMES[1:])
    x = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(4, 3)(image)))
    return keras.Model(image, keras.ops.mean(x, axis=(1, 2)))


def penalized():
    layers = [kl.Conv2D(4, 3, activity_regularizer="l2", name="c"), kl.BatchNormalization()]
    return keras.Sequential([keras.Input(FRAMES[1:]), *layers, kl.ReLU(), kl.Flatten()])


def step_in_step():
    layers = [kl.Conv2D(4, 3), kl.BatchNormalization(), kl.ReLU(), T(kl.Dense(2), name="deep")]
    return keras.Sequential([keras.Input(FRAMES[1:]), *layers, kl.Flatten()])


WHOLE = {
    "'shared' is called several times at each step": several_calls,
    "'mean' isn't computed for each element alone": mean_of_positions,
    "'c' has an activity_regularizer": penalized,
    "'deep' is a TimeDistributed, too": step_in_step,
}


@pytest.mark.filterwarnings("ignore:relucate")
@pytest.mark.parametrize("reason", WHOLE)
def test_what_would_be_another_model_by_itself_stays_whole(randomize, reason):
    model = randomize(taken(WHOLE[reason]()))
    x = images(model)
    for verb in (relucate.fold, lambda m: relucate.convert(m, "after")):
        made, report = verb(model)
        assert {site.status for site in report.sites} == {"skipped"}
        found = re.sub(r"_\d+'", "'", report.sites[0].reason)  # Keras numbers its operations
        assert f"applies as a whole: {reason}" in found
        np.testing.assert_array_equal(values(made, x), values(model, x))
    with pytest.raises(Refused, match=r"activity_regularizer|applies as a whole"):
        lower(read(model))


@pytest.mark.filterwarnings("ignore:relucate")
def test_a_cast_of_all_inputs_keeps_a_model_whole(randomize):
    image = keras.Input(FRAMES)
    steps = T(residual(), name="t", dtype="mixed_bfloat16")  # its layers compute in float32
    model = randomize(keras.Model(image, kl.Dense(2)(steps(image))))
    _, report = relucate.fold(model)
    assert "casts to another type than its layers" in report.sites[0].reason


def test_functions_of_the_users_are_written_in_it(randomize):
    half, double = T(kl.Lambda(lambda x: x / 2.0)), conv(name="c", activation=lambda x: x * abs(x))
    model = randomize(chain(half, double, norm(), conv(name="next")))
    made, report = relucate.fold(model)
    assert [site.status for site in report.sites] == ["done"]
    x = images(model)
    np.testing.assert_allclose(values(made, x), values(model, x), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_lowered_says_why(randomize):
    model = chain(T(kl.Dense(4)), norm(), relu(), shape=(4, 6))
    shared = chain(T(kl.Dropout(0.5, noise_shape=(1, 6)), name="drop"), norm(), shape=(4, 6))
    with pytest.raises(Refused, match=r"'drop'.*all examples share"):
        lower(read(shared))
    sizes = keras.Input((None, 6))
    x = kl.GlobalAveragePooling1D()(norm()(T(kl.Dense(4))(sizes)))
    with pytest.raises(Refused, match=r"'norm'.*the number of steps isn't known"):
        lower(read(keras.Model(sizes, x)))
    assert lower(read(randomize(model)))


@pytest.mark.filterwarnings("ignore:relucate")
def test_a_norm_does_not_leave_its_axis_of_steps(randomize):
    layers = [kl.Dense(5, name="d"), kl.Permute((2, 1)), norm(), kl.ReLU(), kl.Dense(3)]
    model = randomize(chain(*layers, shape=(4, 6)))
    _, report = relucate.rebuild(model, "norm-linear-act")
    (site,) = report.sites
    assert (site.status, site.reason) == (
        "skipped", "'norm' is applied step by step, along an axis that moves",
    )  # fmt: skip


def test_a_mask_changes_a_norm_in_training_only(randomize):
    tokens = keras.Input((5,), dtype="int32")
    x = T(kl.Dense(4), name="dense")(kl.Embedding(9, 3, mask_zero=True)(tokens))
    x = kl.LSTM(3)(T(kl.ReLU(), name="act")(norm()(x)))
    model = randomize(keras.Model(tokens, kl.Dense(2)(x)))
    made, report = relucate.fold(model)
    assert [site.status for site in report.sites] == ["done"]
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    np.testing.assert_allclose(values(made, x), values(model, x), atol=1e-5)
    with pytest.raises(Refused, match="'norm' is called with a mask"):
        lower(read(model))
