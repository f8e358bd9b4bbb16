"""The monitor: its answers, what stopping does to them, symmetries, every stated bad input."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relucate.errors import InputError
from relucate.stats.paired import paired_difference
from relucate.stats.sequential import MONITORED, Monitor, sign_test_pairs
from relucate.stats.spending import critical_value
from relucate.stats.verdict import decide

RULE = Monitor()


def study(seed, n=12, effect=0.0, sd=0.01):
    """Scores of two arms whose differences have this mean and sd; (n,) each."""
    rng = np.random.default_rng(seed)
    a = 0.8 + rng.normal(0, 0.02, n)
    return a, a + effect + rng.normal(0, sd, n)


def run(a, b, margin, rule=RULE):
    """Look after every pair as a study does; return the last verdict."""
    n = 0
    while True:
        n += 1
        verdict = rule.decide(a[:n], b[:n], margin=margin)
        if not rule.goes_on(verdict):
            return verdict


class TestInterval:
    @pytest.mark.parametrize("n", [3, 5, 30, 120])
    def test_it_is_the_mean_and_c_standard_errors(self, n):
        a, b = study(n, n)
        found, d = RULE.interval(a, b), b - a
        half = critical_value(n, 0.95) * d.std(ddof=1) / math.sqrt(n)
        np.testing.assert_allclose(
            [found.low, found.high], [d.mean() - half, d.mean() + half], rtol=1e-10
        )
        assert found.method == MONITORED

    def test_the_rest_is_as_in_paired_difference(self):
        a, b = study(1)
        plain = paired_difference(a, b)
        assert RULE.interval(a, b) == replace(
            plain,
            low=RULE.interval(a, b).low,
            high=RULE.interval(a, b).high,
            method=MONITORED,
        )

    @pytest.mark.parametrize("n", [1, 2])
    def test_before_the_first_look_there_is_none(self, n):
        a, b = study(1, n)
        found = RULE.interval(a, b)
        assert (found.low, found.high, found.n) == (None, None, n)
        assert RULE.decide(a, b, margin=0.01).reason == "too few pairs"
        assert RULE.decide(a, b, margin=0.01).pairs_needed == 3

    def test_the_factor_is_what_the_interval_uses(self):
        a, b = study(2, 7)
        found = RULE.interval(a, b)
        assert (found.high - found.low) / 2 == pytest.approx(
            RULE.half_width_factor(7) * (b - a).std(ddof=1)
        )


class TestDecide:
    def test_a_large_difference_is_better(self):
        verdict = run(*study(3, 30, effect=0.03), margin=0.005)
        assert (verdict.verdict, verdict.winner) == ("better", "b")
        assert verdict.difference.n < 8

    def test_no_difference_is_equivalent(self):
        verdict = run(*study(4, 30, sd=0.002), margin=0.005)
        assert (verdict.verdict, verdict.winner) == ("equivalent", None)

    def test_a_spent_budget_is_inconclusive_and_says_what_it_takes(self):
        a, b = study(5, 30, sd=0.02)
        verdict = run(a, b, margin=0.005)
        assert (verdict.verdict, verdict.reason) == ("inconclusive", "interval too wide")
        assert verdict.difference.n == 30
        assert 30 < verdict.pairs_needed <= 1000

    def test_it_is_stricter_than_a_fixed_number_of_pairs(self):
        a, b = np.zeros(4), np.array([0.01, 0.02, 0.015, 0.025])
        fixed = decide(paired_difference(a, b), margin=0.001)
        assert fixed.verdict == "better"
        assert RULE.decide(a, b, margin=0.001).verdict == "inconclusive"

    def test_the_pairs_it_says_are_the_first_that_settle(self):
        needed = RULE.pairs_needed(0.01, 0.004, 0.001)
        half = [RULE.half_width_factor(n) * 0.01 for n in (needed - 1, needed)]
        assert half[0] >= 0.004 > half[1]

    @pytest.mark.parametrize(("sd", "estimate", "expected"), [(1.0, 1.0, 12), (1.0, 0.0, None)])
    def test_pairs_needed(self, sd, estimate, expected):
        assert RULE.pairs_needed(sd, estimate, 0.001) == expected

    def test_a_longer_maximum_changes_no_look(self):
        a, b = study(6, 20, effect=0.004)
        short = [Monitor(most=10).decide(a[:n], b[:n], margin=0.003) for n in range(1, 11)]
        long = [Monitor(most=500).decide(a[:n], b[:n], margin=0.003) for n in range(1, 11)]
        assert short == long


class TestIdenticalDifferences:
    def test_as_many_pairs_as_the_sign_test_takes(self):
        needed = sign_test_pairs(0.95)
        assert needed == 9
        for n, expected in [(needed - 1, "inconclusive"), (needed, "better")]:
            verdict = RULE.decide([0.5] * n, [0.6] * n, margin=0.01)
            assert (verdict.verdict, verdict.difference.n) == (expected, n)
        assert RULE.decide([0.5] * 8, [0.6] * 8, margin=0.01).pairs_needed == 9

    def test_equal_arms_become_equivalent(self):
        verdict = run(np.full(30, 0.5), np.full(30, 0.5), margin=0.01)
        assert (verdict.verdict, verdict.difference.n) == ("equivalent", 9)

    @pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
    def test_equal_signs_by_chance_are_rarer_than_the_budget(self, level):
        assert 2 * 0.5 ** sign_test_pairs(level) < 1 - level


class TestGoesOn:
    def test_until_the_most(self):
        rule = Monitor(most=5)
        a, b = study(5, 5, sd=0.02)
        going = [rule.goes_on(rule.decide(a[:n], b[:n], margin=0.001)) for n in range(1, 6)]
        assert going == [True, True, True, True, False]

    def test_not_where_all_runs_diverge(self):
        for n, expected in [(2, True), (3, False)]:
            verdict = RULE.decide([0.1] * n, [0.1] * n, margin=0.01, diverged=(n, n))
            assert verdict.reason == "all runs diverged"
            assert verdict.pairs_needed is None
            assert RULE.goes_on(verdict) is expected

    def test_one_arm_all_diverged_loses(self):
        rng = np.random.default_rng(0)
        scores = 0.8 + rng.normal(0, 0.01, 3)
        verdict = RULE.decide(scores, [0.1] * 3, margin=0.01, diverged=(0, 3))
        assert (verdict.verdict, verdict.winner, verdict.diverged) == ("better", "a", (0, 3))


@pytest.fixture(scope="module")
def nulls():
    return [run(*study(seed, 30), margin=1e-6) for seed in range(1500)]


class TestErrorsOfSimulatedStudies:
    """Small versions of benchmarks/verdicts.py, through the public functions."""

    def test_false_better(self, nulls):
        rate = np.mean([verdict.verdict == "better" for verdict in nulls])
        assert 0.02 < rate < 0.06  # planned 0.0434, standard error 0.005

    def test_coverage_at_stopping(self, nulls):
        covered = [v.difference.low <= 0 <= v.difference.high for v in nulls]
        assert np.mean(covered) > 0.94

    @pytest.mark.parametrize(("effect", "most"), [(1, 12), (2, 6.5), (3, 5.2)])
    def test_expected_pairs(self, effect, most):
        studies = [run(*study(s, 30, effect=effect * 0.01), margin=1e-6) for s in range(300)]
        assert np.mean([verdict.difference.n for verdict in studies]) < most

    def test_false_equivalent_at_the_margin(self):
        studies = [run(*study(s, 30, effect=0.01), margin=0.01) for s in range(300)]
        assert np.mean([verdict.verdict == "equivalent" for verdict in studies]) < 0.05


scores = st.lists(st.integers(0, 1000), min_size=3, max_size=20).map(lambda x: np.array(x) / 1000)


@st.composite
def two_arms(draw):
    a = draw(scores)
    b = draw(st.lists(st.integers(0, 1000), min_size=len(a), max_size=len(a)))
    return a, np.array(b) / 1000


class TestProperties:
    @settings(deadline=None)
    @given(two_arms(), st.floats(0.001, 0.5))
    def test_swapping_the_arms_mirrors(self, arms, margin):
        a, b = arms
        one, other = RULE.decide(a, b, margin=margin), RULE.decide(b, a, margin=margin)
        assert one.verdict == other.verdict
        assert one.reason == other.reason
        assert one.winner == {"a": "b", "b": "a", None: None}[other.winner]
        assert one.pairs_needed == other.pairs_needed
        assert one.difference.low == pytest.approx(-other.difference.high, abs=1e-12)

    @settings(deadline=None)
    @given(two_arms(), st.floats(0.001, 0.5), st.floats(0, 1))
    def test_a_constant_added_to_both_changes_nothing(self, arms, margin, constant):
        a, b = arms
        one = RULE.interval(a, b)
        other = RULE.interval(a + constant, b + constant)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-9)

    @settings(deadline=None)
    @given(two_arms(), st.integers(1, 500), st.sampled_from([2.0**-7, 0.5, 4.0, 1024.0]))
    def test_scaling_metric_and_margin_together_changes_nothing(self, arms, margin, scale):
        a, b = arms
        one = RULE.decide(a, b, margin=margin / 1000)
        other = RULE.decide(a * scale, b * scale, margin=margin / 1000 * scale)
        assert (one.verdict, one.winner, one.reason) == (
            other.verdict,
            other.winner,
            other.reason,
        )
        assert one.pairs_needed == other.pairs_needed

    @settings(deadline=None)
    @given(two_arms(), st.floats(0.001, 0.5))
    def test_never_nan(self, arms, margin):
        d = RULE.decide(*arms, margin=margin).difference
        assert all(math.isfinite(x) for x in (d.estimate, d.low, d.high, d.sd))


class TestBadInput:
    @pytest.mark.parametrize("most", [0, 2, 1001])
    def test_most(self, most):
        with pytest.raises(InputError, match=f"got {most}"):
            Monitor(most=most)

    @pytest.mark.parametrize("level", [0, 1, 1.5, float("nan"), 0.3])
    def test_level(self, level):
        with pytest.raises(InputError, match=f"{level}"):
            Monitor(level=level)

    @pytest.mark.parametrize("margin", [0, -0.1, float("nan"), float("inf")])
    def test_margin(self, margin):
        with pytest.raises(InputError, match=f"got {margin}"):
            RULE.decide(*study(0), margin=margin)
        with pytest.raises(InputError, match=f"got {margin}"):
            RULE.pairs_needed(0.1, 0.1, margin)

    def test_nan_scores(self):
        with pytest.raises(InputError, match="nan"):
            RULE.interval([0.5, float("nan"), 0.4], [0.5, 0.5, 0.5])

    def test_more_pairs_than_the_plan_has(self):
        with pytest.raises(InputError, match="1001"):
            RULE.interval(np.zeros(1001), np.arange(1001.0))


def test_pairs_beyond_the_last_look_are_told_too():
    rule = Monitor()
    needed = rule.pairs_needed(sd=0.213, estimate=-0.0222, margin=0.005)
    assert needed == math.ceil((critical_value(1000, 0.95) * 0.213 / 0.0222) ** 2)
    assert 1000 < needed < 3000
    assert rule.pairs_needed(sd=1.0, estimate=0.0, margin=0.005) is None
