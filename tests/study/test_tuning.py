"""Tuning the learning rate: rounds, what is held out, which seeds, which rate wins."""

import math
from dataclasses import replace

import numpy as np
import pytest

from relucate.data import make
from relucate.errors import InputError
from relucate.study import tuning
from relucate.study.display import NoDisplay
from relucate.study.plan import StudyPlan
from relucate.study.source import resolve
from relucate.study.store import Store
from relucate.study.tuning import at_best, tune
from relucate.study.vary import arms_from
from relucate.train import Recipe


@pytest.mark.parametrize(
    ("rates", "epochs", "expected"),
    [
        (7, 10, [(7, 3, 1), (4, 5, 1), (2, 10, 2)]),
        (16, 8, [(16, 2, 1), (8, 4, 1), (4, 8, 2)]),
        (3, 1, [(3, 1, 1), (2, 1, 2)]),
        (2, 6, [(2, 6, 2)]),
    ],
)
def test_rounds(rates, epochs, expected):
    assert tuning.rounds(rates, epochs) == expected


def test_the_grid_is_logarithmic_around_the_rate():
    rates = tuning.default_rates(0.02)
    steps = np.diff(np.log10(rates))
    assert np.allclose(steps, 0.5)
    assert math.isclose(rates[len(rates) // 2], 0.02)


@pytest.fixture
def plan():
    random = np.random.default_rng(0)
    y = np.arange(200) % 4
    x = (random.normal(size=(4, 5))[y] + 0.5 * random.normal(size=(200, 5))).astype("f4")
    data = make("blobs", x[:160], y[:160], x[160:], y[160:])
    options = {"width": 8, "depth": 1}
    recipe = Recipe(epochs=4, batch_size=16, curve=0)
    return StudyPlan(
        arms_from(["before", "after"]), resolve("mlp", options), data, recipe, pairs=3, jobs=1
    )


def test_a_real_tuning_finds_a_rate_that_learns(plan, tmp_path):
    with Store.open(tmp_path / "runs.sqlite") as store:
        found = tune(plan, store, NoDisplay(), [1e-6, 0.05, 0.1])
    assert found["held_out"] == 32
    assert found["first_seed"] == 1_000_000
    for arm in found["arms"]:
        assert arm["lr"] in (0.05, 0.1)
        assert arm["edge"] is (arm["lr"] == 0.1)
        points = {point["lr"]: point for point in arm["curve"]}
        assert sorted(points) == [1e-6, 0.05, 0.1]
        assert points[1e-6]["epochs"] == 1
        assert points[arm["lr"]] == {**points[arm["lr"]], "epochs": 4, "runs": 2}
        assert points[arm["lr"]]["score"] > points[1e-6]["score"] + 0.2
    best = at_best(plan.arms, found)
    assert [arm.recipe for arm in best] == [{"lr": arm["lr"]} for arm in found["arms"]]


def test_the_test_data_have_no_part_in_it(plan, tmp_path):
    spoiled = replace(plan, data=make(
        "spoiled", plan.data.x_train, plan.data.y_train,
        1e3 * plan.data.x_test, plan.data.y_test[::-1].copy(),
    ))  # fmt: skip
    found = []
    for number, one in enumerate((plan, spoiled)):
        with Store.open(tmp_path / f"{number}.sqlite") as store:
            found.append(tune(one, store, NoDisplay(), [0.01, 0.1])["arms"])
    assert found[0] == found[1]


def test_ties_go_to_the_rate_nearest_the_recipes(plan):
    scores = {rate: {"score": 0.5, "epochs": 2, "diverged": 0} for rate in (0.001, 0.05, 3.0)}
    assert tuning._best(scores, 1, plan) == [0.05]
    assert tuning._best(scores, 2, plan) == [0.05, 3.0]
    scores[0.001] = {"score": 0.9, "epochs": 1, "diverged": 0}  # left behind in an earlier round
    assert tuning._best(scores, 1, plan) == [0.05]


@pytest.mark.parametrize("rates", [[0.1], [], [0.1, 0.1], [0.1, -1], [0.1, math.inf], ["x", 1]])
def test_rates_that_are_none(plan, rates, tmp_path):
    with Store.open(tmp_path / "s") as store, pytest.raises(InputError, match="learning rates"):
        tune(plan, store, NoDisplay(), rates)


def test_a_rate_is_tuned_or_varied(plan, tmp_path):
    varied = replace(plan, arms=arms_from(["before", "after"], {"lr": [0.1, 0.2]}))
    with (
        Store.open(tmp_path / "s") as store,
        pytest.raises(InputError, match="tuned and varied"),
    ):
        tune(varied, store, NoDisplay(), [0.1, 0.2])
