import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relucate.affine import Affine, batch_norm_affine


def norm(x, mean, variance, epsilon, gamma, beta):
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


@given(seed=st.integers(0, 2**32 - 1), channels=st.integers(1, 9))
def test_scale_and_shift_are_the_norm(seed, channels):
    random = np.random.default_rng(seed)
    mean, gamma, beta, x = random.normal(size=(4, channels)) * 10
    variance, epsilon = random.uniform(0, 5, channels), random.uniform(1e-5, 1e-1)
    scale, shift = batch_norm_affine(mean, variance, epsilon, gamma, beta)
    expected = norm(x, mean, variance, epsilon, gamma, beta)
    np.testing.assert_allclose(scale * x + shift, expected, rtol=1e-9, atol=1e-9 * abs(shift).max())


@pytest.mark.parametrize("gamma", [None, np.array([3.0])])
@pytest.mark.parametrize("beta", [None, np.array([5.0])])
def test_missing_gamma_is_one_and_missing_beta_zero(gamma, beta):
    got = batch_norm_affine(np.array([2.0]), np.array([3.0]), 1.0, gamma, beta)
    factor, offset = 1.0 if gamma is None else 3.0, 0.0 if beta is None else 5.0
    assert got == Affine(np.array([factor / 2]), np.array([offset - factor]))


def test_float32_is_combined_in_float64():
    mean = np.array([1e4], np.float32)
    got = batch_norm_affine(mean, np.array([1e-8], np.float32), 1e-3, np.ones(1, np.float32))
    assert got.scale.dtype == got.shift.dtype == np.float64
    assert got.shift[0] == pytest.approx(
        -1e4 / np.sqrt(np.float64(np.float32(1e-8)) + 1e-3), rel=1e-15
    )
