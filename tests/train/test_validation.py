"""The best epoch on held-out training data: what is held out, and that test data never choose."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from relucate import torch as relucate_torch  # noqa: E402
from relucate.data import make  # noqa: E402
from relucate.errors import InputError  # noqa: E402
from relucate.train import Recipe  # noqa: E402


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (random.normal(size=(3, 4))[y] + random.normal(size=(300, 4))).astype("f4")
    return make("blobs", x[:200], y[:200], x[200:], y[200:])


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def keras_net():
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((4,)), *layers])


def trained(engine, data, recipe):
    if engine == "torch":
        return relucate_torch.train(net(), data, recipe, seed=1)
    from relucate.keras.trainer import train

    return train(keras_net(), data, recipe, seed=1)


# A rate so high towards the end that the last epoch isn't the best.
WILD = {"epochs": 6, "batch_size": 16, "lr": 2.0, "schedule": "constant", "curve": 1000}


def test_the_split_is_stratified_and_keeps_the_test_part(data):
    rest, held = data.held_out(0.25)
    assert len(rest.y_train) == 150
    assert np.bincount(held.y_test).tolist() == [17, 17, 16]
    assert np.array_equal(rest.x_test, data.x_test)
    both = np.concatenate([rest.x_train, held.x_test])
    assert {tuple(row) for row in both} == {tuple(row) for row in data.x_train}
    assert data.held_out(0.0) == (data, None)


@pytest.mark.parametrize("engine", ["torch", "keras"])
def test_the_score_is_that_of_the_chosen_epoch(data, engine):
    result = trained(engine, data, Recipe(**WILD, validation=0.25))
    assert result.status == "done"
    assert 1 <= result.epoch <= 6
    assert np.isclose(result.metric, result.curve["accuracy"][result.epoch - 1])
    assert np.isclose(result.per_example.mean(), result.metric)


@pytest.mark.parametrize("engine", ["torch", "keras"])
def test_test_labels_dont_choose(data, engine):
    spoiled = make("x", data.x_train, data.y_train, data.x_test, (data.y_test + 1) % 3)
    chosen = [
        trained(engine, one, Recipe(**WILD, validation=0.25)).epoch for one in (data, spoiled)
    ]
    assert chosen[0] == chosen[1]


def test_without_validation_no_epoch_is_chosen(data):
    assert trained("torch", data, Recipe(epochs=2, batch_size=16)).epoch is None


def test_the_batch_must_fit_what_is_left():
    recipe = Recipe(batch_size=90, validation=0.2)
    with pytest.raises(InputError, match="than the 80 training examples that aren't held out"):
        recipe.check_fits(100, (4,))


@pytest.mark.parametrize("share", [-0.1, 1.0, "a"])
def test_a_share_that_is_none(share):
    with pytest.raises(InputError, match="validation must be a number in"):
        Recipe(validation=share)
