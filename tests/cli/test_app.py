"""The command line as a process: start-up time, exit codes, no framework imported too early."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relucate.cli import main


def run(*arguments, **more):
    command = [sys.executable, "-m", "relucate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


HEAVY = {"keras", "torch", "jax", "tensorflow", "numpy", "scipy", "matplotlib", "sklearn"}


def imported(code):
    """The modules that a fresh interpreter has after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("verb", ["", "compare", "audit", "rebuild", "rules"])
def test_help_imports_nothing_heavy(verb):
    arguments = [*verb.split(), "--help"]
    code = f"from relucate.cli import main\ntry:\n    main({arguments})\nexcept SystemExit: pass"
    found = imported(code)
    # What --strategy takes is the table of borders, whose classes compute with NumPy.
    assert not (HEAVY - ({"numpy"} if verb == "fold" else set())) & found
    ours = {name for name in found if name.startswith("relucate")}
    assert len(ours) < 40, sorted(ours)


def test_a_network_of_ours_is_read_without_what_only_other_code_needs():
    code = (
        "from relucate.cli import main\ntry:\n    main(['audit', 'mlp'])\nexcept SystemExit: pass"
    )
    found = imported(code)
    assert "keras" in found
    assert not {"sklearn", "pandas", "matplotlib", "jax", "torch._dynamo.config"} & found


def test_import_imports_no_framework():
    found = imported("import relucate")
    assert not HEAVY & found
    assert "rich" not in found
    assert "typer" not in found


@pytest.mark.parametrize("verb", ["", "compare", "report", "nets", "data", "rules"])
def test_every_verb_has_help(verb):
    done = run(*verb.split(), "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_version():
    import relucate

    done = run("--version")
    assert done.stdout == f"relucate {relucate.__version__}\n"


def test_unknown_verb_and_option_are_wrong_input():
    assert run("compere").returncode == 2
    done = run("compare", "--epoch", "3")
    assert done.returncode == 2
    assert "--epochs" in done.stderr


def test_nets_lists_options(capsys):
    main_ok("nets")
    text = capsys.readouterr().out
    for name in ("cnn", "vgg", "mlp", "bn_paper_mlp", "width=16"):
        assert name in text


def test_nets_json(capsys):
    main_ok("nets", "--format", "json")
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "relucate.nets/1"
    assert document["nets"][0]["options"]["act"] == "relu"


def test_data_json(capsys):
    main_ok("data", "digits", "--format", "json")
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "relucate.data/1"
    assert (
        sum(document["train"].values() if isinstance(document["train"], dict) else [1437]) == 1437
    )


def main_ok(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 0


FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@FULL
@pytest.mark.parametrize("verb", [["rules"], ["rules", "N101"], ["nets", "--format", "json"]])
def test_a_full_output_is_an_error_in_one_line(verb):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "relucate", *verb]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr == "relucate: can't write the output: No space left on device.\n"


STUDIES = Path(__file__).parents[1] / "reliability" / "studies.json"


@pytest.mark.parametrize("verb", [["rules"], ["report", "study.json"]])
def test_a_reader_that_leaves_is_no_error_of_the_model(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps(json.loads(STUDIES.read_text())[0]))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "relucate", *verb]
    found = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (found.returncode, found.stderr) == (1, "")


def test_a_builder_that_forks_is_answered_once(tmp_path):
    (tmp_path / "net.py").write_text(
        "import os, torch\n"
        "def build():\n"
        "    os.fork()\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))\n"
    )
    command = [sys.executable, "-m", "relucate", "audit", "net.py:build", "--input-shape", "4"]
    found = subprocess.run(
        [*command, "--format", "json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert json.loads(found.stdout)["schema"] == "relucate.audit/1"


NET = """
import sys, torch

def build(order="before"):
    sys.exit(0)

class Forward(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, x):
        sys.exit(0)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "net.py:build"],
        ["fold", "net.py:build", "--dry-run"],
        ["convert", "net.py:build", "--order", "after", "--dry-run"],
        ["rebuild", "net.py:build", "--order", "after", "--dry-run"],
        ["verify", "net.py:build", "net.py:build"],
        ["compare", "net.py:build", "--quiet", "--jobs", "1"],
        ["audit", "cnn", "--import", "ends.py"],
        ["audit", "ends.py:build"],
        ["compare", "ends.py:build", "--quiet", "--jobs", "1"],
        ["audit", "net.py:Forward", "--input-shape", "4"],
    ],
    ids=" ".join,
)
def test_a_model_that_ends_the_program_is_wrong_input(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "it called sys.exit(0) (line" in err
    assert "Traceback" not in err


NASTY = {
    "escape sequence": "\x1b[31mred",
    "C0 bell": "a\x07b",
    "carriage return": "a\rb",
    "C1 control sequence": "a\x9b31mb",
    "bidirectional override": "a\u202eb",
    "isolate": "a\u2066b",
    "zero width": "a\u200bb",
}


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY)
def test_names_in_errors_and_data_cannot_steer_the_terminal(name, tmp_path, monkeypatch, capsys):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=np.zeros((20, 4), np.float32), y=np.array([name, "other"] * 10))
    main_ok("data", "npz:d.npz")
    out = capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["audit", f"{name}.keras"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    for text in (out, err):
        assert "?" in text
        assert not [c for c in text if not c.isprintable() and c != "\n"]


def test_a_layers_name_in_a_certificate_cannot_steer_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.parts = nn.ModuleDict({'a\\x1b[31mred': nn.Linear(4, 3)})\n"
        "    def forward(self, x):\n"
        "        return self.parts['a\\x1b[31mred'](x)\n"
    )
    with pytest.raises(SystemExit) as stopped:
        main(["verify", "net.py:Net", "net.py:Net", "--input-shape", "4"])
    assert stopped.value.code == 1
    out = capsys.readouterr().out
    assert "parts.a?[31mred" in out
    assert "\x1b" not in out


def test_a_paragraph_of_the_help_is_as_wide_as_the_terminal():
    done = run("merge", "--help", env={**os.environ, "COLUMNS": "200"})
    assert "then shows the whole study. If one run has different results" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "mlp", "--epochs", "x"], "'--epochs': expected a whole number, got 'x'."),
        (["compare", "mlp", "--epochs", "3.5"], "'--epochs': expected a whole number, got '3.5'."),
        (["compare", "mlp", "--lr", "fast"], "'--lr': expected a number, got 'fast'."),
        (["evidence", "--format", "xml"], "'--format': 'xml' is not one of 'text', 'json'."),
    ],
)
def test_a_wrong_value_is_named_in_plain_words(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("verb", ["", "evidence", "recipes", "compare"])
def test_help_has_no_names_of_types(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    out = capsys.readouterr().out
    assert not re.search(r"<\w+>|\b(BOOL|TEXT|INTEGER|FLOAT)\b", out)
