"""Cards: made from a study's document, read back as the same numbers."""

import json

import pytest

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
        card_of({**study.to_dict(), "model": None})
    with pytest.raises(InputError, match="relucate compare has trained"):
        card_of({"schema": "relucate.audit/1"})
