"""Cards: made from a study's document, read back as the same numbers."""

import json

import pytest

import relucate
from relucate import InputError, compare
from relucate.records.card import card_of
from relucate.records.results import read_card


@pytest.fixture(scope="module")
def study():
    return compare(
        "mlp", pairs=3, progress=False, jobs=1, recipe={"epochs": 1},
        options={"width": 8, "depth": 1}, vary={"act": ["relu", "tanh"]},
    )  # fmt: skip


def test_a_card_has_the_studys_numbers(study, tmp_path):
    found = study.to_dict()
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card_of(found, question="which?")))
    rows = read_card(path)
    assert [row.act for row in rows] == ["relu", "tanh"]
    assert all(row.runs == 3 and row.study.own and row.study.title == "which?" for row in rows)
    means = {(arm["options"]["act"], arm["order"]): 100 * arm["mean"] for arm in found["arms"]}
    for row in rows:
        for order, score in row.scores.items():
            assert score["value"] == pytest.approx(means[row.act, order])
    first = found["comparisons"][0]["difference"]
    assert rows[0].interval == pytest.approx((100 * first["low"], 100 * first["high"]))
    assert rows[0].difference == pytest.approx(100 * first["estimate"])


def test_other_documents_make_no_card(study):
    with pytest.raises(InputError, match="relucate compare has trained"):
        card_of({**study.to_dict(), "data": None})
    with pytest.raises(InputError, match="relucate compare has trained"):
        card_of({"schema": "relucate.audit/1"})


def test_the_card_is_written_and_names_the_nets_own_activation(study, tmp_path):
    path = study.card(tmp_path / "card.json", question="which?")
    assert [row.norm for row in read_card(path)] == ["batch", "batch"]
    assert read_card(path)[0].study.title == "which?"
    for place in (path, tmp_path):
        found = relucate.evidence(cards=place, act="relu").results
        assert found[0].study.id == "card"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no cards in"):
        relucate.evidence(cards=empty)


def test_an_unknown_activation_is_not_guessed(study):
    found = study.to_dict()
    for arm in found["arms"]:
        arm["options"] = {}
    assert {row["act"] for row in card_of(found)["rows"]} == {"not named"}
