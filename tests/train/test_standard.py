"""Standardising: per channel for images, one for all features, and finite always."""

import numpy as np

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
