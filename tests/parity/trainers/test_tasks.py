"""Every built-in task on both engines: from equal initial values they train and score alike."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn

from relucate.data import make
from relucate.errors import Refused
from relucate.frameworks import lower
from relucate.keras import dense_bn
from relucate.keras.framework import FRAMEWORK
from relucate.keras.trainer import train as train_keras
from relucate.torch import train as train_torch
from relucate.train import Recipe
from relucate.train.tasks import TASKS

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="both engines' modules share a process with PyTorch"
)
N, TEST, SIZE = 96, 40, 6
random = np.random.default_rng(0)
X = random.normal(size=(N + TEST, 5)).astype(np.float32)
Z = X @ random.normal(size=(5, 3))
IMAGES = random.normal(size=(N + TEST, SIZE, SIZE, 2)).astype(np.float32)
LABELS = {
    "classification": (X, Z.argmax(1)),
    "binary": (X, (Z[:, 0] > 0).astype(int)),
    "multilabel": (X, (Z > 0).astype(int)),
    "regression": (X, 100 + 20 * Z[:, :2]),
    "segmentation": (IMAGES, IMAGES.argmax(-1) + (IMAGES.sum(-1) > 1)),
    "binary masks": (IMAGES, IMAGES.argmax(-1)),
}
WIDTHS = {"binary": 1, "binary masks": 1}  # outputs, where they aren't one per class


def data_of(name):
    x, y = LABELS[name]
    return make(name, x[:N], y[:N], x[N:], y[N:])


def net(name, order="before", last=None):
    """A small Keras model for a task, with the same initial values each time."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    data = data_of(name)
    width = WIDTHS.get(name, data.classes)
    x = start = keras.Input(data.input_shape)
    if len(data.input_shape) == 1:
        x = dense_bn(x, 8, name="a", order=order)
        return keras.Model(start, kl.Dense(width, activation=last, name="out")(x))
    norm, act = kl.BatchNormalization(name="norm"), kl.ReLU(name="act")
    x = kl.Conv2D(8, 3, padding="same", name="conv")(x)
    x = act(norm(x)) if order == "before" else norm(act(x))
    return keras.Model(start, kl.Conv2D(width, 1, activation=last, name="out")(x))


def task_of(name):
    return next(task for task in TASKS.values() if task.labels == data_of(name).labels)


def both(name, recipe, order="before", last=None):
    """The results of both engines, the lowered module checked against Keras first."""
    data, task = data_of(name), task_of(name)
    lowered = lower(FRAMEWORK.read(net(name, order, last)), task=task)
    ours = train_torch(lowered, data, recipe, seed=3, task=task)
    return ours, train_keras(net(name, order, last), data, recipe, seed=3, task=task)


QUICK = {"epochs": 2, "batch_size": 16, "lr": 0.02}
ENDS = {
    "classification": "softmax", "binary": "sigmoid", "multilabel": "sigmoid",
    "segmentation": "softmax", "binary masks": "sigmoid",
}  # fmt: skip
CASES = [
    *((name, {}, order, None) for name in LABELS for order in ("before", "after")),
    *((name, {}, "before", last) for name, last in ENDS.items()),
    *(("regression", {"loss": loss}, "before", None) for loss in ("huber", "l1")),
    *((name, {"label_smoothing": 0.1}, "before", None) for name in ("binary", "segmentation")),
    ("classification", {"class_weight": "1,3,0.5"}, "before", None),
    ("binary", {"class_weight": "balanced", "label_smoothing": 0.1}, "before", None),
    ("segmentation", {"class_weight": "balanced"}, "before", None),
]


@pytest.mark.parametrize(("name", "options", "order", "last"), CASES)
def test_both_engines_train_and_score_alike(name, options, order, last):
    torch_result, keras_result = both(name, Recipe(**QUICK, **options), order, last)
    assert torch_result.status == keras_result.status == "done"
    ours, theirs = torch_result.curve["train_loss"], keras_result.curve["train_loss"]
    np.testing.assert_allclose(theirs, ours, rtol=2e-3)
    assert keras_result.loss == pytest.approx(torch_result.loss, rel=0.01)
    metric = task_of(name).metric
    assert keras_result.metric == pytest.approx(torch_result.metric, rel=0.05)
    assert list(torch_result.curve) == ["epoch", "train_loss", metric.name]
    if torch_result.per_example is not None:
        assert torch_result.per_example.mean() == pytest.approx(torch_result.metric)
        assert len(torch_result.per_example) == TEST


@pytest.mark.parametrize("name", LABELS)
def test_it_learns_and_the_best_epoch_is_the_best_by_the_metrics_direction(name):
    data, task = data_of(name), task_of(name)
    recipe = Recipe(epochs=6, batch_size=16, lr=0.05, validation=0.25)
    result = train_torch(
        lower(FRAMEWORK.read(net(name)), task=task), data, recipe, seed=0, task=task
    )
    assert result.epoch is not None
    worst = task.metric_on(data.y_train, data.y_test, data.classes).worst
    assert task.better(result.metric, worst)
    curve = result.curve[task.metric.name]
    assert task.better(curve[-1], curve[0]) or curve[-1] == pytest.approx(curve[0], rel=0.05)
    assert not result.constant


