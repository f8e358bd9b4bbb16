"""Tab completes names: of verbs and options by typer, of nets, orders and so on by `completion`."""

import os
import subprocess
import sys

import pytest

from relucate.cli import completion
from relucate.train.metric import METRICS, metric_named
from relucate.train.tasks import TASKS

FRAMEWORKS = {"keras", "torch", "jax", "tensorflow", "sklearn"}


def completed(*words, code=""):
    """What bash gets for a command line whose last word is incomplete."""
    line = (
        f"import sys; from relucate.cli import main\ntry:\n    main()\nfinally:\n    {code or '0'}"
    )
    env = {
        **os.environ,
        "_RELUCATE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["relucate", *words]),
        "COMP_CWORD": str(len(words)),
    }
    script = f"import sys; sys.argv[0] = 'relucate'\n{line}"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ver"], ["verdict", "verify"]),
        (["compare", "bn"], ["bn_paper_mlp"]),
        (["audit", "bn"], ["bn_paper_mlp"]),
        (["compare", "--orders", "before,af"], ["before,after"]),
        (["rebuild", "--order", "norm-act-l"], ["norm-act-linear", "norm-act-linear-drop"]),
        (["compare", "--act", "hard_t"], ["hard_tanh"]),
        (["compare", "--schedule", "c"], ["cosine", "constant"]),
        (["compare", "--metric", "macro"], ["macro-F1"]),
        (["compare", "--data", "cifar100"], ["cifar100"]),
        (["evidence", "--act", "tan"], ["tanh"]),
        (["evidence", "--act", "rr"], ["rrelu"]),
        (["evidence", "--net", "V"], ["VGG16"]),
        (["evidence", "--norm", "b"], ["batch"]),
        (["evidence", "--task", "r"], ["regression"]),
        (["evidence", "--data", "CIFAR-1"], ["CIFAR-10", "CIFAR-100"]),
        (["recipes", "kim"], ["kim-vgg16"]),
        (["compare", "--recipe", "bn-paper"], ["bn-paper"]),
        (["data", "mn"], ["mnist"]),
        (["rules", "N10"], ["N101", "N102", "N103"]),
        (["compare", "net.p"], []),
    ],
)
def test_what_is_completed(words, found):
    assert completed(*words) == found


def test_no_framework_is_imported_for_it():
    code = f"print(*({FRAMEWORKS} & set(sys.modules)))"
    assert completed("compare", "cn", code=code) == ["cnn"]
    assert not FRAMEWORKS & set(completed("compare", "--orders", "norm-linear-a", code=code))
    assert not FRAMEWORKS & set(completed("rules", "N", code=code))
    assert not FRAMEWORKS & set(completed("evidence", "--act", "t", code=code))
    assert completed("compare", "--metric", "acc", code=code) == ["accuracy"]


def test_names_are_those_that_the_verbs_take():
    import keras

    for name in completion.ACTIVATIONS:
        assert callable(keras.activations.get(name))
    assert set(completion.TASKS) == set(TASKS)
    shown = completion.completer("metric")("")
    assert [metric_named(name).name for name in shown] == list(METRICS)


def test_options_without_names_have_no_completer():
    assert completion.completer("epochs") is None


def test_python_m_completes_the_command_and_not_python():
    done = subprocess.run(
        [sys.executable, "-m", "relucate", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert "python" not in done.stdout
    assert "_RELUCATE_COMPLETE=" in done.stdout
