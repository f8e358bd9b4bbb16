"""What must not change an answer, across the modules: names, units, order, the generator.

Properties of single functions are in their own tests; these hold for the whole way from scores to
words, and for the intervals beside the verdict.
"""

import re
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from relucate.stats import decide, paired_difference, score_runs, sentence
from relucate.stats.classical import classical
from relucate.stats.crossed import crossed
from relucate.stats.sequential import Monitor
from relucate.train.metric import ACCURACY, Metric

RULE = Monitor()
MARGINS = st.sampled_from([0.00131, 0.01013, 0.10037])  # never a difference of three decimals
SWAPPED = {"a": "b", "b": "a", None: None}

# A run's score has three decimals (None: it diverged); a study has one list per arm.
run = st.one_of(st.integers(0, 1000).map(lambda count: count / 1000), st.none())
studies = st.lists(st.tuples(run, run), min_size=1, max_size=12)


def scored(study):
    """Return both arms' scores and how many runs diverged, as a study counts them."""
    arms = [list(arm) for arm in zip(*study, strict=True)]
    lost = [[score is None for score in arm] for arm in arms]
    a, b = (score_runs(arm, gone, ACCURACY) for arm, gone in zip(arms, lost, strict=True))
    return a, b, (sum(lost[0]), sum(lost[1]))


def verdicts(a, b, margin, diverged, **given):
    """Return the verdicts of looking after every pair and of a fixed number of pairs."""
    return (
        RULE.decide(a, b, margin=margin, diverged=diverged, **given),
        decide(paired_difference(a, b), margin=margin, diverged=diverged, **given),
    )


def mirrored(difference):
    """Return the difference with another sign."""
    ends = (difference.low, difference.high)
    low, high = (None if end is None else 0.0 - end for end in ends[::-1])
    return replace(difference, estimate=0.0 - difference.estimate, low=low, high=high)


def said(verdict, metric):
    """Return the sentence on a verdict in words that fit either direction."""
    text = sentence(verdict, "B", "A", metric)
    for word, place, sign in (("lower", "ahead", "+"), ("higher", "behind", "-")):
        text = re.sub(rf"{place}((?: \w+)*?) with loss {word} by", rf"{place}\1 by", text)
        text = re.sub(rf": loss {word} by ([\d.]+)", rf": {sign}\1", text)
    text = re.sub(r"interval \S+ to [^, ]+", "", text).replace("loss", "gain")
    return re.sub(r"((?:by |: [+-])[\d.]+) gain", r"\1", text).replace("a gain of", "")


def ends(text):
    """Return the numbers of a sentence's interval."""
    found = re.search(r"interval (-?[\d.]+) to (-?[\d.]+)", text)
    return [float(end) for end in found.groups()] if found else []


def answer(verdict):
    return verdict.verdict, verdict.reason, verdict.clears_margin, verdict.excludes_zero


class TestVerdicts:
    @settings(deadline=None)
    @given(studies, MARGINS)
    def test_swapping_the_arms_mirrors_verdict_and_sentence(self, study, margin):
        a, b, diverged = scored(study)
        for one, two in zip(
            verdicts(a, b, margin, diverged), verdicts(b, a, margin, diverged[::-1]), strict=True
        ):
            assert (answer(one), one.pairs_needed) == (answer(two), two.pairs_needed)
            assert one.winner == SWAPPED[two.winner]
            assert one.diverged == two.diverged[::-1]
            first, second = sentence(one, "B", "A", ACCURACY), sentence(two, "A", "B", ACCURACY)
            assert [-end for end in ends(first)[::-1]] == ends(second)
            for winner in ("A is better", "B is better"):
                assert (winner in first) == (winner in second)
            if "B is ahead of A" in first:
                assert "A is behind B" in second

    @settings(deadline=None)
    @given(studies, MARGINS)
    def test_lower_is_better_mirrors_exactly(self, study, margin):
        """With the scores negated, a metric's direction changes no answer and no word."""
        a, b, diverged = scored(study)
        for one, two in zip(
            verdicts(-a, -b, margin, diverged, lower_is_better=True),
            verdicts(a, b, margin, diverged),
            strict=True,
        ):
            assert (answer(one), one.winner) == (answer(two), two.winner)
            assert one.pairs_needed == two.pairs_needed
            assert one.difference == mirrored(two.difference)
            high, low = Metric("gain"), Metric("loss", lower_is_better=True)
            assert said(one, low) == said(two, high)

    @settings(deadline=None)
    @given(studies, MARGINS, st.sampled_from([-0.25, 0.125, 1.0]))
    def test_a_constant_added_to_both_arms_changes_no_answer(self, study, margin, constant):
        a, b, diverged = scored(study)
        moved = verdicts(a + constant, b + constant, margin, diverged)
        for one, two in zip(verdicts(a, b, margin, diverged), moved, strict=True):
            assert (answer(one), one.winner) == (answer(two), two.winner)

    @settings(deadline=None)
    @given(studies, MARGINS, st.sampled_from([0.25, 2.0, 128.0]))
    def test_scaling_metric_and_margin_together_changes_no_answer(self, study, margin, scale):
        a, b, diverged = scored(study)
        scaled = verdicts(scale * a, scale * b, scale * margin, diverged)
        for one, two in zip(verdicts(a, b, margin, diverged), scaled, strict=True):
            assert (answer(one), one.winner) == (answer(two), two.winner)
            assert one.pairs_needed == two.pairs_needed

    @settings(deadline=None)
    @given(studies, MARGINS, st.randoms(use_true_random=False))
    def test_the_order_of_the_pairs_changes_no_answer_at_a_look(self, study, margin, random):
        a, b, diverged = scored(study)
        mixed = list(study)
        random.shuffle(mixed)
        other = verdicts(*scored(mixed)[:2], margin, diverged)
        for one, two in zip(verdicts(a, b, margin, diverged), other, strict=True):
            assert (answer(one), one.winner) == (answer(two), two.winner)

    @settings(deadline=None)
    @given(studies, MARGINS)
    def test_looking_is_never_surer_than_a_fixed_number(self, study, margin):
        looking, fixed = verdicts(*scored(study)[:2], margin, (0, 0))
        assert looking.reason is not None or fixed.reason is None
        assert not looking.excludes_zero or fixed.excludes_zero
        assert not looking.clears_margin or fixed.clears_margin


