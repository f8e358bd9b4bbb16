"""The live display: its lines at many widths, and the plain lines where there is no terminal."""

import io
import threading

import pytest
from rich.cells import cell_len
from rich.console import Console

from relucate.report.live import MOST_ROWS, LiveStudy

ARMS = ["linear-norm-act", "linear-act-norm"]


class Clock:
    """A clock that moves only when it is set."""

    now = 0.0

    def __call__(self):
        return self.now


def live_study(pairs=4, width=100, terminal=False, arms=ARMS, epochs=12, **options):
    """Return a LiveStudy on a console in memory, with that memory and its clock."""
    file, clock = io.StringIO(), Clock()
    console = Console(
        file=file, width=width, height=24, force_terminal=terminal, color_system=None, _environ={}
    )
    return LiveStudy(console, pairs, arms, epochs, clock=clock, **options), file, clock


def drawn(live, width):
    """Return the lines that the display shows now."""
    file = io.StringIO()
    Console(file=file, width=width, height=24, color_system=None).print(live.render())
    return file.getvalue().splitlines()


def midway(**options):
    """Return a study with one pair from the store and one in progress."""
    live, file, clock = live_study(**options)
    for arm, metric in zip(ARMS, (0.95, 0.961), strict=True):
        live.run_finished(arm, 0, metric, "done", 2.0, resumed=True)
    for arm in ARMS:
        live.run_started(arm, 1, 1)
    clock.now = 6.0
    live.run_progress(ARMS[0], 1, 6, 12)
    live.run_progress(ARMS[1], 1, 3, 12)
    live.difference(0.011, -0.002, 0.024, 2)
    return live, file, clock


def test_the_display_shows_pair_arm_epoch_time_and_difference():
    live, _, _ = midway(margin=0.005)
    lines = drawn(live, 100)
    assert "2/8 runs" in lines[0]
    assert "0:06 elapsed" in lines[0]
    # 2 x 6 s for 9 epochs; 4 x 12 + 6 + 9 epochs are open, two at a time
    assert "0:42 left" in lines[0]
    assert lines[1].startswith("pair 2 of 4  linear-norm-act")
    assert lines[1].rstrip().endswith("epoch 6/12")
    assert lines[2].rstrip().endswith("epoch 3/12")
    assert lines[3].startswith("+1.10 points after 2 pairs, 95 % interval -0.20 to +2.40")
    assert "●" in lines[4]
    assert lines[4].count("╋") == 1  # the margin on the side that the interval covers


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_console(width):
    live, _, _ = midway(width=width, margin=0.005)
    live.say("building both arms")
    lines = drawn(live, width)
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) <= 7


@pytest.mark.parametrize("width", [60, 80, 200])
def test_from_60_columns_every_run_shows_its_epoch(width):
    live, _, _ = midway(width=width)
    text = "\n".join(drawn(live, width))
    assert "epoch 6/12" in text
    assert "linear-norm-act" in text
    assert "left" in text


def test_status_shows_until_a_run_starts():
    live, _, _ = live_study(terminal=True)
    live._live = object()  # as if started: nothing is printed
    live.say("starting [workers]")
    assert any("starting [workers]" in line for line in drawn(live, 80))
    live.run_started(ARMS[0], 0, 0)
    assert not any("starting" in line for line in drawn(live, 80))


def test_many_runs_are_counted_rather_than_listed():
    live, _, _ = live_study(pairs=40, width=80)
    for seed in range(40):
        live.run_started(ARMS[0], seed, seed)
    lines = drawn(live, 80)
    assert sum("epoch" in line for line in lines) == MOST_ROWS
    assert any(f"and {40 - MOST_ROWS} more" in line for line in lines)


