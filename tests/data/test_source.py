"""One entry for all kinds of data, and what it says about what it can't use."""

import numpy as np
import pytest

from relucate.data import load
from relucate.errors import InputError

X = np.arange(40.0).reshape(20, 2)
Y = np.arange(20) % 2


def test_a_dataset_is_returned_as_it_is(toy):
    assert load(toy) is toy


def test_digits_by_name():
    assert load("digits").input_shape == (8, 8, 1)


def test_digits_keep_their_own_split():
    assert load("digits", seed=5, test_split=0.5) == load("digits")


@pytest.mark.parametrize("form", [tuple, list])
def test_four_arrays(form):
    data = load(form([(X, Y), form([X[:3], Y[:3]])]))
    assert (data.name, len(data.y_train), len(data.y_test)) == ("arrays", 20, 3)


def test_two_arrays_are_split():
    data = load((X, Y), test_split=0.3, seed=1)
    assert (len(data.y_train), len(data.y_test)) == (14, 6)
    assert "stratified 30% of x, y, seed 1" in data.notes[0]


def test_two_lists_are_not_taken_for_two_parts():
    with pytest.raises(InputError, match="class '0' has 1 example"):
        load([[[0, 1], [1, 0]], [0, 1]])


def test_a_folder_with_its_options(image_folder, cache):
    calls = []
    (image_folder / "train" / "cat" / "0.png").write_text("no image")
    data = load(
        f"folder:{image_folder}",
        size=4,
        grayscale=True,
        cache=cache,
        skip_bad=True,
        progress=lambda *c: calls.append(c),
    )
    assert data.input_shape == (4, 4, 1)
    assert calls[-1] == ("decoding images", 12, 12)
    assert len(data.notes) == 1
    assert cache.is_dir()


def test_a_folder_without_a_test_part_with_its_options(image_folder, cache):
    data = load(f"folder:{image_folder}/train", cache=cache, test_split=0.5, seed=9)
    assert data.notes == ("the folder has no test part: a stratified 50% becomes it, seed 9",)


def test_an_npz_file(tmp_path):
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    assert len(load(f"npz:{tmp_path}/set.npz", test_split=0.5).y_test) == 10


def test_a_named_set_is_loaded_by_the_callers_function():
    named = {"mine": lambda: ((X, Y), (X[:5], Y[:5]))}
    data = load("mine", named=named)
    assert (data.name, data.class_names, len(data.y_test)) == ("mine", ("0", "1"), 5)


def test_a_named_set_may_bring_class_names():
    data = load("mine", named={"mine": lambda: ((X, Y), (X, Y), ("no", "yes"))})
    assert data.class_names == ("no", "yes")


@pytest.mark.parametrize("name", ["labels.csv", "TABLE.TSV", "rows.parquet"])
def test_a_table_is_refused_with_both_ways_out(tmp_path, name):
    path = tmp_path / name
    path.write_text("file,label\na.png,cat\n")
    with pytest.raises(InputError, match=r"is a table.*np\.savez.*folder:PATH"):
        load(str(path))


def test_an_unknown_name_lists_all():
    with pytest.raises(InputError) as caught:
        load("cifar1", named={"cifar10": tuple, "mnist": tuple})
    assert str(caught.value) == (
        "unknown data set 'cifar1': did you mean 'cifar10'? "
        "Choose from: digits, folder:PATH, npz:PATH, FILE.py:NAME, cifar10, mnist."
    )


@pytest.mark.parametrize("text", ["foldr:/x", "folder:", "npz:", "", "Digits"])
def test_other_text_is_unknown(text):
    with pytest.raises(InputError, match=f"unknown data set '{text}'"):
        load(text)


@pytest.mark.parametrize("form", [str, lambda path: path])
def test_a_bare_path_gets_the_spelling_that_works(tmp_path, form):
    with pytest.raises(InputError, match=f"say 'folder:{tmp_path}'"):
        load(form(tmp_path))
    (tmp_path / "set.npz").write_bytes(b"")
    with pytest.raises(InputError, match=f"'npz:{tmp_path}/set.npz'"):
        load(form(tmp_path / "set.npz"))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (None, "NoneType"),
        (7, "int"),
        ((X,), "tuple of 1"),
        ((X, Y, X, Y), "tuple of 4"),
        (X, "nda"),
    ],
)
def test_what_is_no_data_is_refused(source, what):
    with pytest.raises(InputError, match=f"data is a {what}"):
        load(source)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"size": 8}, "size only"), ({"size": 8, "grayscale": True}, "size and grayscale only")],
)
def test_folder_options_are_not_ignored_elsewhere(options, what):
    with pytest.raises(InputError, match=f"{what} applies to folder:PATH.*'digits'"):
        load("digits", **options)


def test_an_impossible_split_is_refused_whatever_the_source():
    with pytest.raises(InputError, match=r"test split 1\.5"):
        load("digits", test_split=1.5)
