"""The user's files: which they are, and what they give a value. Digests: `test_identity`."""

import textwrap

import pytest

import relucate.study.user_files as user_files
from relucate.study.user_files import constants, is_own, module_files


def test_packages_the_standard_library_and_ours_are_not_the_users():
    assert is_own(__name__)
    assert is_own("__main__")
    assert not any(map(is_own, ("numpy", "json", "sys", "relucate.study")))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("LR = 0.1", {"LR"}),
        ("A, B = 1, [2]", {"A", "B"}),
        ("LR: float = -0.1\nX: int", {"LR"}),
        ("C = Config(depth=2)\nP = Path('a')", {"C", "P"}),
        ("class C:\n    w = 1\n    class D:\n        v = 'a'", {"C.w", "C.D.v"}),
        ("import os\nD = find()\nE = os.getenv('A')\nF = [D]\nG = 2 * 3", set()),
        ("D = 'cpu'\nE = 1\nif find():\n    D = 'gpu'", {"E"}),
        ("D = {'a': 1}\nE = {}\nD['b'] = find()\nE.update(find())", set()),
        ("D = {}\ndef f():\n    D['a'] = find()\nD['b'] = 2", {"D"}),
        ("def f(: no Python", set()),
    ],
)
def test_names_that_a_file_gives_a_value(text, names, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "constant_names.py").write_text(textwrap.dedent(text))
    assert set(constants("constant_names")) == names


def test_a_package_has_none():
    assert list(constants("numpy")) == []


def test_a_module_is_looked_up_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "known_a.py").write_text("import known_b, numpy")
    (tmp_path / "known_b.py").write_text("X = 1")
    known = {}
    found = module_files(["known_a"], known)
    monkeypatch.setattr(user_files, "find_spec", None)
    assert module_files(["known_a"], known) == found
    assert [len(part) for part in found] == [2, 1]
