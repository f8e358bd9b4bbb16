"""Classical figures against SciPy and statsmodels; ties, zeros, identical differences."""

import json

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from relucate.errors import InputError
from relucate.stats.classical import classical, superiority, tost_p, wilcoxon_p


def arms(n, seed, shift=0.2):
    random = np.random.default_rng(seed)
    a = random.normal(size=n)
    return a, a + random.normal(size=n) * 0.7 + shift


@pytest.mark.parametrize("n", [2, 3, 6, 12, 40])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_scipy_and_statsmodels(n, seed):
    a, b = arms(n, seed)
    found = classical(a, b, margin=0.5, level=0.9)
    known = scipy_stats.ttest_rel(b, a)
    assert found.t_p == pytest.approx(known.pvalue)
    low, high = known.confidence_interval(0.9)
    assert (found.t_low, found.t_high) == (pytest.approx(low), pytest.approx(high))
    assert found.tost_p == pytest.approx(ttost_paired(b, a, -0.5, 0.5)[0])
    wins = int(np.sum(b > a))
    interval = proportion_confint(wins, n, 0.1, "beta")
    shown = (found.superiority_low, found.superiority_high)
    assert shown == (pytest.approx(np.nan_to_num(interval[0], nan=0.0)), pytest.approx(interval[1]))
    if n >= 6:
        exact = scipy_stats.wilcoxon(b, a, method="exact").pvalue
        assert found.wilcoxon_p == pytest.approx(exact)
    else:
        assert found.wilcoxon_p is None


def test_wilcoxon_with_ties_is_exact_given_them():
    d = np.array([1.0, 1.0, 2.0, -2.0, 3.0, 1.0, 0.0])
    kept = d[d != 0]
    ranks = scipy_stats.rankdata(np.abs(kept))
    signs = np.array(np.meshgrid(*[[0, 1]] * len(kept))).reshape(len(kept), -1)
    sums = ranks @ signs
    seen = ranks[kept > 0].sum()
    smaller = min(seen, ranks.sum() - seen)
    expected = min(1.0, 2 * np.mean(sums <= smaller + 1e-9))
    assert wilcoxon_p(np.zeros(7), d) == pytest.approx(expected)


def test_many_pairs_are_taken_as_normal():
    a, b = arms(400, 3, 0.05)
    expected = scipy_stats.wilcoxon(b, a, method="asymptotic", correction=False).pvalue
    assert wilcoxon_p(a, b) == pytest.approx(expected, rel=1e-6)


def test_swapping_the_arms_mirrors():
    a, b = arms(9, 4)
    one, two = classical(a, b, margin=0.3), classical(b, a, margin=0.3)
    assert one.t_p == pytest.approx(two.t_p)
    assert one.wilcoxon_p == pytest.approx(two.wilcoxon_p)
    assert one.superiority == pytest.approx(1 - two.superiority)
    assert one.superiority_low == pytest.approx(1 - two.superiority_high)
    assert one.tost_p == pytest.approx(two.tost_p)


def test_nothing_is_ever_nan():
    for a, b in (([0.5], [0.6]), ([0.5] * 8, [0.5] * 8), ([0.1] * 7, [0.2] * 7)):
        data = classical(a, b, margin=0.01).to_dict()
        json.dumps(data, allow_nan=False)
        assert data["t_p"] is None
        assert tost_p(a, b, margin=0.01) is None
    assert superiority([1.0] * 4, [1.0] * 4) == 0.5


def test_bad_input():
    with pytest.raises(InputError, match="margin above 0"):
        classical([1.0, 2.0], [1.0, 3.0], margin=0)
    with pytest.raises(InputError, match="pairs"):
        classical([1.0], [1.0, 2.0], margin=1)
    with pytest.raises(InputError, match="level"):
        classical([1.0, 2.0], [1.0, 3.0], margin=1, level=1.0)
