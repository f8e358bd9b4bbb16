"""What is found in an image folder by its names, and which folders are refused."""

import os

import pytest

from relucate.data.listing import list_folder
from relucate.errors import InputError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def paths(part):
    return [file.path for files in part.values() for file in files]


def test_train_and_test_are_listed_in_order(tmp_path):
    touch(tmp_path, "test/b/1", "train/b/2", "train/b/10", "train/a/3", "test/a/0")
    found = list_folder(tmp_path)
    assert found.class_names == ("a", "b")
    assert paths(found.train) == ["train/a/3", "train/b/10", "train/b/2"]
    assert found.test is not None
    assert paths(found.test) == ["test/a/0", "test/b/1"]
    assert (found.bad, found.notes) == ([], ())


def test_classes_alone_have_no_test_part(tmp_path):
    touch(tmp_path, "cat/1", "dog/1", "dog/2")
    found = list_folder(str(tmp_path))
    assert found.test is None
    assert paths(found.train) == ["cat/1", "dog/1", "dog/2"]


def test_train_alone_has_no_test_part(tmp_path):
    touch(tmp_path, "train/cat/1", "train/dog/1")
    assert list_folder(tmp_path).test is None


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_a_validation_folder_is_the_test_part_and_said_so(tmp_path, name):
    touch(tmp_path, "Train/a/1", "Train/b/1", f"{name}/a/1", f"{name}/b/1")
    found = list_folder(tmp_path)
    assert found.test is not None
    assert paths(found.test) == [f"{name}/a/1", f"{name}/b/1"]
    assert found.notes == (f"{name}/ is the test part",)


def test_test_goes_before_val_and_what_is_left_out_is_noted(tmp_path):
    touch(tmp_path, "train/a/1", "train/b/1", "test/a/1", "test/b/1", "val/a/1", "test/labels.csv")
    found = list_folder(tmp_path)
    assert found.test is not None
    assert paths(found.test) == ["test/a/1", "test/b/1"]
    assert found.notes == ("left out, as in no class folder: val/, test/labels.csv",)


def test_a_file_beside_the_classes_is_noted(tmp_path):
    touch(tmp_path, "cat/1", "dog/1", "README.txt")
    assert list_folder(tmp_path).notes == ("left out, as in no class folder: README.txt",)


def test_hidden_files_are_ignored(tmp_path):
    touch(tmp_path, "cat/1", "dog/1", ".git/x", "cat/.DS_Store", "dog/Thumbs.db", "__MACOSX/cat/1")
    found = list_folder(tmp_path)
    assert paths(found.train) == ["cat/1", "dog/1"]
    assert (found.bad, found.notes) == ([], ())


def test_a_folder_inside_a_class_is_bad(tmp_path):
    touch(tmp_path, "train/cat/1", "train/cat/more/2", "train/dog/1")
    assert list_folder(tmp_path).bad == [("train/cat/more", "a folder inside a class folder")]


def test_sizes_are_listed(tmp_path):
    touch(tmp_path, "cat/1", "dog/1")
    (tmp_path / "dog/1").write_bytes(b"12345")
    assert [file.size for files in list_folder(tmp_path).train.values() for file in files] == [1, 5]


def test_a_link_to_nowhere_is_listed(tmp_path):
    touch(tmp_path, "cat/1", "dog/1")
    (tmp_path / "dog/2").symlink_to(tmp_path / "nowhere")
    assert paths(list_folder(tmp_path).train) == ["cat/1", "dog/1", "dog/2"]


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([], "is empty"),
        (["1.png", "2.png"], "holds 2 files but no folders"),
        (["cat/1"], r"holds 1 class folders \(cat\)"),
        (["train/cat/1", "test/cat/1"], r"train holds 1 class folders \(cat\)"),
        (["train/1.png"], r"train holds 0 class folders \(none\)"),
        (["test/cat/1", "test/dog/1"], "holds test but no train"),
        (["cat/1", "dog/.DS_Store"], r"dog holds no files"),
        (["cat/1", "dog/images/1"], r"dog holds only folders, such as dog/images"),
        (
            ["train/a/1", "train/b/1", "test/a/1", "test/b/1", "test/x/1"],
            r"1 classes of .*test are not in train/: x;",
        ),
        (
            ["train/a/1", "train/b/1", "train/y/1", "val/a/1", "val/b/1"],
            r"1 classes of .*train are not in val/: y;",
        ),
    ],
)
def test_folders_that_are_refused(tmp_path, files, what):
    touch(tmp_path, *files)
    with pytest.raises(InputError, match=what):
        list_folder(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        list_folder(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path):
    touch(tmp_path, "data.zip")
    with pytest.raises(InputError, match=r"data\.zip is a file, not a folder"):
        list_folder(tmp_path / "data.zip")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("relucate.data.listing.os.scandir", denied)
    with pytest.raises(InputError, match=r"can't list folder .*: Permission denied"):
        list_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_bad_and_never_opened(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/1.png")
    os.mkfifo(tmp_path / "cat" / "2.png")
    found = list_folder(tmp_path)
    assert found.bad == [("cat/2.png", "a pipe, socket or device, not a file")]
    assert [file.path for file in found.train["cat"]] == ["cat/1.png"]


def test_links_to_themselves_are_no_folders(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dog" / "loop.png").symlink_to(tmp_path / "dog" / "loop.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    found = list_folder(tmp_path)
    assert list(found.train) == ["cat", "dog"]
    assert found.bad == [("cat/up", "a folder inside a class folder")]
    assert found.notes == ("left out, as in no class folder: loop",)
