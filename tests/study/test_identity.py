"""What identifies code: what it does, not where it is."""

import functools
import importlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from relucate.study.identity import code_digest, packages, reached

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


class TestModulesOfTheUsers:
    """They count by their files, whether they have been imported already or not."""

    TEXTS = (
        "import helper_a\ndef f(order): return helper_a.go()",
        "def f(order):\n    import helper_a\n    return helper_a.go()",
        "def f(order):\n    from helper_a import go\n    return go()",
        "def f(order):\n    return __import__('helper_a').go()",
        "import importlib\ndef f(order):\n    return importlib.import_module('helper_a').go()",
    )

    @pytest.fixture
    def write(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)

        def write(name, text):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            importlib.invalidate_caches()

        yield write
        for name in [name for name in sys.modules if name.startswith("helper_")]:
            del sys.modules[name]

    @pytest.mark.parametrize("text", TEXTS)
    def test_a_change_in_a_module_changes_the_digest(self, text, write):
        write("helper_a.py", "def go(): return 1")
        digest = code_digest(make(text))
        assert code_digest(make(text)) == digest
        write("helper_a.py", "def go(): return 22")
        assert code_digest(make(text)) != digest

    def test_so_does_a_change_in_a_module_that_it_imports(self, write):
        write("helper_a.py", "from helper_pack.inner import go")
        write("helper_pack/__init__.py", "")
        write("helper_pack/inner.py", "from . import leaf\ndef go(): return leaf.X")
        write("helper_pack/leaf.py", "X = 1")
        digest = code_digest(make(self.TEXTS[0]))
        write("helper_pack/leaf.py", "X = 2")
        assert code_digest(make(self.TEXTS[0])) != digest

    def test_so_do_the_packages_around_it_and_folders_without_init(self, write):
        write("helper_a.py", "import helper_pack.sub.inner")
        write("helper_pack/sub/inner.py", "X = 1")
        digest = code_digest(make(self.TEXTS[0]))
        write("helper_pack/sub/inner.py", "X = 2")
        changed = code_digest(make(self.TEXTS[0]))
        write("helper_pack/__init__.py", "Y = 1")
        assert len({digest, changed, code_digest(make(self.TEXTS[0]))}) == 3

    def test_being_imported_does_not_matter(self, write):
        write("helper_a.py", "def go(): return 1")
        function = make(self.TEXTS[1])
        digest = code_digest(function)
        assert function("before") == 1
        assert code_digest(function) == digest

    def test_what_does_not_parse_or_is_not_there_is_no_error(self, write):
        write("helper_a.py", "def go(: return 1")
        assert code_digest(make(self.TEXTS[1]))
        assert code_digest(make("def f(order):\n    import helper_none.at_all"))

    def test_packages_are_those_it_reaches_directly_or_through_modules(self, write):
        write("helper_a.py", "import scipy.stats, os\nfrom helper_b import go")
        write("helper_b.py", "def go(): return 1")
        assert packages(make(self.TEXTS[2])) == {"scipy"}
        assert packages(make("def f(order):\n    import keras.ops\n    return np.sin")) == {
            "numpy",
            "keras",
        }


