"""The table of a fold, convert or rebuild: a row a norm, or a row for norms with the same fate."""

from relucate.report.transform import table


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
