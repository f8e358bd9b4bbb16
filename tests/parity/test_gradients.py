"""Gradients at the points of a network, against autograd on the model itself."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn
from torch.nn import functional as F

import relucate
from relucate.errors import InputError, Refused
from relucate.frameworks import framework_of
from relucate.train.tasks import TASKS
from relucate.train.watching import Target


class Net(nn.Module):
    """An activation in place, and a value that two layers read."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.act = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True)
        self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 3)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        h = self.act(self.norm(self.a(x)))
        return self.c(h + torch.tanh(self.b(h)))


def data(n=40, width=6, classes=3):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, width)).astype("f"), rng.integers(0, classes, n)


def by_hand(model, x, y):
    """Gradients of each example's loss at the norm's input and output and behind the ReLU."""
    model.eval()
    a = model.a(torch.from_numpy(x))
    normed = model.norm(a)
    h = F.relu(normed)
    outputs = model.c(h + torch.tanh(model.b(h)))
    for value in (a, normed, h):
        value.retain_grad()
    F.cross_entropy(outputs, torch.from_numpy(y), reduction="sum").backward()
    return {"a": a.grad.numpy(), "norm": normed.grad.numpy(), "act": h.grad.numpy()}


@pytest.mark.parametrize("batch", [7, 40])
def test_gradients_of_a_module_are_autograds(batch):
    model, (x, y) = Net(), data()
    report = relucate.probe(model, x, batch=batch, gradients=True, labels=y)
    found = {point.node: point for point in report.gradients}
    for name, wanted in by_hand(Net(), x, y).items():
        statistics = found[name].statistics
        assert found[name].count == 40
        np.testing.assert_allclose(statistics["mean"], wanted.mean(0), atol=1e-6)
        np.testing.assert_allclose(statistics["variance"], wanted.var(0), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(statistics["zeros"], (wanted == 0).mean(0), atol=1e-9)


def test_the_models_own_gradients_and_modes_stay():
    model, (x, y) = Net().train(), data()
    model.c.weight.grad = torch.full((3, 5), 7.0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    relucate.probe(model, x, gradients=True, labels=y)
    assert model.training
    assert torch.equal(model.c.weight.grad, torch.full((3, 5), 7.0))
    assert model.a.weight.grad is None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_frozen_model_has_gradients_too():
    model, (x, y) = Net().requires_grad_(False), data()
    frozen = relucate.probe(model, x, gradients=True, labels=y)
    free = relucate.probe(Net(), x, gradients=True, labels=y)
    for one, other in zip(frozen.gradients, free.gradients, strict=True):
        np.testing.assert_allclose(one.statistics["mean"], other.statistics["mean"], atol=1e-7)


def keras_twin(model, softmax=True):
    x = image = keras.Input((6,))
    x = kl.Dense(5, name="a")(x)
    x = kl.BatchNormalization(epsilon=1e-5, name="norm")(x)
    h = kl.ReLU(name="act")(x)
    y = kl.Add()([h, kl.Dense(5, activation="tanh", name="b")(h)])
    y = kl.Dense(3, activation="softmax" if softmax else None, name="c")(y)
    twin = keras.Model(image, y)
    for name in "abc":
        layer = getattr(model, name)
        weights = [layer.weight.detach().numpy().T, layer.bias.detach().numpy()]
        twin.get_layer(name).set_weights(weights)
    norm = model.norm
    values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    twin.get_layer("norm").set_weights([v.detach().numpy() for v in values])
    return twin


@pytest.mark.parametrize("softmax", [True, False])
def test_a_keras_models_gradients_are_those_of_the_same_module(softmax):
    x, y = data()
    one = relucate.probe(Net(), x, gradients=True, labels=y)
    other = relucate.probe(keras_twin(Net(), softmax), x, gradients=True, labels=y)
    found = {point.node: point for point in other.gradients}
    assert set(found) == {point.node for point in other.points}
    for name in ("a", "norm", "act"):
        wanted = next(point for point in one.gradients if point.node == name)
        for figure in ("mean", "variance", "skewness"):
            ours, theirs = found[name].statistics[figure], wanted.statistics[figure]
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-6)


def test_images_of_a_keras_model_keep_the_axis_of_the_channels():
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 2))
    x = kl.BatchNormalization(name="norm")(kl.Conv2D(5, 3, name="conv")(image))
    x = kl.GlobalAveragePooling2D()(kl.ReLU()(x))
    model = keras.Model(image, kl.Dense(4)(x))
    x = np.random.default_rng(0).standard_normal((30, 6, 6, 2))
    report = relucate.probe(model, x, gradients=True, labels=np.arange(30) % 4)
    for back in report.gradients:
        assert back.count == report[back.node].count
        assert len(back.statistics["mean"]) == len(report[back.node].statistics["mean"])


@pytest.mark.parametrize(
    ("kind", "width", "labels"),
    [
        ("regression", 1, np.linspace(0, 1, 40)),
        ("multilabel", 3, np.random.default_rng(0).integers(0, 2, (40, 3))),
        ("classification", 1, np.arange(40) % 2),
    ],
)
def test_every_task_has_its_loss(kind, width, labels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, width))
    x, _ = data()
    report = relucate.probe(model, x, gradients=True, labels=labels, task=kind)
    assert {point.node for point in report.gradients} == {point.node for point in report.points}
    assert all(point.summary["rms"] > 0 for point in report.gradients)


def test_labels_of_a_few_examples_keep_their_classes():
    x, _ = data()
    y = np.full(40, 2)
    report = relucate.probe(Net(), x, gradients=True, labels=y)
    wanted = by_hand(Net(), x, y)["norm"]
    found = next(point for point in report.gradients if point.node == "norm")
    np.testing.assert_allclose(found.statistics["mean"], wanted.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (None, {}, "labels="),
        (np.arange(39) % 3, {}, "40 examples and 39 labels"),
        (np.arange(40) % 4, {}, "from 0 to 3, but the model has 3 classes"),
        (np.arange(40) % 3, {"task": "guessing"}, "unknown task 'guessing'"),
        (np.arange(40) % 3, {"gradients": "yes"}, "gradients must be True or False"),
    ],
)
def test_bad_labels(labels, options, message):
    x, _ = data()
    with pytest.raises(InputError, match=message):
        relucate.probe(Net(), x, labels=labels, **{"gradients": True, **options})


class Conditional(Net):
    def forward(self, x):
        return super().forward(x) if int(x.shape[0]) > 0 else x


class Opaque(kl.Layer):
    def call(self, x):
        return keras.ops.cumsum(x, axis=1)


def test_what_gives_no_gradients_is_refused_with_the_reason():
    x, y = data()
    if framework_of(Net()).read(Conditional(), (2, 6))._reading.way != "fx":
        with pytest.raises(Refused, match=r"torch\.fx"):
            relucate.probe(Conditional(), x, gradients=True, labels=y)
    image = keras.Input((6,))
    odd = keras.Model(image, kl.Dense(3)(kl.ReLU()(Opaque(name="strange")(kl.Dense(4)(image)))))
    with pytest.raises(Refused, match=r"are taken in PyTorch.*strange"):
        relucate.probe(odd, x, gradients=True, labels=y)


def test_outputs_that_fit_no_task_are_refused():
    model, (x, _) = Net(), data()
    read = framework_of(model).read(model, (2, 6))
    target = Target(TASKS["regression"], np.zeros((40, 2)), 2)
    with pytest.raises(Refused, match=r"\(batch, 2\)"):
        read.gradients(["a"], [[x]], target, lambda name, value: None)
