"""`relucate compare`: output, exit codes, continuing, interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from relucate.cli import main
from relucate.cli.compare import _show
from relucate.cli.options import TextOrJson
from relucate.errors import InputError

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
    steps = (
        "reading the data",
        "starting 1 worker",
        "importing the frameworks",
        "built and checked",
    )
    places = [done.stderr.index(step) for step in (*steps, "pair 3 of 3")]
    assert places == sorted(places)
    assert places[0] == 0


def test_it_leaves_a_report_that_opens_offline(finished):
    _, folder = finished
    page = (folder / "relucate-out" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "linear-act-norm" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.usefixtures("in_process")
def test_the_same_command_continues_instead_of_repeating(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished[1])
    assert exit_code(*TINY, "--pairs", "4") == 0
    streams = capsys.readouterr()
    assert "6 taken from the store" in streams.err
    assert "Report: relucate-out/report.html" in streams.out


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
        (["--pairs", "2"], "--pairs must be at least 3, got 2: fewer give no verdict"),
        (["--against", "none"], "unknown arm to compare against 'none'"),
        (["--act", "relo"], "did you mean 'relu'"),
        (["--vary", "norm=batch,bach"], "did you mean 'batch'"),
        (["--dropout", "2"], "dropout"),
        (["--pairs", "100000"], "pairs must be at most 1,000, got 100,000"),
        (["--run-timeout", "0"], "run_timeout must be a number of seconds above 0, got 0"),
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


def test_places_that_cannot_be_written_are_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for option, said in (
        (["--out", "file"], "--out needs a folder, and 'file' is a file"),
        (["--out", "file/deeper"], "is a file: name another place"),
        (["--card", "file/card.json"], "--card needs a folder, and 'file' is a file"),
        (["--card", "."], "--card must name a file, got the folder '.'"),
    ):
        assert exit_code(*option) == 2
        streams = capsys.readouterr()
        assert said in streams.err
        assert "reading the data" not in streams.err


@pytest.mark.skipif(torch.accelerator.is_available(), reason="has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps", "xpu", "gpu"])
def test_a_device_that_is_not_there_is_found_before_a_worker_starts(
    device, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    assert exit_code(*TINY, "--device", device) == 2
    said = capsys.readouterr().err
    assert f"'{device}'" in said
    assert ("sees: cpu. Take one" in said) is (device != "gpu")
    assert "starting" not in said


def test_the_report_of_another_study_is_named_before_it_is_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relucate-out").mkdir()
    file = tmp_path / "relucate-out" / "study.json"
    file.write_text(json.dumps({"command": "relucate compare vgg --pairs 3"}))
    said = "the report in relucate-out will be replaced (its runs stay), it is of: relucate compare"
    monkeypatch.setattr(sys, "argv", ["relucate", "compare", "cnn"])
    assert exit_code("cnn", "--engine", "none") == 2
    assert said in capsys.readouterr().err
    assert exit_code("--recipe", "none") == 2
    assert "will be replaced" not in capsys.readouterr().err
    for argv in (["compare", "vgg", "--pairs", "6"], ["compare", "vgg", "--max-pairs", "40"]):
        monkeypatch.setattr(sys, "argv", ["relucate", *argv])
        assert exit_code(*argv[1:], "--engine", "none") == 2
        assert "will be replaced" not in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["relucate", "compare", "cnn", "--first-seed", "1"])
    assert exit_code("cnn", "--first-seed", "1", "--engine", "none") == 2
    assert "will be replaced" not in capsys.readouterr().err  # it writes study-seed-1.json
    file.write_text("{")
    assert exit_code("cnn", "--engine", "none") == 2
    assert "will be replaced" not in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--act", "relo"], ["--norm", "bach"]])
def test_a_wrong_value_for_the_net_is_found_before_anything_trains(
    option, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*TINY, *option) == 2
    said = capsys.readouterr().err
    assert option[1] in said
    assert "did you mean" in said
    assert "starting" not in said


def test_a_saved_model_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code("model.keras") == 2
    assert "no file 'model.keras'" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
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


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals of POSIX")
@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    "sent",
    [
        [signal.SIGINT],
        [signal.SIGTERM],
        pytest.param([signal.SIGHUP], marks=pytest.mark.nightly),  # the driver's tests have it
        pytest.param([signal.SIGINT] * 20, marks=pytest.mark.nightly),
    ],
)
def test_an_interruption_keeps_finished_runs(sent, tmp_path, monkeypatch, capsys):
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
    for each in sent:
        process.send_signal(each)
        time.sleep(0.01)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with: relucate compare mlp" in rest
    assert "Traceback" not in rest
    again = [*arguments[:-4], "--pairs", "2", "--first-seed", "0", "--jobs", "1"]
    monkeypatch.chdir(tmp_path)
    assert exit_code(*again) == 0
    assert "4 taken from the store" in capsys.readouterr().err


def wait_for_line(process, text, limit=100):
    deadline = time.monotonic() + limit
    for line in process.stderr:
        if text in line:
            return
        assert time.monotonic() < deadline
    raise AssertionError(f"the process ended before it said '{text}'")


@pytest.mark.usefixtures("in_process")
def test_a_saved_model_with_custom_objects(tmp_path, monkeypatch, capfd):
    import keras

    from relucate.nets.models import load_model

    monkeypatch.chdir(tmp_path)
    (tmp_path / "custom.py").write_text(
        "import keras\n"
        "from keras import layers as kl\n"
        '@keras.saving.register_keras_serializable("mine")\n'
        "class Halved(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 0.5 * x\n"
        "def build():\n"
        "    parts = [kl.Flatten(), Halved(), kl.Dense(8), kl.BatchNormalization(), kl.ReLU()]\n"
        "    return keras.Sequential([keras.Input((8, 8, 1)), *parts, kl.Dense(10)])\n"
    )
    load_model("custom.py:build").model.save("net.keras")
    keras.saving.get_custom_objects().pop("mine>Halved")
    options = ["--pairs", "3", "--epochs", "1", "--jobs", "1", "--quiet", "--engine", "keras"]
    assert exit_code("net.keras", *options) == 2
    assert "aren't registered: Halved" in capfd.readouterr().err
    assert exit_code("net.keras", *options, "--import", "custom.py") == 0
    keras.saving.get_custom_objects().pop("mine>Halved")
    assert exit_code("net.keras", *options, "--import", "gone.py") == 2
    assert "no file 'gone.py'" in capfd.readouterr().err


class TestShowing:
    """The verdict first, then the files, each whole or as it was."""

    @pytest.fixture
    def study(self, finished):
        from relucate import Study

        return Study(json.loads((finished[1] / "relucate-out" / "study.json").read_text()))

    @pytest.mark.skipif(sys.platform == "win32", reason="sets a limit of POSIX")
    @pytest.mark.parametrize("format", list(TextOrJson))
    def test_a_full_disk_hides_no_verdict_and_destroys_no_file(
        self, study, format, tmp_path, capsys
    ):
        import resource

        for name in ("report.html", "study.json"):
            (tmp_path / name).write_text("older")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            with pytest.raises(InputError, match=r"can't write '.*study.json': File too large"):
                _show(study, tmp_path, format, "")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert study.verdict in capsys.readouterr().out.lower()
        assert sorted(os.listdir(tmp_path)) == ["report.html", "study.json"]
        assert {file.read_text() for file in tmp_path.iterdir()} == {"older"}

    def test_a_report_that_cannot_be_written(self, study, tmp_path, capsys):
        (tmp_path / "report.html").mkdir()
        with pytest.raises(InputError, match=r"report.html' can't be written"):
            _show(study, tmp_path, TextOrJson.text, "")
        assert study.verdict in capsys.readouterr().out.lower()
        assert json.loads((tmp_path / "study.json").read_text()) == study.to_dict()

    def test_a_reader_that_leaves_early_still_leaves_the_files(self, study, tmp_path, monkeypatch):
        def closed(*_):
            raise BrokenPipeError

        monkeypatch.setattr("relucate.report.print_study", closed)
        with pytest.raises(BrokenPipeError):
            _show(study, tmp_path, TextOrJson.text, "")
        assert sorted(os.listdir(tmp_path)) == ["report.html", "study.json"]
