"""Welch's interval: against SciPy, mirrored, refused without spread, in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from relucate.errors import InputError
from relucate.stats import decide, sentence
from relucate.stats.welch import welch_difference
from relucate.train.metric import Metric

numbers = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(a=numbers, b=numbers, level=st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_it_is_scipys(a, b, level):
    a, b = np.array(a), np.array(b)
    if min(a.std(), b.std()) < 0.01:  # SciPy warns
        return
    found = welch_difference(a, b, level=level)
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(level)
    largest = np.abs([*a, *b]).max()
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-6, atol=1e-4 * largest)
    assert found.runs == (len(a), len(b))


def test_it_is_scipys_to_the_last_digits():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 7), rng.normal(1, 3, 12)
    found = welch_difference(a, b)
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)


@given(a=numbers, b=numbers)
def test_the_arms_mirror(a, b):
    if max(np.std(a), np.std(b)) < 0.01:
        return
    one, other = welch_difference(a, b), welch_difference(b, a)
    assert (one.low, one.high, one.estimate) == (-other.high, -other.low, -other.estimate)


def test_no_spread_is_refused():
    with pytest.raises(InputError, match="compare them in pairs"):
        welch_difference([1.0, 1.0], [2.0, 2.0, 2.0])


def test_a_single_run_has_no_interval():
    found = welch_difference([1.0], [2.0, 3.0])
    assert found.low is found.high is found.sd is None
    assert decide(found, margin=0.1).reason == "too few pairs"


def test_the_verdict_in_words():
    d = welch_difference([2.0, 2.1, 1.9, 2.0], [3.0, 3.1, 2.9])
    metric = Metric("MAE", lower_is_better=True, worst=9.0)
    verdict = decide(d, margin=0.1, lower_is_better=True, diverged=(1, 3))
    text = sentence(verdict, "b", "a", metric)
    assert text.startswith("a is better than b, which is behind with MAE higher by 1.00 (95 % int")
    assert "4 and 3 runs)" in text
    assert "1 of 4 runs of a and 3 of 3 runs of b diverged" in text


def test_what_is_open_in_words():
    d = welch_difference([2.0, 3.1, 1.9, 2.0], [3.0, 1.1, 2.9])
    text = sentence(decide(d, margin=0.1), "b", "a", Metric("AUC"))
    assert "runs of each arm in all would settle it" in text
    few = welch_difference([2.0, 3.1], [3.0, 1.1, 2.9])
    text = sentence(decide(few, margin=0.1), "b", "a", Metric("AUC"))
    assert "a verdict needs at least 3 runs of each arm, and there are 2 and 3" in text


def test_too_many_diverged_runs_are_refused():
    d = welch_difference([2.0, 2.1, 1.9, 2.0], [3.0, 3.1, 2.9])
    with pytest.raises(InputError, match="between 0 and 3 diverged"):
        decide(d, margin=0.1, diverged=(0, 4))
