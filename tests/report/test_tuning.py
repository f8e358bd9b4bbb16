"""What tuning found, in the terminal, on the page and as a figure."""

from io import StringIO

import pytest
from rich.console import Console

from relucate.report import print_study, tuning
from relucate.report.html import study_html
from relucate.report.plots import rates_svg


@pytest.fixture
def study(study):
    rates = [0.01, 0.1, 1.0]
    arms = [
        {
            "label": arm["label"],
            "lr": rates[1 + k],
            "edge": bool(k),
            "curve": [
                {"lr": lr, "score": 0.5 + 0.1 * n, "epochs": 2 + 2 * (n > 0), "runs": 1}
                for n, lr in enumerate(rates)
            ],
        }
        for k, arm in enumerate(study["arms"][:2])
    ]
    same = {"lr": 0.1, "sentence": "Inconclusive: -0.2 points so far.", "arms": study["arms"]}
    found = {"held_out": 287, "first_seed": 1_000_000, "arms": arms, "same_rate": same}
    return {**study, "tuning": found}


def test_lines(study):
    best, edge, same = tuning.lines(study)
    assert "linear-norm-act 0.1, linear-act-norm 1 (of 3 from 0.01 to 1; scored on 287" in best
    assert "the best rate of linear-act-norm is at the end" in edge
    assert same == "all arms at the rate 0.1: Inconclusive: -0.2 points so far."
    assert tuning.lines({}) == []


def test_rows(study):
    rows = tuning.table(study)
    assert [row["rate"] for row in rows] == ["0.01", "0.1", "1"]
    assert [[cell["best"] for cell in row["cells"]] for row in rows] == [
        [False, False], [True, False], [False, True],
    ]  # fmt: skip
    assert rows[0]["cells"][0]["about"] == "2 epochs, 1 run"


@pytest.mark.parametrize("width", [40, 100])
def test_terminal_and_page(study, width):
    text = StringIO()
    print_study(study, Console(file=text, width=width, color_system=None))
    assert "all arms at the rate 0.1" in " ".join(text.getvalue().split())
    page = study_html(study)
    assert "Score against learning rate" in page
    assert "<b>60.00</b>" in page


def test_the_figure_has_a_tick_for_every_rate(study):
    drawn = rates_svg(study, name="rates", alt="x")
    assert all(f">{rate}</text>" in drawn or f">{rate}<" in drawn for rate in ("0.01", "0.1", "1"))
