"""Golden sentences: one for every form that a verdict can take."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relucate.phrases import Named, in_words
from relucate.stats.paired import FIXED_N, PairedDifference, paired_difference
from relucate.stats.verdict import decide
from relucate.stats.wording import sentence
from relucate.train.metric import ACCURACY, Metric

AFTER, BEFORE = in_words(Named("linear-act-norm", "relu"), Named("linear-norm-act", "relu"))


def difference(estimate, half, *, n=10, level=0.95, sd=0.01):
    """A difference in points with this half-width; None for a single pair."""
    low, high = (None, None) if half is None else (estimate - half, estimate + half)
    low, high = (None if end is None else end / 100 for end in (low, high))
    return PairedDifference(estimate / 100, low, high, level, FIXED_N, n, sd, None)


ERROR = Metric("MAE", lower_is_better=True, unit="mm", worst=100.0)
AUC = Metric("AUC", worst=0.0)


def of(metric, d, *, margin, diverged=(0, 0)):
    lower = metric.lower_is_better
    verdict = decide(d, margin=margin, diverged=diverged, lower_is_better=lower)
    return sentence(verdict, AFTER, BEFORE, metric)


def accuracy(d, *, margin=0.005, **options):
    return of(ACCURACY, d, margin=margin, **options)


OTHERS = {
    "lower is better": (
        of(ERROR, difference(-94, 32), margin=0.5),
        "Norm after the ReLU is better: MAE lower by 0.94 mm "
        "(95 % interval -1.26 to -0.62, 10 pairs). "
        "The whole interval lies beyond the margin of 0.5 mm.",
    ),
    "lower is better, the first arm": (
        of(ERROR, difference(94, 92), margin=1.0),
        "Norm before the ReLU is better: norm after it is behind with MAE higher by 0.94 mm "
        "(95 % interval 0.02 to 1.86, 10 pairs). "
        "The difference may be smaller than the margin of 1 mm.",
    ),
    "lower is better, equivalent": (
        of(ERROR, difference(-5, 25), margin=0.5),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 mm: "
        "MAE lower by 0.05 mm (95 % interval -0.30 to 0.20, 10 pairs).",
    ),
    "lower is better, level on average": (
        of(ERROR, difference(0.0, 25), margin=0.5),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 mm: "
        "the same MAE on average (95 % interval -0.25 to 0.25, 10 pairs).",
    ),
    "lower is better, some diverged": (
        of(ERROR, difference(3200, 3100), margin=0.5, diverged=(0, 3)),
        "Norm before the ReLU is better: norm after it is behind with MAE higher by 32.00 mm "
        "(95 % interval 1.00 to 63.00, 10 pairs). "
        "The whole interval lies beyond the margin of 0.5 mm. "
        "3 of 10 runs of norm after the ReLU diverged; "
        "a diverged run counts with an MAE of 100 mm, or the other arm's if that is worse.",
    ),
    "no unit, small numbers": (
        of(AUC, difference(0.61, 0.26), margin=0.005),
        "Norm after the ReLU is better: +0.0061 AUC "
        "(95 % interval 0.0035 to 0.0087, 10 pairs). "
        "The difference may be smaller than the margin of 0.005.",
    ),
    "no unit, one pair": (
        of(AUC, difference(0.3, None, n=1, sd=None), margin=0.01),
        "Inconclusive: a verdict needs at least 3 pairs, and there is 1; so far norm after the "
        "ReLU is ahead by 0.003 AUC (no interval, margin 0.01).",
    ),
}


@pytest.mark.parametrize("form", OTHERS)
def test_sentence_of_another_metric(form):
    text, expected = OTHERS[form]
    assert text == expected


GOLDEN = {
    "better, clears the margin": (
        accuracy(difference(0.94, 0.32)),
        "Norm after the ReLU is better: +0.94 points of accuracy "
        "(95 % interval 0.62 to 1.26, 10 pairs). "
        "The whole interval lies beyond the margin of 0.5 points.",
    ),
    "better, may be smaller than the margin": (
        accuracy(difference(0.61, 0.26)),
        "Norm after the ReLU is better: +0.61 points of accuracy "
        "(95 % interval 0.35 to 0.87, 10 pairs). "
        "The difference may be smaller than the margin of 0.5 points.",
    ),
    "better, the first arm, another level and margin": (
        accuracy(difference(-6.02, 0.80, n=1200, level=0.999), margin=0.01),
        "Norm before the ReLU is better: norm after it is behind by 6.02 points of accuracy "
        "(99.9 % interval -6.82 to -5.22, 1,200 pairs). "
        "The whole interval lies beyond the margin of 1 point.",
    ),
    "better, identical differences": (
        accuracy(difference(0.83, 0.0, n=6, sd=0.0)),
        "Norm after the ReLU is better: +0.83 points of accuracy "
        "(the same in all 6 pairs, by a sign test). "
        "It lies beyond the margin of 0.5 points.",
    ),
    "equivalent": (
        accuracy(difference(0.05, 0.25)),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 points: "
        "+0.05 points of accuracy "
        "(95 % interval -0.20 to 0.30, 10 pairs).",
    ),
    "equivalent, level on average": (
        accuracy(difference(0.0, 0.25)),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 points: "
        "the same accuracy on average (95 % interval -0.25 to 0.25, 10 pairs).",
    ),
    "equivalent, the same in every pair": (
        accuracy(difference(0.0, 0.0, n=7, sd=0.0)),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 points: "
        "the same accuracy on average (the same in all 7 pairs, by a sign test).",
    ),
    "equivalent though real": (
        accuracy(difference(-0.20, 0.10)),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 points: "
        "-0.20 points of accuracy (95 % interval -0.30 to -0.10, 10 pairs). "
        "The difference is real, but smaller than the margin.",
    ),
    "inconclusive, about how many more": (
        accuracy(difference(0.30, 0.70, n=5, sd=0.0056)),
        "Inconclusive: norm after the ReLU is ahead by 0.30 points of accuracy "
        "(95 % interval -0.40 to 1.00, 5 pairs). "
        "The interval includes zero and goes beyond the margin of 0.5 points. "
        "About 16 pairs in all would settle it, if the difference and its spread stay as they are.",
    ),
    "inconclusive, out of reach": (
        accuracy(difference(0.30, 124.0, n=5, sd=1.0)),
        "Inconclusive: norm after the ReLU is ahead by 0.30 points of accuracy "
        "(95 % interval -123.70 to 124.30, 5 pairs). "
        "The interval includes zero and goes beyond the margin of 0.5 points. "
        "It would take more than 10,000 pairs to settle it.",
    ),
    "one pair": (
        accuracy(difference(0.30, None, n=1, sd=None)),
        "Inconclusive: a verdict needs at least 3 pairs, and there is 1; so far norm after the "
        "ReLU is ahead by 0.30 points of accuracy (no interval, margin 0.5 points).",
    ),
    "two pairs": (
        accuracy(difference(-0.30, 2.0, n=2)),
        "Inconclusive: a verdict needs at least 3 pairs, and there are 2; so far norm after the "
        "ReLU is behind by 0.30 points of accuracy "
        "(95 % interval -2.30 to 1.70, margin 0.5 points).",
    ),
    "identical differences": (
        accuracy(difference(0.28, 0.0, n=4, sd=0.0)),
        "Inconclusive: norm after the ReLU is ahead by 0.28 points of accuracy, the same in all "
        "4 pairs, so the spread can't be estimated (margin 0.5 points). "
        "With 6 such pairs a sign test decides.",
    ),
    "every run diverged": (
        accuracy(paired_difference([0.0] * 3, [0.0] * 3), diverged=(3, 3)),
        "Inconclusive: every run of both arms diverged (3 pairs), so there is nothing to compare: "
        "try a lower learning rate.",
    ),
    "the only pair diverged": (
        accuracy(paired_difference([0.0], [0.0]), diverged=(1, 1)),
        "Inconclusive: every run of both arms diverged (1 pair), so there is nothing to compare: "
        "try a lower learning rate.",
    ),
    "an end at zero has no sign": (
        accuracy(difference(-0.20, 0.20)),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 points: "
        "-0.20 points of accuracy (95 % interval -0.40 to 0.00, 10 pairs).",
    ),
    "one arm diverged sometimes": (
        accuracy(difference(32.0, 31.0), diverged=(3, 0)),
        "Norm after the ReLU is better: +32.00 points of accuracy "
        "(95 % interval 1.00 to 63.00, 10 pairs). "
        "The whole interval lies beyond the margin of 0.5 points. "
        "3 of 10 runs of norm before the ReLU diverged; "
        "a diverged run counts with the worst score, an accuracy of 0 %.",
    ),
    "both arms diverged sometimes": (
        accuracy(difference(0.05, 0.25), diverged=(1, 2)),
        "Norm after the ReLU is equivalent to norm before it, within the margin of 0.5 points: "
        "+0.05 points of accuracy "
        "(95 % interval -0.20 to 0.30, 10 pairs). "
        "1 of 10 runs of norm before the ReLU and 2 of 10 runs of norm after the ReLU diverged; "
        "a diverged run counts with the worst score, an accuracy of 0 %.",
    ),
    "an end that rounds to zero keeps its sign": (
        accuracy(difference(0.601, 0.597)),
        "Norm after the ReLU is better: +0.601 points of accuracy "
        "(95 % interval 0.004 to 1.198, 10 pairs). "
        "The difference may be smaller than the margin of 0.5 points.",
    ),
}


@pytest.mark.parametrize("form", GOLDEN)
def test_golden_sentence(form):
    text, expected = GOLDEN[form]
    assert text == expected


def test_every_sentence_states_margin_and_pairs():
    """The invariant that guards the golden text itself."""
    for form, (_, expected) in GOLDEN.items():
        assert "margin" in expected or "every run" in expected, form
        assert re.search(r"\bpairs?\b", expected), form


score = st.integers(0, 1000).map(lambda count: count / 1000)
rows = st.lists(st.tuples(score, score), min_size=1, max_size=8)


OF_OTHERS = {
    "a label wins": (
        (0.94, "small", "large"),
        "small is better than large: +0.94 points of accuracy (95 % interval 0.62 to 1.26, 10 "
        "pairs). The whole interval lies beyond the margin of 0.5 points.",
    ),
    "a label loses": (
        (-0.94, "small", "large"),
        "large is better than small, which is behind by 0.94 points of accuracy (95 % interval "
        "-1.26 to -0.62, 10 pairs). The whole interval lies beyond the margin of 0.5 points.",
    ),
    "no norm loses": (
        (0.94, "linear-act-norm", "linear-act"),
        "Norm after the ReLU is better than no norm: +0.94 points of accuracy (95 % interval 0.62 "
        "to 1.26, 10 pairs). The whole interval lies beyond the margin of 0.5 points.",
    ),
    "no norm wins": (
        (-0.94, "linear-act-norm", "linear-act"),
        "The net without a norm is better than norm after the ReLU, which is behind by 0.94 points "
        "of accuracy (95 % interval -1.26 to -0.62, 10 pairs). The whole interval lies beyond the "
        "margin of 0.5 points.",
    ),
    "an order without a plain name": (
        (0.94, "norm-act-linear", "norm-linear-act"),
        "norm-act-linear is better than norm on the layer's input: +0.94 points of accuracy (95 % "
        "interval 0.62 to 1.26, 10 pairs). The whole interval lies beyond the margin of 0.5 "
        "points.",
    ),
    "one of several": (
        (-0.2, "linear-act-norm", "linear-norm-act"),
        "Inconclusive: norm after the ReLU is behind norm before it by 0.20 points of accuracy "
        "(95 % interval -0.52 to 0.12, 10 pairs). The interval includes zero and goes beyond the "
        "margin of 0.5 points. About 46 pairs in all would settle it, if the difference and its "
        "spread stay as they are.",
    ),
}


@pytest.mark.parametrize("form", OF_OTHERS)
def test_arms_of_other_names(form):
    (estimate, arm, against), expected = OF_OTHERS[form]
    names = in_words(Named(arm, "relu"), Named(against, "relu"), alone=False)
    verdict = decide(difference(estimate, 0.32), margin=0.005)
    assert sentence(verdict, *names, ACCURACY) == expected


@given(rows, st.sampled_from([0.001, 0.05, 0.3]))
def test_the_numbers_of_a_sentence_are_those_of_arm_minus_reference(pairs, margin):
    found = paired_difference(*zip(*pairs, strict=True))
    text = sentence(decide(found, margin=margin), "B", "A", ACCURACY)
    if "interval" not in text or "no interval" in text or found.low == found.high:
        return
    low, high = map(float, re.search(r"interval (-?[\d.]+) to (-?[\d.]+)", text).groups())
    assert low <= 100 * found.estimate + 0.01
    assert low == pytest.approx(100 * found.low, abs=0.006)
    assert high == pytest.approx(100 * found.high, abs=0.006)
    if "ahead" in text or "behind" in text:
        assert ("ahead" in text) == (found.estimate > 0)


@given(rows)
def test_no_sentence_says_nan_or_none_or_minus_zero(pairs):
    a, b = zip(*pairs, strict=True)
    text = sentence(decide(paired_difference(a, b), margin=0.005), "A", "B", ACCURACY)
    assert not re.search(r"nan|None|-0\.0+\b", text)
