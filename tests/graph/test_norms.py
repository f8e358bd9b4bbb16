"""Norms and affine maps against PyTorch and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from relucate.errors import Refused

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 5, 4, 6)) * 2 + 1


def per_channel(*names):
    values = {
        "gamma": RANDOM.uniform(0.5, 1.5, 6),
        "beta": RANDOM.normal(size=6),
        "moving_mean": RANDOM.normal(size=6),
        "moving_variance": RANDOM.uniform(0.5, 2.0, 6),
    }
    return {name: values[name] for name in names}


def torch_first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def last(y):
    return np.moveaxis(y.numpy(), 1, -1)


def tensor(arrays, name):
    return torch.from_numpy(arrays[name])


def test_batch_norm_without_kept_statistics_takes_those_of_the_batch(apply):
    arrays = per_channel("gamma", "beta")
    got = apply("batch_norm", X, arrays=arrays, axis=-1, epsilon=0.1)
    options = {"weight": tensor(arrays, "gamma"), "bias": tensor(arrays, "beta")}
    expected = F.batch_norm(torch_first(X), None, None, training=True, eps=0.1, **options)
    np.testing.assert_allclose(got, last(expected), atol=1e-12)


@pytest.mark.parametrize("names", [(), ("gamma", "beta"), ("beta",)])
def test_instance_norm(apply, names):
    arrays = per_channel(*names)
    got = apply("instance_norm", X, arrays=arrays, axis=-1, epsilon=0.1)
    weight = tensor(arrays, "gamma") if "gamma" in names else torch.ones(6).double()
    bias = tensor(arrays, "beta") if "beta" in names else None
    expected = F.instance_norm(torch_first(X), weight=weight, bias=bias, eps=0.1)
    np.testing.assert_allclose(got, last(expected), atol=1e-12)
    first = apply("instance_norm", np.moveaxis(X, -1, 1), arrays=arrays, axis=1, epsilon=0.1)
    np.testing.assert_allclose(np.moveaxis(first, 1, -1), got)


def test_instance_norm_with_kept_statistics(apply):
    arrays = per_channel("gamma", "beta", "moving_mean", "moving_variance")
    got = apply("instance_norm", X, arrays=arrays, axis=-1, epsilon=0.1)
    expected = apply("batch_norm", X, arrays=arrays, axis=-1, epsilon=0.1)
    np.testing.assert_array_equal(got, expected)
    assert not np.allclose(got, apply("instance_norm", X, axis=-1, epsilon=0.1))


def test_layer_and_rms_norm_over_two_axes_in_any_order(apply):
    gamma, beta = RANDOM.uniform(0.5, 1.5, (4, 6)), RANDOM.normal(size=(4, 6))
    x, weight = torch.from_numpy(X), torch.from_numpy(gamma)
    for axes in ([2, 3], [-1, -2]):
        arrays = {"gamma": gamma, "beta": beta}
        got = apply("layer_norm", X, arrays=arrays, axes=axes, epsilon=0.1)
        expected = F.layer_norm(x, (4, 6), weight, torch.from_numpy(beta), 0.1)
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-12)
        got = apply("rms_norm", X, arrays={"gamma": gamma}, axes=axes, epsilon=0.1)
        np.testing.assert_allclose(got, F.rms_norm(x, (4, 6), weight, 0.1).numpy(), atol=1e-12)


def test_rms_scaling_divides_by_the_standard_deviation(apply):
    got = apply("rms_norm", np.array([[1.0, 3.0]]), axes=[-1], epsilon=3.0, rms_scaling=True)
    np.testing.assert_allclose(got, [[0.5, 1.5]])


def test_unit_norm(apply):
    x = np.array([[3.0, 4.0], [0.0, 1e-9]])
    got = apply("unit_norm", x, axes=[-1], epsilon=1e-3)
    np.testing.assert_allclose(got, [[0.6, 0.8], [0.0, 1e-6]])
    np.testing.assert_allclose(apply("unit_norm", x, axes=[0], epsilon=1e-3)[0], [1, 1])


def test_rescale_and_affine(apply):
    x = np.array([[1.0, 2.0]])
    np.testing.assert_array_equal(apply("rescale", x, scale=3.0, offset=-1.0), [[2, 5]])
    scale, offset = np.array([2.0, 3.0]), np.array([[1.0], [0.0]])
    both = {"scale": scale, "offset": offset}
    np.testing.assert_array_equal(apply("affine", x, arrays=both), [[3, 7], [2, 6]])
    np.testing.assert_array_equal(apply("affine", x, arrays={"scale": scale}), [[2, 6]])
    np.testing.assert_array_equal(apply("affine", x, arrays={"offset": scale}), [[3, 5]])


def test_what_computes_as_in_training_is_refused(apply):
    arrays = per_channel("moving_mean", "moving_variance")
    attrs = {"axis": -1, "epsilon": 0.1}
    for node, options in (("batch_norm", attrs), ("dropout", {"rate": 0.5})):
        with pytest.raises(Refused, match=rf"'y' \({node}\): it is called with training=True"):
            apply(node, X, arrays=arrays, forced=True, **options)
        kept = apply(node, X, arrays=arrays, forced=False, **options)
        np.testing.assert_array_equal(kept, apply(node, X, arrays=arrays, **options))
    # A frozen norm computes as at inference, even when it is called for training.
    frozen = apply("batch_norm", X, arrays=arrays, forced=True, frozen=True, **attrs)
    np.testing.assert_array_equal(frozen, apply("batch_norm", X, arrays=arrays, **attrs))
