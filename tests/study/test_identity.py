"""What identifies code: what it does, not where it is."""

import functools
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from relucate.study.identity import code_digest

LIMIT = 3


def make(text, name="f", **extra):
    """Define a function as a user's module would."""
    space = {"__name__": "a_users_module", "np": np, **extra}
    exec(textwrap.dedent(text), space)
    return space[name]


def closure(width):
    def build(order):
        return order, width

    return build


def reads_a_global(order):
    return order, LIMIT


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("def f(order): return order + 1", "def f(order): return order + 2"),
        ("def f(order): return np.sin(order)", "def f(order): return np.cos(order)"),
        ("def f(order, width=3): return width", "def f(order, width=4): return width"),
        ("def f(order, *, width=3): return width", "def f(order, *, width=4): return width"),
        ("def f(order): return lambda: 1", "def f(order): return lambda: 2"),
        ("def g(): return 1\ndef f(o): return g()", "def g(): return 2\ndef f(o): return g()"),
        ("W = 1\ndef f(order): return W", "W = 2\ndef f(order): return W"),
        ("W = {'a': [1]}\ndef f(order): return W", "W = {'a': [2]}\ndef f(order): return W"),
        ("W = np.zeros(3)\ndef f(order): return W", "W = np.ones(3)\ndef f(order): return W"),
        (
            "class C:\n  def go(self): return 1\ndef f(order): return C().go()",
            "class C:\n  def go(self): return 2\ndef f(order): return C().go()",
        ),
        (
            "class B:\n  x = 1\nclass C(B): pass\ndef f(order): return C()",
            "class B:\n  x = 2\nclass C(B): pass\ndef f(order): return C()",
        ),
        (
            "class C:\n  @property\n  def x(self): return 1\ndef f(order): return C().x",
            "class C:\n  @property\n  def x(self): return 2\ndef f(order): return C().x",
        ),
    ],
    ids=[
        "constant",
        "name",
        "default",
        "keyword default",
        "inner function",
        "function it calls",
        "global",
        "nested global",
        "array",
        "method",
        "base class",
        "property",
    ],
)
def test_what_matters_changes_the_digest(a, b):
    assert code_digest(make(a)) == code_digest(make(a))
    assert code_digest(make(a)) != code_digest(make(b))


def test_comments_and_lines_do_not_matter():
    plain = "def f(order):\n    return order"
    moved = "# a comment\n\n\ndef f(order):\n    # another\n\n    return order"
    assert code_digest(make(plain)) == code_digest(make(moved))


def test_closures_count():
    assert code_digest(closure(8)) == code_digest(closure(8))
    assert code_digest(closure(8)) != code_digest(closure(16))


def test_partials_and_bound_methods_count():
    partials = [functools.partial(closure, width) for width in (8, 8, 16)]
    assert code_digest(partials[0]) == code_digest(partials[1]) != code_digest(partials[2])


def test_a_global_that_it_reads_counts(monkeypatch):
    before = code_digest(reads_a_global)
    monkeypatch.setitem(globals(), "LIMIT", 4)
    assert code_digest(reads_a_global) != before


def test_what_it_only_imports_or_gets_by_attribute_does_not_count():
    text = "def f(order):\n    import os\n    return os.sep, order.width"
    assert code_digest(make(text)) == code_digest(make(text, os=1, width=2))


def test_it_is_the_same_for_a_function_that_traveled_with_its_code():
    import cloudpickle

    text = "import os\nW = [1]\ndef g(): return W\ndef f(order):\n    return g(), os.sep"
    function = make(text)
    assert code_digest(cloudpickle.loads(cloudpickle.dumps(function))) == code_digest(function)


def test_recursion_and_cycles_end():
    loop = []
    loop.append(loop)
    assert code_digest(loop) == code_digest(loop)
    assert len(code_digest(make("def g(): return f\ndef f(order): return g"))) == 64


def test_installed_packages_count_by_name_alone():
    assert code_digest(np.linalg.norm) != code_digest(np.linalg.det)
    seen = code_digest(make("def f(order): return np.linalg.norm"))
    assert seen == code_digest(make("def f(order): return np.linalg.norm"))


def test_it_is_the_same_in_every_process():
    code = """
        from relucate.study.identity import code_digest
        WIDTHS = {"a": {1, 2, "x"}, "b": (3.5, None)}
        class Net:
            def build(self): return sorted(map(str, WIDTHS["a"]))
        def f(order, depth=2): return Net().build(), {"q", "r"}, depth
        print(code_digest(f))
    """
    digests = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64
