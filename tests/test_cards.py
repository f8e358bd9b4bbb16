"""The pages show what the cards say, and every card can be repeated."""

import importlib.util
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from relucate.records import known
from relucate.records.results import Result, Study
from relucate.stats.spending import critical_value
from relucate.train.recipe import Recipe

ROOT = Path(__file__).parent.parent


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cards = script(ROOT / "docs" / "cards.py")
OWN = {row.study.id: row for row in known() if row.study.own}


def test_pages_and_picture_are_those_of_the_cards():
    assert not list(cards.stale()), "run: python docs/cards.py"


def test_no_two_rows_of_the_picture_have_one_label():
    labels = [cards._label(row) for row in cards._pictured()]
    assert sorted(set(labels)) == sorted(labels)


def test_a_changed_number_is_seen():
    name = next(iter(OWN))
    page = cards.rendered(f"It is <!-- card: {name} difference --><!-- /card -->.")
    number = re.search(r"[+-][\d.]+", page)[0]
    assert f"{OWN[name].difference:+.2f}" == number
    changed = page.replace(number, "+99.00", 1)
    assert cards.rendered(changed) == page != changed


def test_every_card_is_in_a_table_of_the_page():
    page = (ROOT / "docs" / "measurements.md").read_text()
    tables = re.findall(r"<!-- cards: ([^>]*?) -->", page)
    shown = {row.study.id for patterns in tables for row in cards.results(patterns)}
    assert shown == set(OWN)


def test_a_pattern_may_leave_cards_out():
    found = {row.study.id for row in cards.results("cifar10-* !cifar10-*-late")}
    assert found
    assert not any(name.endswith("-late") for name in found)


def test_a_name_without_a_card_is_an_error():
    with pytest.raises(ValueError, match="no-such-card"):
        cards.rendered("<!-- cards: no-such-card -->\n<!-- /cards -->")


@pytest.mark.parametrize("name", OWN)
def test_a_card_says_how_to_repeat_it(name):
    words = shlex.split(OWN[name].study.source)
    assert words[:2] == ["relucate", "compare"]
    assert not any("/tmp" in word or word.startswith("/") for word in words)


@pytest.mark.parametrize("name", OWN)
def test_a_card_says_what_is_unusual_in_its_recipe(name):
    path = ROOT / "src" / "relucate" / "records" / "own" / f"{name}.json"
    made = json.loads(path.read_text())["made"]["recipe"]
    usual = Recipe(optimizer=made["optimizer"]).to_dict()
    said = OWN[name].setting.split(", ")
    for key in ("lr", "schedule", "label_smoothing", "initialization"):
        if made.get(key, usual.get(key)) != usual.get(key):
            assert any(word.startswith(f"{key.replace('_', ' ')} ") for word in said), key


@pytest.mark.parametrize("name", OWN)
def test_a_card_has_both_orders_and_an_interval(name):
    row = OWN[name]
    assert row.difference is not None
    if row.interval is None:  # the same in every pair, of which a sign test needs some
        assert (row.difference, row.verdict) == (0.0, "equivalent")
    else:
        assert row.interval[0] <= row.difference <= row.interval[1]


def study_of(pairs, **changed):
    """Return the result that a study with these differences of its pairs would have on its card."""
    mean, half = np.mean(pairs), critical_value(len(pairs), 0.95) * stats.sem(pairs)
    given = {
        "study": Study("made-up", "", "", None, "", "", own=True),
        "net": "cnn",
        "data": "digits",
        "act": "relu",
        "metric": "accuracy",
        "unit": "%",
        "scores": {"before": {"value": 50.0}, "after": {"value": 50.0 + mean}},
        "runs": len(pairs),
        "setting": "2 epochs, batch 128",
        "interval": (mean - half, mean + half),
        "details": {"level": 0.95},
    }
    return Result(**{**given, **changed})


def test_a_change_has_the_interval_of_welch():
    first, second = [2.8, 0.5, 2.8, 3.6], [4.0, 9.1, 7.7, 6.0, 5.2]
    change, half = cards.change_of(study_of(first), study_of(second))
    expected = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert change - half == pytest.approx(expected.low)
    assert change + half == pytest.approx(expected.high)


def test_a_change_is_covered_though_studies_stop_at_an_answer():
    """As the page says: the interval misses in at most 8 of 100."""
    random, effects, missed = np.random.default_rng(0), ((2.5, 1.0), (6.0, 3.0)), []
    for _ in range(400):
        first, second = (study_of(stopped(random, *effect)) for effect in effects)
        change, half = cards.change_of(first, second)
        missed.append(abs(change - 3.5) > half)
    assert np.mean(missed) < 0.08 + 2 * np.sqrt(0.08 * 0.92 / len(missed))


