"""`relucate rules`: the list, a rule's page, JSON."""

import json
from functools import partial

import pytest

from relucate.surgery.rules import RULES


@pytest.fixture
def rules(call):
    return partial(call, "rules")


def test_the_list_has_each_rule_in_a_line(rules):
    code, out, _ = rules()
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [c, r.name, r.severity] for c, r in sorted(RULES.items())
    ]
    assert all(line.endswith(RULES[line[:4]].summary) for line in lines)


@pytest.mark.parametrize("rule", ["N101", "n101", "redundant-bias"])
def test_a_rules_page(rules, rule):
    code, out, _ = rules(rule)
    assert code == 0
    for text in ("N101 redundant-bias", "What it finds", "use_bias=False", "Ioffe and Szegedy"):
        assert text in out
    assert "##" not in out


def test_an_unknown_rule(rules):
    code, out, err = rules("redundant-bia")
    assert (code, out) == (2, "")
    assert "unknown rule 'redundant-bia': did you mean 'redundant-bias'?" in err


def test_json(rules):
    document = json.loads(rules("--format", "json")[1])
    assert document["schema"] == "relucate.rules/1"
    assert [row["code"] for row in document["rules"]] == sorted(RULES)
    row = json.loads(rules("N304", "--format", "json")[1])["rules"][0]
    assert set(row) == {"code", "name", "severity", "summary", "page"}
    assert row["page"].startswith("# N304 broken-values\n")
