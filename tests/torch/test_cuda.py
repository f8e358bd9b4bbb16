"""What only a real GPU shows: CUDA graphs, their draws, TF32. Skipped where none is visible."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relucate
from relucate import frameworks
from relucate.data import load, make
from relucate.torch import train, trainer
from relucate.torch.capture import Step
from relucate.torch.side_by_side import side_by_side
from relucate.train import Recipe
from relucate.train.task import CLASSIFICATION

from .on_a_gpu import images, net
from .test_turns import all_in_turn

pytestmark = pytest.mark.cuda

RECIPES = (
    {},
    {"optimizer": "adamw", "augment": ("flip", "crop")},
    {"precision": "bf16", "augment": ("crop",)},
    {"precision": "tf32", "label_smoothing": 0.1},
    {"validation": 0.25, "momentum": 0.0},
)


class Functional(nn.Module):
    """Dropout as a module, called twice, and as a function between."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(72, 4)

    def forward(self, x):
        x = self.drop(x.flatten(1))
        return self.head(self.drop(F.dropout(x, 0.2, self.training)))


BUILDS = {
    "net": lambda: net(dropout=0.3),
    "functional": Functional,
    "rrelu": lambda: net(dropout=0.3, activation=nn.RReLU),
}


class Never(Step):
    """The step without a graph."""

    def _capture(self):
        self.note = "not wanted"


class Always(Step):
    """The step with a graph, or an error."""

    def _capture(self):
        super()._capture()
        assert not self.note, self.note


def state(model):
    return {key: x.cpu() for key, x in model.state_dict().items()}


def trained(kind, build, recipe, monkeypatch, data=None):
    monkeypatch.setattr(trainer, "Step", kind)
    model = build()
    result = train(model, data or images(), recipe, seed=3, device="cuda")
    return state(model), result


@pytest.mark.parametrize("options", RECIPES, ids=str)
@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_the_same_bits_with_and_without_a_graph(options, build, monkeypatch):
    recipe = Recipe(epochs=3, batch_size=16, **options)
    ours, first = trained(Always, build, recipe, monkeypatch)
    theirs, second = trained(Never, build, recipe, monkeypatch)
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert first.loss == second.loss
    assert first.curve == second.curve


