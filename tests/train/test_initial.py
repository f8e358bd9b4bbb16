"""Orthonormal and LSUV starts: their matrices, and that arms which share a layer share its draw."""

import numpy as np
import pytest

from relucate import InputError, compare
from relucate.data import load
from relucate.study.arms import Arm, build_paired, initialise
from relucate.study.source import resolve
from relucate.train.initial import orthonormal_matrix, sample, unit_variance
from relucate.train.recipe import Recipe

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.mark.parametrize(("rows", "columns"), [(3, 7), (7, 3), (5, 5), (1, 4)])
def test_the_short_side_is_orthonormal(rows, columns):
    q = orthonormal_matrix(rows, columns, 0, "layer")
    assert q.shape == (rows, columns)
    product = q @ q.T if rows <= columns else q.T @ q
    np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=1e-12)


def test_seed_and_name_decide_the_draw():
    first = orthonormal_matrix(4, 4, 0, "a")
    np.testing.assert_array_equal(first, orthonormal_matrix(4, 4, 0, "a"))
    assert not np.allclose(first, orthonormal_matrix(4, 4, 1, "a"))
    assert not np.allclose(first, orthonormal_matrix(4, 4, 0, "b"))


def test_the_factor_gives_unit_variance_or_is_one():
    assert unit_variance(lambda f: 0.25 * f**2) == pytest.approx(2.0)
    assert unit_variance(lambda f: 0.5 + 0.25 * f**2) == pytest.approx(2**0.5, rel=0.02)
    for hopeless in (0.0, 7.0, np.inf, np.nan):
        assert unit_variance(lambda f, hopeless=hopeless: hopeless) == 1.0


def test_the_sample_is_the_seeds_own():
    x = np.arange(1000)
    np.testing.assert_array_equal(sample(x, 0), sample(x, 0))
    assert not np.array_equal(sample(x, 0), sample(x, 1))
    assert len(np.unique(sample(x, 0))) == 256


def started(init, order, before=()):
    data = load("digits")
    source = resolve("cnn", {"width": 4, "depth": 1}, ())
    arms = [Arm(name) for name in before]
    built, _ = build_paired(source, Arm(order), arms, 0, data.input_shape, data.classes)
    initialise(built, data, Recipe(initialization=init), 0)
    return built.framework.tensors(built.model)


def kernels(tensors):
    return {name: value for name, value in tensors.items() if name.endswith("kernel")}


def test_both_orders_start_from_the_same_orthonormal_kernels():
    before = kernels(started("orthonormal", "before"))
    after = kernels(started("orthonormal", "after", ["before"]))
    assert before.keys() == after.keys() != set()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])


def test_lsuv_differs_between_the_orders_by_a_factor_for_each_layer():
    before = kernels(started("lsuv", "before"))
    after = kernels(started("lsuv", "after", ["before"]))
    factors = []
    for name, value in before.items():
        ratio = after[name] / value
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-4)
        factors.append(ratio.flat[0])
    assert factors[0] == pytest.approx(1.0, rel=1e-5)  # it reads the images in both
    assert not np.allclose(factors, 1.0, rtol=1e-3)


def test_the_model_keeps_its_own_start_by_default():
    own = kernels(started("model", "before"))
    assert not np.allclose(own["logits/kernel"].T @ own["logits/kernel"], np.eye(10), atol=0.1)


def test_the_start_is_part_of_a_runs_identity_only_if_it_is_given():
    assert "initialization" not in Recipe().to_dict()
    assert Recipe(initialization="lsuv").to_dict()["initialization"] == "lsuv"
    with pytest.raises(InputError, match="he_normal"):
        Recipe(initialization="he_normal")


def test_a_study_trains_both_arms_from_it():
    quick = {"pairs": 3, "jobs": 1, "progress": False, "options": {"width": 8, "depth": 1}}
    recipe = {"epochs": 1}
    found = [
        compare("mlp", recipe={**recipe, "initialization": init}, **quick).to_dict()
        for init in ("model", "lsuv", "lsuv")
    ]
    means = [[arm["mean"] for arm in study["arms"]] for study in found]
    assert means[0] != means[1] == means[2]


def test_a_model_without_kernels_is_refused(tmp_path):
    (tmp_path / "net.py").write_text(
        "import keras\n"
        "def build(order):\n"
        "    x = image = keras.Input((8, 8, 1))\n"
        "    steps = [keras.layers.BatchNormalization(), keras.layers.ReLU()]\n"
        "    for step in steps if order == 'before' else steps[::-1]:\n"
        "        x = step(x)\n"
        "    x = keras.layers.Flatten()(x)\n"
        "    return keras.Model(image, keras.layers.Concatenate()([x[:, :5], x[:, 5:10]]))\n"
    )
    with pytest.raises(InputError, match="no dense or convolutional layer"):
        compare(
            f"{tmp_path}/net.py:build", pairs=3, jobs=1, progress=False,
            recipe={"epochs": 1, "initialization": "orthonormal"},
        )  # fmt: skip
