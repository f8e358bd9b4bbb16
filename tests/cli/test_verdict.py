"""`relucate verdict`: files, options, what it writes, and what it says of wrong files."""

import json
from dataclasses import fields
from inspect import signature

import pytest
from typer.testing import CliRunner

import relucate
from relucate.cli.app import app
from relucate.study.options import VerdictOptions

TWO = "arm,seed,score\n" + "".join(
    f"before,{s},{2.1 + s / 10}\nafter,{s},{1.8 + s / 9}\n" for s in range(4)
)
MAE = ["--metric", "mae", "--margin", "0.1"]


@pytest.fixture
def ran(tmp_path):
    def run(content, *options, name="scores.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CliRunner().invoke(app, ["verdict", str(path), *options])

    return run


def test_the_verdict_in_words(ran):
    result = ran(TWO, *MAE, "--unit", "mm")
    assert result.exit_code == 0
    assert result.stdout.startswith("BETTER: after is better than before: MAE lower by 0.28 mm")
    assert "scores.csv: 8 scores" in " ".join(result.stdout.split())


def test_json_alone_and_the_report_of_it(ran, tmp_path):
    out = tmp_path / "new" / "study.json"
    result = ran(TWO, *MAE, "--format", "json", "--out", str(out))
    document = json.loads(result.stdout)
    assert document == json.loads(out.read_text())
    assert document["scores"]["rows"] == 8
    assert len(document["scores"]["fingerprint"]) == 64
    again = CliRunner().invoke(app, ["report", str(out)])
    assert "after is better than before" in again.stdout
    assert "relucate verdict" in out.with_name("report.html").read_text()


def test_a_page(ran, tmp_path):
    result = ran(TWO, *MAE, "--out", str(tmp_path / "page.html"))
    assert "page.html" in result.stdout.replace("\n", "")
    assert "after is better than before" in (tmp_path / "page.html").read_text()


def test_several_metrics_and_options(ran):
    text = "order,run,mae,auc\n" + "".join(
        f"{a},{s},{2.1 + s / 10 - k * (0.3 - s / 90)},{0.8 + s / 90 + k / 10 + s * k / 300}\n"
        for s in range(5)
        for k, a in enumerate(["x", "y"])
    )
    options = ["--arm", "order", "--seed", "run", "--metric", "mae", "--metric", "auc"]
    result = ran(text, *options, "--margin", "0.1", "--margin", "0.02", "--format", "json")
    document = json.loads(result.stdout)
    assert document["metric"]["name"] == "MAE"
    assert [found["metric"]["name"] for found in document["further"]] == ["auc"]
    assert document["difference"]["level"] == document["further"][0]["difference"]["level"] == 0.975


@pytest.mark.parametrize("flag", ["--unpaired", "--looks"])
def test_flags(ran, flag):
    method = json.loads(ran(TWO, *MAE, flag, "--format", "json").stdout)["difference"]["method"]
    assert (
        method
        == {
            "--unpaired": "Welch's t, unpaired",
            "--looks": "paired t, looks after every pair",
        }[flag]
    )


WRONG = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "header alone": ("arm,seed,score\n", "no scores"),
    "not UTF-8": ("arm,seed,score\nnaïve,0,1\n".encode("latin-1"), r"isn't UTF-8 text \(line 2\)"),
    "UTF-16": (TWO.encode("utf-16"), "isn't UTF-8"),
    "NUL": (TWO + "a,9,\0\n", r"isn't CSV|expected a number"),
    "text": (TWO.replace("1.8", "low", 1), r"line 3: expected a number as the score of 'after'"),
    "true": (TWO.replace("1.8", "True", 1), "line 3: expected a number"),
    "percent": (TWO.replace("1.8", "91%", 1), "line 3: expected a number"),
    "underscore": (TWO.replace("1.8", "1_8", 1), "line 3: expected a number"),
    "twice": (TWO + "after,0,2\n", r"two scores with seed 0: line 3 and line 10"),
    "missing": (TWO + "after,9,\n", r"line 10.*--worst"),
    "more cells": (TWO + "after,9,2,5\n", r"line 10: expected 3 cells.*got 4 \(numbers need"),
    "fewer cells": (TWO + "after,9\n", "line 10: expected 3 cells.*got 2"),
    "no header": (TWO.partition("\n")[2].replace("before", "0").replace("after", "1"), "must name"),
    "a column twice": (TWO.replace("seed", "arm", 1), "several columns called 'arm'"),
    "no arm": (TWO.replace("arm", "model", 1), r"unknown column 'arm'.*--arm"),
    "no seed": (TWO.replace("seed", "run", 1), r"unknown column 'seed'.*--seed"),
    "no score": (TWO.replace("score", "value", 1), r"unknown column 'score'.*--score"),
    "no metric": ("seed,score\n0,1\n1,2\n", r"unknown column 'arm'"),
    "quotes": (TWO + '"a"b,1,2\n', "isn't CSV"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files(ran, content, message):
    refused(ran(content, *MAE), message)


def refused(result, message):
    assert result.exception is not None
    assert result.exception.exit_code == 2
    text = str(result.exception)
    assert pytest.raises(ValueError, match=message).matches(result.exception), text
    assert text.endswith((".", "?"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"arm": "a", "seed": 0, "score": 1}\n{"arm": ', "line 2: expected a JSON object"),
        ("[1, 2]\n", "line 1: expected a JSON object"),
        ("[" * 100_000, "line 1: expected a JSON object"),
        ('{"arm": "a", "seed": 0, "score": {"x": 1}}', "row|line 1: expected a number"),
        ('{"arm": "a", "seed": 0, "score": "1"}', "line 1: expected a number"),
    ],
)
def test_wrong_json_lines(ran, content, message):
    refused(ran(content, *MAE, name="scores.jsonl"), message)


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        refused(CliRunner().invoke(app, ["verdict", str(path), *MAE]), "can't read")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name what the scores are"),
        (["--metric", "mae"], "a margin is needed"),
        (["--metric", "mae", "--margin", "0"], "margin above 0"),
        (["--metric", "wobble", "--margin", "1"], "--lower-is-better"),
        ([*MAE, "--higher-is-better"], "lower_is_better=False"),
        ([*MAE, "--out", "page.txt"], "must end in .html or .json"),
        (["--metric", "accuracy"], "line 2: expected an accuracy from 0 to 1, got 2.1. If"),
        ([*MAE, "--looks", "--unpaired"], "needs pairs"),
    ],
)
def test_wrong_options(ran, options, message):
    refused(ran(TWO, *options), message)


def test_a_report_that_cant_be_written(ran, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("x.json", "x.html"):
        refused(ran(TWO, *MAE, "--out", str(tmp_path / "file" / name)), "can't (be )?writ")


def test_the_options_are_those_of_the_function():
    taken = signature(relucate.verdict).parameters
    names = {field.name for field in fields(VerdictOptions)}
    assert names == set(taken) - {"scores", "command"}
    for field in fields(VerdictOptions):
        if field.default is not None and field.name != "looks":
            assert field.default == taken[field.name].default
