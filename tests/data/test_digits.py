"""The built-in data set, which must be the same everywhere and for good."""

import numpy as np

from relucate.data.digits import digits


def test_digits_are_pinned():
    data = digits()
    assert data.x_train.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert data.x_train.dtype == np.float32
    assert data.class_names == tuple("0123456789")
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert data.fingerprint == "d3555b4ae7536ed888cc78cebe405c42712b60865a60702db11fe9baacab0d97"


def test_digits_are_stratified():
    data = digits()
    share = np.bincount(data.y_test) / (np.bincount(data.y_train) + np.bincount(data.y_test))
    np.testing.assert_allclose(share, 0.2, atol=0.01)
