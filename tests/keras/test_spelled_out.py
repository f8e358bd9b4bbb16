"""Activations written out with keras.ops, as functions and as layers of the user's own."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops
from tests.keras.conftest import set_random_weights

import relucate
from relucate.graph import evaluate
from relucate.graph.functions import apply
from relucate.keras.reading.reader import read

BEFORE, AFTER = "linear-norm-act", "linear-act-norm"


def relu(x):  # a name that means nothing
    return ops.where(x > 0, x, 0.2 * x)


class Softmax(kl.Layer):  # as this one
    def call(self, x):
        return ops.square(ops.relu(x))


class Doubled(kl.Layer):
    def call(self, x, training=False):
        return ops.relu(x) * (2.0 if training else 1.0)


def pieces(x):
    shape = (-1, *x.shape[1:-1], 2, x.shape[-1] // 2)
    return ops.max(ops.reshape(x, shape), axis=-2)


FORMS = {
    "where": (lambda x: ops.where(x > 0, x, 0.0), "relu"),
    "where, a slope": (lambda x: ops.where(ops.less(x, 0), 0.1 * x, x), "leaky_relu"),
    "larger of zeros": (lambda x: ops.maximum(x, ops.zeros_like(x)), "relu"),
    "half of both": (lambda x: (ops.abs(x) + x) / 2, "relu"),
    "times a truth": (lambda x: x * ops.cast(x > 0, x.dtype), "relu"),
    "relu squared": (lambda x: ops.relu(x) ** 2, "squared_relu"),
    "relu, square": (lambda x: ops.square(ops.relu(x)), "squared_relu"),
    "quick gelu": (lambda x: x * ops.sigmoid(1.702 * x), "quick_gelu"),
    "mish": (lambda x: x * ops.tanh(ops.softplus(x)), "mish"),
    "softplus": (lambda x: ops.log1p(ops.exp(x)), "softplus"),
    "softsign": (lambda x: x / (1 + ops.abs(x)), "softsign"),
    "sigmoid": (lambda x: 1 / (1 + ops.exp(-x)), "sigmoid"),
    "hard swish": (lambda x: x * ops.relu6(x + 3) / 6, "hard_silu"),
    "snake": (lambda x: x + ops.sin(x) ** 2, "elementwise"),
    "pieces": (pieces, "maxout"),
    "both signs": (lambda x: ops.concatenate([ops.relu(x), ops.relu(-x)], axis=-1), "crelu"),
    "both signs at once": (lambda x: kl.ReLU()(kl.Concatenate()([x, -x])), "crelu"),
    "both signs, tanh": (lambda x: kl.Concatenate()([ops.tanh(x), ops.tanh(-x)]), "tanh"),
    "a function": (lambda x: kl.Activation(relu)(x), "leaky_relu"),
    "a layer": (lambda x: Softmax(name="sigmoid")(x), "squared_relu"),
    "a Lambda": (lambda x: kl.Lambda(lambda y: y * ops.sin(y))(x), "elementwise"),
}


def written(act, order):
    x = inputs = keras.Input((9, 9, 3))
    x = kl.Conv2D(6, 3)(x)
    norm = kl.BatchNormalization()
    x = act(norm(x)) if order == BEFORE else norm(act(x))
    model = keras.Model(inputs, kl.Conv2D(4, 3)(x))
    set_random_weights(model)
    gamma = norm.gamma.numpy()
    gamma[::2] *= -1
    norm.gamma.assign(gamma)
    return model


@pytest.mark.parametrize("order", [BEFORE, AFTER])
@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_known_by_its_values_and_norms_move_across_it(name, order):
    act, called = FORMS[name]
    model, other = written(act, order), BEFORE if order == AFTER else AFTER
    (site,) = relucate.audit(model).sites
    assert (site.order, site.act_op, site.unknown) == (order, called, ())
    moved, _ = relucate.convert(model, other)
    assert relucate.audit(moved).summary == {other: 1}
    folded, report = relucate.fold(model)
    assert len(report.done) == 1
    rebuilt, _ = relucate.rebuild(model, other)
    assert relucate.audit(rebuilt).summary == {other: 1}
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype("float32")
    for found in (moved, folded):
        np.testing.assert_allclose(
            found.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5
        )


OTHERS = {
    "squeeze and excitation": lambda x: (
        x * kl.Dense(6, "sigmoid")(ops.mean(x, axis=(1, 2), keepdims=True))
    ),
    "a norm by hand": lambda x: x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-5),
    "softmax in a Lambda": lambda x: kl.Lambda(lambda y: ops.softmax(y))(x),
    "random numbers": lambda x: kl.Lambda(lambda y: y + keras.random.normal(ops.shape(y)))(x),
    "another one in training": lambda x: Doubled()(x),
    "a Lambda's mode": lambda x: kl.Lambda(
        lambda y, training=False: ops.relu(y) if training else ops.gelu(y)
    )(x),
    "another one for images": lambda x: kl.Lambda(
        lambda y: ops.relu(y) if len(y.shape) < 4 else ops.flip(y, axis=1)
    )(x),
    "another one for its own shape": lambda x: kl.Lambda(
        lambda y: ops.relu(y) if y.shape[-1] != 6 else ops.softmax(y)
    )(x),
    "the mean of all": lambda x: kl.Lambda(lambda y: ops.relu(y - ops.mean(y)))(x),
    "the largest of all": lambda x: kl.Activation(lambda y: y * ops.sigmoid(y) / ops.max(y))(x),
    "a line": lambda x: kl.Lambda(lambda y: 2.0 * y + 1.0)(x),
    "lines": lambda x: x + 0.5 * x,
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_function_of_each_element_is_no_activation(name):
    (site,) = relucate.audit(written(OTHERS[name], BEFORE)).sites
    assert site.act_op is None


def test_a_layer_that_counts_its_calls_counts_none():
    class Counting(kl.Layer):
        calls = 0

        def call(self, x):
            self.calls += 1
            return ops.relu(x)

    layer = Counting()
    model = written(layer, BEFORE)
    before = layer.calls
    assert relucate.audit(model).sites[0].act_op == "relu"
    assert layer.calls == before


def test_a_function_inside_of_a_layer_is_an_activation_and_stays_there():
    inputs = keras.Input((9, 9, 3))
    x = kl.BatchNormalization()(kl.Conv2D(6, 3, activation=relu)(inputs))
    x = kl.BatchNormalization()(kl.Conv2D(6, 3, activation="tanh")(x))
    model = keras.Model(inputs, kl.Conv2D(2, 3)(x))
    set_random_weights(model)
    own = relucate.audit(model).sites[0]
    assert (own.order, own.act_op) == (AFTER, "leaky_relu")
    moved, report = relucate.convert(model, BEFORE)
    assert [site.old for site in report.skipped] == [AFTER]
    assert "calls its activation itself" in report.skipped[0].reason
    assert relucate.audit(moved).sites[1].order == BEFORE
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype("float32")
    np.testing.assert_allclose(
        moved.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-4
    )


NAMES = "abs sign floor ceil trunc square round expm1 exp2 sin cos tan sinh cosh arctan arcsinh"
FUNCTIONS = {
    **{name: getattr(ops, name) for name in NAMES.split()},
    "sqrt": lambda x: ops.sqrt(ops.abs(x)),
    "rsqrt": lambda x: ops.rsqrt(ops.abs(x)),
    "log1p": lambda x: ops.log1p(ops.exp(x)),
    "logs": lambda x: ops.log(ops.exp(x)) + ops.log2(ops.exp(x)) + ops.log10(ops.exp(x)),
    "inverses": lambda x: ops.arcsin(ops.tanh(x)) + ops.arccos(ops.tanh(x)),
    "a power": lambda x: x**3,
    "a base": lambda x: 2**x,
    "divided": lambda x: 3 / x,
    "reciprocal": ops.reciprocal,
    "where": lambda x: ops.where(ops.logical_and(x > 0, x <= 1), 2.0, x),
    "zeros": lambda x: ops.where(x > 0, ops.zeros_like(x), x),
    "either": lambda x: ops.where(ops.logical_or(x >= 1, x < -1), x, ops.ones_like(x)),
    "not": lambda x: ops.where(ops.logical_not(ops.equal(x, 0.0)), ops.full_like(x, 3), x),
    "unequal": lambda x: ops.cast(ops.not_equal(x, 0.0), "float32") * x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_each_element_mean_what_keras_computes(name):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, FUNCTIONS[name](inputs))
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    (found,) = evaluate(read(model), x, unread=apply)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=2e-5, atol=1e-6)
