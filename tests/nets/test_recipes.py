"""Recipes: each names what exists, the user's own values come first, and the small ones train."""

import numpy as np
import pytest

from relucate import InputError, compare, nets
from relucate.data import load
from relucate.nets.recipes import recipe_named, recipe_names
from relucate.order import Order
from relucate.train.recipe import Recipe

pytestmark = pytest.mark.usefixtures("in_process")

ALL = [name + size for name in recipe_names() for size in ("", ":small")]


@pytest.mark.parametrize("name", ALL)
def test_everything_in_a_recipe_exists(name):
    found = recipe_named(name)
    assert all((found.title, found.source, found.checked, found.data))
    nets.check_options(found.net, found.options)
    Recipe.from_dict(dict(found.recipe))
    for order, own in found.arms.items():
        assert str(Order(order)) in {str(Order(one)) for one in found.orders}
        Recipe.from_dict({**found.recipe, **own})


def test_the_published_numbers():
    caffenet, kim = recipe_named("caffenet128"), recipe_named("kim-vgg16")
    assert (caffenet.recipe["lr"], caffenet.recipe["momentum"]) == (0.01, 0.9)
    assert [320_000 * share for share in caffenet.recipe["milestones"]] == [1e5, 2e5, 3e5]
    assert kim.arms == {"before": {"lr": 0.01}, "after": {"lr": 0.1}}
    paper = recipe_named("bn-paper").recipe
    assert paper["epochs"] * 60_000 // paper["batch_size"] == 50_000


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="kim-vgg"):
        recipe_named("kim-vgg")
    with pytest.raises(InputError, match="must be a text"):
        recipe_named(3)


def test_a_given_option_replaces_the_orders_own():
    named = recipe_named("kim-vgg16")
    orders = named.orders
    assert named.training({}, orders)["arms"]["after"] == {"lr": 0.1}
    assert named.training({"lr": 0.3}, orders)["arms"]["after"] == {}
    assert named.training({}, orders, tuned=True)["arms"]["after"] == {}
    assert "before" not in named.training({}, ["none", "linear-act-norm"])["arms"]


QUICK = {"pairs": 3, "jobs": 1, "progress": False}


def test_a_recipe_fills_what_isnt_given():
    study = compare(recipe={"name": "bn-paper:small", "epochs": 1}, **QUICK).to_dict()
    assert study["model"]["name"] == "bn_paper_mlp"
    assert [arm["alias"] for arm in study["arms"]] == ["none", "before", "after"]
    assert (study["recipe"]["epochs"], study["recipe"]["batch_size"]) == (1, 60)
    assert study["recipe"]["unbiased"] is True


def test_what_is_given_comes_first():
    study = compare(
        "mlp", "digits", recipe={"name": "bn-paper", "epochs": 1, "lr": 0.2},
        options={"width": 8}, **QUICK,
    ).to_dict()  # fmt: skip
    assert study["model"]["options"] == {"width": 8}
    assert [arm["alias"] for arm in study["arms"]] == ["before", "after"]
    assert (study["recipe"]["lr"], study["recipe"]["batch_size"]) == (0.2, 60)


def test_an_order_trains_with_its_own_values():
    study = compare(
        "mlp", recipe={"epochs": 1, "arms": {"after": {"lr": 0.03}}},
        options={"width": 8, "depth": 1}, **QUICK,
    ).to_dict()  # fmt: skip
    assert [arm["label"] for arm in study["arms"]] == [
        "linear-norm-act", "linear-act-norm (lr=0.03)"
    ]  # fmt: skip
    rates = {run["arm"]: run.get("lr") for run in study["runs"]}
    assert len(rates) == 2


@pytest.mark.parametrize("arms", [3, {"after": 0.1}, {"none": {"lr": 1.0}}, {"after": {"lrr": 1}}])
def test_wrong_arms_are_refused(arms):
    with pytest.raises(InputError):
        compare("mlp", recipe={"epochs": 1, "arms": arms}, **QUICK)


@pytest.mark.parametrize("name", ["caffenet128", "inception-small", "inception-small:small"])
def test_a_recipe_without_its_images_says_what_to_give(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_named(name)
    folder = recipe.data.removeprefix("folder:")
    said = f"the recipe '{name}' looks for its images in the folder '{folder}'.*--data folder:PATH"
    with pytest.raises(InputError, match=said):
        compare(recipe=name, **QUICK)
    (tmp_path / folder).mkdir()
    assert recipe.source_of_data() == recipe.data


@pytest.mark.nightly
@pytest.mark.parametrize("name", recipe_names())
def test_the_small_version_trains(name):
    data = None
    if recipe_named(name).net == "inception_v3":  # its images have 75 pixels
        digits = load("digits").subset(320, 64)
        parts = [(x.repeat(10, 1).repeat(10, 2), y) for x, y in halves(digits)]
        data = tuple(parts)
    study = compare(data=data, recipe=f"{name}:small", **{**QUICK, "jobs": 2})
    for arm in study.to_dict()["arms"]:
        assert np.isfinite(arm["mean"])
    if name != "inception-small":  # which sees five batches
        assert max(arm["mean"] for arm in study.to_dict()["arms"]) > 0.3


def halves(data):
    return (data.x_train, data.y_train), (data.x_test, data.y_test)
