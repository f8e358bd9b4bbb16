"""The built-in data set: scikit-learn's 8 x 8 digits, which need no download.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998). Its split is fixed, so that results on it can be compared. Called by `source`.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from relucate.data.dataset import Dataset, make_split

_FILE = "datasets/data/digits.csv.gz"  # in scikit-learn: 64 pixels and the label in each row
_SHAPE = (1797, 65)


def digits() -> Dataset:
    """Return 1,437 training and 360 test images, (8, 8, 1) float32 in [0, 1], 10 classes."""
    table = _table()
    pixels, labels = _loaded() if table is None else (table[:, :-1], table[:, -1].astype(int))
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16  # counts of set bits, 0..16
    return make_split("digits", images, labels, test_split=0.2, seed=0)


def _table() -> np.ndarray | None:
    """Read scikit-learn's file without importing scikit-learn, which takes over a second.

    None: it isn't where it has been so far.
    """
    spec = find_spec("sklearn")
    for place in (spec and spec.submodule_search_locations) or ():
        try:
            with gzip.open(Path(place, _FILE), "rt", encoding="ascii") as lines:
                table = np.loadtxt(lines, delimiter=",")
        except (OSError, EOFError, ValueError):
            continue
        if table.shape == _SHAPE:
            return table
    return None


def _loaded() -> Any:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)
