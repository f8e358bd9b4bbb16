"""`relucate fold`, `convert`, `rebuild`, `verify`: files, exit codes, messages, formats."""

import json
import textwrap

import keras
import numpy as np
import pytest

import relucate
from relucate.surgery.borders import BORDERS, Branch

MINE = """
    import keras
    from keras import layers as kl

    def before():
        x = image = keras.Input((8, 8, 1))
        x = kl.Conv2D(4, 3, name="conv")(x)
        x = kl.ReLU(name="act")(kl.BatchNormalization(name="bn")(x))
        return keras.Model(image, kl.Dense(10, name="head")(kl.Flatten()(x)), name="mine")

    def bare():
        return keras.Sequential([keras.Input((4,)), kl.Dense(2)])

    def net():
        from torch import nn
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                             nn.Linear(144, 5))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))


def test_convert_writes_a_file_that_computes_the_same(call, tmp_path):
    code, out, _ = call("convert", "mine.py:before", "--order", "after", "--data", "digits")
    assert code == 0
    assert "1 of 1 norm converted to linear-act-norm (after)" in " ".join(out.split())
    assert "Written: before-converted.keras" in out
    made = keras.saving.load_model(tmp_path / "before-converted.keras")
    assert relucate.audit(made).summary == {"linear-act-norm": 1}
    mean = np.asarray(keras.ops.convert_to_numpy(made.get_layer("bn").moving_mean))
    assert np.all(mean >= 0)  # measured behind a ReLU
    assert np.any(mean > 0)
    code, out, _ = call("convert", "before-converted.keras", "--order", "before", "-o", "b.keras")
    assert code == 0
    code, out, _ = call("verify", "before-converted.keras", "b.keras", "--format", "json")
    found = json.loads(out)
    assert (code, found["schema"], found["passed"]) == (0, "relucate.verify/1", True)


def test_dry_run_writes_nothing(call, tmp_path):
    before = sorted(p.name for p in tmp_path.iterdir())
    for verb in (["fold"], ["convert", "--order", "after"], ["rebuild", "--order", "after"]):
        code, out, _ = call(verb[0], "mine.py:before", *verb[1:], "--dry-run")
        assert code == 0
        assert "Nothing was written (dry run)." in out
        assert "linear-norm-act" in out
    left = sorted(p.name for p in tmp_path.iterdir() if p.name != "__pycache__")
    assert left == before


def test_torch_is_saved_by_torch_export(call, tmp_path):
    import torch

    code, out, _ = call("fold", "mine.py:net", "--input-shape", "3x8x8", "--format", "json")
    assert code == 0
    report = json.loads(out)
    assert (report["schema"], report["out"]) == ("relucate.fold/1", "net-folded.pt2")
    module = torch.export.load(tmp_path / "net-folded.pt2").module()
    assert module(torch.zeros(3, 3, 8, 8)).shape == (3, 5)


def test_rebuild_is_reproducible(call, tmp_path):
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        name = f"{number}.keras"
        more = ["--seed", str(seed), "-o", name]
        assert call("rebuild", "mine.py:before", "--order", "after", *more)[0] == 0
        weights.append(keras.saving.load_model(tmp_path / name).get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not np.array_equal(weights[0][0], weights[2][0])


def test_verify_exits_with_1_if_they_differ(call):
    for seed in "12":
        call("rebuild", "mine.py:before", "--order", "after", "--seed", seed, "-o", f"{seed}.keras")
    code, out, _ = call("verify", "1.keras", "2.keras")
    assert code == 1
    assert "NOT the same function" in out


def test_own_inputs(call, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8, 1)))
    np.save(tmp_path / "wrong.npy", np.zeros((3, 8, 1)))
    call("rebuild", "mine.py:before", "--order", "after", "-o", "a.keras")
    code, out, _ = call("verify", "a.keras", "a.keras", "--inputs", "x.npy")
    assert (code, "3 inputs" in out) == (0, True)
    code, _, err = call("verify", "a.keras", "a.keras", "--inputs", "wrong.npy")
    assert (code, "expected ('n', 8, 8, 1), got (3, 8, 1)" in err) == (2, True)
    code, _, err = call("verify", "a.keras", "a.keras", "--inputs", "none.npy")
    assert (code, "can't read 'none.npy'" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fold", "mine.py:bare"], 2, "has no norms: there is nothing to fold"),
        (["fold", "mine.py:before", "--strategy", "magic"], 2, "unknown strategy 'magic'"),
        (["fold", "mine.py:before", "-o", "a.pt2"], 2, "--out must end in .keras for this model"),
        (
            ["fold", "mine.py:net", "--input-shape", "3x8x8", "-o", "a.keras"],
            2,
            "must end in .pt2 for this model",
        ),
        (["fold", "mine.py:before", "-o", "no/a.keras"], 2, "the folder 'no' of --out"),
        (["fold", "mine.py:before", "-o", "mine.keras"], 2, "'mine.keras' exists already"),
        (["convert", "mine.py:before", "--order", "befor"], 2, "order 'befor'"),
        (["convert", "mine.py:before", "--order", "drop-linear-act"], 2, "without drop"),
        (
            ["convert", "mine.py:before", "--order", "after", "--data", "digits", "--images", "1"],
            2,
            "--images must be at least 2",
        ),
        (
            ["convert", "cnn", "--order", "after", "--data", "digits"],
            2,
            "data don't fit the model: expected ('n', 32, 32, 3), got",
        ),
        (
            ["rebuild", "mine.py:before", "--order", "after", "--seed", "-1"],
            2,
            "seed must be a whole",
        ),
        (["fold", "cnn", "--input-shape", "-3x8x8"], 2, "sizes without the batch axis"),
        (["fold", "cnn", "--input-shape", "0x8x3"], 2, "sizes without the batch axis"),
        (["fold", "cnn", "--input-shape", "3x8xa"], 2, "sizes without the batch axis"),
        (["fold", "mine.py:net", "--input-shape", "3x1000000x1000000"], 2, "more than 2,147,483"),
        (["fold", "cnn", "--input-shape", f"{10**25}x8x3"], 2, "more than 2,147,483,648 values"),
        (["fold", "mlp", "--input-shape", "2000000000"], 2, "net 'mlp' can't be built for inputs"),
    ],
)
def test_wrong_input(call, tmp_path, arguments, code, message):
    (tmp_path / "mine.keras").write_text("")
    got, out, err = call(*arguments)
    assert (got, out) == (code, "")
    assert message in " ".join(err.split())
    kept = {p.name for p in tmp_path.iterdir()} - {"mine.py", "mine.keras", "__pycache__"}
    assert not kept


@pytest.mark.parametrize("verb", ["fold", "convert"])
def test_the_help_lists_the_strategies_of_the_table(call, verb, monkeypatch):
    class Twin(Branch):
        name = "twin"

    monkeypatch.setitem(BORDERS, "twin", Twin())
    monkeypatch.setenv("COLUMNS", "300")
    for _ in range(2):
        code, out, _ = call(verb, "--help")
        assert code == 0
        listed = "auto, map, ones, branch, shift, twin (all exact), or approximate"
        assert listed in " ".join(out.replace("│", " ").split())


def test_no_effect_is_said(call):
    code, out, _ = call("convert", "mine.py:before", "--order", "before", "-o", "a.keras")
    assert code == 0
    assert "Warning: no effect" in out


def test_a_file_that_cannot_be_written(call, tmp_path, monkeypatch):
    import os

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    code, _, err = call("fold", "mine.py:before", "-o", "a.keras")
    assert code == 2
    assert "can't write 'a.keras': No space left on device" in err
    assert not list(tmp_path.glob("*.keras"))