def stopped(random, mean, sd, most=8):
    """Return the differences of a study that ends when its interval excludes zero."""
    pairs = list(random.normal(mean, sd, 3))
    while len(pairs) < most:
        if abs(np.mean(pairs)) > critical_value(len(pairs), 0.95) * stats.sem(pairs):
            break
        pairs.append(random.normal(mean, sd))
    return pairs


def test_changes_name_what_differs(monkeypatch):
    late = study_of([0.1, 0.2, 0.3], setting="12 epochs, batch 128", act="tanh", norm="group")
    shown = {"one": [study_of([1.0, 2.0, 3.0])], "two !one": [late]}
    monkeypatch.setattr(cards, "results", shown.__getitem__)
    page = cards.rendered("<!-- changes: one two -->\n<!-- /changes -->")
    assert "| `cnn`, relu, 2 epochs, batch 128 | tanh, 12 epochs, group norm | +2.00 |" in page


def test_a_grid_is_empty_where_no_card_is(monkeypatch):
    cards_of = [
        study_of(
            [1.0, 2.0, 3.0],
            study=replace(study_of([1.0, 2.0, 3.0]).study, id=name),
            setting=setting,
        )
        for name, setting in {
            "cnn-relu": "2 epochs, batch 128",
            "vgg-tanh": "lr 1, 12 epochs",
        }.items()
    ]
    monkeypatch.setattr(cards, "known", lambda: cards_of)
    page = cards.rendered("<!-- grid: relu tanh; cnn-* vgg-* -->\n<!-- /grid -->").splitlines()
    assert page[1] == "| activation | `cnn`, 2 epochs | `cnn`, 12 epochs |"
    assert page[3].startswith("| relu | +2.00 (")
    assert page[3].endswith(" |  |")
    assert page[4].startswith("| tanh |  | +2.00 (")


def test_published_rows_stand_beside_our_own():
    page = cards.rendered("<!-- beside: caffenet-benchmark CaffeNet --><!-- /beside -->")
    (line,) = [row for row in page.splitlines() if row.startswith("| relu | no scale and shift")]
    assert "| 47.1 | 47.4 | 49.9 |" in line
    ours = OWN["cifar10-caffenet-relu"]
    assert f"| {ours.difference:+.2f} ({ours.interval[0]:+.2f}" in line
    (line,) = [row for row in page.splitlines() if row.startswith("| none | no scale and shift")]
    assert line.endswith("| +0.00 |")  # without an activation both orders are one network


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("before act=relu tuned=True", "1 of 2"),
        ("after act=relu net!=MLP*", "2 of 2"),
        ("before-by act=relu", "0.7"),
        ("after-by act=relu,tanh", "0.3 to 4.0"),
        ("spread act=relu", "1 of 3"),
    ],
)
def test_published_comparisons_are_counted(monkeypatch, mark, said):
    rows = [published(-0.65, net="MLP", tuned=True), published(0.3), published(2.0, tuned=True)]
    rows[1].scores["linear-norm-act"]["sd"] = 0.1
    others = [published(4.0, act="tanh"), study_of([9.0, 9.5, 10.0])]
    monkeypatch.setattr(cards, "known", lambda: [*rows, *others])
    page = cards.rendered(f"<!-- published: {mark} --><!-- /published -->")
    assert page == f"<!-- published: {mark} -->{said}<!-- /published -->"


def published(difference, **given):
    """Return the result of a publication that has after ahead by this difference."""
    scores = {"linear-norm-act": {"value": 50.0}, "linear-act-norm": {"value": 50.0 + difference}}
    own = study_of([1.0, 2.0, 3.0])
    return replace(own, study=replace(own.study, own=False), scores=scores, **given)


@pytest.mark.parametrize("mark", ["before act=no-such", "after-by act=sigmoid"])
def test_a_publication_that_is_not_there_is_an_error(mark):
    with pytest.raises(ValueError, match=mark):
        cards.rendered(f"<!-- published: {mark} --><!-- /published -->")


def test_a_card_without_an_interval_has_no_change():
    with pytest.raises(ValueError, match="made-up has no interval"):
        cards.change_of(study_of([1.0, 2.0, 3.0]), study_of([0.0, 1.0, 2.0], interval=None))
