"""Pairing: which initial values an arm takes from the arms before it."""

import numpy as np
import pytest

from relucate.train.pairing import pair_initial


def arrays(seed, **shapes):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def test_name_and_shape_agree_or_it_is_the_arms_own():
    first = arrays(0, kernel=(3, 3), bias=(3,), head=(4,))
    second = arrays(1, kernel=(3, 3), bias=(5,), gamma=(2,))
    paired = pair_initial(second, [first])
    assert paired.shared == ("kernel",)
    np.testing.assert_array_equal(paired.values["kernel"], first["kernel"])
    np.testing.assert_array_equal(paired.values["bias"], second["bias"])
    np.testing.assert_array_equal(paired.values["gamma"], second["gamma"])
    assert set(paired.values) == set(second)


def test_the_first_arm_that_has_the_tensor_gives_it():
    a, b, c = arrays(0, w=(2,)), arrays(1, w=(2,), v=(2,)), arrays(2, w=(2,), v=(2,), u=(2,))
    values = pair_initial(c, [a, b]).values
    np.testing.assert_array_equal(values["w"], a["w"])
    np.testing.assert_array_equal(values["v"], b["v"])
    np.testing.assert_array_equal(values["u"], c["u"])


def test_nothing_is_changed_in_place():
    first, second = arrays(0, w=(2,)), arrays(1, w=(2,))
    kept = second["w"].copy()
    pair_initial(second, [first])
    np.testing.assert_array_equal(second["w"], kept)


def test_without_arms_before_it_an_arm_keeps_its_own():
    own = arrays(0, w=(2,))
    paired = pair_initial(own, [])
    assert paired.shared == ()
    assert paired.values["w"] is own["w"]


@pytest.mark.parametrize(
    ("own", "first", "noted"),
    [
        (np.zeros(4), np.ones(4), True),  # another constant
        (np.ones(4), np.ones(4), False),
        (np.ones((20, 20)), "normal", True),
        ("normal", "normal", False),
        ("small", "normal", True),
        (np.zeros((0, 3)), np.zeros((0, 3)), False),
    ],
    ids=["constants", "same constant", "constant and spread", "same", "another spread", "empty"],
)
def test_another_initialization_is_noted_by_name(own, first, noted):
    random = np.random.default_rng(0)
    made = {
        "normal": lambda: random.normal(size=(20, 20)),
        "small": lambda: 0.5 * random.normal(size=(20, 20)),
    }
    own, first = (made[a]() if isinstance(a, str) else a for a in (own, first))
    notes = pair_initial({"dense/kernel": own}, [{"dense/kernel": first}]).notes
    assert len(notes) == noted
    assert all("'dense/kernel' is initialised differently" in note for note in notes)
