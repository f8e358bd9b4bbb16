"""A worker's own start: what it imports, and what it does without."""

import subprocess
import sys

import pytest

from relucate.frameworks import _EXTRAS, _left_out

KERAS = """
import sys
from relucate.frameworks import _EXTRAS, _left_out
with _left_out(_EXTRAS):
    import keras
assert not [name for name in ("sklearn", "matplotlib", "pandas", "jax") if name in sys.modules]
import scipy.stats, sklearn.base, matplotlib.pyplot
keras.layers.Dense(1)(keras.Input((2,)))
keras.initializers.TruncatedNormal()((2, 2))
print("built")
"""

WORK = """
import sys
from relucate.data import make
from relucate.study.arms import Arm
from relucate.study.executors.perform import inspection
from relucate.study.executors.prepared import Prepared
from relucate.study.executors.protocol import Task
from relucate.study.pickling import pickled
from relucate.study.source import resolve
from relucate.study.tasks import execute
from relucate.train import Recipe, RunSpec
from relucate.train.task import CLASSIFICATION
import numpy as np

x, y = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32), np.arange(20) % 2
data = make("toy", x, y, x, y)
task = pickled(CLASSIFICATION, "relucate.train.task")
source = resolve("mlp", {"width": 4, "depth": 1})
worker = Prepared({"source": source, "data": data, "threads": 1, "task": task})
worker.warm_up()
seen = worker.performing(Task("inspect", inspection([Arm("before")], "auto", "cpu")), print)
list(seen)
engine = {"name": "torch", "device": "cpu"}
spec = RunSpec(model={}, arm=Arm("before").to_dict(), before=(), seed=0, data={}, engine=engine,
               versions={}, recipe=Recipe(epochs=1, batch_size=4).to_dict())
assert execute(spec, source, data).metric >= 0
heavy = {"torch._dynamo.config", "sympy", "scipy.special", "sklearn", "matplotlib", "pandas"}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_run_imports_nothing_that_it_does_without():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


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
