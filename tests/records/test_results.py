"""Evidence: every published row is whole, filters fit, and what the rows add up to is right."""

import json
from dataclasses import replace

import pytest

from relucate import InputError, evidence
from relucate.nets import build
from relucate.order import Order
from relucate.records import known, matching
from relucate.records.results import read_card, summary

AXES = {"order", "residual", "dropout"}


def test_every_row_is_whole():
    rows = known()
    assert len(rows) > 40
    for row in rows:
        assert row.axis in AXES
        assert row.scores
        assert row.runs >= 1
        assert all((row.study.source, row.study.checked, row.study.authors))
        for arrangement, score in row.scores.items():
            if row.unit == "%":
                assert 0 <= score["value"] <= 100
            if row.axis == "order":
                assert str(Order(arrangement)) == arrangement


@pytest.mark.parametrize(
    ("net", "act", "expected"), [("VGG16", "tanh", 7.33), ("MobileNet", "relu", -0.57)]
)
def test_differences_are_after_minus_before(net, act, expected):
    (row,) = matching(known(), net=net, data="CIFAR-100", act=act)
    assert row.difference == pytest.approx(expected)


def test_of_an_error_the_lower_one_is_ahead_and_the_difference_keeps_its_sign(tmp_path):
    (row,) = read_card(write(tmp_path, lower_is_better=True))
    assert (row.difference, row.gain) == (pytest.approx(1.0), pytest.approx(-1.0))
    (found,) = summary([row])
    assert (found["before"], found["after"], found["low"]) == (1, 0, pytest.approx(1.0))
    (row,) = read_card(write(tmp_path, lower_is_better=False))
    assert (row.difference, row.gain) == (pytest.approx(1.0), pytest.approx(1.0))
    assert row.interval == (0.5, 1.5)


def write(folder, **changed):
    study = {"id": "x", "authors": "a", "title": "t", "year": 2026, "source": "s", "checked": "c"}
    row = {
        "net": "cnn",
        "data": "toy",
        "act": "relu",
        "metric": "m",
        "interval": [0.5, 1.5],
        "scores": {"linear-norm-act": {"value": 2.0}, "linear-act-norm": {"value": 3.0}},
    }
    path = folder / "card.json"
    card = {"schema": "relucate.card/1", "study": study, "rows": [{**row, **changed}]}
    path.write_text(json.dumps(card))
    return path


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": "other/1"}', '{"schema": "relucate.card/1"}',
             '{"schema": "relucate.card/1", "study": {}, "rows": [{}]}',
             '{"schema": "relucate.card/1", "study": 3, "rows": []}'],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"card\.json"):
        read_card(path)


def test_the_summary_counts_each_side():
    rows = matching(known(), act="relu", net="vgg16")
    (found,) = summary(rows)
    assert (found["act"], found["rows"], found["before"], found["after"]) == ("relu", 4, 4, 0)
    assert (found["low"], found["high"]) == (pytest.approx(-2.49), pytest.approx(-0.65))
    assert found["tuned"] == 4
    assert found["spread"] == 0


def test_our_own_rows_are_counted_by_their_verdict(tmp_path):
    rows = [
        row
        for verdict in ("better", "equivalent", "inconclusive")
        for row in read_card(write(tmp_path, verdict=verdict, unit="%"))
    ]
    rows = [replace(row, study=replace(row.study, own=True)) for row in rows]
    published = matching(known(), act="relu", net="vgg16")
    first, second = summary([*rows, *published])
    assert (first["own"], second["own"]) == (False, True)
    found = [second[side] for side in ("after", "before", "level", "undecided")]
    assert found == [1, 0, 1, 1]


def test_a_task_selects_our_own_rows_too():
    tables = {row.data.partition(".")[0] for row in matching(known(), task="regression")}
    assert tables == {"friedman", "diabetes", "mackey"}


def test_names_match_by_their_letters_and_digits():
    assert matching(known(), net="vgg-16") == matching(known(), net="VGG16") != []
    assert matching(known(), act="TANH") == matching(known(), act="tanh") != []
    assert matching(known(), act="tan") == []


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match="act must be a text, got 3"):
        evidence(act=3)
    with pytest.raises(InputError, match="depth must be a whole number of at least 1, got 0"):
        evidence(depth=0)


class TestOfAModel:
    def test_activation_and_norm_come_from_the_model(self):
        torch = pytest.importorskip("torch")
        nn = torch.nn
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
        found = evidence(model=net, example=(1, 3, 8, 8))
        assert found.asked == {"act": "tanh", "norm": "batch"}  # nothing is known of depth 1
        assert {row.act for row in found.results} == {"tanh"}
        assert evidence(model=net, example=(1, 3, 8, 8), act="relu").asked["act"] == "relu"

    def test_its_depth_selects_networks_of_half_to_twice_as_many_layers(self):
        found = evidence(model=build("cnn", "after", (32, 32, 3), 10))
        assert found.asked["depth"] == 7
        depths = {row.depth for row in found.results}
        assert {4, 7, 8, None} <= depths
        assert not depths & {1, 2, 3, 16, 22}
        assert "4 to 14 layers deep" in str(found)

    def test_a_model_without_norms_is_refused(self):
        torch = pytest.importorskip("torch")
        with pytest.raises(InputError, match="has no norms"):
            evidence(model=torch.nn.Sequential(torch.nn.Linear(3, 2)), example=(1, 3))


def test_it_prints_and_is_plain_data():
    found = evidence(act="softsign")
    text = str(found)
    assert "1 result for act softsign: 1 from 1 publication." in text
    assert "+5.83" in text
    assert "<table>" in found._repr_html_()
    assert found.to_dict()["schema"] == "relucate.evidence/1"
    assert "Nothing is known" in str(evidence(act="softmax"))


def test_the_sentence_of_the_readme_is_what_the_records_say():
    bounded = [
        r for r in known() if r.act in {"tanh", "lecun_tanh", "softsign"} and not r.study.own
    ]
    differences = [r.difference for r in bounded if r.difference is not None]
    assert len(differences) == 10
    assert 0.9 < min(differences) <= max(differences) < 8.5
    published = [r for r in matching(known(), act="relu") if not r.study.own]
    (found,) = summary(published)
    assert (found["before"], found["rows"]) == (10, 15)
    assert found["low"] > -2.5
    assert found["high"] <= 2.5
