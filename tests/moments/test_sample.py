"""The sample of positions: the same for any batching, and as accurate as it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from relucate.moments.channels import Channels
from relucate.moments.sample import (
    EDGES,
    MOST,
    Sample,
    _step,
    histogram,
    normal_distance,
    quantiles,
)


def run(x, cuts=(), axis=-1):
    sample = Sample()
    for part in np.split(x, cuts):
        sample.add(part, axis)
    return sample


@given(cuts=st.lists(st.integers(1, 59), max_size=8), axis=st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_any_batching_gives_the_same_sample(cuts, axis):
    x = np.random.default_rng(0).standard_normal((60, 5, 8, 5))
    whole, parts = run(x, axis=axis), run(x, sorted(cuts), axis)
    np.testing.assert_array_equal(whole.values, parts.values)
    assert whole.seen == parts.seen == x.size // 5
    assert len(whole.values) == MOST


def test_a_few_values_are_all_kept_and_exact():
    x = np.random.default_rng(0).standard_normal((300, 2))
    found = run(x, (100,))
    np.testing.assert_array_equal(np.sort(found.values, 0), np.sort(x, 0))
    assert found.precision == 0
    shares = (0.0, 0.15, 0.5, 0.85, 1.0)
    np.testing.assert_allclose(quantiles(found.ascending, shares), np.quantile(x, shares, axis=0))


@pytest.mark.parametrize("n", [2_000, 200_000])
def test_the_distribution_is_as_accurate_as_stated(n):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 60))
    found = run(x, range(500, n, 500))
    assert found.precision == pytest.approx(1.358 / np.sqrt(MOST), rel=1e-3)
    # An upper bound that holds for 95 % of the channels, all of them together in one sample.
    grid = np.linspace(-3, 3, 201)
    every = [np.searchsorted(np.sort(x[:, c]), grid) / n for c in range(60)]
    some = [np.searchsorted(np.sort(found.values[:, c]), grid) / MOST for c in range(60)]
    off = np.abs(np.array(every) - np.array(some)).max(axis=1)
    assert np.mean(off <= found.precision) >= 0.9


def test_every_part_of_the_stream_is_as_likely():
    x = np.arange(100_000.0)[:, None]
    places = run(x, range(1000, 100_000, 1000)).values[:, 0]
    assert stats.kstest(places / 1e5, "uniform").pvalue > 0.001


def test_memory_stays_bounded_for_many_channels():
    sample = run(np.zeros((300, 50_000), np.float32), (100, 200))
    assert sample.values.size <= 1 << 22


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 100, 1000])
@pytest.mark.parametrize("least", [-9.0, -0.2, 0.9])
def test_the_distance_from_the_normal_is_scipys(count, least):
    x = np.maximum(np.random.default_rng(count).standard_normal((count, 4)), least)
    x += np.arange(count)[:, None] * 1e-9  # none is constant
    mean, sd = x.mean(0), np.full(4, max(x.std(), 1e-3))
    wanted = [stats.kstest(channel, "norm").statistic for channel in ((x - mean) / sd).T]
    found = normal_distance(np.sort(x, axis=0).T, mean, sd)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_distance_does_not_grow_with_the_data():
    rng = np.random.default_rng(0)
    found = []
    for n in (2_000, 400_000):
        channels = Channels()
        channels.add(np.maximum(rng.standard_normal((n, 8)), 0))
        found.append(np.median(channels.statistics()["normal_distance"]))
    assert abs(found[0] - found[1]) < 0.04
    assert min(found) > 0.25


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_histogram_counts_every_finite_value(dtype):
    x = np.random.default_rng(0).standard_normal((200, 4)).astype(dtype)
    x[7, 1] = np.nan
    x[9, 1] = np.inf
    sample = run(x)
    mean, sd = np.array([0.3, 0.0, 0.0, -1.0]), np.array([2.0, 1.0, np.nan, 0.1])
    found = histogram(sample.ascending, mean, sd)
    assert found.sum(1).tolist() == [200, 198, 0, 200]
    edges = [-np.inf, *EDGES, np.inf]
    for channel in (0, 3):
        z = (x[:, channel].astype(float) - mean[channel]) / sd[channel]
        assert found[channel].tolist() == np.histogram(z, edges)[0].tolist()


def test_saturation_sparsity_and_asymmetry():
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], 4000)
    few = (rng.random(4000) < 0.01).astype(float)
    small = 0.01 * rng.standard_normal(4000)
    channels = Channels()
    channels.add(np.stack([sign, few, small, np.tanh(3 + rng.standard_normal(4000))], 1))
    found = channels.statistics()
    assert found["saturation"][0] == 1
    assert found["sparsity"][0] == pytest.approx(0)
    assert found["sparsity"][1] > 0.85
    assert found["saturation"][2] < 0.01
    assert found["asymmetry"][0] < 0.05
    assert found["asymmetry"][3] > 0.99


def test_a_batch_that_is_not_finite_is_noted():
    channels = Channels()
    assert channels.add(np.ones((4, 2)))
    assert not channels.add(np.array([[1.0, np.nan]]))


def test_points_with_as_many_positions_share_the_choice():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 3000, 2))
    _step.cache_clear()
    rows = [run(x, (1000, 2000)).values[5] for x in (one, other)]
    assert _step.cache_info().misses == 3
    first, second = np.flatnonzero(one == rows[0]), np.flatnonzero(other == rows[1])
    assert first.tolist() == second.tolist()


def test_streams_of_other_sizes_do_not_mix():
    x = np.random.default_rng(0).standard_normal((500, 2))
    few, many = Sample(50), Sample(100)
    for part in np.split(x, 5):
        few.add(part)
        many.add(part)
    np.testing.assert_array_equal(few.values, many.values[:50])
    assert few.seen == many.seen == 500
