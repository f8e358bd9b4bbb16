"""Looking at a model while it trains: when, with what, and what goes wrong."""

from contextlib import contextmanager

import keras
import numpy as np
import pytest
from keras import layers as kl

from relucate.frameworks import framework_of
from relucate.train import CLASSIFICATION, Recipe
from relucate.train.looking import SITES, Look
from relucate.train.loop import run
from relucate.train.waiting import finished


def net(blocks=1):
    keras.utils.set_random_seed(0)
    x = image = keras.Input((6,))
    for number in range(blocks):
        x = kl.BatchNormalization(name=f"norm{number}")(kl.Dense(5, name=f"dense{number}")(x))
        x = kl.ReLU()(x)
    return keras.Model(image, kl.Dense(3)(x))


def read(model):
    return framework_of(model).read(model)


class Engine:
    """Notes every call; nothing is trained."""

    def __init__(self, losses):
        self.losses, self.calls, self.inside = losses, [], False

    def epoch(self, number):
        yield lambda: True
        assert not self.inside
        self.calls.append(f"epoch {number + 1}")
        return self.losses[number]

    def reestimate(self, sample):
        self.calls.append(f"reestimate {len(sample)}{' paused' * self.inside}")

    def outputs(self, part, index):
        return np.eye(3)[np.arange(20 if index is None else len(index)) % 3]

    def counts(self):
        return {"parameters": 1, "norm_parameters": 0}

    def inputs(self, index):
        self.calls.append(f"inputs {len(index)}{' paused' * self.inside}")
        return np.zeros((len(index), 6), np.float32)

    @contextmanager
    def paused(self):
        self.inside = True
        yield
        self.inside = False


def trained(look, losses=(1.0, 0.5, 0.2), **recipe):
    engine = Engine(losses)
    recipe = Recipe(**{"epochs": len(losses), "reestimate": 30, "curve": 0, **recipe})
    labels = {"test": np.arange(20) % 3}
    found = finished(run)(
        engine, recipe, labels, trained=30, seed=0, task=CLASSIFICATION, look=look
    )
    return engine, found


def test_it_looks_at_the_epochs_asked_for_with_statistics_of_the_sample():
    engine, found = trained(Look(lambda: read(net()), [0, 2], 8))
    assert engine.calls == [
        "reestimate 30 paused",
        "inputs 8 paused",
        "epoch 1",
        "epoch 2",
        "reestimate 30 paused",
        "inputs 8 paused",
        "epoch 3",
        "reestimate 30",
    ]
    assert [step["epoch"] for step in found.probe["steps"]] == [0, 2]
    assert "probe" in found.to_dict()


def test_without_a_look_nothing_is_asked_and_nothing_is_kept():
    engine, found = trained(None)
    assert not any("inputs" in call for call in engine.calls)
    assert "probe" not in found.to_dict()


def test_a_run_that_diverges_keeps_what_was_seen():
    _, found = trained(Look(lambda: read(net()), [0, 1, 3], 8), losses=(1.0, float("nan"), 0.1))
    assert found.status == "diverged"
    assert [step["epoch"] for step in found.probe["steps"]] == [0, 1]


def test_the_figures_are_those_of_a_probe():
    import relucate

    model = net()
    look = Look(lambda: read(model), [0], 64)
    x = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    look(0, x)
    (step,) = look.found["steps"]
    wanted = relucate.probe(model, x)
    for point in step["points"]:
        seen = wanted[point["node"]]
        assert point["summary"]["skewness"] == pytest.approx(seen.summary["skewness"], rel=1e-3)
        middles = [np.median(seen.statistics[name]) for name in ("q15", "q50", "q85")]
        np.testing.assert_allclose(point["quantiles"], middles, rtol=1e-3, atol=1e-6)
        assert sum(point["histogram"]) == pytest.approx(1, abs=1e-3)


def test_many_sites_are_looked_at_evenly():
    look = Look(lambda: read(net(40)), [0], 8)
    names = [site["name"] for site in look.found["sites"]]
    assert len(names) == SITES
    assert (names[0], names[-1], look.found["left"]) == ("norm0", "norm39", 40 - SITES)


def test_a_model_that_cannot_be_read_says_why_and_the_run_goes_on():
    def get():
        raise RuntimeError("no way in")

    _, found = trained(Look(get, [0, 1], 8))
    assert found.status == "done"
    assert "no way in" in found.probe["refused"]
    assert found.probe["steps"] == []


def test_values_that_are_not_finite_are_named_and_the_run_goes_on():
    look = Look(lambda: read(net()), [0], 8)
    x = np.zeros((70, 6), np.float32)
    x[66] = np.inf
    look(0, x)
    (step,) = look.found["steps"]
    assert "dense0" in step["error"]
    assert "batch 1 (examples 64 to 69)" in step["error"]
    assert step["points"] == []
