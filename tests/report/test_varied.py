"""The table of several varied things, as text, in the terminal and on the page."""

from io import StringIO

import pytest
from rich.console import Console

from relucate.report import print_study, varied, view
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


@pytest.fixture
def three(study):
    """Return a study of three orders."""
    for row in study["table"]:
        row["cells"] = [*row["cells"], {"arm": "c", "order": "linear-act", "mean": 0.8}]
        row["effects"] = [*row["effects"], row["effects"][0] | {"order": "linear-act"}]
    return study


def test_a_row_per_order_where_the_wide_table_has_no_room(three):
    headings, rows = varied.long_table(three)
    assert [text for text, _ in headings] == [
        "lr", "order", "mean %", "effect", "interval", "verdict",
    ]  # fmt: skip
    assert rows[0] == ["0.1", "before", "90.00", "-", "-", "-"]
    assert rows[2] == ["0.1", "linear-act", "80.00", "+1.00", "-0.20 to +2.20", "-"]
    text = StringIO()
    print_study(three, Console(file=text, width=80, color_system=None))
    lines = text.getvalue().splitlines()
    assert sum(line.split()[:2] == ["0.1", "linear-act"] for line in lines) == 1
    assert not any("interval -0.20" in line for line in lines)


@pytest.mark.usefixtures("undrawn")
def test_the_page_has_a_row_per_order_with_several_effects(three):
    found = view.varied_table(three)
    assert [heading["text"] for heading in found["headings"]][:2] == ["lr", "order"]
    assert len(found["rows"]) == 6


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
