"""Area under a learning curve, and epochs to a target."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relucate.stats.curves import area, common_target, epochs_to

CURVES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(CURVES)
def test_area_is_numpys_trapezoid(curve):
    whole = np.trapezoid(curve) / (len(curve) - 1) if len(curve) > 1 else curve[0]
    assert np.isclose(area(curve), whole)


@given(CURVES, st.floats(0.01, 1))
def test_epochs_to_is_where_the_line_crosses(curve, target):
    found = epochs_to(curve, target)
    if found is None:
        assert max(curve) < target
        return
    assert 1 <= found <= len(curve)
    assert np.interp(found, np.arange(1, len(curve) + 1), curve) >= target - 1e-6
    assert all(score < target for score in curve[: int(np.ceil(found)) - 1])


@pytest.mark.parametrize("curve", [[], [None], [0.5, None]])
def test_a_curve_with_gaps_has_no_area(curve):
    assert area(curve) is None


def test_a_gap_is_not_crossed():
    assert epochs_to([0.1, None, 0.9], 0.5) == 3.0


@given(CURVES, st.floats(0.01, 1))
def test_lower_is_better_mirrors_exactly(curve, target):
    down = [-score for score in curve]
    assert epochs_to(down, -target, lower_is_better=True) == epochs_to(curve, target)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_the_common_target_is_reached_by_all_and_mirrors(ends):
    target = common_target(ends)
    assert all(end >= target for end in ends)
    assert common_target([-end for end in ends], lower_is_better=True) == -target
