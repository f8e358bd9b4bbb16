"""Streaming moments against SciPy, on adversarial data, and for any batching."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from relucate.moments.running import Running

FIGURES = "mean variance skewness kurtosis low high zeros magnitude".split()


def made(kind, n=4000, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((n, channels))
    return {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "offset": 1e6 + 1e-3 * normal,
        "tails": rng.standard_t(1.5, (n, channels)),
        "outlier first": np.concatenate([np.full((1, channels), 1e9), normal]),
        "tiny": 1e-20 * normal,
        "huge": 1e20 * normal,
    }[kind]


KINDS = ["normal", "relu", "offset", "tails", "outlier first", "tiny", "huge"]


def run(x, cuts=(), axis=-1):
    running = Running()
    for part in np.split(x, cuts):
        running.add(part, axis)
    return running


def exact(x):
    """Mean, variance, skewness and excess kurtosis in extended precision, centred twice."""
    d = x.astype(np.longdouble) - x[0].astype(np.longdouble)
    offset = d.mean(0)
    d = d - offset
    m2, m3, m4 = ((d**k).mean(0) for k in (2, 3, 4))
    return x[0] + offset, m2, m3 / m2**1.5, m4 / m2**2 - 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [(), (1,), (1, 2, 3), (1999, 2000), tuple(range(100, 4000, 100))])
def test_moments_are_exact_however_the_data_are_cut(kind, cuts):
    x = made(kind)
    found = run(x, cuts)
    wanted = exact(x)
    got = (found.mean, found.variance, found.skewness, found.kurtosis)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other.astype(float), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", ["normal", "relu", "tails", "tiny"])
def test_moments_agree_with_scipy(kind):
    x = made(kind)
    found = run(x, (7, 1000))
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12, atol=1e-15 * abs(x).max())
    np.testing.assert_allclose(found.variance, x.var(0), rtol=1e-12)
    np.testing.assert_allclose(found.skewness, stats.skew(x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.kurtosis, stats.kurtosis(x), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.low, x.min(0))
    np.testing.assert_array_equal(found.high, x.max(0))
    np.testing.assert_array_equal(found.zeros, (x == 0).sum(0))


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 5),
    cuts=st.lists(st.integers(1, 399), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_any_split_gives_the_same(kind, seed, cuts):
    x = made(kind, n=400, seed=seed)
    whole, parts = run(x), run(x, sorted(cuts))
    for name in FIGURES:
        one, other = getattr(whole, name), getattr(parts, name)
        scale = np.maximum(1.0, np.abs(one)) if name in ("skewness", "kurtosis") else np.abs(one)
        if name == "mean":
            scale = np.maximum(scale, np.sqrt(whole.variance))
        assert np.all(np.abs(one - other) <= 1e-9 * scale), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_are_exact_where_every_16th_row_is_another(dtype):
    x = np.random.default_rng(0).standard_normal((1600, 3)) * 1e-3
    x[::16] += 1
    found = run(x.astype(dtype), (160,))
    wanted = exact(x.astype(dtype))
    for one, other in zip(
        (found.mean, found.variance, found.skewness, found.kurtosis), wanted, strict=True
    ):
        np.testing.assert_allclose(one, other.astype(float), rtol=1e-11)


@given(place=st.integers(0, 400), seed=st.integers(0, 3), kind=st.sampled_from(KINDS))
@settings(max_examples=30, deadline=None)
def test_streams_apart_merge_as_one_stream(place, seed, kind):
    x = made(kind, n=400, seed=seed)
    one, other = run(x[:place]), run(x[place:])
    one.merge(other)
    whole = run(x)
    assert one.count == whole.count
    np.testing.assert_allclose(one.variance, whole.variance, rtol=1e-9)
    np.testing.assert_allclose(one.skewness, whole.skewness, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.kurtosis, whole.kurtosis, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (17, 5), (1000, 700), (3, 300_000), (40_000, 7)])
def test_any_shape_is_taken_whole(shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    found = run(x)
    np.testing.assert_allclose(found.mean, x.mean(0, np.float64), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.variance, x.var(0, dtype=np.float64), rtol=1e-10)
    np.testing.assert_allclose(found.magnitude, np.abs(x).sum(0, np.float64), rtol=1e-12)
    assert found.count == len(x)


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_channels_may_be_on_any_axis(axis):
    x = np.random.default_rng(1).standard_normal((20, 5, 6, 7)).astype(np.float32)
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    found = run(x, (3,), axis)
    np.testing.assert_allclose(found.mean, rows.mean(0, np.float64), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.variance, rows.var(0, np.float64), rtol=1e-10)
    assert found.count == len(rows)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e6, -1e-30])
def test_a_constant_channel_is_known(value):
    found = run(np.full((50, 2), value), (10,))
    assert found.constant.all()
    assert np.isnan(found.skewness).all()
    assert np.all(found.variance == 0)


def test_rounding_noise_counts_as_constant_and_a_small_spread_does_not():
    rng = np.random.default_rng(0)
    noise = np.where(
        rng.random(1000) < 0.5, np.float32(5), np.nextafter(np.float32(5), np.float32(6))
    )
    spread = (5 + 1e-5 * rng.standard_normal(1000)).astype(np.float32)
    found = run(np.stack([noise, spread], 1))
    assert found.constant.tolist() == [True, False]


def test_values_that_are_not_finite_show():
    x = made("normal", 50)
    x[20, 1] = np.nan
    x[30, 2] = np.inf
    found = run(x, (10,))
    assert np.isfinite(found.low[0])
    assert np.isnan(found.low[1])
    assert np.isinf(found.high[2])
