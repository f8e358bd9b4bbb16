"""Datasets: what `make` refuses, the fingerprint, subsets, the listing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from relucate.data import Dataset, make, make_split
from relucate.errors import InputError


def test_make_keeps_what_it_is_given():
    x_train = np.arange(4 * 2 * 2, dtype=np.uint8).reshape(4, 2, 2)
    data = make("tiny", x_train, ["b", "a", "a", "b"], x_train[:1], ["a"])
    assert (data.name, data.class_names, data.classes) == ("tiny", ("a", "b"), 2)
    assert data.input_shape == (2, 2, 1)
    np.testing.assert_array_equal(data.x_train[..., 0], x_train)
    np.testing.assert_array_equal(data.y_train, [1, 0, 0, 1])
    np.testing.assert_array_equal(data.y_test, [0])
    assert data.y_train.dtype == np.int64


ZEROS = np.zeros((4, 3))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((ZEROS, [0, 1, 1], ZEROS, [0, 1, 1, 0]), "x_train holds 4 examples but y_train 3"),
        ((ZEROS, [0, 1, 1, 0], ZEROS, [0, 1]), "x_test holds 4 examples but y_test 2"),
        ((ZEROS, [0, 1, 1, 0], np.zeros((1, 5)), [0]), r"\(3,\) but x_test \(5,\)"),
        ((ZEROS, [0, 1, 1, 0], np.zeros((1, 3), np.uint8), [0]), "float32 but x_test uint8"),
        ((ZEROS, [5, 5, 5, 5], ZEROS, [5, 5, 5, 5]), r"one class only, \['5'\]"),
        ((ZEROS, [0, 1, 1, 0], ZEROS, [0, 1, 1, 9]), "y_test holds 9"),
        (
            (ZEROS, [0, 1, 1, 0], np.full((4, 3), np.nan), [0] * 4),
            "x_test isn't finite in float32 at 12 places",
        ),
        (
            (ZEROS, [0, 1, 1, 0], ZEROS, [0] * 4, ["a", "b", "c"]),
            "no training example of class 'c'",
        ),
        ((ZEROS, [0, 1, 2, 0], ZEROS, [0] * 4, ["a", "b"]), "label 2"),
        ((ZEROS, [0, 1, 1, 0], ZEROS, [0] * 4, ["a", "a"]), "'a' more than once"),
    ],
)
def test_make_refuses(arguments, what):
    with pytest.raises(InputError, match=what):
        make("bad", *arguments)


def test_make_split_is_stratified_and_pairs_stay_together():
    y = np.repeat([0, 1], [80, 20])
    x = np.arange(100.0)[:, np.newaxis]
    data = make_split("numbers", x, y, test_split=0.25, seed=1)
    np.testing.assert_array_equal(np.bincount(data.y_train), [60, 15])
    np.testing.assert_array_equal(np.bincount(data.y_test), [20, 5])
    for part_x, part_y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        np.testing.assert_array_equal(part_y, y[part_x[:, 0].astype(int)])


def test_make_split_depends_on_its_seed():
    x, y = np.arange(40.0)[:, np.newaxis], np.arange(40) % 2
    assert make_split("n", x, y, seed=1) == make_split("n", x, y, seed=1)
    assert make_split("n", x, y, seed=1) != make_split("n", x, y, seed=2)


@pytest.mark.parametrize(
    ("y", "names", "what"),
    [
        ([0] * 10, None, "one class only"),
        ([0, 1] * 4, None, "x holds 10 examples but y 8"),
        ([0, 1] * 5, ["a", "b", "c"], "no example of class 'c'"),
    ],
)
def test_make_split_refuses(y, names, what):
    with pytest.raises(InputError, match=what):
        make_split("bad", np.zeros((10, 2)), y, names)


def test_the_fingerprint_depends_on_content_alone():
    x, y = np.zeros((4, 2, 3)), [0, 1, 1, 0]
    data = make("one", x, y, x, y)
    assert len(data.fingerprint) == 64
    assert data == make("another name", x, y, x, y, notes=["a note"])
    assert hash(data) == hash(make("another name", x, y, x, y))
    changed = x.copy()
    changed[3, 1, 2] = 1
    others = [
        make("one", changed, y, x, y),
        make("one", x, y, changed, y),
        make("one", x, [0, 1, 0, 1], x, y),
        make("one", x, y, x, [1, 1, 1, 0]),
        make("one", x, y, x, y, ["a", "b"]),
        make("one", x.reshape(4, 3, 2), y, x.reshape(4, 3, 2), y),
        make("one", x.astype(np.uint8), y, x.astype(np.uint8), y),
        make("one", x[:3], y[:3], x, y),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 9


def test_the_fingerprint_does_not_depend_on_the_memory_layout():
    x, y = np.random.default_rng(0).normal(size=(6, 4, 5, 2)), [0, 1] * 3
    assert make("a", x, y, x, y) == make("b", np.asfortranarray(x), y, x.astype(">f8"), y)


def test_a_subset_is_stratified_and_changes_the_fingerprint(toy):
    small = toy.subset(train_size=12, test_size=6)
    np.testing.assert_array_equal(np.bincount(small.y_train), [6, 4, 2])
    np.testing.assert_array_equal(np.bincount(small.y_test), [3, 2, 1])
    assert small != toy
    assert small.class_names == toy.class_names
    assert small.notes[0] == "made up"
    assert "12 of 120 training and 6 of 60 test" in small.notes[1]


def test_a_subset_is_deterministic_in_its_seed(toy):
    assert toy.subset(30, seed=1) == toy.subset(30, seed=1)
    assert toy.subset(30, seed=1) != toy.subset(30, seed=2)


def test_both_parts_are_drawn_independently():
    x, y = np.arange(100.0)[:, np.newaxis], np.arange(100) % 2
    small = make("n", x, y, x, y).subset(20, 20)
    assert not np.array_equal(small.x_train, small.x_test)


def test_a_subset_keeps_examples_with_their_labels_and_the_rest_whole(toy):
    small = toy.subset(train_size=30)
    rows = [int(np.flatnonzero((toy.x_train == x).all(axis=1))[0]) for x in small.x_train]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(toy.y_train[rows], small.y_train)
    np.testing.assert_array_equal(small.x_test, toy.x_test)


def test_the_whole_as_a_subset_is_the_same_data(toy):
    assert toy.subset() is toy
    assert toy.subset(120, 60) == toy


@pytest.mark.parametrize("size", [0, 2, -5, 121])
def test_a_subset_of_an_impossible_size_is_refused(toy, size):
    with pytest.raises(InputError, match=f"train size {size} .*120 examples"):
        toy.subset(train_size=size)


def test_a_test_subset_of_an_impossible_size_is_refused(toy):
    with pytest.raises(InputError, match="test size 61 "):
        toy.subset(test_size=61)


def test_the_listing_as_json(toy):
    listing = json.loads(json.dumps(toy.to_dict()))
    assert listing == {
        "name": "toy",
        "shape": [4],
        "dtype": "float32",
        "train": 120,
        "test": 60,
        "classes": [
            {"name": "a", "train": 60, "test": 30},
            {"name": "b", "train": 40, "test": 20},
            {"name": "c", "train": 20, "test": 10},
        ],
        "fingerprint": toy.fingerprint[:12],
        "notes": ["made up"],
    }


def test_the_listing_as_text(toy):
    assert str(replace(toy, fingerprint="0123456789abcdef")) == (
        "toy: 4, float32, 3 classes, fingerprint 0123456789ab\n"
        "  class      train       test\n"
        "  a             60         30\n"
        "  b             40         20\n"
        "  c             20         10\n"
        "  all          120         60\n"
        "note: made up"
    )


def test_the_text_of_many_classes_is_cut():
    y = np.arange(100)
    text = str(make("many", np.zeros((100, 2)), y, np.zeros((100, 2)), y))
    assert "\n  ... 80 more\n" in text
    assert len(text.splitlines()) == 25  # with the note on so many classes


def test_the_repr_is_one_short_line(toy):
    assert repr(toy).startswith("<Dataset 'toy' (4,) train=120 test=60 classes=3 ")


def test_a_dataset_equals_no_other_type(toy):
    assert toy != toy.fingerprint
    assert isinstance(toy, Dataset)
