"""The table of several varied things, as text, in the terminal and on the page."""

from io import StringIO

import pytest
from rich.console import Console

from relucate.report import print_study, varied
from relucate.report.html import study_html


@pytest.fixture
def study(study):
    ends = {"estimate": 0.01, "low": -0.002, "high": 0.022}
    cells = [
        {"arm": "a", "order": "linear-norm-act", "mean": 0.9},
        {"arm": "b", "order": "linear-act-norm", "mean": 0.91},
    ]
    effect = {"order": "linear-act-norm", "against": "linear-norm-act", **ends}
    return {
        **study,
        "factors": [{"name": "lr", "values": [0.1, 0.01]}],
        "table": [
            {"values": {"lr": lr}, "cells": cells, "effects": [effect]} for lr in (0.1, 0.01)
        ],
        "interactions": [{"sentence": "Whether it depends on lr stays open: -0.1 points."}],
    }


def test_headings_and_rows(study):
    headings, rows = varied.table(study)
    assert [text for text, _ in headings] == [
        "lr", "before %", "after %", "effect", "interval", "verdict",
    ]  # fmt: skip
    assert rows[1] == ["0.01", "90.00", "91.00", "+1.00", "-0.20 to +2.20", "-"]


def test_an_effect_has_a_verdict_on_its_order(study):
    effect = study["table"][0]["effects"][0]
    effect |= {"verdict": "better", "winner": "linear-norm-act"}
    assert varied.table(study)[1][0][-1] == "worse"


def test_a_study_of_orders_alone_has_none():
    assert varied.table({"factors": []}) == ([], [])
    assert varied.sentences({}) == []


@pytest.mark.parametrize("width", [40, 120])
def test_the_terminal_shows_it(study, width):
    text = StringIO()
    print_study(study, Console(file=text, width=width, color_system=None))
    shown = " ".join(text.getvalue().split())
    assert "effect of the order in points (after minus before):" in shown
    assert "before = linear-norm-act, after = linear-act-norm" in shown
    assert "-0.20 to +2.20" in shown
    assert "depends on lr stays open" in shown


@pytest.mark.usefixtures("undrawn")
def test_the_page_shows_it(study):
    page = study_html(study)
    assert "The effect of the order" in page
    assert "−0.20 to +2.20" in page
    assert "stays open: −0.1 points" in page


def test_an_effect_that_is_always_the_same_has_no_interval(study):
    study["table"][0]["effects"][0] |= {"low": None, "high": None}
    study["table"] = study["table"][:1]
    assert varied.table(study)[1][0][-2] == "same in all pairs"
