"""The interval in one line: its width, where its marks are, and when there is none."""

from functools import partial

import pytest

from relucate.report import strip
from relucate.report.numbers import Units
from relucate.report.strip import ASCII, LINES, NARROWEST
from relucate.train.metric import ACCURACY, Metric

interval_strip = partial(strip.interval_strip, units=Units(ACCURACY))


@pytest.mark.parametrize("width", range(NARROWEST, 90, 7))
@pytest.mark.parametrize("estimate", [-0.3, -0.004, 0.0, 0.0061, 0.98])
def test_a_strip_never_exceeds_its_width_and_has_its_marks(width, estimate):
    strip = interval_strip(
        estimate, estimate - 0.002, estimate + 0.002, margin=0.005, width=width, marks=ASCII
    )
    assert width - 1 <= len(strip) <= width
    assert strip.count("o") == 1


def test_zero_stands_in_the_middle_and_signs_show_sides():
    strip = interval_strip(0.01, 0.008, 0.012, margin=0.005, width=41, marks=LINES)
    axis = strip.split()[1]
    assert axis[len(axis) // 2] == LINES.zero
    assert axis.index(LINES.estimate) > len(axis) // 2
    mirrored = interval_strip(-0.01, -0.012, -0.008, margin=0.005, width=41, marks=LINES)
    assert mirrored.split()[1] == axis[::-1]


def test_an_interval_over_zero_shows_zero_inside():
    strip = interval_strip(0.01, -0.008, 0.028, margin=0.005, width=60, marks=ASCII)
    assert ASCII.zero_inside in strip
    assert strip.split()[1].count(ASCII.margin_inside) == 2


def test_without_an_interval_only_the_estimate_is_drawn():
    strip = interval_strip(0.004, None, None, margin=0.005, width=40, marks=ASCII)
    assert "=" not in strip
    assert "o" in strip


@pytest.mark.parametrize(("estimate", "width"), [(None, 40), (float("nan"), 40), (0.1, 20)])
def test_nothing_to_draw_is_no_strip(estimate, width):
    assert interval_strip(estimate, None, None, width=width) == ""


def test_labels_take_the_metrics_unit_and_digits():
    units = Units.of(Metric("AUC"), margin=0.005)
    line = strip.interval_strip(0.006, None, None, units=units, margin=0.005, width=40)
    assert line.startswith("-0.007 ")
    assert line.endswith(" +0.007")
    zero = strip.interval_strip(0.0, None, None, units=units, width=40)
    assert zero.startswith("-0.001 ")
