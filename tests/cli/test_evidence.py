"""`relucate evidence`: text, JSON, a model's own activation."""

import json
import re

import pytest

from relucate.cli import main


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["evidence", *arguments])
        return stopped.value.code or 0, *capsys.readouterr()

    return run


def test_text_has_the_sum_and_the_table(call):
    code, out, _ = call("--act", "relu", "--net", "vgg16")
    assert code == 0
    assert "relu, published: 4 comparisons, before ahead in 4" in " ".join(out.split())
    assert "-2.49" in out
    assert "openreview" not in out
    assert "openreview" in call("--act", "relu", "--all")[1]


def test_json_is_one_document(call):
    code, out, _ = call("--act", "tanh", "--format", "json")
    found = json.loads(out)
    assert (code, found["schema"], found["asked"]) == (0, "relucate.evidence/1", {"act": "tanh"})
    assert {row["act"] for row in found["results"]} == {"tanh"}


def test_a_models_activation_and_norm(call):
    code, out, _ = call("--model", "mlp", "-O", "act=tanh")
    assert code == 0
    assert "act tanh, norm batch" in out.splitlines()[0]


@pytest.mark.parametrize(("name", "known"), [("swish", "silu"), ("LeakyReLU", "leaky_relu")])
def test_an_activation_by_another_name(call, name, known):
    found = json.loads(call("--act", name, "--format", "json")[1])["results"]
    assert {row["act"] for row in found} == {known}


def test_differences_and_intervals_stay_in_one_line(call):
    out = call("--act", "tanh", "--net", "caffenet")[1]
    assert re.search(r"[+-]\d+\.\d+ +[+-]\d+\.\d+ to [+-]\d+\.\d+ +\d+$", out, re.MULTILINE)


def test_a_narrow_terminal_has_every_column(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = call("--act", "gelu", "--net", "cnn")[1]
    assert "cnn" in out
    assert "cif" in out


def test_nothing_known_is_said(call):
    code, out, _ = call("--act", "softmax")
    assert code == 0
    assert out.startswith("Nothing is known for act softmax")