class TestFiguresBeside:
    @settings(deadline=None)
    @given(studies, MARGINS, st.sampled_from([0.25, 2.0, 128.0]))
    def test_scaling_metric_and_margin_changes_no_p_value(self, study, margin, scale):
        a, b, _ = scored(study)
        one = classical(a, b, margin=margin)
        two = classical(scale * a, scale * b, margin=scale * margin)
        for name in ("t_p", "wilcoxon_p", "tost_p", "superiority", "superiority_low"):
            assert_equal_or_none(getattr(one, name), getattr(two, name))

    @settings(deadline=None)
    @given(studies, MARGINS)
    def test_lower_is_better_mirrors_them(self, study, margin):
        a, b, _ = scored(study)
        one = classical(-a, -b, margin=margin, lower_is_better=True).to_dict()
        two = classical(a, b, margin=margin).to_dict()
        one["t_low"], one["t_high"] = (
            None if end is None else 0.0 - end for end in (one["t_high"], one["t_low"])
        )
        assert one == two

    @settings(deadline=None)
    @given(studies, MARGINS, st.sampled_from([-0.25, 0.125, 1.0]))
    def test_a_constant_added_to_both_arms_changes_no_p_value(self, study, margin, constant):
        a, b, _ = scored(study)
        one = classical(a, b, margin=margin)
        two = classical(a + constant, b + constant, margin=margin)
        for name in ("t_p", "wilcoxon_p", "tost_p", "superiority", "superiority_low"):
            assert_equal_or_none(getattr(one, name), getattr(two, name))


def assert_equal_or_none(one, two):
    assert (one is None) == (two is None)
    if one is not None:
        assert_allclose(one, two, rtol=1e-6, atol=1e-12)


@st.composite
def correctness(draw):
    """Two arms' correctness, 2 to 6 pairs on 4 to 40 test examples."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(2, 6)), draw(st.integers(4, 40))
    return tuple(rng.random(shape) < rate for rate in (0.5, 0.8))


class TestCrossed:
    @settings(deadline=None, max_examples=30)
    @given(correctness(), st.integers(0, 2**31))
    def test_the_same_generator_gives_the_same_interval(self, arms, seed):
        one, two = (crossed(*arms, resamples=100, seed=seed) for _ in range(2))
        assert one == two

    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 1000))
    def test_another_generator_moves_the_bootstrap_and_nothing_else(self, seed):
        rng = np.random.default_rng(0)
        arms = [rng.random((6, 200)) < rate for rate in (0.5, 0.6)]
        one, two = (crossed(*arms, resamples=101, seed=s) for s in (seed, seed + 1))
        assert (one.bootstrap_low, one.bootstrap_high) != (two.bootstrap_low, two.bootstrap_high)
        assert (one.estimate, one.low, one.high, one.split) == (
            two.estimate, two.low, two.high, two.split
        )  # fmt: skip

    @settings(deadline=None, max_examples=30)
    @given(correctness(), st.integers(0, 1000))
    def test_swapping_the_arms_mirrors_every_end(self, arms, seed):
        one = crossed(*arms, resamples=100, seed=seed)
        two = crossed(*arms[::-1], resamples=100, seed=seed)
        ends = (one.estimate, one.low, one.bootstrap_low, one.split.seed, one.split.example)
        mirrored = (-two.estimate, -two.high, -two.bootstrap_high, two.split.seed)
        assert_allclose(ends, (*mirrored, two.split.example), atol=1e-12)

    @settings(deadline=None, max_examples=30)
    @given(correctness(), st.integers(0, 1000))
    def test_the_order_of_pairs_and_examples_changes_no_interval(self, arms, seed):
        rng = np.random.default_rng(seed)
        n, m = arms[0].shape
        cells = np.ix_(rng.permutation(n), rng.permutation(m))
        a, b = (arm[cells] for arm in arms)
        one, two = crossed(*arms, resamples=100), crossed(a, b, resamples=100)
        assert_allclose((one.low, one.high), (two.low, two.high), atol=1e-12)
