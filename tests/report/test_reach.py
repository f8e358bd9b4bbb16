"""What is shown beside the verdict: new test examples, the variance split, classical figures."""

import json

import numpy as np
import pytest

from relucate.report import reach
from relucate.report.html import study_html
from relucate.report.numbers import Units
from relucate.report.terminal import verdict_table
from relucate.stats.classical import classical
from relucate.stats.crossed import crossed
from relucate.stats.paired import paired_difference
from relucate.train.metric import ACCURACY

UNITS = Units(ACCURACY)


def comparison(pairs=8, examples=200, seed=0, spread=0.05):
    """A comparison as `study.document` makes it, from drawn correctness."""
    random = np.random.default_rng(seed)
    level = 0.8 + spread * random.normal(size=(pairs, 1))
    a = random.random((pairs, examples)) < level
    b = random.random((pairs, examples)) < level + 0.05
    d = paired_difference(a.mean(1), b.mean(1))
    half = (d.high - d.low) / 2
    return {
        "arm": "linear-act-norm",
        "against": "linear-norm-act",
        "pairs": pairs,
        "correlation": d.correlation,
        "pairing_gain": 1.42,
        "difference": {**d.to_dict(), "method": "paired t"},
        "examples": crossed(a, b, half_width=half).to_dict(),
        "classical": classical(a.mean(1), b.mean(1), margin=0.005).to_dict(),
    }


def test_rows():
    made = comparison()
    rows = dict(reach.rows(made, UNITS))
    found = made["examples"]
    span = f"{100 * found['low']:+.2f} to {100 * found['high']:+.2f}"
    assert span in rows["95 % interval: new seeds, new test examples"]
    shares = rows["variance of the mean difference"]
    total = sum(found["split"]["parts"].values())
    assert f"seeds {100 * found['split']['parts']['seed'] / total:.0f} %" in shares
    assert rows["gain of pairing"].startswith("unpaired, 1.4 times as many runs")
    assert (
        f"{made['classical']['t_p']:.2f}"[:3]
        in rows["Student's t, as if the number of pairs had been fixed"]
        or "below" in rows["Student's t, as if the number of pairs had been fixed"]
    )
    assert rows["chance that linear-act-norm is ahead in a pair"].count("%") == 3


@pytest.mark.parametrize("limit", list(reach.LIMITS))
def test_what_limits_is_said_in_both_places(limit):
    made = json.loads(json.dumps(comparison()))
    made["examples"]["split"]["limit"] = limit
    assert dict(reach.rows(made, UNITS))["what limits it"] == reach.LIMITS[limit]
    assert reach.SHORT[limit] in reach.line(made, UNITS)


def test_few_pairs_have_no_wilcoxon_p():
    rows = dict(reach.rows(comparison(pairs=4), UNITS))
    assert rows["Wilcoxon signed rank"] == "p not defined for these differences"


def test_no_gain_is_said():
    rows = dict(reach.rows({**comparison(), "pairing_gain": 0.8}, UNITS))
    assert rows["gain of pairing"].startswith("none")


def test_a_study_of_an_earlier_version_shows_nothing(study):
    assert reach.line(study["comparisons"][0], UNITS) == ""
    assert "How far it reaches" not in study_html(study)


def test_on_the_page_and_in_the_terminal(study):
    made = comparison()
    study["comparisons"][0] |= {key: made[key] for key in ("examples", "classical")}
    page = study_html(study)
    assert "<summary>How far it reaches: " in page
    assert "crossed bootstrap" in page
    from rich.console import Console

    console = Console(width=100, record=True, force_terminal=False)
    with console.capture() as caught:
        console.print(verdict_table(study))
    assert "for new test examples too" in caught.get()


def test_identical_differences_have_words_in_the_place_of_intervals():
    same = {"estimate": 0.0, "low": None, "high": None}
    learning = {
        "area": same,
        "steps": {**same, "means": [22.0, 22.0]},
        "target": 0.9,
        "reached": [8, 8],
    }
    made = comparison()
    made |= {"difference": {**same, "degenerate": True}, "examples": None, "learning": learning}
    made |= {"correlation": None, "classical": {**made["classical"], "t_low": None, "t_high": None}}
    rows = dict(reach.rows(made, UNITS))
    assert (
        rows["steps to 90.00 % test accuracy"] == "0 (the same in all 8 pairs): 22.0 against 22.0"
    )
    area = "mean test accuracy over all epochs (area under the learning curve)"
    assert rows[area] == "0.00 (the same in all 8 pairs)"
    assert rows["Student's t, as if the number of pairs had been fixed"].startswith(
        "no interval, p"
    )
    assert rows["gain of pairing"].endswith("(correlation not defined)")
    assert reach.line(made, UNITS) == ""


def test_steps_are_the_difference_of_the_means_beside_them():
    steps = {"estimate": -7.52, "low": -12.0, "high": -3.0, "means": [34.36, 26.84]}
    found = {"area": steps, "steps": steps, "target": 0.9, "reached": [8, 8]}
    text = dict(reach.rows({**comparison(), "learning": found}, UNITS))
    assert text["steps to 90.00 % test accuracy"] == "-7.6 (-12.0 to -3.0): 26.8 against 34.4"


def test_steps_that_round_to_zero_have_no_sign():
    ends = {"estimate": -12.0, "low": -25.0, "high": -0.04}
    steps = {**ends, "means": [23.0, 11.0]}
    learning = {"area": ends, "steps": steps, "target": 0.9, "reached": [8, 8]}
    rows = dict(reach.rows({**comparison(), "learning": learning}, UNITS))
    assert rows["steps to 90.00 % test accuracy"].startswith("-12.0 (-25.0 to 0): 11.0")
