"""The time left: from the epochs so far, partial ones included, stored runs excluded."""

import pytest

from relucate.report.pace import Pace


class Clock:
    """A clock that moves only when it is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_nothing_is_known_before_the_first_epoch(clock):
    pace = Pace(4, 10, clock)
    pace.begin("a")
    clock.now += 30
    assert pace.left() is None
    assert pace.share == 0


def test_two_runs_side_by_side_halve_the_time(clock):
    pace = Pace(4, 10, clock)
    pace.begin("a")
    pace.begin("b")
    clock.now += 10
    pace.progress("a", 5)
    pace.progress("b", 5)
    assert pace.share == 0.25
    assert pace.left() == pytest.approx(30 * 2 / 2)  # 30 epochs of 2 s, two at a time


def test_the_time_left_falls_between_reports_by_at_most_an_epoch(clock):
    pace = Pace(2, 10, clock)
    pace.begin("a")
    clock.now += 2
    pace.progress("a", 1)
    assert pace.left() == pytest.approx(38)
    clock.now += 1
    assert pace.left() == pytest.approx(37)
    clock.now += 50
    assert pace.left() == pytest.approx(36)


def test_runs_from_the_store_count_as_done_but_not_as_work(clock):
    pace = Pace(4, 10, clock)
    pace.finish("stored")
    pace.finish("stored too")
    assert (pace.share, pace.left()) == (0.5, None)
    pace.begin("a")
    clock.now += 20
    pace.progress("a", 10)
    pace.finish("a")
    assert pace.left() == pytest.approx(20)


def test_a_diverged_run_leaves_no_epochs_behind(clock):
    pace = Pace(2, 10, clock)
    pace.begin("a")
    clock.now += 3
    pace.progress("a", 3)
    pace.finish("a")
    assert pace.share == 0.5
    assert pace.left() == pytest.approx(10)


def test_all_done_leaves_nothing(clock):
    pace = Pace(1, 2, clock)
    pace.progress("never announced", 2, 2)
    pace.finish("never announced")
    assert pace.share == 1
    assert pace.left() in (None, 0)


def test_a_run_with_its_own_number_of_epochs(clock):
    pace = Pace(1, 10, clock)
    pace.begin("a")
    clock.now += 5
    pace.progress("a", 5, 20)
    assert pace.left() == pytest.approx(15)
