"""Verdicts: each answer, its boundaries, and what must not change it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import ttost_paired

from relucate.errors import InputError
from relucate.stats.paired import FIXED_N, PairedDifference, paired_difference, t_half_width
from relucate.stats.verdict import decide, pairs_needed

MARGIN = 0.005


def difference(low, high, *, n=10, sd=None, level=0.95):
    """A difference with this interval; the sd is the t interval's unless given."""
    sd = (high - low) / 2 / t_half_width(1.0, n, level) if sd is None else sd
    return PairedDifference((low + high) / 2, low, high, level, FIXED_N, n, sd, 0.5)


def identical(value, n, level=0.95):
    return PairedDifference(value, value, value, level, FIXED_N, n, 0.0, None)


@pytest.mark.parametrize(
    ("low", "high", "answer", "winner", "clears", "excludes_zero"),
    [
        (0.006, 0.010, "better", "b", True, True),
        (-0.010, -0.006, "better", "a", True, True),
        (0.001, 0.010, "better", "b", False, True),
        (-0.010, -0.001, "better", "a", False, True),
        (-0.004, 0.004, "equivalent", None, False, False),
        (0.001, 0.004, "equivalent", None, False, True),
        (-0.004, -0.001, "equivalent", None, False, True),
        (-0.004, 0.006, "inconclusive", None, False, False),
        (-0.006, 0.004, "inconclusive", None, False, False),
        (-0.01, 0.01, "inconclusive", None, False, False),
        (0.0, 0.004, "equivalent", None, False, False),  # touching zero doesn't exclude it
        (0.0, 0.006, "inconclusive", None, False, False),
        (0.001, 0.005, "better", "b", False, True),  # touching the margin isn't inside it
        (0.005, 0.009, "better", "b", False, True),  # nor beyond it
        (-0.005, 0.004, "inconclusive", None, False, False),
    ],
)
def test_the_answer_follows_from_where_the_interval_lies(
    low, high, answer, winner, clears, excludes_zero
):
    verdict = decide(difference(low, high), margin=MARGIN)
    assert verdict.verdict == answer
    assert verdict.winner == winner
    assert verdict.clears_margin == clears
    assert verdict.excludes_zero == excludes_zero
    assert (verdict.reason is None) == (answer != "inconclusive")
    assert verdict.margin == MARGIN


class TestTooFewPairs:
    @pytest.mark.parametrize("n", [1, 2])
    def test_is_inconclusive_however_clear_it_looks(self, n):
        verdict = decide(paired_difference([0.5, 0.51][:n], [0.9, 0.9101][:n]), margin=MARGIN)
        assert (verdict.verdict, verdict.reason) == ("inconclusive", "too few pairs")
        assert verdict.winner is None
        assert not verdict.excludes_zero
        assert not verdict.clears_margin
        assert verdict.pairs_needed == 3

    def test_three_are_enough(self):
        verdict = decide(paired_difference([0.5, 0.51, 0.5], [0.9, 0.91, 0.91]), margin=MARGIN)
        assert (verdict.verdict, verdict.winner) == ("better", "b")


class TestIdenticalDifferences:
    @pytest.mark.parametrize("value", [0.0, 0.001, -0.02])
    @pytest.mark.parametrize("n", [3, 5])
    def test_few_of_them_prove_nothing(self, value, n):
        verdict = decide(identical(value, n), margin=MARGIN)
        assert (verdict.verdict, verdict.reason) == ("inconclusive", "identical differences")
        assert verdict.pairs_needed == 6
        assert not verdict.excludes_zero

    @pytest.mark.parametrize(
        ("value", "answer", "winner"),
        [
            (0.0, "equivalent", None),
            (0.001, "equivalent", None),
            (0.02, "better", "b"),
            (-0.02, "better", "a"),
        ],
    )
    def test_six_settle_it_by_the_sign_test(self, value, answer, winner):
        verdict = decide(identical(value, 6), margin=MARGIN)
        assert (verdict.verdict, verdict.winner) == (answer, winner)
        assert verdict.pairs_needed is None

    @pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
    def test_the_number_is_the_binomial_tests(self, level):
        needed = pairs_needed(0.0, 0.01, MARGIN, level)
        assert scipy_stats.binomtest(needed, needed).pvalue <= 1 - level
        if needed > 3:
            assert scipy_stats.binomtest(needed - 1, needed - 1).pvalue > 1 - level

    def test_arms_that_score_the_same_everywhere_are_equivalent(self):
        verdict = decide(paired_difference([0.97] * 8, [0.97] * 8), margin=MARGIN)
        assert (verdict.verdict, verdict.winner) == ("equivalent", None)


class TestDivergedRuns:
    def test_nothing_to_compare_if_every_run_of_both_arms_diverged(self):
        verdict = decide(paired_difference([0.0] * 8, [0.0] * 8), margin=MARGIN, diverged=(8, 8))
        assert (verdict.verdict, verdict.reason) == ("inconclusive", "all runs diverged")
        assert verdict.pairs_needed is None

    def test_one_arm_all_diverged_loses(self):
        d = paired_difference([0.97, 0.96, 0.98], [0.0, 0.0, 0.0])
        verdict = decide(d, margin=MARGIN, diverged=(0, 3))
        assert (verdict.verdict, verdict.winner) == ("better", "a")
        assert verdict.to_dict()["diverged"] == {"a": 0, "b": 3}

    @pytest.mark.parametrize("diverged", [(11, 0), (0, -1)])
    def test_more_than_ran_is_an_error(self, diverged):
        wrong = 11 if 11 in diverged else -1
        with pytest.raises(InputError, match=f"between 0 and 10 diverged .* got {wrong}"):
            decide(difference(0.001, 0.002), margin=MARGIN, diverged=diverged)


