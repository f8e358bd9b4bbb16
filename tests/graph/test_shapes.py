"""Shapes, reductions and the time axis, by hand."""

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.graph import Graph, Node, evaluate, select

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 5, 4, 3))


def test_crop_in_both_formats(apply):
    cropping = ((1, 2), (0, 1))
    np.testing.assert_array_equal(apply("crop", X, cropping=cropping), X[:, 1:3, :3])
    got = apply("crop", X, cropping=cropping, data_format="channels_first")
    np.testing.assert_array_equal(got, X[:, :, 1:2, :2])


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "wrap"])
def test_pad_modes(apply, mode):
    pads = ((1, 2), (0, 1))
    got = apply("pad", X, mode=mode, padding=pads)
    np.testing.assert_array_equal(got, np.pad(X, [(0, 0), *pads, (0, 0)], mode))


def test_pad_with_a_value(apply):
    got = apply("pad", X, mode="constant", value=7.0, padding=((1, 0), (0, 0)))
    assert (got[:, 0] == 7).all()
    np.testing.assert_array_equal(got[:, 1:], X)
    got = apply(
        "pad",
        X,
        mode="constant",
        value=None,
        padding=((0, 1), (0, 0)),
        data_format="channels_first",
    )
    np.testing.assert_array_equal(got[:, :, :4], X)
    assert (got[:, :, 4] == 0).all()


def test_slice(apply):
    np.testing.assert_array_equal(apply("slice", X, axis=1, start=1, stop=4, step=2), X[:, 1:4:2])
    np.testing.assert_array_equal(apply("slice", X, axis=-1, start=-2), X[..., -2:])


REDUCTIONS = ["sum", "mean", "max", "min", "prod", "var", "std"]


@pytest.mark.parametrize("function", REDUCTIONS)
def test_reduce(apply, function):
    got = apply("reduce", X, function=function, axes=(1, -1), keepdims=True)
    np.testing.assert_array_equal(got, getattr(np, function)(X, axis=(1, 3), keepdims=True))
    assert apply("reduce", X, function=function, axes=(2,)).shape == (2, 5, 3)


def test_divide(apply):
    y = RANDOM.uniform(1, 2, X.shape)
    np.testing.assert_array_equal(apply("divide", X, y, X), X / y / X)


@pytest.mark.parametrize("op", [*sorted(select(kind="drop")), "gaussian_noise", "identity"])
def test_what_does_nothing_at_inference(apply, op):
    np.testing.assert_array_equal(apply(op, X, rate=0.5), X)


def test_time_distributed_sees_no_time_axis(apply):
    """Axes, windows and targets count without it."""
    kernel = RANDOM.normal(size=(2, 3, 2))
    attrs = {"strides": (1,), "padding": "valid"}
    got = apply("conv", X, arrays={"kernel": kernel}, time_distributed=True, **attrs)
    one = [apply("conv", X[:, t], arrays={"kernel": kernel}, **attrs) for t in range(5)]
    np.testing.assert_array_equal(got, np.stack(one, axis=1))
    arrays = {"moving_mean": RANDOM.normal(size=4), "moving_variance": RANDOM.uniform(1, 2, 4)}
    options = {"arrays": arrays, "epsilon": 0.1}
    got = apply("batch_norm", X, axis=1, time_distributed=True, **options)
    np.testing.assert_array_equal(got, apply("batch_norm", X, axis=2, **options))
    assert apply("flatten", X, time_distributed=True).shape == (2, 5, 12)
    assert apply("reshape", X, target=(6, -1), time_distributed=True).shape == (2, 5, 6, 2)
    np.testing.assert_array_equal(apply("add", X, X, time_distributed=True), 2 * X)


def test_the_number_of_inputs_is_checked():
    graph = Graph("two", {n: Node(n, "input", (), (1,)) for n in "ab"}, ("a", "b"), ("a",), {})
    with pytest.raises(InputError, match=r"'two' has 2 inputs \(a, b\), got 1 arrays"):
        evaluate(graph, np.ones(1))
