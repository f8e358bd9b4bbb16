"""A study as rows and words for the page."""

import pytest

from relucate.report import view
from relucate.report.html import study_html


def test_pairs_have_a_row_per_seed_with_differences(make_study):
    study = make_study(3, lost={("linear-act-norm", 1): "diverged"})
    table = view.pair_table(study)
    assert [row["seed"] for row in table["rows"]] == [0, 1, 2]
    assert table["rows"][1]["metrics"][1] == {"text": "diverged", "status": "lost"}
    assert table["rows"][1]["differences"] == ["–"]
    value = study["differences"][0]["value"]
    assert table["rows"][0]["differences"] == [f"{100 * value:+.2f}".replace("-", "−")]


def test_a_run_that_is_missing_is_a_dash(make_study):
    study = make_study(2)
    study["runs"] = study["runs"][:-1]
    assert view.pair_table(study)["rows"][1]["metrics"][1]["text"] == "–"


def test_an_unknown_verdict_has_a_neutral_style(study):
    study["verdict"] = '"><b>'
    assert view.verdict(study)["style"] == "other"
    assert view.badge("better") == {"word": "better", "style": "better"}


def test_arms_show_columns_only_where_needed(make_study):
    study = make_study(2)
    assert [view.arm_table(study)[key] for key in ("failed", "options", "diverged")] == [False] * 3
    study["arms"][1].update(label="wide", alias=None, options={"width": 2})
    study["runs"][0]["status"] = "failed"
    study["arms"][0]["diverged"] = 1
    table = view.arm_table(study)
    assert [table[key] for key in ("failed", "options", "diverged")] == [True] * 3
    assert table["rows"][1]["options"] == [("width", "2")]


def test_pairing_that_was_not_recorded_is_said(study):
    study["pairing"] = None
    assert "not recorded" in view.pairing(study)["sentence"]
    study["pairing"] = {"shared": 20, "tensors": 20, "only": {"linear-norm-act": []}}
    assert view.pairing(study)["only"] == []
    assert view.pairing(study)["sentence"].startswith("20 of 20 tensors")


def test_time_is_shown_without_its_separators(study):
    assert view.page(study)["created"] == "2026-03-02 10:00:00 UTC"


@pytest.mark.usefixtures("undrawn")
def test_comparisons_are_told_from_the_side_of_their_arm(make_study, same_in_all):
    study = make_study(8, orders=("a", "b", "c"), effect=-0.02)
    assert [row["word"] for row in view.comparison_table(study)] == ["worse", "worse"]
    assert 'class="badge small worse">worse<' in study_html(study)
    rows = view.comparison_table(same_in_all(study))
    assert [row["interval"] for row in rows] == ["same in all pairs"] * 2


@pytest.mark.usefixtures("undrawn")
def test_a_small_margin_shows_its_digits(study):
    page = study_html({**study, "margin": 1e-5})
    assert page.count("±0.001") == 3


def test_what_a_compiled_model_has_of_its_own_replaces_the_recipe_s(make_study):
    study = make_study(2)
    assert {"epochs", "optimizer", "lr"} <= dict(view.recipe(study)).keys()
    study["engine"]["compiled"] = "Adam, learning rate 0.001"
    rows = dict(view.recipe(study))
    assert rows["the model's own"] == "Adam, learning rate 0.001"
    assert "epochs" in rows
    assert not {"optimizer", "lr", "weight decay", "schedule", "momentum"} & rows.keys()
    assert "compiled" not in dict(view.engine(study))
