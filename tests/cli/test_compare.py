"""`relucate compare`: output, exit codes, continuing, interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from relucate.cli import main

TINY = "mlp --width 8 --depth 1 --epochs 1 --pairs 3 --jobs 1".split()


def exit_code(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *map(str, arguments)])
    return stopped.value.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One real comparison as a process; its streams and its folder."""
    folder = tmp_path_factory.mktemp("compare")
    command = [sys.executable, "-m", "relucate", "compare", *TINY, "--format", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    return done, folder


def test_json_is_one_document_and_nothing_else(finished):
    done, _ = finished
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "relucate.compare/2"
    assert document["verdict"] in {"better", "equivalent", "inconclusive"}
    assert document["pairs"] == 3
    assert len(document["runs"]) == 6
    assert {"of", "estimate", "low", "high", "level", "method"} <= set(document["difference"])
    assert [arm["alias"] for arm in document["arms"]] == ["before", "after"]
    assert "--epochs 1" in document["command"]


def test_progress_goes_to_standard_error(finished):
    done, _ = finished
    assert "pair 3 of 3" in done.stderr


def test_it_leaves_a_report_that_opens_offline(finished):
    _, folder = finished
    page = (folder / "relucate-out" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "linear-act-norm" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_same_command_continues_instead_of_repeating(finished):
    _, folder = finished
    command = [sys.executable, "-m", "relucate", "compare", *TINY, "--pairs", "4"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "6 taken from the store" in done.stderr
    assert "Report: relucate-out/report.html" in done.stdout


def test_report_shows_a_finished_study_again(finished, tmp_path, capsys):
    _, folder = finished
    page = tmp_path / "again.html"
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(folder / "relucate-out" / "study.json"), "--html", str(page)])
    assert stopped.value.code == 0
    assert page.is_file()
    assert "linear-norm-act" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--orders", "before,aftr"], "aftr"),
        (["--orders", "before"], "at least two"),
        (["--orders", "before,linear-norm-act"], "twice"),
        (["cn"], "did you mean 'cnn'"),
        (["--data", "digit"], "did you mean 'digits'"),
        (["--data", "folder:no/such/folder"], "no/such/folder"),
        (["--data", "npz:none.npz"], "none.npz"),
        (["--optimizer", "sdg"], "did you mean 'sgd'"),
        (["--schedule", "cosin"], "did you mean 'cosine'"),
        (["--precision", "fp16"], "fp16"),
        (["--augment", "flp"], "did you mean 'flip'"),
        (["--epochs", "0"], "epochs"),
        (["--lr", "-1"], "lr"),
        (["--margin", "0"], "margin"),
        (["--level", "1.5"], "level"),
        (["--pairs", "0"], "pairs"),
        (["--jobs", "-1"], "jobs"),
        (["--engine", "pytorch"], "did you mean 'torch'"),
        (["--batch-size", "5000"], "5000"),
        (["--option", "width"], "NAME=VALUE"),
        (["--option", "widht=3"], "did you mean 'width'"),
        (["--width", "8", "-O", "width=16"], "--width 8 and --option width=16 set the same"),
        (["keras.applications:Inception"], "did you mean 'InceptionV3'"),
        (["gone.h5"], "no file 'gone.h5'"),
        (["--size", "big"], "big"),
        (["--size", "8"], "size"),
        (["nosuchfile.py:build"], "nosuchfile.py"),
        (["no.such.module:build"], "no.such.module"),
        (["--train-size", "100000"], "100,000"),
    ],
)
def test_wrong_input_is_exit_code_2_with_a_clear_message(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*arguments) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""


@pytest.mark.parametrize("option", [["--act", "relo"], ["--norm", "bach"]])
def test_a_wrong_value_for_the_net_is_found_before_anything_trains(option, tmp_path, capfd):
    command = [sys.executable, "-m", "relucate", "compare", *TINY, *option]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert option[1] in done.stderr
    assert "did you mean" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_saved_model_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code("model.keras") == 2
    assert "no file 'model.keras'" in capsys.readouterr().err


def test_a_saved_model_is_compared_in_both_orders(tmp_path, monkeypatch, capsys):
    import keras
    from keras import layers as kl

    monkeypatch.chdir(tmp_path)
    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kl.Flatten(name="flat"),
            kl.Dense(12, name="dense"),
            kl.BatchNormalization(name="bn"),
            kl.ReLU(name="act"),
            kl.Dense(10, name="logits"),
        ]
    ).save("net.keras")
    options = ["--pairs", "3", "--epochs", "1", "--jobs", "1", "--quiet"]
    assert exit_code("net.keras", "--orders", "before,after", *options) == 0
    out = capsys.readouterr().out
    assert "linear-norm-act" in out
    assert "linear-act-norm" in out
    # 64 · 12 + 2 · 12 + 12 · 10 + 10 without the bias that the norm takes away, 12 more with it
    assert "922" in out
    assert "934" in out


def test_a_store_that_is_not_ours(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relucate-out").mkdir()
    (tmp_path / "relucate-out" / "runs.sqlite").write_bytes(b"something else entirely" * 50)
    assert exit_code(*TINY) == 2
    assert "runs.sqlite" in capsys.readouterr().err


def test_an_npz_with_nan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.zeros((20, 4), np.float32)
    x[3, 1] = np.nan
    np.savez(tmp_path / "bad.npz", x=x, y=np.arange(20) % 2)
    assert exit_code("mlp", "--data", "npz:bad.npz") == 2
    assert "bad.npz" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interruption_keeps_finished_runs(tmp_path):
    arguments = ["mlp", "--width", "8", "--epochs", "3", "--pairs", "60", "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "relucate", "compare", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    wait_for_line(process, "pair 2 of 60")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with: relucate compare mlp" in rest
    again = [*arguments[:-4], "--pairs", "2", "--jobs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "relucate", "compare", *again],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "4 taken from the store" in done.stderr


def wait_for_line(process, text, limit=100):
    deadline = time.monotonic() + limit
    for line in process.stderr:
        if text in line:
            return
        assert time.monotonic() < deadline
    raise AssertionError(f"the process ended before it said '{text}'")
