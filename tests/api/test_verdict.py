"""Scores that exist already: every form that they come in, what is said, and what is refused."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import relucate
from relucate.errors import InputError
from relucate.report import study_html

RUNS = {
    "before": {0: 2.1, 1: 2.3, 2: 2.2, 3: 2.4},
    "after": {0: 1.9, 1: 2.0, 2: 2.0, 3: 2.1},
}
LONG = [
    {"arm": arm, "seed": seed, "score": score}
    for arm, runs in RUNS.items()
    for seed, score in runs.items()
]
WIDE = [{"seed": seed, **{arm: runs[seed] for arm, runs in RUNS.items()}} for seed in range(4)]
MAE = {"metric": "MAE", "margin": 0.1}


def csv(rows):
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def written(tmp_path, text, name="scores.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def facts(study):
    document = study.to_dict()
    kept = ("verdict", "winner", "sentence", "difference", "differences", "arms", "notes")
    return {key: document[key] for key in kept}


def test_every_form_says_the_same(tmp_path):
    pandas = pytest.importorskip("pandas")
    forms = [
        LONG,
        WIDE,
        pandas.DataFrame(LONG),
        pandas.DataFrame(WIDE),
        SimpleNamespace(to_dicts=lambda: LONG),  # polars
        SimpleNamespace(to_native=lambda: pandas.DataFrame(LONG)),  # narwhals
        SimpleNamespace(to_pylist=lambda: WIDE),  # pyarrow
        written(tmp_path, csv(LONG)),
        str(written(tmp_path, "\ufeff" + csv(WIDE).replace("\n", "\r\n"), "wide.csv")),
        written(tmp_path, csv(LONG).replace(",", ";"), "semicolons.csv"),
        written(tmp_path, csv(LONG).replace(",", "\t"), "tabs.tsv"),
        written(tmp_path, "\n".join(map(json.dumps, LONG)), "rows.jsonl"),
        written(tmp_path, "\n".join(map(json.dumps, WIDE)), "rows.txt"),
    ]
    expected = facts(relucate.verdict(RUNS, **MAE))
    assert expected["winner"] == "after"
    for form in forms:
        assert facts(relucate.verdict(form, **MAE)) == expected


def test_lists_are_paired_by_position_and_that_is_said():
    lists = {arm: list(runs.values()) for arm, runs in RUNS.items()}
    for scores in (lists, {arm: np.array(runs) for arm, runs in lists.items()}):
        study = relucate.verdict(scores, **MAE)
        assert study.difference == relucate.verdict(RUNS, **MAE).difference
        assert "paired by position" in study.to_dict()["notes"][0]


def test_rows_without_seeds_are_pairs_in_the_wide_form_only():
    rows = [{arm: row[arm] for arm in RUNS} for row in WIDE]
    assert "each row is a pair" in relucate.verdict(rows, **MAE).to_dict()["notes"][0]
    rows = [{"arm": row["arm"], "score": row["score"]} for row in LONG]
    with pytest.raises(InputError, match="--unpaired"):
        relucate.verdict(rows, **MAE)
    assert relucate.verdict(rows, paired=False, **MAE).difference["method"].startswith("Welch")


def test_other_names_of_columns():
    rows = [{"order": r["arm"], "run": r["seed"], "val/mae": r["score"], "lr": 0.1} for r in LONG]
    study = relucate.verdict(rows, arm="order", seed="run", score="val/mae", **MAE)
    assert study.winner == "after"
    found = relucate.verdict(rows, arm="order", seed="run", metric="val/mae", margin=0.1)
    assert found.difference == study.difference


RMSE = [
    {"order": arm, "seed": seed, "rmse": score, "epoch": 12}
    for arm, runs in {"before": [2.1, 2.3, 2.2], "after": [1.9, 2.0, 2.05]}.items()
    for seed, score in enumerate(runs)
]


def test_the_columns_say_what_the_scores_are():
    study = relucate.verdict(RMSE, margin=0.1)
    document = study.to_dict()
    assert document["metric"]["name"] == "RMSE"
    assert [arm["label"] for arm in document["arms"]] == ["before", "after"]
    assert study.difference["estimate"] == pytest.approx(-0.2166667)
    named = relucate.verdict(RMSE, margin=0.1, score="rmse", arm="order", metric="RMSE")
    assert named.difference == study.difference


def test_a_column_of_metrics_says_it_if_all_rows_have_the_same():
    rows = [{**row, "metric": "rmse"} for row in LONG]
    assert relucate.verdict(rows, margin=0.1).to_dict()["metric"]["name"] == "RMSE"
    rows[-1]["metric"] = "mae"
    with pytest.raises(InputError, match=r"several\. rows has rmse, mae"):
        relucate.verdict(rows, margin=0.1)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([{**row, "val_loss": 1.0} for row in RMSE], r"several\. rows has rmse, val_loss"),
        ([{**row, "score": 1.0} for row in RMSE], "rows has the columns order, seed, rmse, epoch"),
        ([{"seed": 0, "before": 1.0, "rmse": 2.0}], "rows has the columns seed, before, rmse"),
        ({"before": [1.0, 2.0], "after": [1.0, 3.0]}, "name what the scores are: metric='mae'"),
    ],
)
def test_without_a_clear_name_the_metric_must_be_given(scores, message):
    with pytest.raises(InputError, match=message):
        relucate.verdict(scores, margin=0.1)


def test_two_columns_that_may_have_the_scores_are_refused():
    rows = [{**row, "score": row["rmse"] + 1} for row in RMSE]
    with pytest.raises(InputError, match="in the column 'score' or in 'rmse': name"):
        relucate.verdict(rows, metric="rmse", margin=0.1)
    means = [
        relucate.verdict(rows, metric="rmse", margin=0.1, score=name).to_dict()["arms"][0]["mean"]
        for name in ("rmse", "score")
    ]
    assert means == pytest.approx([2.2, 3.2])


def test_the_reference_and_the_arms_are_chosen():
    scores = {**RUNS, "none": {seed: 3.0 + seed / 10 for seed in range(4)}}
    document = relucate.verdict(scores, against="none", **MAE).to_dict()
    assert [c["arm"] for c in document["comparisons"]] == ["before", "after"]
    assert {c["against"] for c in document["comparisons"]} == {"none"}
    assert document["difference"]["level"] == 0.975
    two = relucate.verdict(scores, arms=["none", "after"], **MAE).to_dict()
    assert [arm["label"] for arm in two["arms"]] == ["none", "after"]
    assert two["difference"]["level"] == 0.95


def test_seeds_of_one_arm_alone_are_named_and_left_out():
    scores = {"before": {**RUNS["before"], 9: 2.0}, "after": {**RUNS["after"], 7: 1.0}}
    document = relucate.verdict(scores, **MAE).to_dict()
    assert document["pairs"] == 4
    assert "seeds 7 (not in before), 9 (not in after)" in document["notes"][0]
    assert {run["seed"] for run in document["runs"]} == {0, 1, 2, 3}


def test_unpaired_runs_all_count():
    scores = {"before": {**RUNS["before"], 9: 2.0}, "after": RUNS["after"]}
    document = relucate.verdict(scores, paired=False, **MAE).to_dict()
    assert document["comparisons"][0]["runs"] == [5, 4]
    assert [arm["n"] for arm in document["arms"]] == [5, 4]
    assert document["differences"] == []
    assert "5 and 4 runs" in document["sentence"]
    assert "Welch" in study_html(document)


@pytest.mark.parametrize("lost", [None, math.nan, math.inf, -math.inf, "diverged", "", "NaN"])
def test_a_lost_run_needs_its_worst_score(lost):
    rows = [*LONG[:-1], {**LONG[-1], "score": lost}]
    with pytest.raises(InputError, match=r"row 7.*--worst"):
        relucate.verdict(rows, **MAE)
    document = relucate.verdict(rows, worst=5.0, **MAE).to_dict()
    assert document["arms"][1]["diverged"] == 1
    assert "1 of 4 runs of after diverged" in document["sentence"]
    metric = relucate.Metric("MAE", lower_is_better=True, worst=5.0)
    own = relucate.verdict(rows, metric=metric, margin=0.1)
    assert own.difference == relucate.verdict(rows, worst=5.0, **MAE).difference
    with pytest.raises(InputError, match="isn't the worst"):
        relucate.verdict(rows, worst=0.0, **MAE)


def test_accuracy_in_percent_is_refused_and_how_to_say_it():
    percent = {"a": [91.0, 92.0, 91.5], "b": [92.0, 92.5, 93.0]}
    with pytest.raises(InputError, match="percent"):
        relucate.verdict(percent, metric="accuracy")
    study = relucate.verdict(percent, metric="accuracy", unit="%", margin=0.5)
    assert "0.5 %" in study.sentence
    shares = {arm: [score / 100 for score in runs] for arm, runs in percent.items()}
    assert relucate.verdict(shares, metric="accuracy").to_dict()["margin"] == 0.005


@pytest.mark.parametrize("margin", [0.5, 1, 2.0])
def test_a_margin_in_points_is_refused_for_a_fraction(margin):
    scores = {"before": [0.9, 0.91, 0.92], "after": [0.91, 0.93, 0.93]}
    with pytest.raises(InputError, match=f"a margin of {100 * margin:g} points would"):
        relucate.verdict(scores, metric="accuracy", margin=margin)
    with pytest.raises(InputError, match="an accuracy goes from 0 to 1, where half a point"):
        relucate.compare("mlp", margin=margin)
    assert relucate.verdict(scores, metric="accuracy", margin=0.4).verdict == "equivalent"
    percent = {arm: [100 * x for x in runs] for arm, runs in scores.items()}
    relucate.verdict(percent, metric="accuracy", unit="%", margin=margin)


def test_a_metric_needs_a_margin_and_a_direction():
    with pytest.raises(InputError, match="a margin is needed for 'MAE'"):
        relucate.verdict(RUNS, metric="mae")
    with pytest.raises(InputError, match="lower-is-better"):
        relucate.verdict(RUNS, metric="wobble", margin=0.1)
    assert relucate.verdict(RUNS, metric="wobble", margin=0.1, lower_is_better=True).winner
    with pytest.raises(InputError, match="lower_is_better=False"):
        relucate.verdict(RUNS, metric="mae", margin=0.1, lower_is_better=False)


def several():
    return [{**row, "mae": row["score"], "auc": 1 - row["score"] / 4} for row in LONG]


@pytest.mark.parametrize("form", ["columns", "rows", "wide"])
def test_several_metrics_share_the_error(form):
    rows = [{k: v for k, v in row.items() if k != "score"} for row in several()]
    if form == "rows":
        rows = [
            {"arm": r["arm"], "seed": r["seed"], "metric": name, "score": r[name]}
            for r in rows
            for name in ("mae", "auc")
        ]
    if form == "wide":
        known = {(r["arm"], r["seed"], name): r[name] for r in rows for name in ("mae", "auc")}
        rows = [
            {"seed": s, "metric": n, **{a: known[a, s, n] for a in RUNS}}
            for s in range(4)
            for n in ("mae", "auc")
        ]
    study = relucate.verdict(rows, metric=["mae", "auc"], margin=[0.1, 0.02])
    assert list(study.metrics) == ["MAE", "auc"]
    assert {found.winner for found in study.metrics.values()} == {"after"}
    assert {found.difference["level"] for found in study.metrics.values()} == {0.975}
    alone = relucate.verdict(rows, metric="auc", margin=0.02, level=0.975)
    assert study.metrics["auc"].difference == alone.difference
    text = study_html(study.to_dict())
    assert text.count('class="badge better"') == 2
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert str(study).count("BETTER") == 2
    assert study._repr_html_().count("BETTER") == 2


def test_what_belongs_to_one_of_several_metrics():
    rows = [{**row, "x": row["mae"]} for row in several()]
    rows[0]["mae"] = rows[1]["x"] = None
    options = {"margin": [0.1, 0.2], "unit": ["mm", None], "worst": [5.0, -1.0]}
    study = relucate.verdict(rows, metric=["mae", "x"], lower_is_better=False, **options)
    first, second = (found.to_dict()["metric"] for found in study.metrics.values())
    assert (first["direction"], first["unit"], first["worst"]) == ("lower", "mm", 5.0)
    assert (second["direction"], second["unit"], second["worst"]) == ("higher", "", -1.0)
    with pytest.raises(InputError, match="better"):
        relucate.verdict(rows, metric=["mae", "x"], **options)
    with pytest.raises(InputError, match=r"row 1.*--worst"):
        relucate.verdict(rows, metric=["mae", "R2"], score=["mae", "x"],
                         **{**options, "worst": [5.0, None]})  # fmt: skip


def test_looks_take_the_wider_bounds_and_stop_where_they_decide():
    scores = {"a": {s: 0.0 + s % 2 / 50 for s in range(12)}, "b": dict.fromkeys(range(12), 1.0)}
    fixed, looked = (relucate.verdict(scores, looks=looks, **MAE) for looks in (False, True))
    assert looked.verdict == fixed.verdict == "better"
    document = looked.to_dict()
    assert document["pairs"] < 12
    assert "12 pairs decide" in document["notes"][0]
    assert "looks after every pair" in looked.difference["method"]
    with pytest.raises(InputError, match="needs pairs"):
        relucate.verdict(scores, looks=True, paired=False, **MAE)


def test_nothing_is_invented():
    document = relucate.verdict(RUNS, **MAE).to_dict()
    unknown = ("model", "data", "recipe", "engine", "pairing", "seconds")
    assert [document[key] for key in unknown] == [None] * 6
    assert {arm["order"] for arm in document["arms"]} == {None}
    page = study_html(document)
    for word in ("None", "norm_parameters", "Recipe", "Engine", "time a run", "linear ("):
        assert word not in page
    assert "None" not in str(relucate.verdict(RUNS, **MAE))


def test_the_keys_of_the_document_are_documented():
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    section = page.partition("## `relucate.compare/2`")[2].partition("\n## ")[0]
    known = set(re.findall(r"\b\w+\b", section))
    document = relucate.verdict(several(), metric=["mae", "auc"], margin=[1, 1], paired=False)
    document = document.to_dict()
    parts = [document, document["scores"], *(document[k][0] for k in ("arms", "runs"))]
    for part in [*parts, document["comparisons"][0], document["difference"]]:
        assert set(part) - {"schema"} <= known


def test_equal_arms_are_noted():
    document = relucate.verdict({"a": RUNS["before"], "b": RUNS["before"]}, **MAE).to_dict()
    assert "the scores of b are those of a, seed by seed" in document["notes"]


def test_seeds_may_be_huge_or_names():
    huge = {arm: {10**30 + s: v for s, v in runs.items()} for arm, runs in RUNS.items()}
    assert relucate.verdict(huge, **MAE).to_dict()["differences"][0]["seed"] == 10**30
    named = {arm: {f"fold {s}": v for s, v in runs.items()} for arm, runs in RUNS.items()}
    document = relucate.verdict(named, **MAE).to_dict()
    assert document["differences"][0]["seed"] == "fold 0"
    assert "fold 0" in study_html(document)


BAD = {
    "one arm": ({"a": {0: 1.0, 1: 2.0}}, "at least two arms"),
    "no arms": ({}, "at least two arms"),
    "no scores": ([], "no scores"),
    "twice": ([*LONG, LONG[0]], r"two scores with seed 0: row 0 and row 8"),
    "text": ([{**LONG[0], "score": "good"}, *LONG[1:]], r"row 0: expected a number.*'good'"),
    "number as text": ([{**LONG[0], "score": "0.5"}, *LONG[1:]], "row 0: expected a number"),
    "bool": ([{**LONG[0], "score": True}, *LONG[1:]], r"row 0: expected a number.*True"),
    "numpy's bool": ([{**LONG[0], "score": np.True_}, *LONG[1:]], "row 0: expected a number"),
    "array": ([{**LONG[0], "score": np.ones(3)}, *LONG[1:]], "row 0: expected one number"),
    "list": ([{**LONG[0], "score": [1.0]}, *LONG[1:]], "row 0: expected one number"),
    "complex": ([{**LONG[0], "score": 1j}, *LONG[1:]], "row 0: expected a number"),
    "huge": ([{**LONG[0], "score": 1e200}, *LONG[1:]], "row 0.*too large"),
    "no seed": ([{**LONG[0], "seed": None}, *LONG[1:]], "row 0: expected a whole number"),
    "half a seed": ([{**LONG[0], "seed": 0.5}, *LONG[1:]], "row 0: expected a whole number"),
    "bool as seed": ([{**LONG[0], "seed": True}, *LONG[1:]], "row 0: expected a whole number"),
    "no arm": ([{**LONG[0], "arm": math.nan}, *LONG[1:]], "row 0: expected the name of an arm"),
    "one pair": ({"a": {0: 1.0, 1: 2.0}, "b": {1: 1.0, 2: 2.0}}, "there is 1 such seed"),
    "no pair": ({"a": {0: 1.0}, "b": {2: 2.0}}, r"there are 0 such seeds.*0 \(not in b\)"),
    "all the same": ({"a": [2.0, 2.0, 2.0], "b": [2.0, 2.0, 2.0]}, "every score of 'MAE' is 2"),
    "mixed": ({"a": [1.0, 2.0], "b": {0: 1.0, 1: 3.0}}, "give all of them seeds"),
    "not runs": ({"a": 1.0, "b": 2.0}, "must be"),
    "something else": (3, "got int"),
    "rows of numbers": ([1.0, 2.0], "got list"),
}


@pytest.mark.parametrize(("scores", "message"), BAD.values(), ids=BAD)
def test_bad_scores_are_refused(scores, message):
    with pytest.raises(InputError, match=message):
        relucate.verdict(scores, **MAE)


OPTIONS = {
    "margin 0": ({"margin": 0}, "margin above 0"),
    "negative margin": ({"margin": -1.0}, "margin above 0"),
    "margins": ({"margin": [0.1, 0.2]}, "a margin for each of 1 metric"),
    "one margin": ({"metric": ["mae", "auc"]}, "a margin for each of 2 metrics, got 1"),
    "one worst": ({"metric": ["mae", "x"], "margin": [1, 1], "worst": 5}, "a worst for each"),
    "level": ({"level": 95}, "level between 0 and 1"),
    "against": ({"against": "befor"}, "did you mean 'before'"),
    "arms": ({"arms": ["before", "afterr"]}, "did you mean 'after'"),
    "one arm": ({"arms": ["before"]}, "at least two arms"),
    "an arm twice": ({"arms": ["before", "before"]}, "given twice"),
    "seed": ({"seed": "sed"}, "did you mean 'seed'"),
    "arm": ({"arm": "arms"}, "did you mean 'arm'"),
    "score": ({"score": "scor"}, "did you mean 'score'"),
    "scores": ({"score": ["score", "seed"]}, "one score column for each metric"),
    "metric": ({"metric": []}, "expected a metric"),
    "metrics": ({"metric": ["mae", "MAE"], "margin": [1, 2]}, "given twice"),
    "no name": ({"metric": [3]}, "given by its name"),
    "names": ({"arms": [3]}, "arms must be names"),
    "unit": ({"metric": relucate.Metric("x"), "unit": "mm"}, "has its own unit"),
    "direction": ({"metric": relucate.Metric("x"), "lower_is_better": True}, "says lower_is"),
    "scale": ({"scale": 0}, "scale must be"),
    "worst": ({"worst": math.nan}, "worst must be"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        relucate.verdict(LONG, **{**MAE, **options})


def test_a_metric_that_no_row_has():
    rows = [{**row, "metric": "val_mae"} for row in LONG]
    with pytest.raises(InputError, match="did you mean 'val_mae'"):
        relucate.verdict(rows, metric="val_mea", margin=0.1, lower_is_better=True)


numbers = st.integers(0, 400).map(lambda k: k / 8)
pairs = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(runs=pairs, margin=st.sampled_from([0.25, 1.0, 8.0]), form=st.sampled_from("pul"))
def test_lower_is_better_mirrors_exactly(runs, margin, form):
    """A verdict on -scores where higher is better is that on scores where lower is."""
    options = {"margin": margin, "paired": form != "u", "looks": form == "l"}

    def decided(sign, lower):
        arms = {name: [sign * run[k] for run in runs] for k, name in enumerate("ab")}
        metric = relucate.Metric("m", lower_is_better=lower)
        try:
            return relucate.verdict(arms, metric=metric, **options).to_dict()
        except InputError as error:
            return str(error).partition(" is ")[0]

    low, high = decided(1, lower=True), decided(-1, lower=False)
    if isinstance(low, str):
        assert low == high
        return
    for key in ("verdict", "winner", "pairs", "correlation"):
        assert low[key] == high[key]
    one, other = low["difference"], high["difference"]
    assert one["estimate"] == -other["estimate"]
    assert one["sd"] == other["sd"]
    ends = [one["low"], one["high"]], [other["high"], other["low"]]
    assert ends[0] == [None if end is None else -end for end in ends[1]]
    if form == "p":
        shared = low["comparisons"][0]["classical"], high["comparisons"][0]["classical"]
        for key in ("superiority", "superiority_low", "t_p", "tost_p", "wilcoxon_p"):
            assert shared[0][key] == shared[1][key]


def test_scores_whose_differences_would_be_taken_for_rounding_are_refused():
    scores = {"a": [1e9 + n for n in (1.0, 2.0, 4.0)], "b": [1e9 + n for n in (2.0, 3.5, 5.0)]}
    with pytest.raises(InputError, match=r"1e\+09 count to 4.8e\+02.*margin of 0.1 is less"):
        relucate.verdict(scores, metric="mae", margin=0.1)
    assert relucate.verdict(scores, metric="mae", margin=1000.0).verdict == "inconclusive"
    near = {arm: [value - 1e9 for value in row] for arm, row in scores.items()}
    assert relucate.verdict(near, metric="mae", margin=0.1).winner == "a"
