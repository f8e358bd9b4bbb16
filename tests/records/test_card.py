"""Cards: made from a study's document, read back as the same numbers."""

import json

import pytest
from tests.in_process import without_workers

import relucate
from relucate import InputError, compare
from relucate.records.card import card_of
from relucate.records.results import read_card

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def study():
    with without_workers():
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


def test_an_interval_is_of_after_minus_before_whatever_was_the_reference(study):
    found = study.to_dict()
    for metric in (found["metric"], {**found["metric"], "direction": "lower"}):
        plain = card_of({**found, "metric": metric})["rows"][0]["interval"]
        turned = [
            {
                **c,
                "arm": c["against"],
                "against": c["arm"],
                "difference": {
                    **c["difference"], "low": -c["difference"]["high"],
                    "high": -c["difference"]["low"],
                },
            }
            for c in found["comparisons"]
        ]  # fmt: skip
        again = card_of({**found, "metric": metric, "comparisons": turned})["rows"][0]["interval"]
        assert plain == pytest.approx(again)
        assert plain[0] == pytest.approx(100 * found["comparisons"][0]["difference"]["low"])


def test_a_card_made_on_a_gpu_names_it(study):
    found = study.to_dict()
    assert "card" not in card_of(found)["made"]["hardware"]
    engine = {**found["engine"], "device": "cuda", "card": "NVIDIA T4"}
    hardware = card_of({**found, "engine": engine})["made"]["hardware"]
    assert (hardware["device"], hardware["card"]) == ("cuda", "NVIDIA T4")


def test_other_documents_make_no_card(study):
    with pytest.raises(InputError, match="relucate compare has trained"):
        card_of({**study.to_dict(), "data": None})
    with pytest.raises(InputError, match="relucate compare has trained"):
        card_of({"schema": "relucate.audit/1"})


def test_the_card_is_written_and_names_the_nets_own_activation(study, tmp_path):
    path = study.card(tmp_path / "card.json", question="which?")
    assert [row.norm for row in read_card(path)] == ["batch", "batch"]
    assert [(row.depth, row.task) for row in read_card(path)] == [(2, "classification")] * 2
    assert read_card(path)[0].study.title == "which?"
    for place in (path, tmp_path):
        found = relucate.evidence(cards=place, act="relu").results
        assert found[0].study.id == "card"
        assert [row.study.yours for row in found] == [True, *[False] * (len(found) - 1)]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no cards in"):
        relucate.evidence(cards=empty)


def test_an_unknown_activation_is_not_guessed(study):
    found = study.to_dict()
    for arm in found["arms"]:
        arm["options"] = {}
    assert {row["act"] for row in card_of(found)["rows"]} == {"not named"}


def test_orders_at_their_own_rates_are_one_row(study):
    found = study.to_dict()
    before, after = found["arms"][:2]
    for arm, rate in ((before, 0.1), (after, 0.3)):
        arm["options"] = {"lr": rate}
    found |= {"arms": [before, after], "factors": []}
    (row,) = card_of(found)["rows"]
    assert row["setting"].endswith("lr 0.1 before, 0.3 after, 1 epoch, batch 64")
    assert row["interval"]


def test_what_differs_from_the_usual_recipe_is_said(study):
    found = study.to_dict()
    assert card_of(found)["rows"][0]["setting"] == "width 8, depth 1, 1 epoch, batch 64"
    found["recipe"] |= {"optimizer": "adamw", "lr": 2e-3, "initialization": "lsuv"}
    (row, *_) = card_of(found)["rows"]
    assert row["setting"].endswith(
        "depth 1, optimizer adamw, initialization lsuv, 1 epoch, batch 64"
    )
    found["recipe"]["lr"] = 0.1
    assert "optimizer adamw, lr 0.1, " in card_of(found)["rows"][0]["setting"]


def test_orders_with_dropout_are_before_and_after(tmp_path):
    study = compare(
        "mlp", orders=["linear-norm-act-drop", "linear-act-norm-drop"], pairs=3, jobs=1,
        progress=False, recipe={"epochs": 1}, options={"width": 8, "depth": 1, "dropout": 0.2},
    )  # fmt: skip
    (row,) = read_card(study.card(tmp_path / "card.json"))
    assert row.interval[0] <= row.difference <= row.interval[1]


def test_a_card_knows_its_commit_in_a_checkout(monkeypatch, tmp_path):
    from relucate.records import card

    assert card.commit() is None or len(card.commit().removesuffix("-dirty")) >= 12
    monkeypatch.setattr(card, "__file__", str(tmp_path / "card.py"))
    assert card.commit() is None
