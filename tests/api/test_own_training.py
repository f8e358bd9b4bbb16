"""`compare(run=...)`: a training of one's own, from Python, a script and a notebook."""

import random
import subprocess
import sys
import textwrap

import pytest

from relucate import InputError, Metric, compare

GIVEN = {"metric": "auc", "margin": 0.01, "progress": False, "jobs": 1}


def train(order, seed, lr=0.1):
    return random.Random(f"{order} {seed} {lr}").random()


class TestErrors:
    """All of them before any process starts."""

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"metric": None}, "run= needs metric="),
            ({"metric": "quality"}, "is a higher or a lower 'quality' better"),
            ({"metric": "mae", "lower_is_better": False}, "a lower MAE is better"),
            ({"metric": Metric("x"), "lower_is_better": True}, "a Metric has its direction"),
            ({"margin": None}, "a margin is needed for 'auc'"),
            ({"orders": ["before", "aftr"]}, "'aftr'.*did you mean 'after'"),
            ({"orders": ["before"], "arms": ["a", "b"]}, "give one of the two"),
            ({"arms": ["a"]}, "at least two arms"),
            ({"arms": ["a", "a"]}, "'a' is given twice"),
            ({"vary": {"width": [1, 2]}}, "'width'"),
            ({"options": {"width": 1}}, "'width'"),
            ({"key": 3}, "key must be a text, got 3"),
            ({"worst": "bad"}, "worst must be a finite number"),
            ({"data": "digits"}, "data= doesn't apply with run="),
            ({"recipe": {}}, "recipe= doesn't apply with run="),
            ({"engine": "torch"}, "engine= doesn't apply with run="),
            ({"tune": "lr"}, "tune= doesn't apply with run="),
            ({"run": "train.py"}, "names a file: expected the function too"),
            ({"run": lambda order: 1}, "must take order and seed by name"),
            ({"run": None}, "metric= needs run="),
        ],
        ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
    )
    def test_wrong_input(self, given, message):
        with pytest.raises(InputError, match=message):
            compare(**{"run": train, **GIVEN, **given})

    def test_a_model_and_a_training(self):
        with pytest.raises(InputError, match="model= doesn't apply with run="):
            compare("cnn", run=train, **GIVEN)


def test_a_study_of_a_function(tmp_path):
    store = tmp_path / "runs.sqlite"
    study = compare(run=train, pairs=3, store=store, **GIVEN)
    found = study.to_dict()
    assert [run["metric"] for run in found["runs"]][:2] == [
        train("before", 0),
        train("after", 0),
    ]
    assert found["metric"]["name"] == "auc"
    assert "auc" in str(study)
    assert "auc" in study._repr_html_()
    assert study.report(tmp_path / "report.html").is_file()


def test_lower_may_be_better_and_arms_need_not_be_orders():
    def errs(arm, seed):
        return {"small": 2.0, "large": 1.0}[arm] + random.Random(f"{arm} {seed}").random() / 10

    study = compare(run=errs, arms=["small", "large"], **{**GIVEN, "metric": "mae"})
    assert (study.verdict, study.winner) == ("better", "large")
    assert study.to_dict()["arms"][0]["order"] is None


@pytest.mark.parametrize("compared", [{"orders": "before,after"}, {"arms": ["a", "b"]}])
def test_what_varies_comes_as_keywords(compared):
    def effect(seed, lr, **given):
        noise = random.Random(f"{given} {lr} {seed}").random() / 100
        return noise + (lr if {"after", "b"} & set(given.values()) else 0)

    study = compare(run=effect, vary={"lr": [0.0, 0.5]}, pairs=4, **compared, **GIVEN)
    [interaction] = study.to_dict()["interactions"]
    assert (interaction["factor"], interaction["verdict"]) == ("lr", "better")
    assert str(study)


SCRIPT = """
    import keras
    import numpy as np
    from keras import layers, ops
    import relucate

    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")

    @keras.saving.register_keras_serializable()
    class Scaled(layers.Layer):
        def call(self, inputs):
            return ops.multiply(inputs, 2.0)

    def model():
        image = keras.Input((4,))
        inner = layers.Activation("relu")(layers.BatchNormalization()(layers.Dense(8)(image)))
        made = keras.Model(image, layers.Dense(1, activation="sigmoid")(Scaled()(inner)))
        made.compile("adam", "binary_crossentropy")
        return made

    def train(order, seed):
        net, report = relucate.rebuild(model(), order, seed=seed)
        net.fit(x, y, epochs=1, verbose=0)
        loss = keras.losses.binary_crossentropy(y, net(x))
        return {"loss": ops.mean(loss), "first": float(net.layers[1].kernel[0, 0])}

    scores = []
    for jobs in (1, 2):
        study = relucate.compare(
            run=train, metric="loss", margin=0.01, pairs=2, jobs=jobs, progress=False
        )
        scores.append([run["metric"] for run in study.to_dict()["runs"]])
    assert scores[0] == scores[1], scores
    assert len(set(scores[0])) == 4
    print("versions", sorted(study.to_dict()["versions"]))
"""


def test_a_script_with_keras_ops_and_rebuild_has_the_same_bits_for_any_jobs(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "'keras', 'machine', 'python', 'relucate', 'torch'" in done.stdout
