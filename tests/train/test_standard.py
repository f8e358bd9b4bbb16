"""Standardising: per channel for images, one for all features, and finite always."""

import tracemalloc

import numpy as np

from relucate.train import standard
from relucate.train.standard import channel_moments


def test_images_per_channel():
    x = np.random.default_rng(0).normal(size=(50, 4, 5, 3)) * [1, 10, 0.1] + [0, 5, -5]
    mean, scale = channel_moments(x.astype(np.float32))
    y = (x - mean) * scale
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-5)
    assert mean.dtype == scale.dtype == np.float32


def test_features_share_one_mean_and_deviation():
    x = np.array([[0.0, 2.0], [0.0, 2.0]], np.float32)  # no feature varies
    mean, scale = channel_moments(x)
    np.testing.assert_array_equal(mean, [1, 1])
    np.testing.assert_array_equal(scale, [1, 1])


def test_constant_data_stay_finite():
    mean, scale = channel_moments(np.full((3, 2, 2, 1), 7, np.uint8))
    assert mean.tolist() == [7.0]
    assert scale.tolist() == [1.0]


def test_large_uint8_data_do_not_lose_precision():
    x = np.full((2000, 20, 20, 1), 255, np.uint8)
    x[:1000] = 254
    mean, scale = channel_moments(x)
    np.testing.assert_allclose(mean, 254.5)
    np.testing.assert_allclose(scale, 2.0)


def test_bytes_are_counted_in_parts_with_the_same_result():
    x = np.random.default_rng(1).integers(0, 200, (300, 32, 32, 3), dtype=np.uint8)
    counts = np.stack([np.bincount(column, minlength=256) for column in x.reshape(-1, 3).T])
    assert len(x) * 32 * 32 > 4 * standard._PART
    assert len(x) * 32 * 32 % standard._PART
    values = np.arange(256.0)
    means = counts @ values / counts[0].sum()
    variances = (counts * np.square(values - means[:, None])).sum(1) / counts[0].sum()
    mean, scale = channel_moments(x)
    np.testing.assert_array_equal(mean, means.astype(np.float32))
    np.testing.assert_array_equal(scale, (1 / np.sqrt(variances)).astype(np.float32))


def test_counting_bytes_takes_little_memory():
    x = np.zeros((1000, 64, 64, 1), np.uint8)
    tracemalloc.start()
    channel_moments(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes  # of all values at once, in int64, it is eight times as much
