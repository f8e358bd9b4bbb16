"""What identifies code: what it does, not where it is."""

import functools
import importlib
import os
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


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
class TestFrameworks:
    """Objects of a framework count by what they consist of, in every process and after their use.

    `use` is called between two digests.
    """

    KERAS = "import keras\nkeras.utils.set_random_seed(1)\n"
    NET = "W = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.ReLU()])\n"
    LAYER = """
class L(keras.layers.Layer):
    def __init__(self, width, **given):
        super().__init__(**given)
        self.width, self.inner = width, keras.layers.Dense(2)
    def call(self, x):
        return self.inner(x) * self.width
"""
    SCRIPT = """
import torch
torch.manual_seed(1)
W = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LeakyReLU({})))
"""
    TRACE = """
import torch
K = torch.tensor([{}])
W = torch.jit.trace(lambda x: x * K, torch.ones(1))
"""
    COMPILE = """
import torch
def g(x): return x * {}
W = torch.compile(g, backend="eager")
"""
    CASES = (
        (f"{KERAS}W = keras.layers.Dense({{}})", "3", "4", ""),
        (f"{KERAS}W = keras.layers.Dense(3, activation={{}})", "'relu'", "'elu'", ""),
        (f"{KERAS}W = keras.optimizers.Adam({{}})", "1e-3", "1e-2", ""),
        (f"{KERAS}W = keras.losses.Huber({{}})", "1.0", "2.0", ""),
        (f"{KERAS}W = keras.initializers.{{}}()", "HeNormal", "HeUniform", "W((2, 2))"),
        (f"{KERAS}W = keras.activations.{{}}", "relu", "elu", ""),
        (
            f"{KERAS}{NET}W.trainable = {{}}",
            "True",
            "False",
            "W.predict(np.ones((1, 3)), verbose=0)",
        ),
        (f"{KERAS}{NET}W.weights[0].assign_add({{}} * np.ones((3, 2)))", "0", "1", ""),
        (f"{KERAS}{LAYER}W = L({{}})", "3", "4", ""),
        (SCRIPT, "3.0", "4.0", "[W(torch.ones(1, 3)) for _ in range(3)]"),
        (f"{SCRIPT.format(2.0)}W[0].weight.data += {{}}", "0", "1", ""),
        (TRACE, "3.0", "4.0", "[W(torch.ones(1)) for _ in range(3)]"),
        (COMPILE, "3", "4", "W(torch.ones(1))"),
    )

    @pytest.mark.parametrize(("text", "a", "b", "use"), CASES)
    def test_they_count_by_what_they_consist_of(self, text, a, b, use):
        one, same, other = (make(f"{text.format(w)}\ndef f(order): return W") for w in (a, a, b))
        digest = code_digest(one)
        assert code_digest(same) == digest != code_digest(other)
        if use:
            exec(use, one.__globals__)
            assert code_digest(one) == digest

    def test_they_are_the_same_in_every_process(self):
        kinds = dict.fromkeys((text.format(a), None) for text, a, _, _ in self.CASES)
        texts = [f"{text}\ndef f(order): return W" for text, _ in kinds]
        code = f"""
from relucate.study.identity import code_digest
import numpy as np
for text in {texts!r}:
    space = {{"__name__": "a_users_module", "np": np}}
    exec(text, space)
    print(code_digest(space["f"]))
"""
        environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
        digests = {
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code],
                env={**environment, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(digests) == 1
        assert len(digests.pop().split()) == len(texts)


class TestStrangeObjects:
    """Those whose own code fails count by their attributes, and caches don't count."""

    @pytest.mark.parametrize(
        "text",
        [
            "class C(dict):\n  def __iter__(self): raise RuntimeError\nW = C()",
            "class C:\n  def __getattr__(self, name): raise RuntimeError\nW = C()",
            "class C(type):\n  def __eq__(self, o): raise RuntimeError\n"
            "class W(metaclass=C): pass\nW = W()",
        ],
    )
    def test_a_method_that_fails(self, text):
        one, other = (f"{text}\nW.width = {w}\ndef f(order): return W" for w in "12")
        assert code_digest(make(one)) == code_digest(make(one))
        assert code_digest(make(one)) != code_digest(make(other))

    @pytest.mark.parametrize(
        ("text", "use"),
        [
            (
                "import functools\nclass C:\n  @functools.cached_property\n"
                "  def x(self): return 1\nW = C()",
                "W.x",
            ),
            ("import functools\n@functools.singledispatch\ndef W(x): return 1", "W(3)"),
            ("import weakref\nclass C: pass\nc, W = C(), weakref.WeakSet()", "W.add(c)"),
        ],
    )
    def test_a_cache_that_fills(self, text, use):
        function = make(f"{text}\ndef f(order): return W")
        digest = code_digest(function)
        exec(use, function.__globals__)
        assert code_digest(function) == digest

    def test_sets_of_objects_have_no_order(self):
        texts = (
            f"class C:\n  def __init__(self, w): self.w = w\nW = {{C({a}), C({b}), C(3)}}\n"
            "def f(order): return W"
            for a, b in ((1, 2), (2, 1))
        )
        assert len({code_digest(make(text)) for text in texts}) == 1


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