# Scores with four decimals: accuracies on 10,000 test images.
score = st.integers(0, 10_000).map(lambda count: count / 10_000)
pairs = st.lists(st.tuples(score, score), min_size=1, max_size=12).map(
    lambda rows: np.array(rows).T
)
margins = st.sampled_from([0.00131, 0.01013, 0.10037])  # never a difference of four decimals


def answer(a, b, margin):
    verdict = decide(paired_difference(a, b), margin=margin)
    return verdict.verdict, verdict.winner, verdict.clears_margin, verdict.pairs_needed


class TestProperties:
    @given(pairs, margins)
    def test_swapping_the_arms_mirrors_the_verdict(self, ab, margin):
        word, winner, clears, needed = answer(*ab, margin)
        mirrored = {"a": "b", "b": "a", None: None}[winner]
        assert answer(*ab[::-1], margin) == (word, mirrored, clears, needed)

    @given(pairs, margins, st.sampled_from([-0.25, 0.125]))
    def test_a_constant_added_to_both_arms_changes_nothing(self, ab, margin, constant):
        a, b = ab
        assert answer(a + constant, b + constant, margin)[:3] == answer(a, b, margin)[:3]

    @given(pairs, margins, st.sampled_from([0.25, 2.0, 128.0]))
    def test_scaling_metric_and_margin_together_changes_nothing(self, ab, margin, scale):
        a, b = ab
        assert answer(scale * a, scale * b, scale * margin) == answer(a, b, margin)

    @given(pairs, margins)
    def test_winner_exactly_if_better_and_plain_json_without_nan(self, ab, margin):
        verdict = decide(paired_difference(*ab), margin=margin)
        assert (verdict.winner is not None) == (verdict.verdict == "better")
        assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False)) == verdict.to_dict()

    @given(pairs, margins)
    def test_equivalent_implies_two_one_sided_tests(self, ab, margin):
        a, b = ab
        d = paired_difference(a, b)
        if not d.degenerate and decide(d, margin=margin).verdict == "equivalent":
            assert ttost_paired(b, a, -margin, margin)[0] < 0.025


def test_without_a_difference_better_is_said_in_five_percent_of_studies():
    studies = 2000
    rng = np.random.default_rng(7)
    a = rng.normal(0.9, 0.01, (studies, 8))
    b = a + rng.normal(0, 0.01, (studies, 8))
    verdicts = [decide(paired_difference(x, y), margin=0.001) for x, y in zip(a, b, strict=True)]
    rate = np.mean([verdict.verdict == "better" for verdict in verdicts])
    assert abs(rate - 0.05) < 3.3 * np.sqrt(0.05 * 0.95 / studies)


class TestPairsNeeded:
    @pytest.mark.parametrize(
        ("sd", "estimate"), [(0.006, 0.006), (0.006, 0.0), (0.02, -0.004), (0.003, 0.002)]
    )
    def test_is_the_smallest_number_that_settles_it(self, sd, estimate):
        needed = pairs_needed(sd, estimate, MARGIN)

        def settles(n):
            low, high = scipy_stats.t.interval(0.95, n - 1, estimate, sd / np.sqrt(n))
            return low > 0 or high < 0 or -MARGIN < low < high < MARGIN

        assert settles(needed)
        assert needed == 3 or not settles(needed - 1)

    def test_never_below_three(self):
        assert pairs_needed(1e-9, 0.1, MARGIN) == 3

    def test_none_beyond_ten_thousand(self):
        assert pairs_needed(1.0, 0.0, MARGIN) is None
        just_enough = MARGIN / t_half_width(1.0, 10_000, 0.95) * (1 - 1e-9)
        assert pairs_needed(just_enough, 0.0, MARGIN) == 10_000
        assert pairs_needed(just_enough * 1.001, 0.0, MARGIN) is None

    def test_an_inconclusive_verdict_needs_more_than_it_has(self):
        verdict = decide(difference(-0.002, 0.010), margin=MARGIN)
        d = verdict.difference
        assert verdict.pairs_needed == pairs_needed(d.sd, d.estimate, MARGIN)
        assert verdict.pairs_needed > d.n

    def test_a_verdicts_level_counts(self):
        strict = decide(difference(-0.002, 0.010, sd=0.01, level=0.99), margin=MARGIN)
        assert strict.pairs_needed == pairs_needed(0.01, 0.004, MARGIN, 0.99)
        assert strict.pairs_needed > pairs_needed(0.01, 0.004, MARGIN, 0.95)

    @pytest.mark.parametrize("margin", [0, -0.5, float("nan"), float("inf")])
    def test_a_margin_that_is_none(self, margin):
        with pytest.raises(InputError, match=f"margin above 0, got {margin}"):
            pairs_needed(0.01, 0.01, margin)
        with pytest.raises(InputError, match=f"margin above 0, got {margin}"):
            decide(difference(0.001, 0.002), margin=margin)

    def test_a_level_outside_zero_and_one(self):
        with pytest.raises(InputError, match="got 95"):
            pairs_needed(0.01, 0.01, MARGIN, 95)
