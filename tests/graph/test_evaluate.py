"""The oracle against values worked out by hand and against SciPy; Keras's layers are compared with
it in tests/keras/test_layers.py."""

import numpy as np
import pytest
from scipy import signal, special

from relucate.errors import Refused
from relucate.graph import Graph, Node, evaluate
from relucate.graph.evaluate import EVALUATED
from relucate.graph.ops import OPERATIONS

RANDOM = np.random.default_rng(0)


CONV = {"strides": (1, 1), "padding": "valid", "dilation": (1, 1)}


def test_convolution_is_scipys_correlation(apply):
    x, kernel = RANDOM.normal(size=(1, 7, 6, 2)), RANDOM.normal(size=(3, 2, 2, 3))
    bias = RANDOM.normal(size=3)
    got = apply("conv", x, arrays={"kernel": kernel, "bias": bias}, **CONV)
    for f in range(3):
        parts = [signal.correlate2d(x[0, :, :, c], kernel[:, :, c, f], "valid") for c in (0, 1)]
        np.testing.assert_allclose(got[0, :, :, f], sum(parts) + bias[f])


def test_strides_take_every_second_window_and_dilation_spreads_the_taps(apply):
    x = np.arange(8.0).reshape(1, 8, 1)
    kernel = np.array([1.0, 10.0]).reshape(2, 1, 1)
    got = apply("conv", x, arrays={"kernel": kernel}, strides=(3,), padding="valid", dilation=(2,))
    np.testing.assert_array_equal(got.ravel(), [0 + 20, 3 + 50])


def test_same_padding_puts_the_odd_zero_behind(apply):
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    kernel = np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    got = apply("conv", x, arrays={"kernel": kernel}, strides=(2,), padding="same", dilation=(1,))
    np.testing.assert_array_equal(got.ravel(), [321, 43])


def test_depthwise_channels_are_ordered_by_input_channel(apply):
    x = np.array([1.0, 2.0]).reshape(1, 1, 2)
    kernel = np.array([[1.0, 10.0, 100.0], [3.0, 30.0, 300.0]]).reshape(1, 2, 3)
    got = apply("depthwise_conv", x, arrays={"kernel": kernel}, strides=(1,), padding="valid")
    np.testing.assert_array_equal(got.ravel(), [1, 10, 100, 6, 60, 600])


def test_groups_see_their_own_channels(apply):
    x = np.array([1.0, 2.0]).reshape(1, 1, 2)
    kernel = np.array([5.0, 7.0]).reshape(1, 1, 2)
    got = apply("conv", x, arrays={"kernel": kernel}, strides=(1,), padding="valid", groups=2)
    np.testing.assert_array_equal(got.ravel(), [5, 14])


def test_channels_first(apply):
    x, kernel = RANDOM.normal(size=(2, 5, 6, 3)), RANDOM.normal(size=(3, 3, 3, 4))
    last = apply("conv", x, arrays={"kernel": kernel}, **CONV)
    first = apply(
        "conv",
        x.transpose(0, 3, 1, 2),
        arrays={"kernel": kernel},
        data_format="channels_first",
        **CONV,
    )
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_pools_at_the_border(apply):
    x = np.array([-4.0, -2.0, -6.0]).reshape(1, 3, 1)
    attrs = {"window": (2,), "strides": (2,), "padding": "same"}
    np.testing.assert_array_equal(apply("max_pool", x, **attrs).ravel(), [-2, -6])
    np.testing.assert_array_equal(apply("avg_pool", x, **attrs).ravel(), [-3, -6])


def test_batch_norm(apply):
    x = np.array([[1.0, 5.0]])
    arrays = {
        "gamma": [2.0, 1.0],
        "beta": [1.0, 0.0],
        "moving_mean": [0.0, 3.0],
        "moving_variance": [3.0, 0.0],
    }
    np.testing.assert_allclose(
        apply("batch_norm", x, arrays=arrays, axis=-1, epsilon=1.0), [[2, 2]]
    )


def test_layer_norm_and_group_norm(apply):
    x = np.array([[1.0, 3.0, 5.0, 5.0]])
    got = apply("layer_norm", x[:, :2], axes=[-1], epsilon=3.0)
    np.testing.assert_allclose(got, [[-0.5, 0.5]])
    got = apply("group_norm", x, axis=-1, groups=2, epsilon=3.0, arrays={"beta": [0, 0, 7, 8]})
    np.testing.assert_allclose(got, [[-0.5, 0.5, 7, 8]])


REFERENCE = {
    "gelu": lambda x: x * special.ndtr(x),
    "sigmoid": special.expit,
    "silu": lambda x: x * special.expit(x),
    "log_sigmoid": special.log_expit,
    "softmax": lambda x: special.softmax(x, axis=-1),
    "log_softmax": lambda x: special.log_softmax(x, axis=-1),
    "softplus": lambda x: np.log1p(np.exp(-abs(x))) + np.maximum(x, 0),
}


@pytest.mark.parametrize("op", REFERENCE)
def test_activations_against_scipy(apply, op):
    x = np.concatenate([RANDOM.normal(size=30) * 5, [-800.0, 800.0, 0.0]]).reshape(3, 11)
    np.testing.assert_allclose(apply(op, x), REFERENCE[op](x), rtol=1e-12, atol=1e-15)


def test_merges_broadcast_like_numpy_unless_an_axis_is_named(apply):
    x, y = RANDOM.normal(size=(3, 4, 2)), RANDOM.normal(size=(3, 2))
    np.testing.assert_array_equal(apply("add", x, y, fill_axis=1), x + y[:, None])
    np.testing.assert_array_equal(apply("subtract", y, x, fill_axis=1), y[:, None] - x)
    np.testing.assert_array_equal(apply("add", x, RANDOM.normal(size=(4, 2)) * 0), x)
    np.testing.assert_allclose(apply("average", x, y, x, fill_axis=1), (2 * x + y[:, None]) / 3)


def test_several_inputs_and_outputs_keep_their_order():
    nodes = {n: Node(n, "input", (), (1,)) for n in "ab"}
    nodes["c"] = Node("c", "subtract", ("b", "a"), (1,))
    graph = Graph("g", nodes, ("a", "b"), ("c", "a", "c"), {})
    got = evaluate(graph, np.array([1.0]), np.array([5.0]))
    assert [float(y[0]) for y in got] == [4.0, 1.0, 4.0]


def test_everything_is_float64(apply):
    assert apply("relu", np.ones((1, 2), np.float32)).dtype == np.float64


def test_opaque_nodes_are_refused_by_name_and_reason(apply):
    with pytest.raises(Refused, match=r"can't evaluate 'y' \(Thing\): too odd"):
        apply("opaque", np.ones(1), type="Thing", why="too odd")


def test_what_no_output_reads_is_not_evaluated():
    nodes = {
        "x": Node("x", "input", (), (1,)),
        "odd": Node("odd", "opaque", ("x",), (1,)),
        "end": Node("end", "relu", ("odd",), (1,)),
        "y": Node("y", "relu", ("x",), (1,)),
    }
    graph = Graph("g", nodes, ("x",), ("y",), {})
    np.testing.assert_array_equal(evaluate(graph, np.array([-1.0, 2.0]))[0], [0, 2])


def test_what_has_no_meaning_here():
    """The registry says of these that they are known, not evaluated."""
    missing = OPERATIONS.keys() - set(EVALUATED) - {"input", "opaque"}
    assert missing == {"lrn", "resize", "matmul", "dot", "attention"}
