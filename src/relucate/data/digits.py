"""The built-in data set: scikit-learn's 8 x 8 digits, which need no download.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998). Its split is fixed, so that results on it can be compared. Called by `source`.
"""

from __future__ import annotations

import numpy as np

from relucate.data.dataset import Dataset, make_split


def digits() -> Dataset:
    """Return 1,437 training and 360 test images, (8, 8, 1) float32 in [0, 1], 10 classes."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16  # counts of set bits, 0..16
    return make_split("digits", images, labels, test_split=0.2, seed=0)
