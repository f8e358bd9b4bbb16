import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as kl
from tests.orders import KEEPS_BIAS

from relucate.errors import InputError, Refused
from relucate.keras import batch_norm, read
from relucate.order import Order

ORDERS = ["before", "after", "norm-linear-act", "norm-act-linear", "act-linear-norm"]
FIRST, LAST = "channels_first", "channels_last"
LAYERS = {
    "Dense": (lambda **o: kl.Dense(6, **o), (4,), -1),
    "Dense3": (lambda **o: kl.Dense(6, **o), (3, 4), -1),
    "EinsumDense": (lambda **o: kl.EinsumDense("abc,cd->abd", (3, 6), **o), (3, 4), -1),
    "EinsumMiddle": (lambda **o: kl.EinsumDense("act,cd->adt", (6, 3), **o), (4, 3), 1),
    "Conv1D": (lambda **o: kl.Conv1D(6, 3, 2, "causal", **o), (7, 4), -1),
    "Conv2D": (lambda **o: kl.Conv2D(6, 3, 2, "same", groups=2, **o), (7, 6, 4), -1),
    "Conv2D_first": (lambda **o: kl.Conv2D(6, 3, data_format=FIRST, **o), (4, 7, 6), 1),
    "Conv3D": (lambda **o: kl.Conv3D(6, (1, 2, 3), **o), (5, 4, 6, 4), -1),
    "Conv1DTranspose": (lambda **o: kl.Conv1DTranspose(6, 3, 2, **o), (5, 4), -1),
    "Conv2DTranspose": (lambda **o: kl.Conv2DTranspose(6, 3, 2, "same", **o), (5, 4, 4), -1),
    "Conv3DTranspose": (lambda **o: kl.Conv3DTranspose(6, 2, **o), (3, 4, 3, 4), -1),
    "DepthwiseConv1D": (
        lambda **o: kl.DepthwiseConv1D(3, depth_multiplier=2, **o), (7, 4), -1),
    "DepthwiseConv2D": (
        lambda **o: kl.DepthwiseConv2D(3, dilation_rate=2, data_format=FIRST, **o), (4, 7, 6), 1),
    "SeparableConv1D": (lambda **o: kl.SeparableConv1D(6, 3, **o), (7, 4), -1),
    "SeparableConv2D": (
        lambda **o: kl.SeparableConv2D(6, 3, depth_multiplier=2, **o), (7, 6, 4), -1),
}  # fmt: skip


def made(kind, **options):
    make, shape, axis = LAYERS[kind]
    if kind.startswith("Einsum"):
        options.setdefault("bias_axes", "d")
    return make(name="foo", **options), shape, axis


def randomize(holder, seed=0):
    random = np.random.default_rng(seed)
    for variable in holder.weights:
        low, high = (0.5, 2.0) if "variance" in variable.name else (-1.0, 1.0)
        variable.assign(random.uniform(low, high, variable.shape))


def noise(*shape, seed=1):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype("float32")


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def names(stack):
    return [layer.name for layer in stack.layers]


def has_bias(stack):
    linear = next(la for la in stack.layers if hasattr(la, "use_bias") or hasattr(la, "bias_axes"))
    return linear.bias_axes is not None if isinstance(linear, kl.EinsumDense) else linear.use_bias


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_every_stealable_layer(kind, order):
    """The stack is the order's steps, with the layer's own trained weights."""
    layer, shape, axis = made(kind, activation="tanh")
    layer.build((None, *shape))
    randomize(layer)
    stack = batch_norm(layer, order, epsilon=0.01)
    x = noise(3, *shape)
    stack(x)
    norm = next(la for la in stack.layers if isinstance(la, kl.BatchNormalization))
    randomize(norm, seed=2)
    assert norm.axis == axis
    plain, _, _ = made(kind, **({"use_bias": True} if "Einsum" not in kind else {}))
    plain.build((None, *shape))
    for weight, source in zip(plain.weights, layer.weights, strict=True):
        keep = weight.name != "bias" or order not in ("before", "act-linear-norm")
        weight.assign(source if keep else np.zeros(source.shape))
    y = x
    for token in Order(order).tokens:
        if token == "linear":
            y = array(plain(y))
        elif token == "act":
            y = np.tanh(y)
        else:
            wide = [1] * y.ndim
            wide[axis] = -1
            gamma, beta, mean, var = (array(w).reshape(wide) for w in norm.weights)
            y = (y - mean) / np.sqrt(var + 0.01) * gamma + beta
    np.testing.assert_allclose(array(stack(x)), y, rtol=1e-4, atol=1e-4)


