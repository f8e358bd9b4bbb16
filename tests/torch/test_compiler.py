"""PyTorch's compiler comes when it is used: each test is a fresh process."""

import subprocess
import sys

START = """
import sys
from relucate import frameworks
frameworks.defer_compiler()
import torch

def there():
    return "torch._dynamo.config" in sys.modules
"""

TRAINING = """
import keras, numpy
keras.utils.clear_session()
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])
model(numpy.ones((2, 4), numpy.float32), training=True)
weight = torch.nn.Parameter(torch.ones(3))
for make in (torch.optim.SGD, torch.optim.AdamW):
    optimizer = make([weight], lr=0.1)
    weight.square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
assert not there() and "sympy" not in sys.modules
print("trained", weight.tolist())
"""

COMPILING = """
import torch._dynamo as early
seen = []

@early.disable()
def host(x):
    seen.append(torch.compiler.is_compiling())
    return x + 1

@torch.compiler.disable
def other(x):
    seen.append(torch.compiler.is_compiling())
    return x + 1

def inside(x):
    seen.append(torch.compiler.is_compiling())
    return x * 2

one = torch.ones(())
host(one), early.graph_break(), early.reset()
assert not there()
found = torch.compile(lambda x: inside(other(host(x))), backend="eager")(one)
assert there() and found == 6
early.graph_break(), early.reset()
assert early.config is torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert early.disable(inside).__name__ == "inside"
print("compiled", seen)
"""

SUBMODULE = """
import torch._dynamo.config
assert there() and torch._dynamo.config.suppress_errors is False
assert sys.modules["torch._dynamo"] is torch._dynamo
frameworks.defer_compiler()
assert sys.modules["torch._dynamo"] is torch._dynamo and there()
assert not hasattr(torch._dynamo, "__nothing__")
print("imported")
"""


def printed(code):
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_training_does_without_it(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    without = printed(TRAINING)
    plain = TRAINING.replace("assert not there()", "assert there()").replace(" not in ", " in ")
    real = subprocess.run(
        [sys.executable, "-c", START.replace("frameworks.defer_compiler()", "") + plain],
        capture_output=True,
        text=True,
    )
    assert real.stdout.strip() == without == without.strip(), real.stderr
    assert without.startswith("trained")


def test_what_was_decorated_before_is_skipped_by_the_compiler():
    # `host` before there was a compiler, then both, and only `inside` may be traced.
    assert printed(COMPILING).startswith("compiled [False, False, False")


def test_a_submodule_brings_it():
    assert printed(SUBMODULE) == "imported"
