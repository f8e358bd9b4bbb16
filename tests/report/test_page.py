"""The page in a real browser: no overflow, no error, legible figures, at any width and on paper."""

import pytest
from tests.report.browser import Browser, chromium
from tests.report.conftest import make_study
from tests.report.test_seen import probed

from relucate.report.html import study_html
from relucate.stats.sequential import MONITORED

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium to open pages in")

WIDTHS = (360, 768, 1440)
LARGEST = 2_000_000  # bytes of a page

# What is measured on the page; each returns a list of faults.
EVERY_TEXT = """[...document.querySelectorAll('svg.plot')].filter(svg => svg.clientWidth).map(svg =>
  [svg, [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect(), t])])
"""
SMALL = f"""{EVERY_TEXT}.flatMap(([svg, texts]) => {{
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return texts.map(([words, , t]) => [words, scale * parseFloat(getComputedStyle(t).fontSize)])
}}).filter(([, size]) => size < 10.95)"""
CUT = f"""{EVERY_TEXT}.flatMap(([svg, texts]) => {{
  const box = svg.getBoundingClientRect();
  return texts.filter(([, t]) => t.left < box.left - 2 || t.right > box.right + 2
    || t.top < box.top - 2).map(([words]) => words)
}})"""
TOUCHING = f"""{EVERY_TEXT}.flatMap(([, texts]) => texts.flatMap(([a, s], k) =>
  texts.slice(k + 1).filter(([, t]) => s.left < t.right - 1 && t.left < s.right - 1
    && s.top < t.bottom - 3 && t.top < s.bottom - 3).map(([b]) => a + '|' + b)))"""
UNREACHED = """[...document.querySelectorAll('.scroll')].filter(region =>
  region.scrollWidth > region.clientWidth + 1 && region.tabIndex !== 0).length"""
FOLDED = """[...document.querySelectorAll('details')].filter(fold =>
  fold.querySelector('table, dl, ul, p').getBoundingClientRect().height === 0).length"""
WIDE = """[...document.querySelectorAll('table')].filter(table =>
  table.getBoundingClientRect().right > innerWidth + 1).map(table => table.innerText)"""
WIDTH = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


def varied(study):
    """Return a study of two orders as one that varies an option."""
    ends = {"estimate": 0.01, "low": -0.002, "high": 0.022}
    cells = [{"arm": arm["label"], "order": arm["order"], "mean": 0.9} for arm in study["arms"]]
    effect = {"order": "linear-act-norm", "against": "linear-norm-act", **ends}
    return study | {
        "factors": [{"name": "act", "values": ["relu"]}],
        "table": [{"values": {"act": "relu"}, "cells": cells, "effects": [effect]}],
        "interactions": [{"sentence": "Whether it depends on act stays open."}],
    }


def studies():
    """Return a study of each kind by its name."""
    looked = make_study(12)
    looked["comparisons"][0]["difference"]["method"] = MONITORED
    names = ("adam", "an optimizer with a rather long name", *(f"arm {k}" for k in range(6)))
    lost = {("linear-act-norm", seed): "diverged" for seed in range(4)}
    layers = probed(sites=6)
    for arm in layers["probe"]["arms"]:
        arm["sites"][0]["name"] = "block_17/batch_normalization"
    return {
        "two arms": looked,
        "eight arms": make_study(6, orders=names),
        "varied": varied(make_study(5)),
        "diverged": make_study(6, effect=0.0, lost=lost),
        "probed": make_study(4) | {"probe": layers["probe"]},
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the file of each study's page by the study's name."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, study in studies().items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(study_html(study), encoding="utf-8")
    return found


KINDS = ("two arms", "eight arms", "varied", "diverged", "probed")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_is_cut_or_too_small(kind, width, browser, pages):
    for dark in (False, True):
        browser.said.clear()
        browser.show(width, dark=dark)
        browser.open(pages[kind])
        assert browser.evaluate(WIDTH) <= 0
        assert browser.said == []
    assert browser.evaluate(SMALL) == []
    assert browser.evaluate(CUT) == []
    assert browser.evaluate(TOUCHING) == []
    assert browser.evaluate(UNREACHED) == 0
    assert pages[kind].stat().st_size < LARGEST


def test_the_dark_page_is_dark(browser, pages):
    shades = []
    for dark in (False, True):
        browser.show(768, dark=dark)
        browser.open(pages["two arms"])
        shades.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades == ["rgb(253, 253, 251)", "rgb(22, 24, 29)"]


def test_the_answer_is_on_the_first_screen_of_a_phone(browser, pages):
    browser.show(360)
    browser.open(pages["two arms"])
    hero = "document.querySelector('.hero .drawing').getBoundingClientRect().bottom"
    assert browser.evaluate(hero) < 640


@pytest.mark.parametrize("kind", KINDS)
def test_paper_cuts_no_table(kind, browser, pages):
    browser.show(717, medium="print")  # A4 without its margins
    browser.open(pages[kind])
    assert browser.evaluate(WIDE) == []


def test_paper_shows_what_is_folded_and_fits(browser, pages):
    browser.show(720, dark=True, medium="print")
    browser.open(pages["two arms"])
    assert browser.evaluate(FOLDED) == 0
    assert browser.evaluate(WIDTH) <= 0
    assert browser.evaluate(SMALL) == []
    ink = browser.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(29, 33, 41)"  # the light page's, whatever the screen is


HOSTILE = "\x00\x1b[31m\u202e<script>alert(1)</script>" + "w" * 200
SHOWN = "document.documentElement.outerHTML"


def hostile(study):
    """Return a study whose arms and texts are somebody's attempt to break the page."""
    names = {arm["label"]: f"{k}{HOSTILE}" for k, arm in enumerate(study["arms"])}
    for arm in study["arms"]:
        arm |= {"label": names[arm["label"]], "order": None, "alias": None, "words": HOSTILE}
    for found in (*study["comparisons"], *study["runs"]):
        found |= {k: names[found[k]] for k in ("arm", "against") if k in found}
        found |= {"note": HOSTILE}
    study["notes"], study["sentence"] = [HOSTILE], HOSTILE
    study["model"] = {**study["model"], "name": HOSTILE}
    return study


@pytest.mark.parametrize("width", [360, 1440])
def test_no_name_breaks_the_page(width, browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(study_html(hostile(make_study(5))), encoding="utf-8")
    browser.said.clear()
    browser.show(width)
    browser.open(page)
    assert browser.said == []
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate(SHOWN).replace("\n", "").isprintable()
    assert browser.evaluate(WIDTH) <= 0
