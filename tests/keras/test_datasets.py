"""The sets that Keras downloads: its own code reads small files of the true formats; no network."""

import gzip
import io
import pickle
import tarfile
import urllib.error

import keras
import numpy as np
import pytest
from keras.src.backend import config
from keras.src.utils import file_utils

from relucate.data import load
from relucate.errors import InputError
from relucate.keras.datasets import NAMED


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """Keras's folder in a temporary place; a try to download fails as without a network."""

    def no_network(*_):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", no_network)
    (tmp_path / "datasets").mkdir()
    return tmp_path


@pytest.fixture
def any_hash(monkeypatch):
    """Let Keras accept files that aren't the original ones."""
    monkeypatch.setattr(file_utils, "validate_file", lambda *_, **__: True)


def digits_like(count):
    x = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return x, (np.arange(count) % 10).astype(np.uint8)


def test_mnist(keras_home, any_hash):
    x_train, y_train = digits_like(30)
    x_test, y_test = digits_like(20)
    np.savez(
        keras_home / "datasets" / "mnist.npz",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
    )
    data = load("mnist", named=NAMED)
    assert (data.name, data.input_shape, data.class_names) == (
        "mnist",
        (28, 28, 1),
        tuple("0123456789"),
    )
    np.testing.assert_array_equal(data.x_train[..., 0], x_train)
    np.testing.assert_array_equal(data.y_test, y_test)


def test_fashion_mnist(keras_home):
    folder = keras_home / "datasets" / "fashion-mnist"
    folder.mkdir()
    arrays = {}
    for part, count in (("train", 30), ("t10k", 20)):
        x, y = arrays[part] = digits_like(count)
        for name, offset, content in (("images-idx3", 16, x), ("labels-idx1", 8, y)):
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as stream:
                stream.write(bytes(offset) + content.tobytes())
    data = load("fashion_mnist", named=NAMED)
    assert data.class_names[0] == "T-shirt/top"
    assert data.class_names[9] == "Ankle boot"
    np.testing.assert_array_equal(data.x_train[..., 0], arrays["train"][0])
    np.testing.assert_array_equal(data.y_test, arrays["t10k"][1])


def write_archive(path, folder, batches):
    with tarfile.open(path, "w:gz") as archive:
        for name, batch in batches.items():
            content = pickle.dumps(batch, protocol=3)
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def one_colour_rows(count):
    """(count, 3072) rows: 7 in the red plane, 8 in the green, 9 in the blue."""
    return np.repeat(np.array([[7, 8, 9]], np.uint8), 1024, axis=1).repeat(count, axis=0)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_cifar100(keras_home, any_hash, monkeypatch, data_format):
    monkeypatch.setattr(config, "_IMAGE_DATA_FORMAT", data_format)
    batches = {
        name: {b"data": one_colour_rows(count), b"fine_labels": [i % 100 for i in range(count)]}
        for name, count in (("train", 200), ("test", 100))
    }
    path = keras_home / "datasets" / "cifar-100-python-target_archive"
    write_archive(path, "cifar-100-python", batches)
    data = load("cifar100", named=NAMED)
    assert (data.input_shape, data.classes) == ((32, 32, 3), 100)
    assert (len(data.y_train), len(data.y_test)) == (200, 100)
    np.testing.assert_array_equal(data.x_train[5, 1, 2], [7, 8, 9])
    np.testing.assert_array_equal(data.y_train[:3], [0, 1, 2])


def test_cifar10(keras_home, any_hash):
    labels = [i % 10 for i in range(10000)]
    # Keras wants 10,000 labels a batch; one row of pixels is broadcast.
    batches = {
        f"data_batch_{i}": {b"data": one_colour_rows(1), b"labels": labels} for i in range(1, 6)
    }
    batches["test_batch"] = {b"data": one_colour_rows(20), b"labels": labels[:20]}
    path = keras_home / "datasets" / "cifar-10-batches-py-target_archive"
    write_archive(path, "cifar-10-batches-py", batches)
    (x_train, y_train), (x_test, y_test), names = NAMED["cifar10"]()
    assert (x_train.shape, y_train.shape) == ((50000, 32, 32, 3), (50000,))
    assert (x_test.shape, y_test.shape) == ((20, 32, 32, 3), (20,))
    assert (names[3], names[5], len(names)) == ("cat", "dog", 10)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py-target_archive"),
        ("cifar100", "cifar-100-python-target_archive"),
        ("mnist", "mnist.npz"),
        ("fashion_mnist", "fashion-mnist"),
    ],
)
def test_without_a_network_the_error_says_what_to_do(keras_home, capsys, name, file):
    with pytest.raises(InputError) as caught:
        load(name, named=NAMED)
    message = str(caught.value)
    assert message.startswith(f"can't get '{name}': URL fetch failure on https://")
    assert "Name or service not known" in message
    assert str(keras_home / "datasets" / file) in message
    assert "folder:PATH or npz:PATH" in message
    out, err = capsys.readouterr()
    assert out == ""
    assert "Downloading data" in err


def test_a_file_that_is_not_the_original_is_not_used(keras_home):
    (keras_home / "datasets" / "mnist.npz").write_bytes(b"half a download")
    with pytest.raises(InputError, match="can't get 'mnist'"):
        load("mnist", named=NAMED)


def test_the_names_are_those_of_keras():
    assert list(NAMED) == ["cifar10", "cifar100", "mnist", "fashion_mnist"]
    for name in NAMED:
        assert hasattr(keras.datasets, name)
