"""Numbers as people read them: rounding, signs, and what isn't known."""

import math

import pytest

from relucate.phrases import count
from relucate.report import numbers
from relucate.report.numbers import Units
from relucate.train.metric import ACCURACY, Metric

UNITS = Units(ACCURACY)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.00614, "+0.61"), (-0.0351, "-3.51"), (0.0, "0.00"), (-1e-6, "0.00"), (1e-6, "0.00")],
)
def test_points_are_signed_unless_they_round_to_zero(fraction, text):
    assert UNITS.difference(fraction) == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_a_number_is_a_dash(value):
    shown = (UNITS.value, UNITS.difference, numbers.plain, numbers.duration)
    assert [show(value) for show in shown] == ["-"] * 4
    assert UNITS.interval(value, 0.1) == UNITS.interval(0.1, value) == "-"
    assert numbers.clock(value) == "-:--"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (3600, "1 h 0 min"),
    ],
)
def test_durations_round_without_sixty_seconds(seconds, text):
    assert numbers.duration(seconds) == text


def test_counts_take_the_plural():
    assert count(1, "pair") == "1 pair"
    assert count(0, "pair") == "0 pairs"
    assert count(12_345, "run") == "12,345 runs"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.005, "0.50"), (0.00125, "0.125"), (0.0033, "0.33"), (1e-5, "0.001"), (1e-11, "1e-09")],
)
def test_a_margin_keeps_its_digits(fraction, text):
    assert UNITS.margin(fraction) == text
    assert UNITS.margin(None) == "-"


def test_a_metric_without_a_unit_shows_as_many_digits_as_its_margin_asks_for():
    units = Units.of(Metric("AUC"), margin=0.002)
    assert (units.valued(0.91237), units.differing(-0.00049)) == ("0.9124", "-0.0005")
    assert units.margin(0.002) == "0.002"


def test_a_metric_with_a_unit_of_its_own():
    units = Units.of(Metric("MAE", lower_is_better=True, unit="mm"), margin=0.5)
    assert (units.valued(31.237), units.differing(-0.004)) == ("31.24 mm", "0.00 mm")
    assert units.valued(None) == units.differing(None) == "-"
