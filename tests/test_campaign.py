"""The script that makes our own cards: where things go, and what a failed row does."""

import json
from dataclasses import replace

import pytest

from .test_cards import ROOT, script

campaign = script(ROOT / "benchmarks" / "campaign.py")
QUICK = campaign.Row("quick", "which?", "mlp -O width=8 -O depth=1 --epochs 1 --pairs 3")


@pytest.fixture
def place(tmp_path):
    stores, cards = tmp_path / "elsewhere" / "runs", tmp_path / "cards"
    return campaign.Place(tmp_path, stores, cards, "--device cpu --jobs 1", "0123456789ab")


@pytest.mark.slow
def test_a_row_that_fails_stops_no_other(place, capsys):
    broken = replace(QUICK, name="broken", arguments="no-such-net")
    assert campaign.run_all([broken, QUICK], place, at_once=2) == 1
    assert "broken: failed with 2" in capsys.readouterr().out
    assert [path.name for path in place.cards.iterdir()] == ["quick.json"]
    card = json.loads(place.card(QUICK).read_text())
    command = f"relucate compare {QUICK.arguments} --device cpu --jobs 1 --out stores/quick"
    assert card["study"]["source"] == command
    assert card["made"]["commit"] == "0123456789ab"
    assert (place.stores / "quick" / "runs.sqlite").is_file()

    card["study"]["source"] = "as it was called elsewhere"
    card["made"]["hardware"]["processor"] = "another machine's"
    place.card(QUICK).write_text(json.dumps(card))
    campaign.remake(replace(QUICK, question="really?"), replace(place, commit=None))
    again = json.loads(place.card(QUICK).read_text())
    assert again == {**card, "study": {**card["study"], "title": "really?"}}
    assert campaign.run_all([QUICK], place, at_once=1) == 0
    assert "has a card" in capsys.readouterr().out


def test_an_error_of_one_row_is_said(place):
    (place.stores).mkdir(parents=True)
    (place.stores / "quick").write_text("a file where the folder should be")
    assert campaign.run_all([QUICK], place, at_once=1) == 1


def test_every_row_has_a_name_of_its_own():
    names = [row.name for row in campaign.rows()]
    assert len(set(names)) == len(names) > 80
    assert sum(campaign._named(row, ["cifar10-full-*"]) for row in campaign.rows()) == 8
