"""Data sets on disk: round trip, sharing, damage."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from relucate.data import Dataset
from relucate.data.saved import PARTS
from relucate.errors import InputError


def test_what_is_saved_is_opened(toy, tmp_path):
    folder = toy.save(tmp_path / "new" / "toy")
    opened = Dataset.open(folder)
    assert opened == toy
    assert (opened.name, opened.class_names, opened.notes) == ("toy", ("a", "b", "c"), ("made up",))
    for part in PARTS:
        np.testing.assert_array_equal(getattr(opened, part), getattr(toy, part))
        assert getattr(opened, part).dtype == getattr(toy, part).dtype


def test_only_arrays_and_json_are_written(toy, tmp_path):
    folder = toy.save(tmp_path / "toy")
    names = {path.name for path in folder.iterdir()}
    assert names == {"x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy", "dataset.json"}
    assert list(tmp_path.iterdir()) == [folder]


def test_opened_arrays_are_maps_whose_changes_stay_private(toy, tmp_path):
    folder = toy.save(tmp_path / "toy")
    opened = Dataset.open(folder)
    assert isinstance(opened.x_train.base, np.memmap)
    opened.x_train[0] = 99
    assert Dataset.open(folder) == toy


def test_saving_the_same_again_is_fine_and_something_else_is_refused(toy, tmp_path):
    folder = toy.save(tmp_path / "toy")
    assert toy.save(folder) == folder
    with pytest.raises(InputError, match="toy exists and doesn't hold this data set"):
        toy.subset(30).save(folder)
    assert Dataset.open(folder) == toy


def test_a_folder_of_other_things_is_not_overwritten(toy, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and doesn't hold"):
        toy.save(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"can't write a data set to .*file/toy"):
        toy.save(tmp_path / "file" / "toy")


def test_a_full_disk_leaves_nothing_behind(toy, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        toy.save(tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
import numpy as np
from relucate.data import make
def write(*_, **__):
    print("writing", flush=True)
    input()
    os.kill(os.getpid(), signal.SIGKILL)
np.save = write
x, y = np.zeros((4, 2)), [0, 1, 0, 1]
make("toy", x, y, x, y).save(sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the locks of POSIX")
def test_what_a_killed_process_left_is_removed_at_the_next_write_and_a_living_one_s_is_not(
    toy, tmp_path
):
    other = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path / "other"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline() == "writing\n"
    (left,) = os.listdir(tmp_path)
    toy.save(tmp_path / "one")
    assert set(os.listdir(tmp_path)) == {"one", left}
    other.communicate("\n")
    assert other.returncode == -signal.SIGKILL
    toy.save(tmp_path / "two")
    assert set(os.listdir(tmp_path)) == {"one", "two"}


def test_losing_the_race_to_another_process_is_fine(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("relucate.data.saved.os.path.exists", lambda _: False)
    folder = toy.save(tmp_path / "toy")
    assert toy.save(folder) == folder  # the rename finds the folder there
    assert list(tmp_path.iterdir()) == [folder]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no saved data set in .*nowhere"):
        Dataset.open(tmp_path / "nowhere")


@pytest.mark.parametrize("part", PARTS)
def test_a_cut_array_is_found(toy, tmp_path, part):
    path = toy.save(tmp_path / "toy") / f"{part}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        Dataset.open(tmp_path / "toy", verify=False)


def test_a_missing_array_is_found(toy, tmp_path):
    folder = toy.save(tmp_path / "toy")
    (folder / "y_test.npy").unlink()
    with pytest.raises(InputError, match=r"damaged .*y_test\.npy"):
        Dataset.open(folder)


def test_a_changed_byte_is_found_if_asked_to_verify(toy, tmp_path):
    path = toy.save(tmp_path / "toy") / "x_test.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="doesn't match its fingerprint"):
        Dataset.open(tmp_path / "toy")
    assert len(Dataset.open(tmp_path / "toy", verify=False).x_test) == 60


def test_arrays_of_another_shape_are_found_without_verifying(toy, tmp_path):
    folder = toy.save(tmp_path / "toy")
    np.save(folder / "y_test.npy", toy.y_test[:-1])
    with pytest.raises(InputError, match=r"damaged .*\[59\]"):
        Dataset.open(folder, verify=False)


def test_pickled_arrays_are_never_loaded(toy, tmp_path):
    folder = toy.save(tmp_path / "toy")
    np.save(folder / "y_test.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="damaged"):
        Dataset.open(folder)


@pytest.mark.parametrize("schema", ["relucate.dataset/2", "something", None])
def test_another_schema_is_refused(toy, tmp_path, schema):
    path = toy.save(tmp_path / "toy") / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema}))
    with pytest.raises(InputError, match=f"schema {schema!r}; expected 'relucate.dataset/1'"):
        Dataset.open(tmp_path / "toy")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "relucate.dataset/1"}'])
def test_a_damaged_header_is_refused(toy, tmp_path, text):
    (toy.save(tmp_path / "toy") / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"toy"):
        Dataset.open(tmp_path / "toy")
