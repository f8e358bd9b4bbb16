"""`relucate compare --run` and `relucate merge`: a training of one's own, and many stores."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import chdir, closing
from pathlib import Path

import pytest
from tests.in_process import without_workers

from relucate.cli.app import main
from relucate.study.store import _digest

pytestmark = pytest.mark.usefixtures("in_process")

TRAIN = """
import random

def train(order, seed, shift=0.0):
    noise = random.Random(f"{order} {seed}").random() / 100
    return {"auc": noise + shift + (0.1 if order == "after" else 0.0), "loss": 1.0}

def fails(order, seed):
    raise RuntimeError("out of luck")

def lower(order, seed):
    return -train(order, seed)["auc"]
"""


def exit_code(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.chdir(tmp_path)


def compared(*more, run="train.py:train"):
    fixed = ("--metric", "auc", "--margin", "0.01", "--quiet", "--jobs", "1", "--format", "json")
    return exit_code("compare", "--run", run, *fixed, *more)


def test_a_study_ends_with_its_document_and_report(capsys, tmp_path):
    assert compared() == 0
    study = json.loads(capsys.readouterr().out)
    assert (study["verdict"], study["winner"]) == ("better", "linear-act-norm")
    assert (study["margin"], study["metric"]["direction"]) == (0.01, "higher")
    assert study["model"]["name"].endswith("train.py:train")
    assert study["runs"][0]["scores"] == {"loss": 1.0}
    assert (tmp_path / "relucate-out" / "report.html").is_file()
    assert compared("--pairs", "3") == 0  # from the store
    again = json.loads(capsys.readouterr().out)
    assert {run["hash"] for run in again["runs"]} == {run["hash"] for run in study["runs"]}


def test_lower_is_better_options_and_a_key(capsys):
    more = ("--lower-is-better", "--metric", "cost", "-O", "shift=1", "--key", "v2")
    with_direction = compared(*more)
    assert with_direction == 2  # it returns no 'cost'
    assert "it returned 'auc', 'loss', and not 'cost'" in capsys.readouterr().err
    assert compared("--metric", "cost", "--lower-is-better", run="train.py:lower") == 0
    study = json.loads(capsys.readouterr().out)
    assert (study["winner"], study["metric"]["direction"]) == ("linear-act-norm", "lower")


def test_an_accuracy_is_compared_in_points(capsys):
    with open("train.py", "a") as file:
        file.write("\ndef right(order, seed): return train(order, seed)['auc']\n")
    assert compared("--metric", "accuracy", "--margin", "0.5", run="train.py:right") == 0
    assert json.loads(capsys.readouterr().out)["margin"] == 0.005


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cnn"], r"MODEL ('cnn') and --run each say what to train"),
        (["--epochs", "3"], "--epochs doesn't apply with --run"),
        (["--data", "digits"], "--data doesn't apply with --run"),
        (["--size", "8"], "--size doesn't apply with --run"),
        (["--width", "8"], "--width doesn't apply with --run"),
        (["--import", "a.py"], "--import doesn't apply with --run"),
        (["--tune", "lr"], "--tune doesn't apply with --run"),
        (["--engine", "torch"], "--engine doesn't apply with --run"),
        (["-O", "depth=3"], "unknown option of"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_apply_is_named(options, message, capsys):
    assert compared(*options) == 2
    assert message in capsys.readouterr().err


def test_if_every_run_fails_the_first_error_is_shown(capsys):
    assert compared(run="train.py:fails") == 2
    assert "seed 0 is lost" in (said := capsys.readouterr().err)
    assert "RuntimeError: out of luck (line 9 of" in said


def test_the_options_of_a_training_need_one(capsys):
    assert exit_code("compare", "mlp", "--key", "v2", "--quiet") == 2
    assert "key= needs run= (--run)" in capsys.readouterr().err


def changed(path, change):
    """Change the first result of a store as another machine would have written it."""
    with closing(sqlite3.connect(path)) as store, store:
        columns = "hash, status, spec, result, per_example, kind"
        row = list(store.execute(f"SELECT {columns} FROM runs ORDER BY rowid").fetchone())
        before, row[3] = row[3], json.dumps({**json.loads(row[3]), **change})
        values = (row[3], _digest(row), row[0])
        store.execute("UPDATE runs SET result = ?, digest = ? WHERE hash = ?", values)
    return before


REPORT, STUDY = ("report", "html"), ("study", "json")


def started(*more):
    command = [sys.executable, "-m", "relucate", "compare", "--run", "train.py:train"]
    fixed = ["--metric", "auc", "--margin", "0.01", "--quiet", "--jobs", "1", "--pairs", "1"]
    return subprocess.Popen([*command, *fixed, *more], stderr=subprocess.PIPE)


def test_jobs_write_one_store_at_the_same_time_and_no_report_of_all(capsys):
    jobs = [started("--first-seed", str(number), "--out", "all") for number in range(3)]
    for job in jobs:
        said = job.communicate()[1]
        assert job.returncode == 0, said
    reports = {f"{name}-seed-{n}.{end}" for n in range(3) for name, end in (REPORT, STUDY)}
    assert {path.name for path in Path("all").iterdir()} == {"runs.sqlite", *reports}
    assert compared("--pairs", "3", "--out", "all") == 0
    study = json.loads(capsys.readouterr().out)
    assert (study["pairs"], study["verdict"]) == (3, "better")
    with closing(sqlite3.connect("all/runs.sqlite")) as store, store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (6,)  # none was repeated
    whole = Path("all/study.json").read_text()
    assert compared("--pairs", "1", "--first-seed", "2", "--out", "all") == 0
    assert Path("all/study.json").read_text() == whole


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory):
    """A folder with the stores of two jobs."""
    folder = tmp_path_factory.mktemp("stores")
    with chdir(folder), without_workers():
        Path("train.py").write_text(TRAIN)
        for number in range(2):
            first = ("--first-seed", number, "--pairs", "1", "--out", f"job{number}")
            assert compared(*first) == 0
    return folder


class TestMerge:
    @pytest.fixture(autouse=True)
    def _two_stores(self, two_stores, tmp_path, capsys):
        shutil.copytree(two_stores, tmp_path, dirs_exist_ok=True)
        capsys.readouterr()

    def test_stores_become_one_that_answers_the_whole_study(self, capsys):
        assert exit_code("merge", "job0", "job1/runs.sqlite", "job1", "--out", "new/all") == 0
        assert "new/all/runs.sqlite: 4 runs (4 new, 2 in more than one)" in capsys.readouterr().out
        assert compared("--pairs", "2", "--first-seed", "0", "--out", "new/all") == 0
        hashes = {run["hash"] for run in json.loads(capsys.readouterr().out)["runs"]}
        with closing(sqlite3.connect("new/all/runs.sqlite")) as store, store:
            assert {found for (found,) in store.execute("SELECT hash FROM runs")} == hashes

    def test_into_a_store_that_has_runs(self, capsys):
        assert exit_code("merge", "job0", "--out", "all.sqlite") == 0
        assert exit_code("merge", "job0", "job1", "--out", "all.sqlite", "--format", "json") == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (found["runs"], found["added"], found["repeated"]) == (4, 2, 2)
        assert found["differing"] == []

    def test_another_result_of_the_same_run_is_named_and_the_first_is_kept(self, capsys):
        assert exit_code("merge", "job0", "--out", "other.sqlite") == 0
        text = changed("other.sqlite", {"metric": 0.123, "seconds": {"total": 7}})
        assert exit_code("merge", "job0", "other.sqlite", "--out", "all.sqlite") == 0
        said = capsys.readouterr().err
        assert "the run of 'before' with seed 0 is 0.123 in 'other.sqlite', and 0.00" in said
        assert said.count("note:") == 1
        with closing(sqlite3.connect("all.sqlite")) as store, store:
            assert text in {kept for (kept,) in store.execute("SELECT result FROM runs")}

    def test_other_seconds_are_no_other_result(self, capsys):
        assert exit_code("merge", "job0", "--out", "other.sqlite") == 0
        changed("other.sqlite", {"seconds": {"total": 7}})
        assert exit_code("merge", "job0", "other.sqlite", "--out", "all.sqlite") == 0
        assert not capsys.readouterr().err

    @pytest.mark.parametrize(
        ("stores", "out", "message"),
        [
            (["job0", "nowhere"], "all", "there is no store of runs here"),
            (["job0", "job1"], "job1", "both read and written: give another --out"),
            (["job0", "train.py"], "all", "train.py"),
            (["job0", "old.sqlite"], "all", "schema version 1"),
            (["job0", "future.sqlite"], "all", "schema version 99"),
        ],
    )
    def test_what_is_no_store_is_refused_and_nothing_is_made(
        self, stores, out, message, capsys, tmp_path
    ):
        for name, version in (("old", 1), ("future", 99)):
            exit_code("merge", "job0", "--out", f"{name}.sqlite")
            with closing(sqlite3.connect(f"{name}.sqlite")) as store, store:
                store.execute(f"PRAGMA user_version = {version}")
        assert exit_code("merge", *stores, "--out", out) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "all").exists()

    def test_a_run_that_was_edited_is_refused_and_nothing_is_made(self, capsys, tmp_path):
        with closing(sqlite3.connect("job1/runs.sqlite")) as store, store:
            store.execute("UPDATE runs SET result = replace(result, '1.0', '2.0')")
        assert exit_code("merge", "job0", "job1", "--out", "all") == 2
        assert "job1/runs.sqlite: could not read run" in capsys.readouterr().err
        assert not (tmp_path / "all").exists()