def test_the_first_loss_is_the_numpy_one():
    for name in LABELS:
        data, task = data_of(name), task_of(name)
        recipe = Recipe(epochs=1, batch_size=N, lr=1e-9, reestimate=0, weight_decay=0.0)
        result = train_torch(
            lower(FRAMEWORK.read(net(name)), task=task), data, recipe, seed=0, task=task
        )
        model = net(name)
        x = (data.x_train - data.x_train.mean(**_axes(data))) / data.x_train.std(**_axes(data))
        outputs = keras.ops.convert_to_numpy(model(x, training=True))
        prepared = task.prepared(data.y_train, recipe, outputs.shape)
        expected = prepared.loss(prepared.decoded(outputs), data.y_train)
        assert result.curve["train_loss"][0] == pytest.approx(expected, rel=1e-4), name


def _axes(data):
    return {"axis": (0, 1, 2) if data.x_train.ndim == 4 else None}


class Pixels(nn.Module):
    """A module for masks, channels first, with one output per class or one in all."""

    def __init__(self, width, squeeze=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.out, self.squeeze = nn.Conv2d(8, width, 1), squeeze

    def forward(self, x):
        found = self.out(torch.relu(self.norm(self.conv(x))))
        return found[:, 0, :, :, None] if self.squeeze else found


@pytest.mark.parametrize(("name", "width"), [("segmentation", 3), ("binary masks", 1)])
def test_torch_modules_give_the_classes_on_axis_1(name, width):
    data, task, recipe = data_of(name), task_of(name), Recipe(**QUICK)
    result = train_torch(Pixels(width), data, recipe, seed=0, task=task)
    assert result.status == "done"
    if width == 1:
        other = train_torch(Pixels(width, squeeze=True), data, recipe, seed=0, task=task)
        assert other.loss == pytest.approx(result.loss, rel=1e-6)


@pytest.mark.parametrize("name", ["binary", "multilabel"])
def test_a_module_that_ends_with_a_sigmoid_is_refused(name):
    width = WIDTHS.get(name, 3)
    module = nn.Sequential(nn.Linear(5, width), nn.Sigmoid(), nn.Unflatten(1, (width,)))
    with pytest.raises(Refused, match="leave the final sigmoid out"):
        train_torch(module, data_of(name), Recipe(**QUICK), seed=0, task=task_of(name))


@pytest.mark.parametrize(
    ("name", "loss", "fits"),
    [
        ("regression", "mae", True), ("regression", "binary_crossentropy", False),
        ("binary", "binary_crossentropy", True), ("binary", "mse", False),
        ("multilabel", "binary_crossentropy", True), ("multilabel", "squared_hinge", False),
        ("segmentation", "categorical_crossentropy", True), ("segmentation", "dice", False),
    ],
)  # fmt: skip
def test_a_compiled_model_keeps_a_loss_that_fits_its_task(name, loss, fits):
    model = net(name, last=ENDS.get(name))
    model.compile("adam", loss)
    give = {"seed": 0, "task": task_of(name)}
    if fits:
        result = train_keras(model, data_of(name), Recipe(**QUICK), **give)
        assert result.status == "done"
        return
    with pytest.raises(Refused, match=r"compiled with the loss .*compare\(run=\.\.\.\)"):
        train_keras(model, data_of(name), Recipe(**QUICK), **give)


class Embedded(nn.Module):
    """A module that embeds tokens, and one layer behind them."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.table(x).mean(1))


def test_tokens_stay_integers_and_floats_are_refused_by_an_embedding():
    x, y = random.integers(0, 9, (40, 6)), np.arange(40) % 2
    tokens = make("text", x, y, x, y)
    assert train_torch(Embedded(), tokens, Recipe(**QUICK), seed=0).status == "done"

    def text():
        start = keras.Input((6,))
        found = kl.GlobalAveragePooling1D()(kl.Embedding(9, 4)(start))
        return keras.Model(start, kl.Dense(2)(found))

    assert train_keras(text(), tokens, Recipe(**QUICK), seed=0).status == "done"
    floats = make("text", x.astype(float), y, x.astype(float), y)
    with pytest.raises(ValueError, match=r"give integers of at least 0, x\.astype\(int\)"):
        train_keras(text(), floats, Recipe(**QUICK), seed=0)


def test_sequences_reach_a_module_as_they_are():
    seen = []

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            seen.append(tuple(x.shape[1:]))
            return self.out(self.lstm(x)[0][:, -1])

    x, y = random.normal(size=(40, 7, 3)), np.arange(40) % 2
    assert train_torch(Recurrent(), make("s", x, y, x, y), Recipe(**QUICK), seed=0).status == "done"
    assert set(seen) == {(7, 3)}
