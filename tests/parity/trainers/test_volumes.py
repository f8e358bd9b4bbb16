"""Volumes and videos on both engines and as modules: they train and score alike."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn

import relucate
from relucate.data import make
from relucate.frameworks import lower
from relucate.keras.framework import FRAMEWORK
from relucate.keras.trainer import train as train_keras
from relucate.torch import train as train_torch
from relucate.train import Recipe
from relucate.train.tasks import task_for

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="both engines' modules share a process with PyTorch"
)
N, TEST, SHAPE = 96, 40, (4, 6, 5, 2)
random = np.random.default_rng(0)
Y = random.integers(0, 3, N + TEST)
PIXELS = random.integers(0, 120, (N + TEST, *SHAPE)).astype(np.uint8)
PIXELS[..., 0] += (40 * Y[:, None, None, None]).astype(np.uint8)
VALUES = random.normal(size=(N + TEST, *SHAPE)).astype(np.float32)
DATA = {
    "volume": (PIXELS, Y),
    "video": (PIXELS, Y),
    "masks": (VALUES, VALUES.argmax(-1) + (VALUES.sum(-1) > 1)),
}


def data_of(name):
    x, y = DATA[name]
    return make(name, x[:N], y[:N], x[N:], y[N:])


def volume(order, input_shape=SHAPE, classes=3):
    """Convolutions in three dimensions."""
    x = start = keras.Input(input_shape)
    x = kl.Conv3D(8, 3, padding="same", name="conv")(x)
    x = ordered(x, order, kl.BatchNormalization(name="norm"), kl.ReLU(name="act"))
    x = kl.MaxPooling3D((1, 2, 2))(x)
    x = kl.GlobalAveragePooling3D()(x)
    return keras.Model(start, kl.Dense(classes, name="out")(x))


def video(order, input_shape=SHAPE, classes=3):
    """Each frame alone, then their mean."""
    x = start = keras.Input(input_shape)
    norm = kl.TimeDistributed(kl.BatchNormalization(), name="norm")
    x = kl.TimeDistributed(kl.Conv2D(8, 3, padding="same"), name="conv")(x)
    x = ordered(x, order, norm, kl.TimeDistributed(kl.ReLU(), name="act"))
    x = kl.TimeDistributed(kl.GlobalAveragePooling2D(), name="pool")(x)
    x = kl.GlobalAveragePooling1D()(x)
    return keras.Model(start, kl.Dense(classes, name="out")(x))


def masks(order, input_shape=SHAPE, classes=3):
    """A class for each voxel."""
    x = start = keras.Input(input_shape)
    x = kl.Conv3D(8, 3, padding="same", name="conv")(x)
    x = ordered(x, order, kl.BatchNormalization(name="norm"), kl.ReLU(name="act"))
    return keras.Model(start, kl.Conv3D(classes, 1, name="out")(x))


def ordered(x, order, norm, act):
    return act(norm(x)) if order == "before" else norm(act(x))


class Module(nn.Module):
    """The `volume` or `masks` of PyTorch, channels first, with the values of a Keras model."""

    def __init__(self, name, order, source):
        super().__init__()
        weights = {v.path: np.array(v.value.detach()) for v in source.weights}
        self.name, self.order = name, order
        self.conv = nn.Conv3d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm3d(8, eps=1e-3, momentum=0.01)
        self.out = nn.Linear(8, 3) if name == "volume" else nn.Conv3d(8, 3, 1)
        kernels = {"conv": (4, 3, 0, 1, 2), "out": (1, 0) if name == "volume" else (4, 3, 0, 1, 2)}
        with torch.no_grad():
            for layer, axes in kernels.items():
                kernel = torch.from_numpy(weights[f"{layer}/kernel"].transpose(axes))
                getattr(self, layer).weight.copy_(kernel)
                getattr(self, layer).bias.zero_()

    def forward(self, x):
        assert x.shape[1:] == (2, 4, 6, 5)
        x = ordered(self.conv(x), self.order, self.norm, nn.functional.relu)
        if self.name == "masks":
            return self.out(x)
        return self.out(nn.functional.max_pool3d(x, (1, 2, 2)).mean((2, 3, 4)))


BUILDERS = {"volume": volume, "video": video, "masks": masks}
QUICK = {"epochs": 2, "batch_size": 16, "lr": 0.02}


def built(name, order):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    return BUILDERS[name](order)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", BUILDERS)
def test_both_engines_and_a_module_train_and_score_alike(name, order):
    data = data_of(name)
    task = task_for(None, data.labels)
    recipe = Recipe(**QUICK, augment=() if name == "masks" else ("flip",))
    more = {"seed": 3, "task": task}
    lowered = lower(FRAMEWORK.read(built(name, order)), task=task)
    ours = train_torch(lowered, data, recipe, **more)
    others = [train_keras(built(name, order), data, recipe, **more)]
    if name != "video":
        others.append(train_torch(Module(name, order, built(name, order)), data, recipe, **more))
    for other in others:
        assert other.status == ours.status == "done"
        found, expected = other.curve["train_loss"], ours.curve["train_loss"]
        np.testing.assert_allclose(found, expected, rtol=2e-3)
        assert other.loss == pytest.approx(ours.loss, rel=0.01)
        assert other.metric == pytest.approx(ours.metric, abs=0.03)


@pytest.mark.parametrize("name", ["volume", "video"])
def test_a_study_with_a_probe(name, tmp_path):
    study = relucate.compare(
        BUILDERS[name],
        data_of(name),
        recipe={**QUICK, "augment": "flip"},
        pairs=3,
        jobs=1,
        probe=True,
        progress=False,
        store=tmp_path / "runs.sqlite",
    )
    document = study.to_dict()
    assert document["engine"]["name"] == "torch"
    assert document["data"]["input_shape"] == list(SHAPE)
    assert [run["status"] for run in document["runs"]] == ["done"] * 6
    assert "What the layers saw" in str(study)


def test_a_study_of_a_rebuilt_module(tmp_path):
    study = relucate.compare(
        plain,
        data_of("volume"),
        recipe=QUICK,
        pairs=3,
        jobs=1,
        progress=False,
        store=tmp_path / "runs.sqlite",
    )
    assert [run["status"] for run in study.to_dict()["runs"]] == ["done"] * 6


def plain(input_shape, classes):
    """A module without an order: compare rebuilds it."""
    return nn.Sequential(
        nn.Conv3d(input_shape[-1], 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    )
