"""`relucate audit`: what is printed, exit codes, selection, formats."""

import json
import textwrap
from functools import partial

import pytest

BAD = """
    import keras
    from keras import layers as kl

    def broken():
        x = image = keras.Input((8, 8, 3))
        x = kl.Conv2D(4, 3, name="conv")(x)
        x = kl.BatchNormalization(axis=1, name="bn")(x)
        return keras.Model(image, kl.ReLU()(x), name="broken")

    def biased():
        x = image = keras.Input((8, 8, 3))
        x = kl.Conv2D(4, 3, name="conv")(x)
        x = kl.BatchNormalization(scale=False, name="bn")(x)
        return keras.Model(image, kl.ReLU()(x), name="biased")

    def clean():
        x = image = keras.Input((8, 8, 3))
        x = kl.Conv2D(4, 3, use_bias=False, name="conv")(x)
        x = kl.BatchNormalization(scale=False, name="bn")(x)
        return keras.Model(image, kl.ReLU()(x), name="clean")

    class Own(keras.Model):
        def call(self, x):
            return x

    def subclassed():
        return Own()

    def no_model():
        return 3

    def needs(width, depth=2):
        return clean()

    def fails():
        return {}["nothing"]
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(textwrap.dedent(BAD))


@pytest.fixture
def audit(call):
    return partial(call, "audit")


def test_text(audit):
    code, out, _ = audit("mine.py:clean")
    assert code == 0
    assert "clean (keras): 1 norm, all linear-norm-act (before)" in out
    assert "No findings." in out


@pytest.mark.parametrize(
    ("model", "fail_on", "code"),
    [
        ("broken", None, 1),
        ("broken", "never", 0),
        ("biased", None, 0),
        ("biased", "warning", 1),
        ("biased", "error", 0),
        ("clean", "note", 0),
    ],
)
def test_exit_codes(audit, model, fail_on, code):
    more = ["--fail-on", fail_on] if fail_on else []
    assert audit(f"mine.py:{model}", *more)[0] == code


def test_json_is_one_document_and_nothing_else(audit):
    code, out, _ = audit("mine.py:biased", "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "relucate.audit/1"
    assert document["summary"] == {"linear-norm-act": 1}
    (site,) = document["sites"]
    wanted = {"name": "bn", "kind": "batch", "linear": "conv", "order": "linear-norm-act"}
    assert wanted.items() <= site.items()
    (finding,) = document["findings"]
    assert {"code", "severity", "where", "message", "fix"} <= set(finding)
    assert (finding["code"], finding["where"]) == ("N101", "conv")


def test_sarif_points_at_the_function(audit):
    code, out, _ = audit("mine.py:broken", "--format", "sarif", "--fail-on", "never")
    log = json.loads(out)
    assert (code, log["version"]) == (0, "2.1.0")
    (run,) = log["runs"]
    first = run["results"][0]
    assert (first["ruleId"], first["level"]) == ("N206", "error")
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == "N206"
    place = first["locations"][0]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "mine.py"},
        "region": {"startLine": 5},
    }
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "broken/bn"


def test_select_and_ignore(audit):
    def codes(*more):
        document = json.loads(audit("cnn", "--format", "json", "-O", "order=after", *more)[1])
        return {finding["code"] for finding in document["findings"]}

    assert codes() == {"N103", "N501"}
    assert codes("--select", "N1,N2") == {"N103"}
    assert codes("--select", "padded-fold") == {"N501"}
    assert codes("--ignore", "N103") == {"N501"}
    assert codes("--ignore", "N1", "--ignore", "N5") == set()


def test_steps(audit):
    _, out, _ = audit("cnn", "--steps", "100", "--select", "N402")
    expected = "momentum 0.99 leaves 37% of the initial statistics after 100 steps (6 norms)"
    assert expected in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mine.py:no_model"], 2, "expected a Keras model or a torch.nn.Module, got int: 3"),
        (["mine.py:subclassed"], 3, "has its own call"),
        (["mine.py:clean", "--select", "N999"], 2, "unknown rule 'N999'"),
        (["mine.py:clean", "--steps", "0"], 2, "steps must be a whole number of at least 1, got 0"),
        (["cnn", "--input-shape", "32xa"], 2, "--input-shape must be sizes.*got '32xa'"),
        (["cnn", "-O", "order"], 2, "NAME=VALUE, got 'order'"),
        (["nope"], 2, "unknown model 'nope'"),
        (["ResNet50"], 2, "did you mean .keras.applications:ResNet50"),
        (["keras.applications:ResNet5"], 2, "did you mean 'ResNet50'"),
        (["nope.keras"], 2, "no file 'nope.keras'"),
        (["mine.py:cleen"], 2, "did you mean 'clean'"),
        (["mine.py:needs"], 2, "needs the arguments width: give them as -O width="),
        (["mine.py:needs", "-O", "deph=3"], 2, "unknown option of 'mine.py:needs' 'deph'"),
        (["mine.py:fails"], 2, "'mine.py:fails' failed: KeyError: .nothing. .line"),
        (["weights.pt"], 2, "holds weights without a network"),
    ],
)
def test_wrong_input(audit, tmp_path, arguments, code, message):
    import re

    (tmp_path / "weights.pt").write_bytes(b"")
    got, out, err = audit(*arguments)
    assert got == code
    assert re.search(message, " ".join(err.split()))
    assert out == ""


def test_broken_and_unknown_files(audit, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.save("whole.keras")
    assert audit("whole.keras")[0] == 0
    whole = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    code, _, err = audit("cut.keras")
    assert code == 2
    assert "'cut.keras' is no whole .keras file" in err

    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((4,)), Mine()]).save("mine.keras")
    code, _, err = audit("mine.keras")
    assert code == 2
    assert "Mine" in err
    assert "--import" in err


TORCH = """
    import torch
    from torch import nn

    def net():
        return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
"""


def test_torch_needs_an_input_shape(audit, tmp_path):
    (tmp_path / "nets.py").write_text(textwrap.dedent(TORCH))
    code, _, err = audit("nets.py:net")
    assert code == 2
    assert "--input-shape" in err
    code, out, _ = audit("nets.py:net", "--input-shape", "3x8x8")
    assert code == 0
    assert "(torch): 1 norm, all linear-norm-act (before)" in out
    code, _, err = audit("nets.py:net", "--input-shape", "4x8x8")
    assert code == 2
    assert "layer '0'" in err
    assert "(None, 4, 8, 8): expected 3 channels, got 4" in err


def test_out_writes_a_page_or_the_map(call, tmp_path):
    page = tmp_path / "audit.html"
    code, out, _ = call("audit", "mine.py:clean", "--out", str(page))
    assert code == 0
    assert out.endswith(f"Written: {page}\n")
    assert 'class="map"' in page.read_text()
    code, out, _ = call(
        "audit", "mine.py:clean", "--format", "json", "--out", str(page.with_suffix(".svg"))
    )
    assert json.loads(out)["model"] == "clean"
    assert page.with_suffix(".svg").read_text().startswith("<svg")


def test_out_of_another_kind_is_refused_before_the_model_is_made(call, tmp_path):
    code, _, err = call("audit", "nothing.py:net", "--out", str(tmp_path / "audit.pdf"))
    assert code == 2
    assert ".html, .svg or .png" in err
