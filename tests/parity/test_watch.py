"""The values at nodes while a model runs, against the Graph's own meaning in NumPy.

On other backends: `test_reading_backends.py`.
"""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn
from torch.nn import functional as F

from relucate.frameworks import framework_of
from relucate.graph.evaluate import evaluate


class Residual(nn.Module):
    """Functions, an activation in place, an addition in place, a module that is called twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.twice = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.act, self.out = nn.ReLU(inplace=True), nn.Linear(64, 5)
        with torch.no_grad():
            for norm in (self.norm, self.twice):
                norm.running_mean.uniform_(-1, 1)
                norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        h = self.act(self.norm(self.a(x)))
        y = self.twice(self.b(h))
        y += h
        y = F.max_pool2d(F.relu(self.twice(y), inplace=True), 2)
        return self.out(y.flatten(1))


class Conditional(Residual):
    """The same behind a condition on a shape, so that torch.fx stops."""

    def forward(self, x):
        return super().forward(x) if int(x.shape[2]) > 3 else x


def keras_net():
    x = image = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, activation="relu", padding="same", name="fused")(x)
    x = kl.BatchNormalization(name="norm")(x)
    x = kl.Dropout(0.5)(x)
    x = kl.SeparableConv2D(6, 3, activation="tanh", name="separable")(x)
    return keras.Model(image, kl.Dense(3, activation="softmax", name="out")(kl.Flatten()(x)))


def seen(model, example, batches):
    read = framework_of(model).read(model, example)
    found = {}
    read.watch(list(read.graph.nodes), batches, lambda n, v: found.setdefault(n, []).append(v + 0))
    return read.graph, {name: np.concatenate(values) for name, values in found.items()}


def wanted(graph, x):
    values = {}

    def note(name, value):
        values[name] = value.copy()
        return value

    evaluate(graph, x, each=note)
    return values


NETS = {
    "traced": (Residual, (1, 3, 8, 8), set()),
    "exported": (Conditional, (1, 3, 8, 8), {"/relu", "/max_pool"}),
    "keras": (keras_net, None, {"separable/depthwise"}),
}


@pytest.mark.parametrize("name", NETS)
def test_every_value_is_the_graphs(name):
    make, example, missing = NETS[name]
    model = make()
    if isinstance(model, nn.Module) and example:
        model.eval()
    x = np.random.default_rng(0).standard_normal((5, 8, 8, 3)).astype(np.float32)
    x = x if example is None else np.moveaxis(x, -1, 1)
    graph, found = seen(model, example, [[x[:2]], [x[2:]]])
    expected = wanted(graph, x)
    for node, value in found.items():
        if node not in graph.inputs:
            np.testing.assert_allclose(value, expected[node], rtol=1e-4, atol=1e-5, err_msg=node)
    assert set(graph.nodes) - set(found) == missing


def test_watching_changes_nothing_and_leaves_no_hooks():
    for make in (Residual, Conditional):
        model = make().train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        seen(model, (1, 3, 8, 8), [[np.zeros((4, 3, 8, 8), np.float32)]])
        assert model.training
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_fused_activation_stays_in_its_layer():
    model = keras_net()
    layer, x = model.get_layer("fused"), np.ones((2, 8, 8, 3), np.float32)
    _, found = seen(model, None, [[x]])
    assert layer.activation is keras.activations.relu
    assert found["fused"].min() < 0 <= found["fused/relu"].min()


def test_the_error_of_who_watches_is_raised_as_it_is():
    def stop(name, value):
        raise KeyError(name)

    for name in NETS:
        make, example, _ = NETS[name]
        model = make()
        read = framework_of(model).read(model, example)
        x = np.zeros((2, 8, 8, 3) if example is None else (2, 3, 8, 8), np.float32)
        with pytest.raises(KeyError):
            read.watch(list(read.graph.nodes), [[x]], stop)
