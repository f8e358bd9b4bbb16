"""Functions that travel with their code keep the file in which it stands."""

import inspect
import sys
import types

import cloudpickle
import pytest

from relucate.study.pickling import pickled

CODE = """
scale = 2

def doubled(x):
    def times(y):
        return scale * y
    return times
"""


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A module that no other process can import, as a script or a notebook is."""
    path = tmp_path / "given_here.py"
    path.write_text(CODE)
    module = types.ModuleType("given_here")
    exec(compile(CODE, str(path), "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "given_here", module)
    return module


@pytest.fixture
def without_files(monkeypatch):
    """cloudpickle as it is from 3.1.3 on."""
    reducers = cloudpickle.Pickler.dispatch_table
    reduce = reducers[types.CodeType]

    def dropping(code):
        make, parts = reduce(code)
        return make, tuple("<dynamic-code>" if p == code.co_filename else p for p in parts)

    monkeypatch.setitem(reducers, types.CodeType, dropping)


def test_code_keeps_its_file(given, without_files):
    assert cloudpickle.loads(cloudpickle.dumps(lambda: 1)).__code__.co_filename == "<dynamic-code>"
    loaded = cloudpickle.loads(pickled(given.doubled, "given_here"))
    assert loaded is not given.doubled
    assert loaded(0)(3) == 6
    for found, wanted in ((loaded, given.doubled), (loaded(0), given.doubled(0))):
        assert found.__code__.co_filename == wanted.__code__.co_filename
        assert inspect.getsource(found) == inspect.getsource(wanted)


def test_what_a_module_on_the_path_defines_travels_by_name():
    assert pickled(inspect.getsource, "inspect") == cloudpickle.dumps(inspect.getsource)
