"""A whole study in Python: what finished is kept, whatever ends it."""

import re

import pytest

import relucate
from relucate.study.store import Store

pytestmark = pytest.mark.usefixtures("in_process")


class Interrupting:
    """A display that gets Ctrl-C when the third run has finished."""

    def __init__(self):
        self.finished = 0

    def run_finished(self, *args, **kwargs):
        self.finished += 1
        if self.finished == 3:
            raise KeyboardInterrupt

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


OPTIONS = {"options": {"width": 8, "depth": 1}, "recipe": {"epochs": 1}, "jobs": 1, "pairs": 3}


def test_an_interrupted_study_without_a_store_says_where_its_runs_are(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(KeyboardInterrupt) as stopped:
        relucate.compare("mlp", display=Interrupting(), **OPTIONS)
    (note,) = stopped.value.__notes__
    path = re.search(r"store='(.*)' continues", note)[1]
    assert note in capfd.readouterr().err
    with Store.open(path, read_only=True) as store:
        assert len(list(store.rows())) == 3
    counting = Interrupting()
    counting.finished = 10
    study = relucate.compare("mlp", display=counting, store=path, **OPTIONS)
    assert study.to_dict()["pairs"] == 3


def test_an_error_before_the_first_run_keeps_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(relucate.InputError):
        relucate.compare("mlp", progress=False, **{**OPTIONS, "options": {"width": -3}})
    assert "kept" not in capfd.readouterr().err
    assert list(tmp_path.rglob("runs-*")) == []
