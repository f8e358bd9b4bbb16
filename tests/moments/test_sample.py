"""The sample of positions: the same for any batching, and as accurate as it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from relucate.moments.channels import Channels
from relucate.moments.sample import MOST, Sample, _known, histogram, normal_distance, quantiles


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
    z = np.sort((x - x.mean(0)) / max(x.std(), 1e-3), axis=0).T
    wanted = [stats.kstest(channel, "norm").statistic for channel in z]
    np.testing.assert_allclose(normal_distance(z), wanted, rtol=1e-12)


def test_the_distance_does_not_grow_with_the_data():
    rng = np.random.default_rng(0)
    found = []
    for n in (2_000, 400_000):
        channels = Channels()
        channels.add(np.maximum(rng.standard_normal((n, 8)), 0))
        found.append(np.median(channels.statistics()["normal_distance"]))
    assert abs(found[0] - found[1]) < 0.04
    assert min(found) > 0.25


def test_the_histogram_counts_every_finite_value():
    z = np.sort(np.random.default_rng(0).standard_normal((3, 200)), axis=1)
    z[1] = np.nan
    assert histogram(z).sum(1).tolist() == [200, 0, 200]


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


def test_hashes_of_many_positions_are_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr("relucate.moments.sample._CACHED", 100)
    _known.cache_clear()
    run(np.zeros((101, 1)))
    assert _known.cache_info().currsize == 0
    few, many = run(np.arange(100.0)[:, None]), Sample(50)
    assert _known.cache_info().currsize == 1
    many.add(np.arange(101.0)[:, None])
    assert few.seen == 100
    assert len(many.values) == 50
