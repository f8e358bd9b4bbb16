"""What a person sees of an audit: golden texts at 80 columns, any width, any text; HTML; SARIF.

After an intended change, write the golden files again with the printed text and look at the diff.
"""

import io
import json
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from relucate.report.audit import FEW, audit_html, print_audit
from relucate.report.sarif import sarif

GOLDEN = Path(__file__).parent / "golden"


def site(name, order="linear-norm-act", act="relu", linear="conv", unknown=(), **more):
    return {
        "name": name,
        "kind": more.get("kind", "batch"),
        "linear": linear,
        "act": act and f"{act}_1",
        "act_op": act,
        "order": order,
        "calls": more.get("calls", 1),
        "note": more.get("note", ""),
        "unknown": list(unknown),
    }


def finding(code="N101", severity="warning", where="conv", parameters=64):
    names = {"N101": "redundant-bias", "N206": "wrong-axis", "N103": "absorbable-scale"}
    return {
        "code": code,
        "rule": names[code],
        "severity": severity,
        "where": where,
        "message": f"something about {where} that takes a sentence to say, and then some more",
        "fix": f"use_bias=False in {where}",
        "parameters": parameters,
    }


def audit(sites=(), findings=(), unknown=()):
    summary = {}
    for one in sites:
        summary[one["order"]] = summary.get(one["order"], 0) + 1
    return {
        "schema": "relucate.audit/1",
        "model": "net",
        "framework": "keras",
        "sites": list(sites),
        "summary": summary,
        "findings": list(findings),
        "unknown": list(unknown),
    }


MIXED = [
    *(site(f"bn{i}") for i in range(20)),
    *(site(f"add_bn{i}", "linear-norm", None, note="relu after add") for i in range(9)),
    site("last_bn", "linear-act-norm", "tanh"),
]
CASES = {
    "audit_empty": audit(),
    "audit_clean": audit([site("bn1", linear="conv1"), site("bn2", linear="conv2")]),
    "audit_parts": audit(
        [
            site("bn", "linear-norm", None, calls=2),
            site("input_norm", "norm", None, None, kind="layer"),
            site("a_rather_long_name_of_a_norm_in_a_nested_model/bn", linear="encoder/conv"),
        ],
        [finding("N206", "error", "bn", 0), finding(where="conv")],
        ["lstm", "custom"],
    ),
    "audit_unsure": audit(
        [
            site("bn1", "norm-act", linear=None, unknown=["own_conv"]),
            site("bn2", unknown=["own_conv"]),
            site("bn3", "linear-norm", None, unknown=["own"], note="'own' couldn't be read"),
        ],
        unknown=["own_conv", "own"],
    ),
    "audit_groups": audit(
        MIXED,
        [finding(where=f"conv{i}") for i in range(5)]
        + [finding("N103", "note", f"bn{i}", 1000) for i in range(2)],
        [f"layer{i}" for i in range(7)],
    ),
}


def printed(audit, width=80, encoding="utf-8", **options):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    print_audit(audit, Console(file=file, width=width, color_system=None), **options)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("name", CASES)
def test_golden_at_80_columns(name):
    text = printed(CASES[name])
    assert text == (GOLDEN / f"{name}.txt").read_text("utf-8"), text


def test_many_norms_are_grouped_unless_all_are_asked_for():
    assert "bn7" not in printed(CASES["audit_groups"])
    every = printed(CASES["audit_groups"], every=True)
    assert "bn7" in every
    assert every.count("N101") == 5
    assert len(MIXED) > FEW


@pytest.mark.parametrize("width", [30, 48, 60, 79, 120])
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost_at_any_width(name, width):
    text = printed(CASES[name], width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    joined = "".join(text.split())
    for word in CASES[name]["summary"]:
        assert word in joined
    for one in CASES[name]["findings"]:
        assert one["code"] in joined


def test_ascii_terminals():
    assert printed(CASES["audit_groups"], encoding="ascii").isascii()


def test_markup_and_control_characters_are_text():
    text = printed(audit([site("[red]a\x1b[31m[/red]", linear="conv")]))
    assert "[red]a?[31m[/red]" in text


def test_html_escapes_and_shows_all():
    page = audit_html(audit([site("<script>1</script>")], [finding(where="<b>x</b>")], ["<i>"]))
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    for text in ("linear-norm-act", "N101 redundant-bias", "Could not be read", "1 warning"):
        assert text in page


RULES = [
    {"code": c, "name": n, "severity": s, "summary": f"About {n}."}
    for c, n, s in [("N101", "redundant-bias", "warning"), ("N206", "wrong-axis", "error")]
]


def test_sarif_has_what_the_standard_requires():
    log = sarif(CASES["audit_parts"], RULES, "1.2.3", file="net.py", line=7)
    assert json.loads(json.dumps(log)) == log
    assert (log["version"], log["$schema"][:8]) == ("2.1.0", "https://")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("relucate", "1.2.3")
    assert [rule["id"] for rule in driver["rules"]] == ["N101", "N206"]
    assert len(run["results"]) == 2
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
        (place,) = result["locations"]
        assert place["physicalLocation"]["region"]["startLine"] == 7
    prints = [r["partialFingerprints"]["layer/v1"] for r in run["results"]]
    assert len(set(prints)) == 2


def test_sarif_fingerprints_follow_layer_and_rule_only():
    def prints(found):
        log = sarif(audit(findings=[found]), RULES, "1")
        return log["runs"][0]["results"][0]["partialFingerprints"]["layer/v1"]

    first = finding()
    assert prints(first) == prints({**first, "message": "said otherwise", "severity": "note"})
    assert prints(first) != prints({**first, "where": "conv2"})


def test_sarif_without_a_file_names_the_layer_only():
    log = sarif(CASES["audit_parts"], RULES, "1")
    assert all("physicalLocation" not in r["locations"][0] for r in log["runs"][0]["results"])
