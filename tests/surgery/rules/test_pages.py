"""Contracts over all rules: a page each, nothing found in nothing, clean sentences."""

import re
from dataclasses import fields
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from relucate.graph import Graph
from relucate.keras import read
from relucate.surgery.audit import audit_graph
from relucate.surgery.rules import RULES, SEVERITIES
from relucate.surgery.rules import pages as made

FOLDER = Path(__file__).parents[3] / "docs" / "rules"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README")
SECTIONS = ["What it finds", "Why", "Example", "Fix", "When it is fine", "Reference"]
BN = kl.BatchNormalization


@pytest.mark.parametrize("code", RULES)
def test_a_rule_has_its_page(code):
    text = (FOLDER / f"{code}.md").read_text()
    rule = RULES[code]
    assert text.startswith(f"# {code} {rule.name}\n\nSeverity: {rule.severity}")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    example, fix = re.search(r"## Example\n(.*)## Fix\n(.*)## When", text, re.DOTALL).groups()
    assert f'select=["{code}"]' in example
    assert f'select=["{code}"]' in fix
    assert "found." in example
    assert ".findings)  # 0" in fix
    assert re.search(r"\btorch\b", fix)
    assert code == "N304" or f"--ignore {code}" in text
    assert re.search(r"(19|20)\d\d|issue|sources?\b|Lasagne|Keras", text.split("## Reference")[1])


@pytest.mark.parametrize("code", RULES)
def test_a_page_is_its_rules_docstring(code):
    assert (FOLDER / f"{code}.md").read_text() == made.page(RULES[code]), "run docs/rules.py"


def test_the_index_is_made_of_the_rules():
    assert index() == made.index(), "run docs/rules.py"


def test_paragraphs_are_joined_and_code_is_not():
    text = ["a", "b", "", "- c", "  d", "- e", "```python", "f", "  g", "```", "| h |", "| i |"]
    joined = ["a b", "", "- c d", "- e", *text[6:]]
    assert list(made._joined(text)) == joined


def test_every_page_belongs_to_a_rule_and_the_index_lists_all():
    assert sorted(RULES) == PAGES
    rows = re.findall(r"^\| \[(\w+) ([\w-]+)\]\((.*)\) \| (\w+) \| (.+) \|$", index(), re.MULTILINE)
    expected = [(c, r.name, f"{c}.md", r.severity) for c, r in sorted(RULES.items())]
    assert [row[:4] for row in rows] == expected


def index():
    return (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("code", RULES)
def test_a_rule_says_what_it_is(code):
    rule = RULES[code]
    assert re.fullmatch(r"N[1-5]\d\d", code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name)
    assert rule.severity in SEVERITIES
    assert rule.summary.endswith(".")
    assert "\n" not in rule.summary
    assert 20 < len(rule.summary) < 120


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_nothing_is_found_in_nothing(framework):
    audit = audit_graph(Graph("empty", {}, (), (), {}, framework=framework), steps=1)
    assert (audit.sites, audit.findings) == ((), ())


def test_nothing_is_found_without_norms(build, find):
    layers = [kl.Conv2D(4, 3, use_bias=False), kl.ReLU(), kl.Dropout(0.5), kl.Conv2D(4, 3)]
    assert find(build((8, 8, 3), *layers, kl.Flatten(), kl.Dense(2), kl.Softmax()), steps=1) == []


def bad_model(build):
    """A model in which nearly every rule finds something."""
    inner = keras.Sequential([keras.Input((8, 8, 4)), BN(axis=1, name="wrong")], name="inner")
    layers = (
        inner,
        lambda x: kl.Add()([x, x]),
        kl.Conv2D(4, 3, use_bias=False, activation="relu", padding="same", name="bare"),
        BN(name="after"),
        kl.Dropout(0.5),
        kl.Conv2D(4, 3, padding="same", name="biased"),
        BN(name="stored", epsilon=1e-5, momentum=0.9),
        kl.ReLU(),
        kl.Conv2D(4, 3, padding="same", name="linear"),
        BN(name="lost"),
        kl.Conv2D(4, 3, padding="same", name="again"),
        lambda x: BN(name="insists")(x, training=True),
        BN(name="stacked"),
        kl.ReLU(),
        kl.Conv2D(4, 3, padding="same", name="more"),
        BN(name="broken"),
        kl.Softmax(),
    )
    net = build((8, 8, 4), *layers)
    values = {layer.name: layer for layer in [*net.layers, *inner.layers]}
    values["after"].moving_mean.assign([-1, 1, 1, 1])
    values["stored"].moving_mean.assign([0, 0, 0, 0])
    values["stored"].moving_variance.assign([1, 1, 1, 1])
    values["lost"].moving_variance.assign([0, 1, 1, 1])
    values["lost"].gamma.assign([0, 1, 1, 1])
    values["broken"].beta.assign([np.nan, 1, 1, 1])
    return read(net)


def test_findings_are_clean(build):
    graph = bad_model(build)
    audit = audit_graph(graph, steps=10)
    layers = {node.layer for node in graph}
    assert {finding.code for finding in audit.findings} == set(RULES)
    for finding in audit.findings:
        assert finding.where in layers
        assert finding.rule == RULES[finding.code].name
        for text in (finding.message, finding.fix):
            assert text == text.strip()
            assert text
            assert not text.endswith((".", ":", ","))
            assert not re.search(r"None|True\b(?<!=True)|\[|\]|<|>|array|dtype|np\.|  |\n", text)
    assert [f.code for f in audit.findings] == [
        f.code for s in reversed(SEVERITIES) for f in audit.findings if f.severity == s
    ]


def test_findings_are_the_same_each_time(build):
    graph = bad_model(build)
    first, second = audit_graph(graph, steps=10), audit_graph(graph, steps=10)
    assert first.to_dict() == second.to_dict()
    names = {field.name for field in fields(first.findings[0])}
    assert all(set(f) == names for f in first.to_dict()["findings"])


@pytest.mark.parametrize("code", RULES)
def test_a_rule_can_be_left_out(code, build):
    graph = bad_model(build)
    everything = audit_graph(graph, steps=10).findings
    alone = audit_graph(graph, steps=10, select=[RULES[code].name]).findings
    without = audit_graph(graph, steps=10, ignore=[code.lower()]).findings
    assert list(alone) == [f for f in everything if f.code == code]
    assert list(without) == [f for f in everything if f.code != code]
    assert alone