class TestLasagne:
    """What the cases of Lasagne's own test of batch_norm mean, one by one."""

    def test_it_steals_the_nonlinearity(self):
        stack = batch_norm(kl.Dense(3, activation="elu"))
        linear, norm, act = stack.layers
        assert linear.activation is keras.activations.linear
        assert isinstance(norm, kl.BatchNormalization)
        assert act.activation is keras.activations.elu

    def test_it_removes_the_bias(self):
        stack = batch_norm(kl.Dense(3))
        assert len(stack.layers) == 2
        assert not stack.layers[0].use_bias
        stack(noise(2, 4))
        assert [w.name for w in stack.layers[0].weights] == ["kernel"]

    def test_it_can_handle_an_unset_bias(self):
        stack = batch_norm(kl.Dense(3, use_bias=False), "after")
        assert not stack.layers[0].use_bias
        stack = batch_norm(kl.EinsumDense("ab,bc->ac", 3, activation="relu"), "after")
        assert stack.layers[0].bias_axes is None

    def test_it_passes_on_arguments(self):
        stack = batch_norm(kl.Dense(3), name="foo", momentum=0.5, scale=False, epsilon=0.1)
        norm = stack.layers[1]
        assert (norm.name, norm.momentum, norm.scale, norm.epsilon) == ("foo", 0.5, False, 0.1)
        with pytest.raises(InputError, match="unknown argument of batch_norm 'alpha'"):
            batch_norm(kl.Dense(3), alpha=0.1)

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_names_come_from_the_given_name(self, order):
        stack = batch_norm(kl.Dense(3, activation="relu", name="foo"), order, name="foo_bnorm")
        assert set(names(stack)) == {"foo", "foo_bnorm", "foo_bnorm_nonlin"}
        assert stack.name == "foo_bnorm_stack"

    def test_names_come_from_the_layer(self):
        stack = batch_norm(kl.Dense(3, activation="relu", name="foo"))
        assert names(stack) == ["foo", "foo_bn", "foo_bn_nonlin"]
        assert stack.name == "foo_bn_stack"

    def test_a_layer_without_a_name_has_keras_own(self):
        layer = kl.Dense(3)
        assert names(batch_norm(layer)) == [layer.name, f"{layer.name}_bn"]


@pytest.mark.parametrize(("order", "kept"), KEEPS_BIAS.items())
@pytest.mark.parametrize("kind", LAYERS)
def test_the_bias_goes_only_where_the_norm_directly_follows(kind, order, kept):
    assert has_bias(batch_norm(made(kind, activation="relu")[0], order)) == kept


def test_without_an_activation_after_is_before():
    stack = batch_norm(kl.Dense(3, name="foo"), "after")
    assert names(stack) == ["foo", "foo_bn"]
    assert not has_bias(stack)


class TestBiasAndAxis:
    """The bias is redundant if the norm's axis is the one along which it differs."""

    CASES = (
        ("abc,cd->abd", (3, 6), "d", None, -1, False),
        ("abc,cd->abd", (3, 6), "bd", None, -1, True),
        ("abc,cd->abd", (3, 6), "b", None, -1, True),
        ("abc,cd->abd", (3, 6), "b", 1, 1, False),
        ("abc,cd->abd", (3, 6), "d", 2, 2, False),
        ("abc,cd->adb", (6, 3), "d", None, 1, False),
        ("abc,cde->abde", (3, 2, 6), "de", None, -1, True),
        ("abc,cde->abde", (3, 2, 6), "e", None, -1, False),
        ("abc,cde->abde", (3, 2, 6), "d", None, -1, True),
        ("abc,cde->abde", (3, 2, 6), "d", 2, 2, False),
        ("abc,cde->abde", (3, 2, 6), "de", 2, 2, True),
        ("...c,cd->...d", 6, "d", None, -1, False),
        ("abc,bc->ab", 3, "b", None, -1, False),
    )

    @pytest.mark.parametrize(("equation", "shape", "axes", "given", "axis", "kept"), CASES)
    def test_einsum(self, equation, shape, axes, given, axis, kept):
        layer = kl.EinsumDense(equation, shape, bias_axes=axes, activation="relu")
        stack = batch_norm(layer, **({} if given is None else {"axis": given}))
        assert (stack.layers[1].axis, has_bias(stack)) == (axis, kept)

    @pytest.mark.parametrize(("equation", "shape", "axes", "given", "axis", "kept"), CASES)
    def test_numbers_say_the_same(self, equation, shape, axes, given, axis, kept):
        """Whether a bias in front of that norm changes what training computes."""
        layer = kl.EinsumDense(equation, shape, bias_axes=axes)
        x = noise(5, 3, 4)
        layer(x)
        norm = kl.BatchNormalization(axis=axis)
        before = array(norm(layer(x), training=True))
        layer.bias.assign(noise(*layer.bias.shape, seed=3))
        change = np.abs(array(norm(layer(x), training=True)) - before).max()
        assert (change > 0.05) == kept
        assert kept or change < 1e-4

    @pytest.mark.parametrize(("axis", "kept"), [(1, False), (-3, False), (-1, True), (2, True)])
    def test_conv(self, axis, kept):
        layer = kl.Conv2D(4, 3, data_format=FIRST, activation="relu")
        assert has_bias(batch_norm(layer, axis=axis)) == kept

    def test_dense(self):
        layer = kl.Dense(4)
        assert has_bias(batch_norm(layer, axis=1))  # of how many axes isn't known yet
        layer.build((None, 3))
        assert not has_bias(batch_norm(layer, axis=1))
        assert not has_bias(batch_norm(layer, axis=-1))

    @pytest.mark.parametrize(
        ("equation", "axis"), [("abc,cd->abd", -1), ("acb,cd->abd", 1), ("abc,bcd->ad", -1)]
    )
    def test_a_norm_of_the_input_has_the_axis_that_the_kernel_sums(self, equation, axis):
        layer = kl.EinsumDense(equation, (3, 6) if "bd" in equation else 6, bias_axes="d")
        stack = batch_norm(layer, "norm-linear")
        assert stack.layers[0].axis == axis

    def test_a_norm_that_does_not_take_the_batch_mean_leaves_the_bias(self):
        assert has_bias(batch_norm(kl.Dense(3), trainable=False))
        assert not has_bias(batch_norm(kl.Dense(3), trainable=True))


