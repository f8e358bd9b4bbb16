"""Data sets from .npz files, good and bad."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from relucate.data.npz import load_arrays, load_npz
from relucate.errors import InputError

X = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2)
Y = np.arange(40) % 2


def test_four_arrays_are_train_and_test(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=X[:7], y_test=Y[:7], extra=Y)
    data = load_npz(path)
    assert (data.name, len(data.y_train), len(data.y_test)) == ("set.npz", 40, 7)
    assert data.input_shape == (2, 2, 1)
    assert data.x_train.dtype == np.uint8
    assert data.notes == ("arrays left out: extra",)


def test_two_arrays_are_split(tmp_path):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, x=X, y=Y)
    data = load_npz(path, test_split=0.25, seed=3)
    assert (len(data.y_train), len(data.y_test)) == (30, 10)
    assert "stratified 25% of x, y, seed 3" in data.notes[0]
    assert data != load_npz(path, test_split=0.25, seed=4)


def test_text_labels_are_read(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=X, y=np.array(["no", "yes"])[Y])
    assert load_npz(path).class_names == ("no", "yes")


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": X, "labels": Y},
        {"x_train": X, "y_train": Y, "x_val": X},
        {"x": X},
    ],
)
def test_other_arrays_are_named(tmp_path, arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(InputError, match=f"holds {', '.join(arrays)}; expected x_train"):
        load_npz(tmp_path / "set.npz")


def test_an_empty_archive_is_refused(tmp_path):
    np.savez(tmp_path / "set.npz")
    with pytest.raises(InputError, match="holds no arrays"):
        load_npz(tmp_path / "set.npz")


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "set.npz", x=X, y=np.array([{}] * 40, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"y in .* can't be read.*unpickling"):
        load_npz(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"x": X, "y": Y[:39]}, "x holds 40 examples but y 39 labels"),
        (
            {"x": np.where(X == 9, np.nan, X), "y": Y},
            r"x isn't finite .* at 1 place .*\[2, 0, 1\], is nan",
        ),
        ({"x": X, "y": np.stack([Y, Y + 2], 1)}, r"y has shape \(40, 2\).*several targets"),
        ({"x": np.zeros((40, 3, 32, 32)), "y": Y}, r"channels first.*transpose\(0, 2, 3, 1\)"),
        ({"x": X, "y": Y * 0}, "one class only"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(tmp_path, arrays, what):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(InputError, match=what):
        load_npz(tmp_path / "set.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no file .*gone\.npz"):
        load_npz(tmp_path / "gone.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY"])
def test_what_is_not_a_zip_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"set\.npz is not an \.npz file"):
        load_npz(tmp_path / "set.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_is_refused(tmp_path, save):
    path = tmp_path / "set.npz"
    save(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[200:215] = bytes(15)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"set\.npz can't be read"):
        load_npz(path)


def npy(shape, descr="<f8", body=b""):
    """An .npy stream with a header of our choice and `body` behind it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + body


@pytest.mark.parametrize("shape", [(10**12, 8, 8), (41, 8, 8, 1), (0, 8)])
def test_a_header_that_claims_other_sizes_than_the_file_has_is_refused(tmp_path, shape):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(shape, body=bytes(80)))
        archive.writestr("y.npy", npy((10,), "<i8", bytes(80)))
    with pytest.raises(InputError, match=r"x in .*set\.npz is damaged: its header claims"):
        load_npz(path)


def test_what_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, x=np.zeros((1000, 64)), y=np.arange(1000) % 2)
    monkeypatch.setattr("relucate.data.npz._memory", lambda: 100_000)
    with pytest.raises(InputError, match=r"unpacks to .* GiB, more than"):
        load_npz(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't read 'x.npy' as .npy or .npz"),
        (b"no array", "can't read 'x.npy' as .npy or .npz"),
        (np.array([{}]), "Object arrays cannot be loaded"),
        (np.zeros((3, 4)), "the array in x.npy is damaged: its header claims 224 bytes"),
    ],
)
def test_arrays_that_cannot_be_read(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = Path("x.npy")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
        path.write_bytes(path.read_bytes()[:-1] if content.dtype == float else path.read_bytes())
    with pytest.raises(InputError, match=re.escape(message)):
        load_arrays(path)


def test_arrays_of_both_formats(tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "one.npy", x)
    np.savez(tmp_path / "two.npz", b=x, a=x + 1)
    np.savez(tmp_path / "none.npz")
    (one,) = load_arrays(tmp_path / "one.npy")
    np.testing.assert_array_equal(one, x)
    np.testing.assert_array_equal(load_arrays(tmp_path / "two.npz"), [x, x + 1])
    for name, message in (("none.npz", "holds no arrays"), ("gone.npy", "no such file")):
        with pytest.raises(InputError, match=message):
            load_arrays(tmp_path / name)
