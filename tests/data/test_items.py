"""Data sets that give one example at a time: all of it is read once, or refused with the reason."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from relucate.data import load
from relucate.data.items import has_items
from relucate.errors import InputError

X = np.arange(40.0).reshape(20, 2)
Y = np.arange(20) % 2
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3)).astype(np.uint8)


class Items(Dataset):
    """Give the examples that a function makes."""

    def __init__(self, make, count=20):
        self._make, self._count = make, count

    def __len__(self):
        return self._count

    def __getitem__(self, number):
        return self._make(number)


class Plain:
    """What has the two methods alone."""

    def __len__(self):
        return 20

    def __getitem__(self, number):
        return (X[number], Y[number])


class PyDataset(Plain):
    """Called like that of Keras, which gives batches."""


class Stream(IterableDataset):
    """Gives examples one after another, without numbers."""

    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def tensors(rows=slice(None)):
    return TensorDataset(torch.tensor(X[rows]), torch.tensor(Y[rows]))


@pytest.mark.parametrize(
    "source",
    [tensors(), Plain(), Subset(tensors(), range(20)), Items(lambda k: [list(X[k]), int(Y[k])])],
    ids=lambda source: type(source).__name__,
)
def test_one_data_set_is_split_as_its_arrays_are(source):
    assert load(source, test_split=0.3, seed=1) == load((X, Y), test_split=0.3, seed=1)


@pytest.mark.parametrize("form", [tuple, list])
def test_two_are_the_parts(form):
    parts = form([tensors(slice(0, 14)), tensors(slice(14, None))])
    assert load(parts) == load(((X[:14], Y[:14]), (X[14:], Y[14:])))


@pytest.mark.parametrize(
    "example",
    [
        lambda k: torch.tensor(IMAGES[k]).permute(2, 0, 1),
        lambda k: torch.tensor(IMAGES[k]),
        lambda k: IMAGES[k],
        lambda k: Image.fromarray(IMAGES[k]),
    ],
    ids=["channels first", "channels last", "array", "Pillow"],
)
def test_channels_are_last_afterwards(example):
    data = load(Items(lambda k: (example(k), Y[k])))
    assert data == load((IMAGES, Y))
    first = [note for note in data.notes if "channels first" in note]
    assert len(first) == (example(0).shape[0] == 3 if hasattr(example(0), "shape") else 0)


def test_features_of_a_convolution_are_channels_first_too():
    features = torch.rand(20, 16, 5, 6)
    data = load(Items(lambda k: (features[k], Y[k])))
    assert data == load((features.permute(0, 2, 3, 1).numpy(), Y))


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_volumes_are_channels_first_in_tensors_and_last_in_arrays(channels):
    volumes = torch.rand(20, channels, 6, 7, 5)
    last = volumes.permute(0, 2, 3, 4, 1).numpy()
    data = load(Items(lambda k: (volumes[k], Y[k])))
    assert data == load((last, Y))
    assert any(f"({channels}, 6, 7, 5): taken as channels first" in note for note in data.notes)
    assert load(Items(lambda k: (last[k], Y[k]))) == data


@pytest.mark.parametrize("shape", [(6, 3, 7, 8), (4, 3, 7, 8), (2, 7, 8, 3)])
def test_frames_of_images_are_not_guessed_at_in_tensors(shape):
    frames = torch.rand(20, *shape)
    with pytest.raises(InputError, match=r"\(channels, depth, height, width\), or \(time"):
        load(Items(lambda k: (frames[k], Y[k])))


def test_frames_with_channels_last_are_read_as_they_are():
    frames = torch.rand(20, 6, 7, 8, 3)
    assert load(Items(lambda k: (frames[k], Y[k]))) == load((frames.numpy(), Y))


def test_a_palette_is_no_image():
    flat = [Image.fromarray(image).quantize(256) for image in IMAGES]
    data = load(Items(lambda k: (flat[k], Y[k])))
    assert data == load((np.stack([np.asarray(image.convert("RGB")) for image in flat]), Y))


def test_labels_keep_their_whole_text():
    names = ["a", "a cat", "mouse"]
    data = load(Items(lambda k: (X[k], names[k % 3])))
    assert data.class_names == ("a", "a cat", "mouse")


def test_reading_is_reported():
    calls = []
    load(Items(lambda k: (X[k % 20], Y[k % 20]), 1100), progress=lambda *call: calls.append(call))
    assert calls == [("reading examples", done, 1100) for done in (500, 1000)]


def fails(number):
    raise KeyError(number)


def draws(number):
    return torch.tensor(X[number]) + torch.rand(()), Y[number]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Items(draws), r"isn't the same when it is read again.*--augment\)\. Or train"),
        (Items(lambda k: {"x": 1, "y": 2}), r"example 0 of the Items is a dict of 2; expected"),
        (Items(lambda k: (1, 2, 3)), r"is a tuple of 3; expected \(x, y\)"),
        (Items(lambda k: ({"a": 1}, 2)), "several inputs"),
        (Items(fails), "example 0 of the Items can't be read: KeyError: 0"),
        (
            Items(lambda k: (X[0][: 1 + k % 2], 0)),
            r"example 1 of .* shape \(2,\).*the first \(1,\)",
        ),
        (Items(lambda k: (X[0].astype("f4" if k else "f8"), 0)), "float32 values, the first"),
        (Items(lambda k: (X[0], [0] * (1 + k % 2))), "the labels of the Items differ in shape"),
        (Items(fails, 0), "has no examples"),
        (PyDataset(), "the PyDataset gives batches, not examples"),
        (DataLoader(tensors()), r"give its data set \(loader\.dataset\)"),
        (Stream(), "data is a Stream; expected"),
    ],
)
def test_what_is_no_set_of_examples_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        load(source)


def test_arrays_tables_and_sequences_are_none():
    for other in (X, torch.tensor(X), pd.DataFrame(X), pd.Series(Y), [1, 2], (1, 2), {}, "text"):
        assert not has_items(other)