class TestState:
    """What an object consists of counts, wherever it keeps it."""

    SLOTS = "from dataclasses import dataclass\n@dataclass(slots=True)\nclass C:\n  w: int\n"

    @pytest.mark.parametrize(
        ("before", "a", "b"),
        [
            ("from pathlib import Path", "Path('a')", "Path('b')"),
            ("import re", "re.compile('a')", "re.compile('b')"),
            ("from datetime import timedelta", "timedelta(1)", "timedelta(2)"),
            ("from fractions import Fraction", "Fraction(1, 2)", "Fraction(1, 3)"),
            ("from collections import deque", "deque([1])", "deque([2])"),
            ("import random", "random.Random(1)", "random.Random(2)"),
            ("", "range(1)", "range(2)"),
            ("", "bytearray(b'a')", "bytearray(b'b')"),
            ("", "np.random.default_rng(1)", "np.random.default_rng(2)"),
            ("", "np.ma.array([1, 2], mask=[0, 1])", "np.ma.array([1, 2], mask=[1, 0])"),
            ("", "{'a': 1}.get", "{'a': 2}.get"),
            ("", "{1: 1}", "{'1': 1}"),
            ("", "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
            (SLOTS, "C(1)", "C(2)"),
            ("class C(dict):\n  pass", "C(a=1)", "C(a=2)"),
            ("class C(int):\n  pass", "C(1)", "C(2)"),
            ("import torch", "torch.float32", "torch.bfloat16"),
            ("import torch", "torch.device('cpu')", "torch.device('cuda')"),
            ("import torch", "torch.ones(1).bfloat16()", "torch.zeros(1).bfloat16()"),
            (
                "import torch",
                "torch.nn.Parameter(torch.ones(1))",
                "torch.nn.Parameter(torch.zeros(1))",
            ),
        ],
    )
    def test_a_global(self, before, a, b):
        one, other = (f"{before}\nW = {text}\ndef f(order): return W" for text in (a, b))
        assert code_digest(make(one)) == code_digest(make(one))
        assert code_digest(make(one)) != code_digest(make(other))

    @pytest.mark.parametrize(
        "text",
        [
            "class W(dict):\n  def go(self): return {}\nW = W()",
            "class W(__import__('typing').NamedTuple):\n  def go(self): return {}\nW = W()",
            "class M(type):\n  def go(cls): return {}\nclass W(metaclass=M): pass",
            "import functools\n@functools.wraps(np.mean)\ndef W(): return {}",
            "import functools\n@functools.cache\ndef W(): return {}",
            "import torch\n@torch.no_grad()\ndef W(): return {}",
            "def W(): pass\nW.go = {}",
        ],
    )
    def test_what_is_around_it(self, text):
        one, other = (f"{text.replace('{}', w)}\ndef f(order): return W" for w in "12")
        assert code_digest(make(one)) == code_digest(make(one))
        assert code_digest(make(one)) != code_digest(make(other))

    @pytest.mark.parametrize("length", [5, 50, 2000])
    def test_any_chain_of_functions_is_followed(self, length):
        steps = "".join(f"def g{i}(): return g{i + 1}()\n" for i in range(length))
        one, other = (
            make(f"{steps}def g{length}(): return {w}\ndef f(order): return g0()") for w in "12"
        )
        assert code_digest(one) != code_digest(other)

    def test_arrays_of_objects_count_by_what_they_hold(self):
        text = "W = np.array(['a' * 50, {}], dtype=object)\ndef f(order): return W"
        assert code_digest(make(text)) == code_digest(make(text))

    def test_the_shells_variables_do_not_count(self, monkeypatch):
        function = make("from os import environ\ndef f(order): return environ")
        digest = code_digest(function)
        monkeypatch.setenv("A_JOBS_NUMBER", "2")
        assert code_digest(function) == digest

    def test_nor_do_loggers_that_others_made(self):
        import logging

        function = make("import logging\nW = logging.getLogger('a')\ndef f(order): return W")
        digest = code_digest(function)
        logging.getLogger("a.b").isEnabledFor(10)
        assert code_digest(function) == digest


class TestReached:
    """What lets a worker process see that it has other code than the study started with."""

    CONFIG = "WIDTH, OTHER = {'a': [1]}, 3\nimport os\nNODE = os.getpid()\n"
    CODE = """
        import value_config as config
        LR, DONE = 0.1, 0
        class C:
            depth = 2
        def g():
            global DONE
            DONE = 1
            return LR
        def f(order):
            return g(), C(), config.WIDTH, config.NODE
    """

    def test_the_values_that_a_function_reads_from_files(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "value_config.py").write_text(self.CONFIG)
        (tmp_path / "value_code.py").write_text(textwrap.dedent(self.CODE))
        try:
            found = reached(importlib.import_module("value_code").f)
        finally:
            del sys.modules["value_code"], sys.modules["value_config"]
        assert found.values == {
            "value_code.LR": "0.1",
            "value_code.C.depth": "2",
            "value_config.WIDTH": "['a', [1]]",
        }
        assert {path.rpartition("value_")[2] for path in found.files} == {"code.py", "config.py"}