class TestCopies:
    def test_the_argument_stays_as_it_is(self):
        layer = kl.Conv2D(
            4, 3, activation=kl.PReLU(shared_axes=[1, 2]), activity_regularizer="l2", name="c"
        )
        x = noise(2, 6, 6, 3)
        layer(x)
        randomize(layer)
        y, kept = array(layer(x)), [array(w).copy() for w in layer.weights]
        state, act = dict(vars(layer)), layer.activation
        stack = batch_norm(layer, "after")
        assert vars(layer).keys() == state.keys()
        assert [k for k, v in vars(layer).items() if v is not state[k]] == []
        assert layer.activation is act
        stack(x)
        randomize(stack, seed=5)
        assert layer.activity_regularizer is not None
        for weight, value in zip(layer.weights, kept, strict=True):
            np.testing.assert_array_equal(array(weight), value)
        np.testing.assert_array_equal(array(layer(x)), y)

    def test_initializers_regularizers_constraints_and_trainable_come_along(self):
        layer = kl.Dense(
            3,
            kernel_initializer=keras.initializers.HeNormal(seed=7),
            kernel_regularizer="l2",
            bias_constraint="non_neg",
            trainable=False,
            dtype="float64",
        )
        copy = batch_norm(layer, "none").layers[0]
        assert copy.kernel_initializer.seed == 7
        assert copy.kernel_regularizer.l2 == pytest.approx(0.01)
        assert isinstance(copy.bias_constraint, keras.constraints.NonNeg)
        assert not copy.trainable
        stack = batch_norm(layer)
        assert [la.dtype for la in stack.layers] == ["float64"] * 2
        assert stack.layers[1].trainable

    def test_an_unbuilt_layer_stays_unbuilt(self):
        layer = kl.Dense(3, activation="relu")
        stack = batch_norm(layer)
        assert not layer.built
        assert stack(noise(2, 5)).shape == (2, 3)
        assert not layer.built

    def test_prelu_is_copied_with_its_weights(self):
        layer = kl.Dense(3, activation=kl.PReLU(name="mine"), name="foo")
        x = noise(4, 5)
        layer(x)
        randomize(layer)
        stack = batch_norm(layer, "none")
        np.testing.assert_allclose(array(stack(x)), array(layer(x)), rtol=1e-5)
        copy = stack.layers[1]
        assert (type(copy), copy.name) == (kl.PReLU, "foo_bn_nonlin")
        assert copy is not layer.activation
        assert copy.alpha is not layer.activation.alpha
        with pytest.raises(Refused, match="'mine' of 'foo' has weights for the layer's outputs"):
            batch_norm(layer, "norm-act-linear")

    def test_a_prelu_without_weights_yet_may_go_anywhere(self):
        layer = kl.Dense(3, activation=kl.PReLU())
        stack = batch_norm(layer, "act-linear-norm")
        stack(noise(2, 5))
        assert stack.layers[0].alpha.shape == (5,)

    @pytest.mark.parametrize(
        "activation",
        ["relu", keras.activations.gelu, keras.ops.tanh, lambda x: x * 2, kl.LeakyReLU(0.3)],
    )
    def test_every_kind_of_activation(self, activation):
        layer = kl.Dense(3, activation=activation)
        x = noise(4, 5)
        layer(x)
        stack = batch_norm(layer, "none")
        np.testing.assert_allclose(array(stack(x)), array(layer(x)), rtol=1e-5)
        assert len(batch_norm(layer).layers) == 3