@pytest.mark.parametrize("act", ["relu", "rrelu", "maxout"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_lowered_network_is_captured(act, precision, monkeypatch):
    pytest.importorskip("keras")
    from .test_capture import lowered

    data = load("digits").subset(400, 100)
    recipe = Recipe(epochs=3, batch_size=32, precision=precision)
    build = functools.partial(lowered, act)
    ours, first = trained(Always, build, recipe, monkeypatch, data)
    theirs, second = trained(Never, build, recipe, monkeypatch, data)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first.loss == second.loss


def test_it_repeats_itself_and_learns():
    recipe = Recipe(epochs=4, batch_size=16, augment=["flip"])
    results = [train(net(), images(), recipe, seed=0, device="cuda") for _ in range(2)]
    assert results[0].metric > 0.9
    assert results[0].loss == results[1].loss
    assert results[0].note == ""


class Waits(nn.Linear):
    def forward(self, x):
        x = x.flatten(1)
        return super().forward(x / x.abs().max().item())


def test_bits_do_not_depend_on_what_runs_beside():
    recipes = [Recipe(epochs=3, batch_size=4, **options) for options in RECIPES]
    builds = [lambda: net(dropout=0.3), Functional] * len(recipes)
    pairs = [(build, recipe) for build, recipe in zip(builds, recipes, strict=False)]
    expected = []
    for build, recipe in pairs:
        model = build()
        expected.append((train(model, images(), recipe, seed=3, device="cuda"), state(model)))
    models = [build() for build, _ in pairs]
    works = [
        trainer.training(model, images(), recipe, seed=3, device="cuda")
        for model, (_, recipe) in zip(models, pairs, strict=True)
    ]
    results, rounds = all_in_turn(works)
    assert rounds > 3
    for (result, values), got, model in zip(expected, results, models, strict=True):
        assert got.note == ""
        assert got.curve == result.curve
        assert all(torch.equal(value, values[name]) for name, value in state(model).items())


def test_how_many_run_side_by_side_is_measured():
    def measured(build, counts=(1, 2, 4)):
        models, recipe = (build() for _ in range(4)), Recipe(epochs=1, batch_size=4)
        place = {"device": "cuda", "channels_first": True, "task": CLASSIFICATION}
        return side_by_side(models, images(), recipe, counts, **place)

    found = measured(lambda: net(dropout=0.3))
    assert list(found) == [1, 2, 4][: len(found)]
    assert len(found) > 1
    assert all(seconds > 0 for seconds in found.values())
    assert measured(lambda: Waits(72, 4)) == {}


def test_a_full_gpu_is_an_error_of_memory_and_the_next_run_works():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(72, 40_000), nn.ReLU(), nn.Linear(40_000, 4))
    torch.cuda.set_per_process_memory_fraction(1e-3)
    try:
        with pytest.raises(torch.OutOfMemoryError) as error:
            train(wide, images(), Recipe(epochs=2, batch_size=90), seed=0, device="cuda")
        assert frameworks.trouble(error.value) == "memory"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert train(net(), images(), Recipe(epochs=1, batch_size=8), seed=0, device="cuda").status


def test_a_step_that_waits_trains_as_without_and_says_so(monkeypatch):
    def build():
        torch.manual_seed(0)
        return Waits(72, 4)

    recipe = Recipe(epochs=2, batch_size=16)
    ours, result = trained(Step, build, recipe, monkeypatch)
    theirs, _ = trained(Never, build, recipe, monkeypatch)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "waits for values of the GPU" in result.note


def test_training_works_after_a_capture_that_failed(monkeypatch):
    def broken(step):
        torch.cuda.current_stream().synchronize()
        raise AssertionError("a capture allowed this")

    class Fails(Step):
        def _captured(self):
            own, self._step = self._step, lambda: broken(self)
            try:
                return super()._captured()
            finally:
                self._step = own

    recipe = Recipe(epochs=2, batch_size=16)
    ours, result = trained(Fails, net, recipe, monkeypatch)
    theirs, _ = trained(Never, net, recipe, monkeypatch)
    assert "can't be captured" in result.note
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_full_float32_agrees_with_the_cpu_and_tf32_less():
    recipe = Recipe(epochs=1, batch_size=16, lr=1e-3)
    here = net()
    train(here, images(), recipe, seed=0)
    off = {}
    for precision in ("fp32", "tf32"):
        there = net()
        train(there, images(), recipe.changed(precision=precision), seed=0, device="cuda")
        pairs = zip(state(here).values(), state(there).values(), strict=True)
        off[precision] = max(float((a - b).abs().max()) for a, b in pairs if a.is_floating_point())
    assert off["fp32"] < 1e-3
    assert off["fp32"] < off["tf32"]


def test_a_deep_network_of_keras_is_lowered_and_trains_there():
    pytest.importorskip("keras")
    random = np.random.default_rng(0)
    x = random.normal(size=(256, 32, 32, 3)).astype(np.float32)
    y = np.arange(256) % 10
    study = relucate.compare(
        "vgg",
        ((x, y), (x[:64], y[:64])),
        options={"depth": 16, "width": 16},
        recipe={"epochs": 1},
        pairs=1,
        device="cuda",
    )
    assert study.to_dict()["engine"]["name"] == "torch"


def keras_net(keras, shape=(8, 8, 3)):
    keras.utils.set_random_seed(0)
    x = start = keras.Input(shape)
    for number, filters in enumerate((4, 6)):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"act{number}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(start, keras.layers.Dense(3)(x))
    random = np.random.default_rng(0)
    for norm in (model.get_layer("norm0"), model.get_layer("norm1")):
        norm.set_weights([random.uniform(0.5, 1.5, w.shape) for w in norm.get_weights()])
    return model


def keras_places(model):
    return {v.value.device.type for v in model.variables}


@pytest.mark.parametrize("home", ["gpu", "cpu"])
class TestKerasModels:
    """Models of Keras that are on the GPU, and models on the CPU where a GPU is visible."""

    @pytest.fixture
    def model(self, home):
        keras = pytest.importorskip("keras")
        with keras.device(home):
            model = keras_net(keras)
        self.places = {"cuda" if home == "gpu" else "cpu"}
        assert keras_places(model) == self.places
        return model

    def test_audit_and_verify(self, model):
        assert [str(site.order) for site in relucate.audit(model).sites] == ["linear-norm-act"] * 2
        assert relucate.verify(model, model).passed

    def test_fold(self, model):
        folded, report = relucate.fold(model)
        assert keras_places(folded) == self.places
        assert report.certificate.passed

    @pytest.mark.parametrize("change", ["rebuild", "convert"])
    def test_moved(self, model, change):
        moved, _ = getattr(relucate, change)(model, "after")
        assert keras_places(moved) == self.places
        assert [str(site.order) for site in relucate.audit(moved).sites] == ["linear-act-norm"] * 2

    def test_probe(self, model):
        x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)
        assert relucate.probe(model, x).points

    def test_it_is_lowered_checked_and_trained(self, model):
        from relucate.frameworks import lower
        from relucate.keras.framework import FRAMEWORK as KERAS

        lowered = lower(KERAS.read(model))
        random = np.random.default_rng(0)
        x = random.normal(size=(32, 8, 8, 3)).astype(np.float32)
        data = make("there", x, np.arange(32) % 3, x[:9], np.arange(9) % 3)
        result = train(lowered, data, Recipe(epochs=1, batch_size=8), seed=0, device="cuda")
        assert result.status == "done"
        assert KERAS.call(model, x[:2], training=False).shape == (2, 3)
