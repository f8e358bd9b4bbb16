"""How a study shows itself: pictures, a data frame, a notebook's HTML, progress in a notebook."""

import json
import sys
from types import SimpleNamespace

import pytest
from tests.in_process import without_workers

import relucate
from relucate.errors import InputError

pytestmark = pytest.mark.usefixtures("in_process")

SCORES = {
    "before": {0: 0.90, 1: 0.91, 2: 0.89, 3: 0.92},
    "after": {0: 0.93, 1: 0.94, 2: 0.93, 3: 0.94},
}


def train(order, seed):
    return {"auc": 0.8 + 0.01 * seed + 0.005 * (order == "after") * (1 + seed % 2), "f1": 0.5}


@pytest.fixture(scope="module")
def study():
    return relucate.verdict(SCORES, metric="auc", margin=0.005)


@pytest.fixture(scope="module")
def own():
    options = {"vary": {"width": [1, 2]}, "metric": "auc", "margin": 0.005, "pairs": 4}
    with without_workers():
        return relucate.compare(run=widened, jobs=1, progress=False, **options)


def widened(order, seed, width):
    return {**train(order, seed), "curve": [0.1, 0.2 * width]}


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_can_be_saved(study, ending, tmp_path):
    path = tmp_path / f"forest.{ending}"
    study.plot("forest", dark=True).figure.savefig(path)
    assert path.stat().st_size > 1000


def test_a_study_is_loaded_from_its_file(study, tmp_path):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study.to_dict()), encoding="utf-8")
    again = relucate.Study.load(path)
    assert again.to_dict() == study.to_dict()
    assert str(again) == str(study)
    with pytest.raises(InputError, match=r"can't read .*nothing\.json"):
        relucate.Study.load(tmp_path / "nothing.json")
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(InputError, match="isn't a comparison of relucate"):
        relucate.Study.load(path)


def test_a_picture_that_it_lacks_is_refused(study):
    with pytest.raises(InputError, match="no run has a learning curve"):
        study.plot("curves")


def test_a_notebook_shows_pictures(study, own):
    for found in (study, own):
        page = found._repr_html_()
        assert page.count("<svg class=") >= 1
        assert "<script" not in page


class Frames(SimpleNamespace):
    """As much of pandas as is called."""

    def __init__(self):
        super().__init__(DataFrame=lambda rows: rows)


def test_a_frame_has_a_row_per_run(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", Frames())
    rows = own.to_frame()
    assert len(rows) == len(own.to_dict()["runs"]) == 16
    first = ["arm", "order", "seed", "width", "auc", "f1", "status"]
    assert list(rows[0])[: len(first)] == first
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert {row["width"] for row in rows} == {1, 2}
    assert (rows[0]["f1"], rows[0]["status"]) == (0.5, "done")


def test_without_pandas_the_message_says_what_to_do(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        study.to_frame()


def test_progress_in_a_notebook_is_whole_lines(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    orders = ["linear-norm-act-drop", "linear-act-norm-drop"]
    relucate.compare(run=train, orders=orders, metric="auc", margin=0.005, pairs=3, jobs=1)
    lines = capsys.readouterr().err.splitlines()
    pairs = [line for line in lines if line.startswith("pair ")]
    assert len(pairs) == 3
    assert all("difference" in line for line in pairs)


def test_progress_in_a_notebook_is_plain_lines(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as the kernel of a notebook does
    relucate.compare(run=train, metric="auc", margin=0.005, pairs=3, jobs=1)
    said = capsys.readouterr().err
    assert "\x1b[" not in said
    assert said.count("pair 3 of 3") == 1
