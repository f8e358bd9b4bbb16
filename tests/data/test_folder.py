"""Image folders from files to Dataset: layouts, cache, bad files, and real CIFAR-10 files."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from relucate.data import images
from relucate.data.folder import load_folder
from relucate.errors import InputError

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.tar.gz"


@pytest.fixture
def no_decoding(monkeypatch):
    """A function after whose call decoding an image is an error."""

    def decode(*_):
        raise AssertionError("decoded although the cache has it")

    return lambda: monkeypatch.setattr(images, "decode", decode)


def test_train_and_test_become_a_dataset(image_folder, cache, write_image):
    pixels = write_image(image_folder / "train" / "dog" / "1.png", seed=77)
    data = load_folder(image_folder, cache=cache)
    assert (data.name, data.class_names, data.input_shape) == ("pets", ("cat", "dog"), (6, 5, 3))
    np.testing.assert_array_equal(data.y_train, [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(data.y_test, [0, 0, 1, 1])
    np.testing.assert_array_equal(data.x_train[5], pixels)
    assert data.x_train.dtype == np.uint8
    assert data.notes == ()


def test_classes_alone_are_split(image_folder, cache):
    data = load_folder(image_folder / "train", cache=cache, test_split=0.5, seed=2)
    np.testing.assert_array_equal(data.y_train, [0, 0, 1, 1])
    np.testing.assert_array_equal(data.y_test, [0, 0, 1, 1])
    assert data.notes == ("the folder has no test part: a stratified 50% becomes it, seed 2",)
    other = load_folder(image_folder / "train", cache=cache, test_split=0.5, seed=3)
    assert other != data


def test_a_validation_folder_is_the_test_part(image_folder, cache):
    (image_folder / "test").rename(image_folder / "val")
    data = load_folder(image_folder, cache=cache)
    assert len(data.y_test) == 4
    assert data.notes == ("val/ is the test part",)


@pytest.mark.parametrize(("size", "shape"), [(4, (4, 4, 3)), ((4, 7), (4, 7, 3))])
def test_a_size_resizes(image_folder, cache, write_image, size, shape):
    write_image(image_folder / "train" / "cat" / "0.png", (30, 20))
    assert load_folder(image_folder, size=size, cache=cache).input_shape == shape


def test_different_sizes_need_a_size(image_folder, cache, write_image):
    write_image(image_folder / "test" / "dog" / "1.png", (30, 20))
    what = r"train/cat/0\.png is 6 x 5 but test/dog/1\.png is 30 x 20 .*--size"
    with pytest.raises(InputError, match=what):
        load_folder(image_folder, cache=cache)
    assert not cache.exists()


@pytest.mark.parametrize("size", [0, -3, (4,), (4, 5, 6), (4, 0), 2.5, (2.0, 3)])
def test_an_impossible_size_is_refused(image_folder, cache, size):
    with pytest.raises(InputError, match="is not a side or"):
        load_folder(image_folder, size=size, cache=cache)


def test_gray_files_and_grayscale_make_one_channel(image_folder, cache, tmp_path, write_image):
    assert load_folder(image_folder, grayscale=True, cache=cache).input_shape == (6, 5, 1)
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        write_image(tmp_path / "gray" / name, mode="L")
    data = load_folder(tmp_path / "gray", cache=cache, test_split=0.5)
    assert data.input_shape == (6, 5, 1)


def test_the_second_load_decodes_nothing(image_folder, cache, no_decoding):
    calls = []
    first = load_folder(image_folder, cache=cache, progress=lambda *c: calls.append(c))
    listed = [("listing files", so_far, 0) for so_far in (4, 8, 10, 12)]
    assert calls == [*listed, ("checking files", 12, 0), ("decoding images", 12, 12)]
    no_decoding()
    calls.clear()
    again = load_folder(image_folder, cache=cache, progress=lambda *c: calls.append(c))
    assert again == first
    assert calls == [*listed, ("checking files", 12, 0)]


def test_a_copy_elsewhere_hits_the_cache_and_has_its_own_name(image_folder, cache, no_decoding):
    first = load_folder(image_folder, cache=cache)
    shutil.copytree(image_folder, image_folder.with_name("copy"))
    no_decoding()
    again = load_folder(image_folder.with_name("copy"), cache=cache)
    assert again == first
    assert again.name == "copy"


@pytest.mark.parametrize(
    "options",
    [{"size": 4}, {"size": (6, 5)}, {"grayscale": True}, {"skip_bad": True}],
)
def test_other_options_are_other_entries(image_folder, cache, options):
    load_folder(image_folder, cache=cache)
    load_folder(image_folder, cache=cache, **options)
    assert len(list(cache.iterdir())) == 2


def test_split_options_count_only_where_there_is_a_split(image_folder, cache, no_decoding):
    load_folder(image_folder, cache=cache)
    no_decoding()
    assert load_folder(image_folder, cache=cache, seed=5, test_split=0.4).notes == ()


@pytest.mark.parametrize("change", ["content", "time", "name", "new", "gone"])
def test_a_changed_folder_is_decoded_again(image_folder, cache, write_image, change):
    load_folder(image_folder, cache=cache)
    path = image_folder / "train" / "cat" / "1.png"
    if change == "content":
        write_image(path, seed=999)
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "name":
        path.rename(path.with_name("9.png"))
    elif change == "new":
        shutil.copy(path, path.with_name("9.png"))
    else:
        path.unlink()
    load_folder(image_folder, cache=cache)
    assert len(list(cache.iterdir())) == 2


def test_bitmaps_of_the_same_size_and_time_are_told_apart(tmp_path, cache, write_image):
    loaded = []
    for seed, name in ((1, "one"), (2, "two")):
        for path in ("a/1.bmp", "a/2.bmp", "b/1.bmp", "b/2.bmp"):
            write_image(tmp_path / name / path, seed=seed)
            os.utime(tmp_path / name / path, ns=(0, 0))
        loaded.append(load_folder(tmp_path / name, cache=cache, test_split=0.5))
    assert loaded[0] != loaded[1]


def test_a_damaged_entry_is_decoded_again(image_folder, cache):
    first = load_folder(image_folder, cache=cache)
    (entry,) = cache.iterdir()
    (entry / "x_train.npy").write_bytes(b"")
    assert load_folder(image_folder, cache=cache) == first


def test_a_cache_that_cannot_be_written_is_not_fatal(image_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="not cached"):
        data = load_folder(image_folder, cache=tmp_path / "file")
    assert len(data.y_train) == 8


def spoil(image_folder):
    (image_folder / "train" / "cat" / "0.png").write_text("no image")
    (image_folder / "train" / "cat" / "notes.txt").write_text("no image either")
    (image_folder / "test" / "dog" / "0.png").write_bytes(b"")
    (image_folder / "test" / "dog" / "more").mkdir()


def test_files_that_are_not_images_are_named_and_counted(image_folder, cache):
    spoil(image_folder)
    what = (
        r"4 of 14 entries .* test/dog/more \(a folder inside a class folder\), "
        r"train/cat/0\.png \(not an image\), train/cat/notes\.txt \(not an image\) and 1 more"
        r".*--skip-bad"
    )
    with pytest.raises(InputError, match=what):
        load_folder(image_folder, cache=cache)
    assert not cache.exists()


def test_files_that_are_not_images_are_skipped_on_request(image_folder, cache, no_decoding):
    whole = load_folder(image_folder, cache=cache)
    spoil(image_folder)
    data = load_folder(image_folder, cache=cache, skip_bad=True)
    np.testing.assert_array_equal(data.x_train, whole.x_train[1:])
    np.testing.assert_array_equal(data.y_train, whole.y_train[1:])
    np.testing.assert_array_equal(data.x_test, whole.x_test[[0, 1, 3]])
    assert data.notes[0].startswith("4 files skipped: test/dog/more")
    no_decoding()
    assert load_folder(image_folder, cache=cache, skip_bad=True).notes == data.notes


def test_a_class_of_which_nothing_is_left_is_refused(image_folder, cache):
    for path in (image_folder / "train" / "dog").iterdir():
        path.write_text("no image")
    with pytest.raises(
        InputError, match=r"train/dog holds no file that can be read as an image \(4"
    ):
        load_folder(image_folder, cache=cache, skip_bad=True)


def test_a_test_class_of_which_nothing_is_left_is_refused(image_folder, cache):
    for path in (image_folder / "test" / "cat").iterdir():
        path.write_text("no image")
    with pytest.raises(InputError, match=r"test/cat holds no file that can be read"):
        load_folder(image_folder, cache=cache, skip_bad=True)


def test_a_folder_of_no_images_at_all_is_refused(tmp_path, cache):
    for name in ("a/1.txt", "b/1.txt"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True)
        (tmp_path / "texts" / name).write_text("no image")
    with pytest.raises(InputError, match=r"2 of 2 entries .*a/1\.txt \(not an image\)"):
        load_folder(tmp_path / "texts", cache=cache)
    with pytest.raises(InputError, match=r"texts/a holds no file that can be read"):
        load_folder(tmp_path / "texts", cache=cache, skip_bad=True)


@pytest.mark.skipif(not CIFAR.is_file(), reason="the CIFAR-10 files are not in ../shared/data")
def test_real_cifar_files(tmp_path, cache):
    with tarfile.open(CIFAR) as archive:
        for member in archive:
            if member.isfile() and int(Path(member.name).stem) < 20:
                archive.extract(member, tmp_path / "cifar10", filter="data")
    data = load_folder(tmp_path / "cifar10", cache=cache)
    assert data.input_shape == (32, 32, 3)
    assert (len(data.y_train), len(data.y_test)) == (200, 200)
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    np.testing.assert_array_equal(np.bincount(data.y_train), [20] * 10)
    # What CIFAR-10 is known to look like: channel means of about 0.49, 0.48, 0.45.
    np.testing.assert_allclose(
        data.x_train.mean(axis=(0, 1, 2)) / 255, [0.49, 0.48, 0.45], atol=0.06
    )
