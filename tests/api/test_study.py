"""The Python surface: what `compare` takes, what it refuses, and how a Study shows itself."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import relucate
from relucate import InputError, Recipe, Refused, Study, compare
from relucate.api.study import default_recipe, make_recipe
from relucate.data import make


class TestErrors:
    """All of them before any process starts."""

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"orders": ["before"]}, r"at least two arms, got \['linear-norm-act'\]"),
            ({"orders": []}, "at least two arms"),
            ({"orders": ["before", "linear-norm-act"]}, "twice .as 'before' and 'linear-norm-act'"),
            ({"orders": ["before", "aftr"]}, r"'aftr'.*did you mean 'after'"),
            ({"orders": "before,aftr"}, r"'aftr'.*did you mean 'after'"),
            ({"orders": [1, 2]}, "'1'"),
            ({"margin": 0}, "margin above 0, got 0"),
            ({"margin": -0.01}, "margin above 0, got -0.01"),
            ({"margin": float("nan")}, "margin above 0, got nan"),
            ({"margin": "0.5"}, "margin above 0, got '0.5'"),
            ({"margin": True}, "margin above 0, got True"),
            ({"max_pairs": "5"}, "max_pairs must be a whole number .* got '5'"),
            ({"max_pairs": None}, "max_pairs must be a whole number .* got None"),
            ({"target": "x"}, "target must be an accuracy .* got 'x'"),
            ({"tune": "lr", "rates": 0.1}, "several learning rates, .* got 0.1"),
            ({"vary": ["act"]}, r"mapping .* got \['act'\]"),
            ({"vary": "act=relu,tanh"}, "mapping of names to values"),
            ({"orders": None}, "orders must be texts, .* got None"),
            ({"store": 3}, "store must be the path of a file, got 3"),
            ({"options": {"dropout": 0.3}}, "drop token, so that 0.3 does nothing in"),
            ({"norm_eps": -1.0}, "norm_eps must be above 0"),
            ({"pairs": 0}, "pairs.*at least 1, got 0"),
            ({"level": 95}, "level.*95"),
            ({"jobs": -2}, "jobs.*-2"),
            ({"recipe": {"epoch": 3}}, "unknown training option 'epoch': did you mean 'epochs'"),
            ({"recipe": {"epochs": "3"}}, "epochs.*'3'"),
            ({"recipe": "fast"}, "unknown recipe 'fast'. Choose from: caffenet128"),
            ({"recipe": {"batch_size": 1438}}, "1438 is larger than the 1437"),
            ({"model": "cn"}, "unknown model 'cn': did you mean 'cnn'"),
            ({"options": {"widht": 3}}, "'widht': did you mean 'width'"),
            ({"engine": "torhc"}, "unknown engine 'torhc': did you mean 'torch'"),
            ({"data": "digit"}, "did you mean 'digits'"),
            ({"data": (np.zeros(3), [0, 1])}, "x"),
        ],
        ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
    )
    def test_wrong_input(self, given, message, tmp_path):
        with pytest.raises(InputError, match=message):
            compare(**{"progress": False, "store": tmp_path / "runs.sqlite", **given})

    def test_a_model_instead_of_a_builder_is_refused(self):
        torch = pytest.importorskip("torch")
        with pytest.raises(Refused, match=r"because every run starts from scratch; got a Linear"):
            compare(torch.nn.Linear(3, 2), progress=False)


class TestRecipe:
    def test_defaults_suit_the_size_of_the_data(self):
        x, y = np.zeros((20, 3), np.float32), np.arange(20) % 2
        small = make("small", x, y, x, y)
        assert default_recipe(small)["batch_size"] == 20
        assert make_recipe(None, small).batch_size == 20
        assert make_recipe({"epochs": 1}, small) == Recipe(**default_recipe(small) | {"epochs": 1})

    def test_a_recipe_is_taken_as_it_is(self):
        recipe = Recipe(epochs=3)
        assert make_recipe(recipe, None) is recipe


def test_a_study_never_hands_out_what_is_no_json():
    with pytest.raises(ValueError, match="JSON"):
        Study({"metric": float("nan")}).to_dict()


SCRIPT = """
    import numpy as np, relucate
    from torch import nn

    WIDTH = 5

    def closure(depth):
        def build(order, input_shape, num_classes):
            norm = nn.BatchNorm1d(WIDTH)
            steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
            return nn.Sequential(nn.Linear(input_shape[0], WIDTH), *steps, Head(num_classes))
        return build

    class Head(nn.Linear):
        def __init__(self, classes):
            super().__init__(WIDTH, classes)

    y = np.arange(60) % 3
    x = np.eye(3)[y] + 0.3 * np.random.default_rng(0).normal(size=(60, 3))
    for builder in (closure(2), lambda order: closure(1)(order, (3,), 3)):
        study = relucate.compare(
            builder, ((x, y), (x, y)), pairs=1, jobs=1, recipe={"epochs": 2, "batch_size": 10},
            progress=False,
        )
        print(study.verdict, len(study.to_dict()["runs"]), study.to_dict()["model"]["name"])
"""


def test_a_script_without_a_guard_with_a_closure_and_a_lambda(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == [
        "inconclusive 2 __main__.closure.<locals>.build",
        "inconclusive 2 __main__.<lambda>",
    ]


class Ear:
    """A display that is no context manager."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.heard.append(name)


def test_a_real_comparison_with_a_display_of_ones_own_and_a_store(tmp_path):
    def build(order):
        from torch import nn

        norm = nn.BatchNorm1d(4)
        steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
        return nn.Sequential(nn.Linear(3, 4), *steps, nn.Linear(4, 3))

    y = np.arange(90) % 3
    x = np.eye(3)[y] + 0.3 * np.random.default_rng(0).normal(size=(90, 3))
    ear = Ear()
    study = relucate.compare(
        build,
        ((x[:60], y[:60]), (x[60:], y[60:])),
        orders="before,after",
        recipe={"epochs": 2, "batch_size": 10},
        pairs=1,
        jobs=1,
        store=tmp_path / "runs.sqlite",
        display=ear,
        command="my command",
    )
    assert study.to_dict()["command"] == "my command"
    assert study.difference["low"] is None  # one pair has no interval
    assert ear.heard.count("run_finished") == 2
    assert (tmp_path / "runs.sqlite").is_file()


def test_tokens_train_with_adamw_by_default():
    tokens, floats = np.arange(60).reshape(12, 5) % 7, np.zeros((12, 5))
    y = np.arange(12) % 2
    made = [make("toy", x, y, x, y) for x in (tokens, floats)]
    assert [make_recipe(None, data).optimizer for data in made] == ["adamw", "sgd"]
    assert make_recipe({"optimizer": "sgd"}, made[0]).optimizer == "sgd"
