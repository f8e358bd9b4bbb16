"""The pages show what the cards say, and every card can be repeated."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from relucate.records import known

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


def test_a_changed_number_is_seen():
    name = next(iter(OWN))
    page = cards.rendered(f"It is <!-- card: {name} difference --><!-- /card -->.")
    number = re.search(r"[+-][\d.]+", page)[0]
    assert f"{OWN[name].difference:+.2f}" == number
    changed = page.replace(number, "+99.00", 1)
    assert cards.rendered(changed) == page != changed


def test_every_card_is_in_a_table_of_the_page():
    page = (ROOT / "docs" / "before-or-after.md").read_text()
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
def test_a_card_has_both_orders_and_an_interval(name):
    row = OWN[name]
    assert row.difference is not None
    if row.interval is None:  # the same in every pair, of which a sign test needs some
        assert (row.difference, row.verdict) == (0.0, "equivalent")
    else:
        assert row.interval[0] <= row.difference <= row.interval[1]
