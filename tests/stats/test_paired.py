"""Paired differences: against SciPy and statsmodels, properties, coverage, every stated answer."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import DescrStatsW

from relucate.errors import InputError
from relucate.stats.paired import (
    FIXED_N,
    correlation,
    paired_difference,
    saved_by_pairing,
    t_half_width,
)

NAN, INF = float("nan"), float("inf")


def arms(n, seed=0, effect=0.01, noise=0.005):
    """Two arms that share half of their noise; (n,) each."""
    rng = np.random.default_rng(seed)
    shared = 0.9 + rng.normal(0, noise, n)
    return shared + rng.normal(0, noise, n), shared + rng.normal(effect, noise, n)


class TestAgainstOtherLibraries:
    @pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
    @pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
    def test_interval_is_scipys(self, n, level):
        a, b = arms(n, seed=n)
        ours = paired_difference(a, b, level=level)
        theirs = scipy_stats.ttest_rel(b, a).confidence_interval(level)
        np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], rtol=1e-10)

    @pytest.mark.parametrize("n", [3, 10, 50])
    def test_estimate_sd_and_interval_are_statsmodels(self, n):
        a, b = arms(n, seed=n)
        ours, theirs = paired_difference(a, b), DescrStatsW(b - a)
        np.testing.assert_allclose(ours.estimate, theirs.mean, rtol=1e-12)
        np.testing.assert_allclose(ours.sd, theirs.std_ddof(1), rtol=1e-12)
        np.testing.assert_allclose(
            [ours.low, ours.high], theirs.tconfint_mean(alpha=0.05), rtol=1e-10
        )

    @pytest.mark.parametrize("n", [3, 10, 50])
    def test_correlation_is_scipys(self, n):
        a, b = arms(n, seed=n)
        expected = scipy_stats.pearsonr(a, b).statistic
        np.testing.assert_allclose(correlation(a, b), expected, rtol=1e-10)
        assert paired_difference(a, b).correlation == correlation(a, b)

    def test_half_width_is_scipys_quantile(self):
        expected = scipy_stats.t.ppf(0.95, 6) * 0.3 / np.sqrt(7)
        np.testing.assert_allclose(t_half_width(0.3, 7, 0.9), expected, rtol=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    studies, truth = 4000, 0.01
    rng = np.random.default_rng(2024)
    a = rng.normal(0.9, 0.005, (studies, 6))
    b = a + rng.normal(truth, 0.005, (studies, 6))
    found = [paired_difference(x, y) for x, y in zip(a, b, strict=True)]
    covered = np.mean([d.low < truth < d.high for d in found])
    tolerance = 3.3 * np.sqrt(0.95 * 0.05 / studies)  # 0.1 % of seeds would fall outside
    assert abs(covered - 0.95) < tolerance


# Scores with four decimals: accuracies on 10,000 test images.
score = st.integers(0, 10_000).map(lambda count: count / 10_000)
pairs = st.lists(st.tuples(score, score), min_size=2, max_size=20).map(
    lambda rows: np.array(rows).T
)


class TestProperties:
    @given(pairs)
    def test_swapping_the_arms_mirrors(self, ab):
        a, b = ab
        d, m = paired_difference(a, b), paired_difference(b, a)
        assert (d.estimate, d.low, d.high) == (-m.estimate, -m.high, -m.low)
        assert (d.sd, d.n) == (m.sd, m.n)
        assert saved_by_pairing(a, b) == saved_by_pairing(b, a)
        np.testing.assert_equal(correlation(a, b), correlation(b, a))

    @given(pairs, st.integers(-1000, 1000).map(lambda count: count / 10_000))
    def test_a_constant_added_to_both_arms_changes_nothing(self, ab, constant):
        a, b = ab
        d, moved = paired_difference(a, b), paired_difference(a + constant, b + constant)
        np.testing.assert_allclose(
            [moved.estimate, moved.low, moved.high, moved.sd],
            [d.estimate, d.low, d.high, d.sd],
            atol=1e-12,
        )
        assert moved.degenerate == d.degenerate

    @given(pairs, st.sampled_from([0.25, 3.0, 100.0]))
    def test_scaling_the_metric_scales_the_interval(self, ab, scale):
        a, b = ab
        d, scaled = paired_difference(a, b), paired_difference(scale * a, scale * b)
        np.testing.assert_allclose(
            [scaled.estimate, scaled.low, scaled.high, scaled.sd],
            np.multiply(scale, [d.estimate, d.low, d.high, d.sd]),
            rtol=1e-9,
            atol=1e-12,
        )
        assert scaled.degenerate == d.degenerate

    @given(pairs)
    def test_the_order_of_the_pairs_does_not_matter(self, ab):
        a, b = ab
        d, reversed_ = paired_difference(a, b), paired_difference(a[::-1], b[::-1])
        np.testing.assert_allclose(
            [reversed_.low, reversed_.high], [d.low, d.high], rtol=1e-9, atol=1e-12
        )

    @given(pairs, st.floats(0.01, 0.99))
    def test_never_nan_and_always_plain_json(self, ab, level):
        d = paired_difference(*ab, level=level)
        again = json.loads(json.dumps(d.to_dict(), allow_nan=False))
        assert again == d.to_dict()
        assert d.low <= d.estimate <= d.high

    @settings(max_examples=30)
    @given(pairs)
    def test_a_higher_level_gives_a_wider_interval(self, ab):
        narrow, wide = (paired_difference(*ab, level=level) for level in (0.9, 0.99))
        assert wide.low <= narrow.low <= narrow.high <= wide.high
        assert wide.degenerate or wide.low < narrow.low


class TestStatedAnswers:
    def test_one_pair_has_an_estimate_but_no_interval(self):
        d = paired_difference([0.5], [0.75])
        assert (d.estimate, d.low, d.high, d.sd, d.n) == (0.25, None, None, None, 1)
        assert d.correlation is None
        assert not d.degenerate

    def test_identical_differences_give_a_point_and_say_so(self):
        d = paired_difference([0.25, 0.5, 0.75], [0.5, 0.75, 1.0])
        assert (d.estimate, d.low, d.high, d.sd) == (0.25, 0.25, 0.25, 0.0)
        assert d.degenerate
        assert d.to_dict()["degenerate"] is True

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_differences_equal_as_counts_are_identical_despite_rounding(self, dtype):
        counts = np.array([331, 340, 347, 352, 359])
        a, b = ((counts + one).astype(dtype) / dtype(360) for one in (0, 1))
        assert np.std(b.astype(float) - a.astype(float)) > 0  # the rounding is really there
        d = paired_difference(a, b)
        assert d.degenerate
        np.testing.assert_allclose(d.estimate, 1 / 360, atol=1e-7)

    def test_one_example_of_a_million_is_not_rounding(self):
        d = paired_difference([0.9, 0.9, 0.9], [0.9, 0.9, 0.900001])
        assert not d.degenerate

    def test_no_difference_but_rounding_is_exactly_zero(self):
        d = paired_difference([0.3, 0.3, 0.3], [0.1 + 0.2, 0.1 + 0.2, 0.3])
        assert (d.estimate, d.low, d.high, d.sd) == (0.0, 0.0, 0.0, 0.0)

    def test_the_design_is_named(self):
        assert paired_difference([1, 2], [2, 4]).method == FIXED_N
        assert FIXED_N == "paired t, fixed number of pairs"

    def test_the_inputs_are_left_alone(self):
        a, b = [1, 2, 3], np.array([2.0, 3.0, 5.0])
        paired_difference(a, b)
        assert a == [1, 2, 3]
        np.testing.assert_array_equal(b, [2.0, 3.0, 5.0])


class TestCorrelation:
    @pytest.mark.parametrize(
        ("a", "b"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])]
    )
    def test_undefined_is_none(self, a, b):
        assert correlation(a, b) is None

    @pytest.mark.parametrize(("b", "expected"), [([1, 2, 3], 1), ([6, 4, 2], -1), ([1, 3, 2], 0.5)])
    def test_known_values(self, b, expected):
        np.testing.assert_allclose(correlation([1, 2, 3], b), expected, rtol=1e-14)

    @given(st.lists(score, min_size=3, max_size=9))
    def test_stays_within_one(self, a):
        r = correlation(a, [2 * x + 0.1 for x in a])
        assert r is None or 1 - 1e-9 < r <= 1


class TestSavedByPairing:
    def test_independent_arms_save_nothing_on_average(self):
        rng = np.random.default_rng(1)
        ratio = saved_by_pairing(rng.normal(0, 1, 5000), rng.normal(0, 1, 5000))
        np.testing.assert_allclose(ratio, 1, atol=0.05)

    def test_with_equal_variances_it_is_one_over_one_minus_r(self):
        a, b = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 4.0]
        np.testing.assert_allclose(saved_by_pairing(a, b), 1 / (1 - correlation(a, b)))

    def test_opposite_arms_cost(self):
        np.testing.assert_allclose(saved_by_pairing([1, 2, 3], [3, 2, 1]), 0.5)

    @pytest.mark.parametrize(("a", "b"), [([1], [2]), ([1, 2], [2, 4]), ([1, 2, 3], [2, 3, 4])])
    def test_undefined_is_none(self, a, b):
        assert saved_by_pairing(a, b) is None


class TestBadInput:
    @pytest.mark.parametrize("value", [NAN, INF, -INF, 1e200])
    @pytest.mark.parametrize("function", [paired_difference, correlation, saved_by_pairing])
    def test_a_score_that_is_no_number_is_named_by_index(self, function, value):
        with pytest.raises(
            InputError, match=rf"got {value} at index 2 of arm b".replace("+", r"\+")
        ):
            function([0.1, 0.2, 0.3], [0.1, 0.2, value])

    def test_lengths_that_differ(self):
        with pytest.raises(InputError, match="3 scores of arm a and 2 of arm b"):
            paired_difference([0.1, 0.2, 0.3], [0.1, 0.2])

    @pytest.mark.parametrize("function", [paired_difference, correlation, saved_by_pairing])
    def test_no_pairs(self, function):
        with pytest.raises(InputError, match="at least one pair"):
            function([], [])

    @pytest.mark.parametrize("level", [0, 1, -0.1, 95, NAN])
    def test_a_level_outside_zero_and_one(self, level):
        with pytest.raises(InputError, match=f"got {level}"):
            paired_difference([1, 2], [2, 3], level=level)

    def test_a_matrix(self):
        with pytest.raises(InputError, match=r"arm a, shape \(n,\), got shape \(2, 2\)"):
            paired_difference(np.ones((2, 2)), np.ones(2))

    def test_words(self):
        with pytest.raises(InputError, match=r"arm b, got .*'good'"):
            paired_difference([0.9], ["good"])
