"""The built-in data set, which must be the same everywhere and for good."""

import gzip
import subprocess
import sys
from types import SimpleNamespace

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


def test_they_are_scikit_learns(monkeypatch):
    data = digits()
    for spec in (None, SimpleNamespace(submodule_search_locations=["nowhere"])):
        monkeypatch.setattr("relucate.data.digits.find_spec", lambda name, spec=spec: spec)
        assert digits().fingerprint == data.fingerprint


def test_another_table_is_left_alone(monkeypatch, tmp_path):
    path = tmp_path / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("relucate.data.digits.find_spec", lambda name: spec)
    for content in (b"1,2\n3,4\n", b"a,b\n"):
        path.write_bytes(gzip.compress(content))
        assert len(digits().y_train) == 1437
    path.write_bytes(gzip.compress(b"1,2\n" * 99)[:-9])
    assert len(digits().y_train) == 1437


def test_reading_them_imports_no_scikit_learn():
    code = "import sys, relucate.data as d; d.load('digits'); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