def test_plain_lines_where_there_is_no_terminal():
    live, file, _ = live_study(pairs=2)
    with live:
        live.say("starting workers")
        live.run_started(ARMS[0], 7, 0)
        live.run_progress(ARMS[0], 7, 12, 12)
        live.run_finished(ARMS[1], 7, 0.97, "done", 2.0)
        assert "pair" not in file.getvalue()
        live.run_finished(ARMS[0], 7, 0.96, "done", 2.0)
        live.difference(0.01, None, None, 1)
        live.run_finished(ARMS[0], 8, 0.96, "done", 2.0)
        live.run_finished(ARMS[1], 8, None, "diverged", 1.0)
        live.difference(-0.47, -6.0, 5.0, 2)
        live.difference(-0.47, -6.0, 5.0, 2)
    assert file.getvalue().splitlines() == [
        "starting workers",
        "pair 1 of 2 (seed 7): linear-norm-act 96.00 %, linear-act-norm 97.00 %, "
        "difference +1.00 points",
        "pair 2 of 2 (seed 8): linear-norm-act 96.00 %, linear-act-norm diverged",
        "  so far: -47.00 points after 2 pairs, 95 % interval -600.00 to +500.00 "
        "(linear-act-norm minus linear-norm-act)",
        "4 runs, 1 without a result",
    ]


def test_a_terminal_gets_a_display_that_goes_away_and_one_line_that_stays():
    live, file, _ = live_study(terminal=True, pairs=1)
    with live:
        for arm in ARMS:
            live.run_finished(arm, 0, 0.9, "done", 1.0, resumed=True)
    text = file.getvalue()
    assert "pair 1 of 1" not in text
    assert "\x1b[2K" in text
    assert text.endswith("2 runs, 2 taken from the store\n")


def test_stopped_before_any_run_it_says_nothing():
    live, file, _ = live_study()
    live.start()
    live.stop()
    live.stop()
    assert file.getvalue() == ""


def test_an_error_inside_still_stops_the_display():
    live, _, _ = live_study(terminal=True)
    with pytest.raises(KeyboardInterrupt), live:
        raise KeyboardInterrupt
    assert live._live is None


def test_calls_from_other_threads_while_drawing():
    live, _, _ = live_study(pairs=200, terminal=True)
    errors = []

    def work(arm):
        try:
            for seed in range(200):
                live.run_started(arm, seed, seed)
                live.run_progress(arm, seed, 6, 12)
                live.run_finished(arm, seed, 0.9, "done", 1.0)
        except Exception as error:
            errors.append(error)

    with live:
        threads = [threading.Thread(target=work, args=(arm,)) for arm in ARMS]
        for thread in threads:
            thread.start()
        for _ in range(20):
            live.render()
        for thread in threads:
            thread.join()
    assert errors == []
    assert live._pairs_done == 200


def test_identical_differences_show_no_interval():
    live, _, _ = midway(width=100)
    live.difference(0.011, 0.011, 0.011, 2)
    text = "\n".join(drawn(live, 100))
    assert "+1.10 points after 2 pairs (" in text
    assert "interval" not in text


def test_differences_are_of_the_arm_minus_its_reference_under_short_names():
    names = {"linear-norm-act": "before", "linear-act-norm": "after"}
    live, file, _ = live_study(pairs=2, compared=(ARMS[0], ARMS[1]), names=names, level=0.975)
    live.run_finished(ARMS[0], 0, 0.95, "done", 2.0)
    live.run_finished(ARMS[1], 0, 0.96, "done", 2.0)
    live.difference(-0.01, -0.02, 0.0, 2)
    lines = file.getvalue().splitlines()
    assert "before 95.00 %, after 96.00 %, difference -1.00 points" in lines[0]
    assert lines[1].endswith(
        "-1.00 points after 2 pairs, 97.5 % interval -2.00 to 0.00 (before minus after)"
    )


@pytest.mark.parametrize("width", [40, 80])
def test_the_echo_of_an_interruption_does_not_break_the_last_line(width):
    live, _, _ = midway(margin=0.005)
    live.console.width = width
    assert cell_len(drawn(live, width)[-1]) <= width - len("^C")
