"""Data that the user's own code holds or makes."""

import numpy as np
import pytest

from relucate import InputError
from relucate.api.study import load_data
from relucate.data import load

X, Y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
CODE = """
import numpy as np
from relucate.data import load

value = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
dataset = load(value)

def made(): return value
def optional(count=20): return value[0][:count], value[1][:count]
def text(): return "digits"
def needs(count): return value
def nothing(): pass
def broken(): raise KeyError("inside")
number = 3
"""


@pytest.fixture(autouse=True)
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "of_a_module.py").write_text(CODE)


@pytest.mark.parametrize("text", ["mine.py:value", "mine.py:made", "mine.py:optional"])
def test_a_value_or_a_function(text):
    data = load_data(text, test_split=0.3)
    assert data == load((X, Y), test_split=0.3)
    assert data.name == text


def test_of_a_module():
    assert load_data("of_a_module:made") == load((X, Y))


def test_what_has_a_name_keeps_it():
    assert load_data("mine.py:dataset").name == "arrays"
    assert load_data("mine.py:text") == load("digits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine.py:needs", "needs the arguments count: data are a value"),
        ("mine.py:nothing", r"'mine\.py:nothing' returned None: return the data"),
        ("mine.py:broken", r"'mine\.py:broken' failed: KeyError: 'inside' \(line 13"),
        ("mine.py:number", "data is a int; expected a Dataset"),
        ("mine.py:maed", "did you mean 'made'"),
        ("none.py:made", r"no file '.*none\.py'"),
        ("folders:images", "did you mean 'folder:PATH'"),
        ("no_such_module.data:made", "unknown data set 'no_such_module.data:made'"),
    ],
)
def test_wrong(text, message):
    with pytest.raises(InputError, match=message):
        load_data(text)


def test_options_of_folders_are_refused():
    with pytest.raises(InputError, match="size only applies to folder:PATH"):
        load_data("mine.py:value", size=8)
