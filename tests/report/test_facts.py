"""What a study's dict says: schema, sentence, failed runs, the difference in words."""

import pytest

from relucate.errors import InputError
from relucate.report import facts
from relucate.report.html import repr_html, study_html
from relucate.report.numbers import Units
from relucate.report.terminal import verdict_table
from relucate.train.metric import ACCURACY

UNITS = Units(ACCURACY)


@pytest.mark.parametrize(
    "schema", ["relucate.audit/1", "relucate.convert/1", "relucate.compare/3", None]
)
def test_another_schema_is_refused_by_its_name(schema):
    with pytest.raises(InputError, match=repr(schema)):
        facts.current({"schema": schema})


@pytest.mark.usefixtures("undrawn")
def test_a_study_of_the_first_schema_is_shown_as_one_of_today(study):
    first = {**study, "schema": "relucate.compare/1", "metric": "accuracy"}
    assert facts.current(first) == study
    assert facts.current(study) is study
    assert study_html(first) == study_html(study)
    assert repr_html(first) == repr_html(study)
    assert verdict_table(first) == verdict_table(study)


def test_only_the_verdicts_own_word_is_taken_off():
    assert facts.bare_sentence("inconclusive", "Inconclusive: a b.") == "a b."
    assert facts.bare_sentence("better", "Inconclusive: a b.") == "Inconclusive: a b."
    assert facts.bare_sentence("", ": a") == ": a"


def test_failed_runs_are_counted_apart_from_diverged_ones(make_study):
    lost = {("linear-act-norm", 0): "failed", ("linear-act-norm", 1): "diverged"}
    assert facts.failed_runs(make_study(3, lost=lost)) == {"linear-act-norm": 1}


def lose(study, *labels):
    for arm in study["arms"]:
        if arm["label"] in labels:
            arm |= {"diverged": arm["n"], "mean": 0.0, "sd": 0.0}
    return study


def test_numbers_that_only_stand_for_diverged_runs_are_left_out(make_study):
    both = lose(make_study(4), "linear-norm-act", "linear-act-norm")
    found = facts.measured(both)
    assert [(arm["mean"], arm["sd"]) for arm in found["arms"]] == [(None, None)] * 2
    assert found["difference"]["estimate"] is found["comparisons"][0]["difference"]["low"] is None
    assert found["differences"] == found["comparisons"][0]["differences"] == []
    assert both["difference"]["estimate"] is not None  # the document itself stays as it is
    one = facts.measured(lose(make_study(4), "linear-act-norm"))
    assert one["arms"][1]["mean"] is None
    assert one["difference"]["estimate"] is not None


def test_an_arm_with_one_run_that_is_good_keeps_its_mean(make_study):
    study = lose(make_study(4), "linear-act-norm")
    study["arms"][1]["diverged"] -= 1
    assert facts.measured(study) is study


def test_the_table_of_values_has_no_numbers_of_diverged_runs(make_study):
    study = lose(make_study(4), "linear-norm-act", "linear-act-norm")
    cells = [{"arm": a["label"], "order": a["order"], "mean": 0.0} for a in study["arms"]]
    effect = {"order": "linear-act-norm", "against": "linear-norm-act", "estimate": 0.0}
    row = {"values": {"act": "relu"}, "cells": cells, "effects": [effect]}
    (row,) = facts.measured(study | {"table": [row]})["table"]
    assert [cell["mean"] for cell in row["cells"]] == [None, None]
    assert row["effects"][0]["estimate"] is None


def test_a_winner_is_marked_only_between_two_arms(make_study):
    orders = ("linear-norm-act", "linear-act-norm", "linear-act")
    assert facts.sole_winner(make_study(effect=0.02)) == "linear-act-norm"
    assert facts.sole_winner(make_study(effect=0.02, orders=orders)) is None


def test_a_difference_brings_its_own_level():
    difference = {"estimate": 0.01, "low": 0.0, "high": 0.02, "level": 0.975, "method": "paired t"}
    text = facts.difference_text(difference, 0.95, 4, UNITS)
    assert text == "+1.00 points, 97.5 % interval 0.00 to +2.00 (paired t)"


def test_no_pair_means_no_difference():
    difference = {"estimate": None, "low": None, "high": None, "method": "paired t"}
    assert facts.difference_text(difference, 0.95, 0, UNITS).startswith("no difference")


@pytest.mark.parametrize(
    ("verdict", "winner", "word"),
    [("better", "a", "better"), ("better", "b", "worse")]
    + [(word, None, word) for word in ("equivalent", "inconclusive")],
)
def test_a_verdict_is_stated_from_the_side_of_its_arm(verdict, winner, word):
    comparison = {"arm": "a", "against": "b", "verdict": verdict, "winner": winner}
    assert facts.arm_verdict(comparison) == word


def test_the_same_in_all_pairs_is_no_missing_interval():
    found = {"estimate": 0.01, "low": None, "high": None}
    assert facts.span(found, 3, UNITS) == facts.SAME
    assert facts.span(found, 2, UNITS) == "-"
    assert facts.span({**found, "degenerate": False}, 9, UNITS) == "-"
    assert facts.span({**found, "estimate": None}, 3, UNITS) == "-"
    text = facts.difference_text(
        {**found, "degenerate": True, "method": "sign test"}, 0.95, 9, UNITS
    )
    assert text == "+1.00 points, the same in all 9 pairs (sign test)"
