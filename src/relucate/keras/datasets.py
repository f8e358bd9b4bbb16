"""Data sets that Keras downloads, by name, for `relucate.data.load(..., named=NAMED)`.

Keras is imported when a data set is loaded. Not here: checking the arrays (`data`). Called by the
command line and by `compare`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from relucate.errors import InputError

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# Where Keras keeps each set, below its datasets folder.
_FILES = {
    "cifar10": "cifar-10-batches-py-target_archive",
    "cifar100": "cifar-100-python-target_archive",
    "mnist": "mnist.npz",
    "fashion_mnist": "fashion-mnist",
}


def load_named(name: str, class_names: tuple[str, ...] | None = None) -> tuple:
    """Return ((x_train, y_train), (x_test, y_test)[, class_names]) of a set in `keras.datasets`.

    x: (n, h, w) or (n, h, w, 3) uint8, channels last in every configuration of Keras; y: (n,).

    Raises:
        InputError: it isn't on this machine and can't be downloaded.
    """
    module = importlib.import_module(f"keras.datasets.{name}")
    try:
        # Keras reports its download on stdout, which is reserved for the command's own output.
        with contextlib.redirect_stdout(sys.stderr):
            train, test = module.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise InputError(_no_data(name, error)) from error
    parts = tuple((_channels_last(x), np.ravel(y)) for x, y in (train, test))
    return (*parts, class_names) if class_names else parts


NAMED: Mapping[str, Callable[[], tuple]] = MappingProxyType(
    {
        "cifar10": partial(load_named, "cifar10", CIFAR10_CLASSES),
        "cifar100": partial(load_named, "cifar100"),
        "mnist": partial(load_named, "mnist"),
        "fashion_mnist": partial(load_named, "fashion_mnist", FASHION_CLASSES),
    }
)


def _no_data(name: str, error: Exception) -> str:
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return (
        f"can't get '{name}': {error}. The first use needs the network; Keras then keeps the "
        f"set in {home / 'datasets' / _FILES[name]}. You can also copy it there from another "
        "machine. Without either, use data of your own: folder:PATH or npz:PATH."
    )


def _channels_last(x: np.ndarray) -> np.ndarray:
    """Undo the transposition that Keras does where image_data_format is channels_first."""
    first = x.ndim == 4 and x.shape[1] == 3 and x.shape[3] != 3
    return x.transpose(0, 2, 3, 1) if first else x
