"""A worker's own start: what it imports, and what it does without."""

import subprocess
import sys

import pytest

from relucate.study.executors.prepared import _EXTRAS, _left_out

KERAS = """
import sys
from relucate.study.executors.prepared import _EXTRAS, _left_out
with _left_out(_EXTRAS):
    import keras
assert not [name for name in ("sklearn", "matplotlib", "pandas", "jax") if name in sys.modules]
import scipy.stats, sklearn.base, matplotlib.pyplot
keras.layers.Dense(1)(keras.Input((2,)))
keras.initializers.TruncatedNormal()((2, 2))
print("built")
"""


def test_what_is_left_out_fails_to_import_and_comes_back():
    with pytest.raises(ImportError), _left_out(["xmlrpc"]):
        import xmlrpc
    import xmlrpc.client

    with _left_out(["xmlrpc"]):  # what is there already stays
        import xmlrpc.client
    assert xmlrpc.client


def test_keras_does_without_what_a_worker_leaves_out():
    done = subprocess.run([sys.executable, "-c", KERAS], capture_output=True, text=True)
    assert done.stdout.strip() == "built", done.stderr
    assert "torch" not in _EXTRAS