class TestActivityRegularizer:
    @pytest.mark.parametrize("order", ["before", "after", "norm-linear-act"])
    @pytest.mark.parametrize("act", ["relu", kl.PReLU])
    def test_it_sees_what_the_activation_returns(self, order, act):
        activation = act if isinstance(act, str) else act()
        layer = kl.Dense(3, activation=activation, activity_regularizer=keras.regularizers.L2(0.5))
        stack = batch_norm(layer, order)
        x = noise(4, 5)
        stack(x)
        randomize(stack)
        stack(x)
        y = x
        for la in stack.layers:
            y = la(y)
            if la.name.endswith("nonlin"):
                seen = array(y)
        stack(x)
        assert sum(float(array(loss)) for loss in stack.losses) == pytest.approx(
            0.5 * (seen**2).sum() / 4, rel=1e-4
        )

    def test_without_activation_it_stays(self):
        stack = batch_norm(kl.Dense(3, activity_regularizer="l2"))
        assert stack.layers[0].activity_regularizer is not None
        assert stack.layers[1].activity_regularizer is None

    def test_two_of_them_are_refused(self):
        act = kl.ReLU(activity_regularizer="l1", name="r")
        with pytest.raises(Refused, match="'foo' and its activation 'r' both have"):
            batch_norm(kl.Dense(3, activation=act, activity_regularizer="l2", name="foo"))


