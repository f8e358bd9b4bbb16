"""What no study should meet, and some do: each has a stated answer, and nothing is ever NaN.

Margins, levels and lists of scores that single functions refuse are in those functions' tests; here
are the answers on odd but allowed scores, and the refusals of what goes with a verdict.
"""

import json
import math
import re

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.stats import decide, dependence, paired_difference, sentence
from relucate.stats.classical import classical, superiority_interval, tost_p, wilcoxon_p
from relucate.stats.crossed import crossed, unpack, variance_split
from relucate.stats.sequential import Monitor
from relucate.train.metric import ACCURACY

NAN, INF = float("nan"), float("inf")
MARGIN = 0.005
GOOD = [0.91, 0.92, 0.90, 0.93, 0.91, 0.92, 0.94, 0.90, 0.91, 0.92]


def looked(a, b, margin, diverged):
    return Monitor().decide(a, b, margin=margin, diverged=diverged)


def fixed(a, b, margin, diverged):
    return decide(paired_difference(a, b), margin=margin, diverged=diverged)


ODD = {  # name -> (a, b, margin, diverged, expected answer or reason)
    "one pair": ([0.9], [0.8], MARGIN, (0, 0), "too few pairs"),
    "one pair that diverged": ([0.0], [0.0], MARGIN, (1, 1), "all runs diverged"),
    "two pairs": (GOOD[:2], GOOD[2:4], MARGIN, (0, 0), "too few pairs"),
    "two pairs, one arm diverged": (GOOD[:2], [0.0] * 2, MARGIN, (0, 2), "too few pairs"),
    "constant and equal": ([0.5] * 4, [0.5] * 4, MARGIN, (0, 0), "identical differences"),
    "constant and apart": ([0.5] * 4, [0.7] * 4, MARGIN, (0, 0), "identical differences"),
    "constant and equal, often": ([0.5] * 9, [0.5] * 9, MARGIN, (0, 0), "equivalent"),
    "constant and apart, often": ([0.5] * 9, [0.7] * 9, MARGIN, (0, 0), "better"),
    "one arm constant": ([0.5] * 10, GOOD, MARGIN, (0, 0), "better"),
    "one arm diverged": (GOOD, [0.0] * 10, MARGIN, (0, 10), "better"),
    "one arm diverged, the other constant": ([0.9] * 9, [0.0] * 9, MARGIN, (0, 9), "better"),
    "both arms diverged": ([0.0] * 10, [0.0] * 10, MARGIN, (10, 10), "all runs diverged"),
    "one run diverged": ([0.0, *GOOD[1:]], GOOD, MARGIN, (1, 0), "interval too wide"),
    "all right": ([1.0] * 9, [1.0] * 9, MARGIN, (0, 0), "equivalent"),
    "all wrong, none diverged": ([0.0] * 9, [0.0] * 9, MARGIN, (0, 0), "equivalent"),
    "below the smallest normal number": (
        [1e-310, 2e-310, 3e-310], [2e-310, 5e-310, 9e-310], 1e-300, (0, 0), "identical differences"
    ),
    "nearly too large": ([1e149, 2e149, 3e149], [2e149, 5e149, -9e149], 1e149, (0, 0),
                         "interval too wide"),
    "a margin next to zero": (GOOD[:3], GOOD[3:6], 5e-324, (0, 0), "interval too wide"),
    "a margin beyond everything": (GOOD[:3], GOOD[3:6], 1e300, (0, 0), "equivalent"),
}  # fmt: skip


@pytest.mark.parametrize("rule", [looked, fixed])
@pytest.mark.parametrize("name", ODD)
class TestOddButAllowed:
    def test_the_stated_answer(self, name, rule):
        a, b, margin, diverged, expected = ODD[name]
        verdict = rule(a, b, margin, diverged)
        assert expected == (verdict.reason or verdict.verdict)
        assert (verdict.verdict == "inconclusive") == (verdict.reason is not None)
        assert (verdict.verdict == "better") == (verdict.winner is not None)
        assert verdict.diverged == diverged

    def test_plain_json_and_words_without_nan(self, name, rule):
        a, b, margin, diverged, _ = ODD[name]
        verdict = rule(a, b, margin, diverged)
        assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False)) == verdict.to_dict()
        texts = (
            sentence(verdict, "before", "after", ACCURACY),
            dependence(verdict, "after", "before", "act", ("relu", "tanh"), ACCURACY),
        )
        assert not re.search(r"\bnan\b|\binf\b|None", " ".join(texts))

    def test_the_figures_beside_it_are_plain_json_too(self, name, rule):
        del rule
        a, b, margin, _, _ = ODD[name]
        json.dumps(classical(a, b, margin=margin).to_dict(), allow_nan=False)


