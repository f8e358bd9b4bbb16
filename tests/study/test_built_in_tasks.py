"""One whole comparison for each built-in task: chosen by the labels, stated in the report."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate
from relucate.errors import InputError
from relucate.study.source import resolve
from relucate.study.tasks import inspect_arms
from relucate.study.vary import arms_from
from relucate.train.tasks import TASKS

pytestmark = pytest.mark.usefixtures("in_process")

random = np.random.default_rng(0)
X = random.normal(size=(90, 4))
IMAGES = random.normal(size=(60, 6, 6, 2))


def mask_net(order, input_shape, classes):
    image = keras.Input(input_shape)
    norm, act = kl.BatchNormalization(name="norm"), kl.ReLU(name="act")
    x = kl.Conv2D(4, 3, padding="same", name="conv")(image)
    x = act(norm(x)) if order == "before" else norm(act(x))
    return keras.Model(image, kl.Conv2D(classes, 1, name="out")(x))


MLP = {"options": {"width": 8, "depth": 1}}
CASES = {
    "multilabel": ("mlp", (X, (X[:, :3] > 0).astype(int)), MLP, "mean average precision"),
    "regression": ("mlp", (X, 50 + 9 * X[:, 0]), MLP, "MAE"),
    "segmentation": (mask_net, (IMAGES, IMAGES.argmax(-1)), {}, "mean IoU"),
}
RUN = {"pairs": 3, "jobs": 1, "progress": False, "margin": 0.05}


@pytest.mark.parametrize("name", CASES)
def test_a_comparison_of_each_task(name):
    model, data, more, metric = CASES[name]
    study = relucate.compare(model, data, recipe={"epochs": 1, "lr": 0.02}, **more, **RUN)
    document = study.to_dict()
    assert document["task"] == {"name": name, "loss": TASKS[name].training_loss}
    assert document["metric"]["name"] == metric
    assert all(run["status"] == "done" for run in document["runs"])
    assert f"task: {name}, scored by {metric}" in " ".join(str(study).split())
    means_of_examples = document["comparisons"][0]["examples"]
    assert (means_of_examples is not None) == (metric == "MAE")


def test_one_class_for_every_example_is_said():
    x, y = np.zeros((80, 4)), np.arange(80) % 8 == 0
    study = relucate.compare("mlp", (x, y), recipe={"epochs": 1}, **MLP, **RUN)
    (note,) = [n for n in study.to_dict()["notes"] if n.startswith("constant predictors")]
    assert "3 of 3 of linear-norm-act, 3 of 3 of linear-act-norm" in note


def test_what_does_not_fit_is_refused_before_anything_runs():
    for more, words in (
        ({"task": "regresion"}, "did you mean 'regression'"),
        ({"metric": "R2"}, "'R2' doesn't fit the task: classification"),
        ({"metric": "auc"}, "a margin is needed for 'ROC AUC'"),
        ({"recipe": {"loss": "mse"}}, "loss 'mse' doesn't fit classification"),
    ):
        with pytest.raises(InputError, match=words):
            relucate.compare("mlp", (X, np.arange(90) % 3), progress=False, **more)
    with pytest.raises(InputError, match=r"several inputs.*compare\(run=\.\.\.\)"):
        relucate.compare("mlp", ({"a": X, "b": X}, np.arange(90) % 3), progress=False)


class Text:
    """A torch module that embeds tokens, in either order."""

    @staticmethod
    def build(order, input_shape, classes):
        from torch import nn

        inner = [nn.BatchNorm1d(6), nn.ReLU()]

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.linear = nn.Embedding(20, 6), nn.Linear(6, 6)
                self.inner = nn.Sequential(*(inner if order == "before" else inner[::-1]))
                self.out = nn.Linear(6, classes)

            def forward(self, x):
                return self.out(self.inner(self.linear(self.table(x).mean(1))))

        return Net()


def test_a_module_of_tokens_is_inspected_with_the_data():
    x, y = random.integers(0, 20, (40, 5)), np.arange(40) % 2
    data = relucate.data.make("text", x, y, x, y)
    arms = list(arms_from(["before", "after"]))
    found = inspect_arms(
        resolve(Text.build), arms, (5,), 2, engine="auto", device="auto", data=data
    )
    assert len({report["fingerprint"] for report in found.arms}) == 2