class TestUse:
    @pytest.mark.parametrize("order", ORDERS)
    def test_in_a_functional_model(self, order):
        x = keras.Input((8, 8, 3))
        y = batch_norm(kl.Conv2D(4, 3, activation="relu", name="a"), order)(x)
        y = batch_norm(kl.Conv2D(5, 3, activation="relu", name="b"), order)(y)
        kinds = [node.kind for node in read(keras.Model(x, y)) if node.op != "input"]
        assert kinds == list(Order(order).tokens) * 2

    def test_in_a_sequential(self):
        model = keras.Sequential([keras.Input((5,)), batch_norm(kl.Dense(4, activation="relu"))])
        assert model.output_shape == (None, 4)

    def test_sizes_may_vary_if_the_first_call_says_so(self):
        stack = batch_norm(kl.Conv2D(4, 3, activation="relu"))
        stack(keras.Input((None, None, 3)))
        assert stack(noise(2, 8, 8, 3)).shape == (2, 6, 6, 4)
        assert stack(noise(2, 5, 9, 3)).shape == (2, 3, 7, 4)

    def test_it_trains(self):
        stack = batch_norm(kl.Dense(4, activation="relu", name="foo"))
        stack(noise(2, 5))
        moving = array(stack.layers[1].moving_mean).copy()
        stack(noise(32, 5), training=True)
        assert np.abs(array(stack.layers[1].moving_mean) - moving).max() > 1e-3

    @pytest.mark.slow
    def test_it_is_saved_and_loads_where_relucate_is_not(self, tmp_path):
        x = keras.Input((6, 6, 3))
        layer = kl.Conv2D(4, 3, activation=kl.PReLU(shared_axes=[1, 2]), name="a")
        y = batch_norm(layer, "after")(x)
        y = batch_norm(kl.Conv2D(4, 3, activation="elu", activity_regularizer="l1"))(y)
        model = keras.Model(x, y)
        model(noise(2, 6, 6, 3))
        randomize(model)
        model.save(tmp_path / "m.keras")
        np.save(tmp_path / "x.npy", noise(2, 6, 6, 3))
        np.save(tmp_path / "y.npy", array(model(noise(2, 6, 6, 3))))
        code = (
            "import sys; sys.modules['relucate'] = None\n"
            "import keras, numpy as np\n"
            "model = keras.models.load_model('m.keras')\n"
            "y = keras.ops.convert_to_numpy(model(np.load('x.npy')))\n"
            "np.testing.assert_allclose(y, np.load('y.npy'), rtol=1e-5, atol=1e-5)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


class Renamed(kl.Dense):
    pass


class Twice(kl.Dense):
    def call(self, inputs):
        return super().call(inputs) * 2


class Wider(kl.Dense):
    def __init__(self, units, **options):
        super().__init__(2 * units, **options)


def quantized():
    layer = kl.Dense(4, activation="relu", name="foo")
    layer.build((None, 4))
    layer.quantize("int8")
    return layer


def with_lora():
    layer = kl.Dense(4, activation="relu", name="foo")
    layer.build((None, 4))
    layer.enable_lora(2)
    return layer


REFUSED = {
    "SimpleRNN": (lambda: kl.SimpleRNN(3), "SimpleRNN .* inside the recurrence"),
    "LSTM": (lambda: kl.LSTM(3), "LSTM .* inside the recurrence"),
    "GRU": (lambda: kl.GRU(3), "GRU .* inside the recurrence"),
    "LSTMCell": (lambda: kl.LSTMCell(3), "LSTMCell .* inside the recurrence"),
    "ConvLSTM2D": (lambda: kl.ConvLSTM2D(3, 3), "ConvLSTM2D .* inside the recurrence"),
    "Bidirectional": (lambda: kl.Bidirectional(kl.LSTM(3)), "Bidirectional .* recurrence"),
    "MultiHead": (lambda: kl.MultiHeadAttention(2, 3), "MultiHeadAttention .* the attention"),
    "GroupQuery": (lambda: kl.GroupQueryAttention(2, 2, 1), "inside the attention"),
    "Attention": (lambda: kl.Attention(), "Attention .* inside the attention"),
    "TimeDistributed": (
        lambda: kl.TimeDistributed(kl.Dense(3)), "TimeDistributed .* it wraps another layer"),
    "Norm": (lambda: kl.BatchNormalization(), "BatchNormalization .* it has no activation"),
    "Dropout": (lambda: kl.Dropout(0.1), "Dropout .* it has no activation"),
    "Activation": (lambda: kl.Activation("relu"), "it is no convolution or dense layer"),
    "Model": (lambda: keras.Sequential([kl.Dense(3)]), "it is a whole model"),
    "softmax": (lambda: kl.Dense(3, activation="softmax"), "activation softmax mixes"),
    "log_softmax": (lambda: kl.Dense(3, activation="log_softmax"), "activation log_softmax mixes"),
    "sparsemax": (lambda: kl.Dense(3, activation="sparsemax"), "activation sparsemax mixes"),
    "glu": (lambda: kl.Dense(4, activation="glu"), "activation glu mixes"),
    "Softmax": (lambda: kl.Dense(3, activation=kl.Softmax()), "activation softmax mixes"),
    "wrapped": (lambda: kl.Dense(3, activation=kl.Activation("glu")), "activation glu mixes"),
    "ops": (lambda: kl.Dense(3, activation=keras.ops.softmax), "activation softmax mixes"),
    "partial": (
        lambda: kl.Dense(3, activation=functools.partial(keras.ops.softmax, axis=0)),
        "activation softmax mixes"),
    "network": (
        lambda: kl.Dense(3, activation=keras.Sequential([kl.Dense(3)])), "is a whole model"),
    "Twice": (lambda: Twice(3), "it has its own call"),
    "Wider": (lambda: Wider(3, name="foo"), "Wider 'foo' .*the copy has another units"),
    "quantized": (quantized, "its kernel is quantized"),
    "LoRA": (with_lora, "LoRA is enabled"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_named(make, match):
    with pytest.raises(Refused, match=match):
        batch_norm(make())


def test_a_subclass_that_computes_the_same_is_taken():
    stack = batch_norm(Renamed(3, activation="relu"))
    assert type(stack.layers[0]) is Renamed


def test_what_cannot_be_made_again_is_refused():
    class Need(kl.Dense):
        def __init__(self, units, mark, **options):
            super().__init__(units, **options)

    with pytest.raises(Refused, match=r"'foo' can't be made again from its config \(TypeError"):
        batch_norm(Need(3, "x", name="foo"))


def test_wrong_arguments():
    with pytest.raises(InputError, match="takes a Keras layer, got 3"):
        batch_norm(3)
    with pytest.raises(InputError, match="has the activation tanh, but the order 'linear-norm'"):
        batch_norm(kl.Dense(3, activation="tanh"), "linear-norm")
    with pytest.raises(InputError, match="adds no dropout: use 'linear-norm-act'"):
        batch_norm(kl.Dense(3), "linear-norm-act-drop")
    with pytest.raises(InputError, match="write 'linear'"):
        batch_norm(kl.Dense(3), "dense-bn")