class TestAskedOfTheMonitor:
    """The refusals of `paired_difference` and `decide` come through."""

    @pytest.mark.parametrize(
        ("a", "b", "message"),
        [
            ([], [], "at least one pair"),
            ([0.1, 0.2, 0.3], [0.1, 0.2], "3 scores of arm a and 2 of arm b"),
            (np.ones((3, 2)), np.ones(3), r"arm a, shape \(n,\), got shape \(3, 2\)"),
            ([0.1, 0.2, 0.3], [0.1, INF, 0.3], "got inf at index 1 of arm b"),
            ([0.1, None, 0.3], [0.1, 0.2, 0.3], "got nan at index 1 of arm a"),
            (["good"] * 3, [0.1] * 3, "arm a, got .*'good'"),
        ],
    )
    def test_scores(self, a, b, message):
        with pytest.raises(InputError, match=message):
            Monitor().decide(a, b, margin=MARGIN)

    @pytest.mark.parametrize(("diverged", "wrong"), [((4, 0), 4), ((0, -1), -1)])
    def test_diverged_runs(self, diverged, wrong):
        with pytest.raises(InputError, match=f"between 0 and 3 diverged .* got {wrong}"):
            Monitor().decide(GOOD[:3], GOOD[3:6], margin=MARGIN, diverged=diverged)


class TestBesideAVerdict:
    @pytest.mark.parametrize("margin", [0, -0.1, NAN, INF])
    @pytest.mark.parametrize("function", [classical, tost_p])
    def test_a_margin_that_is_none(self, function, margin):
        with pytest.raises(InputError, match=f"margin above 0, got {margin}"):
            function(GOOD[:3], GOOD[3:6], margin=margin)

    @pytest.mark.parametrize("level", [0, 1, -0.1, 95, NAN])
    def test_a_level_that_is_none(self, level):
        with pytest.raises(InputError, match=f"got {level}"):
            superiority_interval(GOOD[:3], GOOD[3:6], level=level)
        with pytest.raises(InputError, match=f"got {level}"):
            crossed(np.eye(3, dtype=bool), np.ones((3, 3), bool), level=level)

    @pytest.mark.parametrize("half_width", [-1e-9, NAN, INF])
    def test_a_half_width_that_is_none(self, half_width):
        with pytest.raises(InputError, match=f"half-width of 0 or more, got {half_width}"):
            crossed(np.eye(3, dtype=bool), np.ones((3, 3), bool), half_width=half_width)

    def test_scores_that_are_none(self):
        with pytest.raises(InputError, match="got nan at index 0 of arm a"):
            wilcoxon_p([NAN, 0.1], [0.1, 0.2])

    @pytest.mark.parametrize("d", [np.ones(4), np.ones((1, 4)), np.full((3, 3), NAN)])
    def test_differences_that_can_not_be_split(self, d):
        with pytest.raises(InputError, match="at least 2 pairs on at least 2 examples"):
            variance_split(d)

    def test_bits_without_a_shape(self):
        with pytest.raises(InputError, match=r"1 bytes for 8 examples, got shape \(\)"):
            unpack(np.uint8(7), 8)

    def test_constant_correctness_has_no_limit_and_no_nan(self):
        never, always = np.zeros((3, 4), bool), np.ones((3, 4), bool)
        found = crossed(never, always).to_dict()
        assert (found["low"], found["high"], found["split"]["limit"]) == (1.0, 1.0, None)
        assert all(math.isfinite(part) for part in found["split"]["parts"].values())
        json.dumps(found, allow_nan=False)
