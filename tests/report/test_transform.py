"""The table of a fold, convert or rebuild: a row a norm, or a row for norms with the same fate."""

import re

from relucate.report.transform import table, transform_html


def report(rows):
    keys = ("name", "status", "old", "new", "strategy", "reason")
    return {"sites": [dict(zip(keys, row, strict=True)) for row in rows]}


def folded(count, strategy=None):
    order = "linear-norm-act"
    return [(f"norm_{k}", "done", order, "linear-act", strategy, "into c") for k in range(count)]


def test_many_norms_with_the_same_fate_share_a_row_and_name_their_layers():
    header, rows = table(report(folded(40)))
    assert header == ["norms", "so far", "then", "norm layers"]
    assert rows == [["40", "linear-norm-act", "linear-act", "norm_0 to norm_39"]]


def test_the_column_how_holds_borders_and_reasons_only():
    kept = [("last", "skipped", "linear-norm", None, None, "'conv1' is read by others (a, b)")]
    header, rows = table(report(folded(40, "shift") + kept))
    assert header[3:] == ["norm layers", "how"]
    assert [row[3:] for row in rows] == [
        ["norm_0 to norm_39", "border: shift"],
        ["last", "... is read by others"],
    ]


def test_a_notebook_breaks_only_long_cells():
    page = transform_html(
        report([(*folded(1)[0][:5], "into a convolution with a rather long name")])
        | {"summary": {"done": 1, "skipped": 0}, "order": None, "schema": "relucate.fold/1"}
        | {"model": "m", "framework": "keras", "parameters": {"before": 2, "after": 1}}
        | {"certificate": None, "seed": None, "warnings": []}
    )
    cells = re.findall(r"<td style=[^>]*?(nowrap)?\">([^<]*)", page)
    assert cells[-2:] == [
        ("nowrap", "linear-act"),
        ("", "into a convolution with a rather long name"),
    ]
