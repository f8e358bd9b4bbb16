"""The plan of looks: what it spends, the stored bounds, and both against simulated studies."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from relucate.errors import InputError
from relucate.stats.bounds import KNOTS, VALUES
from relucate.stats.spending import FIRST, LAST, critical_value, critical_values, spent

STUDIES, LOOKS = 200_000, 30


@pytest.fixture(scope="module")
def t_of_null_studies():
    """|t| after every pair from the third to the thirtieth, normal d with mean 0."""
    rng = np.random.default_rng(7)
    d = rng.standard_normal((STUDIES, LOOKS))
    n = np.arange(1, LOOKS + 1)
    mean = np.cumsum(d, 1) / n
    variance = (np.cumsum(d * d, 1) - n * mean**2)[:, 2:] / (n[2:] - 1)
    return np.abs(mean[:, 2:]) * np.sqrt(n[2:] / variance)


class TestSpent:
    def test_the_stated_numbers(self):
        found = [round(100 * spent(n, 0.95), 2) for n in (2, 3, 10, 30, 120)]
        assert found == [0.0, 0.57, 2.78, 4.34, 4.93]

    @pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
    def test_it_grows_and_never_reaches_the_budget(self, level):
        plan = [spent(n, level) for n in range(2, 2000)]
        assert all(later > earlier for earlier, later in itertools.pairwise(plan))
        assert plan[-1] < 1 - level

    def test_the_thirteen_percent_kept_for_later(self):
        assert 1 - spent(30, 0.95) / 0.05 == pytest.approx(0.13, abs=0.005)


class TestCriticalValues:
    @pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99])
    def test_the_first_look_is_a_plain_t_test_at_its_share(self, level):
        expected = scipy_stats.t.isf(spent(3, level) / 2, 2)
        assert critical_value(3, level) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99])
    def test_simulated_studies_cross_as_planned(self, level, t_of_null_studies):
        bounds = [critical_value(n, level) for n in range(FIRST, LOOKS + 1)]
        crossed = np.maximum.accumulate(t_of_null_studies > bounds, axis=1).mean(0)
        planned = np.array([spent(n, level) for n in range(FIRST, LOOKS + 1)])
        error = np.sqrt(planned * (1 - planned) / STUDIES)
        assert np.all(np.abs(crossed - planned) < 4.5 * error)

    @pytest.mark.parametrize("level", sorted(VALUES))
    def test_the_stored_values_are_the_computed_ones(self, level):
        computed = critical_values(level, 120, grid=2000)
        stored = np.array([critical_value(n, level) for n in range(FIRST, 121)])
        np.testing.assert_allclose(stored, computed, rtol=1e-3)

    @pytest.mark.slow
    @pytest.mark.parametrize("level", sorted(VALUES))
    def test_the_stored_values_are_the_computed_ones_to_the_end(self, level):
        computed = critical_values(level, LAST)
        stored = np.array([critical_value(n, level) for n in range(FIRST, LAST + 1)])
        np.testing.assert_allclose(stored, computed, rtol=5e-3)

    def test_the_table_is_whole(self):
        assert KNOTS[0] == FIRST
        assert KNOTS[-1] == LAST
        assert all(len(values) == len(KNOTS) for values in VALUES.values())

    def test_a_higher_level_has_wider_bounds_at_every_look(self):
        levels = [critical_values(level, 60) for level in (0.5, 0.8, 0.9, 0.95, 0.975, 0.9999)]
        for narrow, wide in itertools.pairwise(levels):
            assert np.all(narrow < wide)

    @pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
    def test_intervals_shrink_with_every_pair(self, level):
        factors = [critical_value(n, level) / math.sqrt(n) for n in range(FIRST, LAST + 1)]
        assert np.all(np.diff(factors) < 0)

    def test_they_are_wider_than_students_at_every_look(self):
        for n in range(FIRST, LAST + 1):
            assert critical_value(n, 0.95) > scipy_stats.t.ppf(0.975, n - 1)

    def test_they_can_not_be_written_to(self):
        with pytest.raises(ValueError, match="read-only"):
            critical_values(0.8, 10)[0] = 1.0


class TestBadInput:
    @pytest.mark.parametrize("n", [-1, 0, 2, 1001])
    def test_pairs_out_of_the_plan(self, n):
        with pytest.raises(InputError, match=f"3 to 1,000 pairs .* got {n}"):
            critical_value(n, 0.95)

    @pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95, float("nan"), 0.4, 0.99999])
    def test_levels_that_have_no_bounds(self, level):
        with pytest.raises(InputError, match=f"{level}"):
            critical_value(5, level)
