"""What tuning found, in the terminal, on the page and as a figure."""

from io import StringIO

import pytest
from rich.console import Console
from tests.report.test_html import bare

from relucate.report import print_study, tuning, view
from relucate.report.html import study_html
from relucate.report.plots import svgs


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
    said = "Inconclusive: -0.2 points so far."
    beside = {"arm": "linear-act-norm", "against": "linear-norm-act", "sentence": said}
    same = {"lr": 0.1, "sentence": said, "arms": study["arms"], "comparisons": [beside]}
    found = {"held_out": 287, "first_seed": 1_000_000, "arms": arms, "same_rate": same}
    return {**study, "tuning": found}


def test_lines(study):
    best, edge, same = tuning.lines(study)
    assert "linear-norm-act 0.1, linear-act-norm 1 (of 3 from 0.01 to 1; scored on 287" in best
    assert "the best rate of linear-act-norm is the smallest or largest tried" in edge
    assert same == "all arms at the rate 0.1: Inconclusive: -0.2 points so far."
    assert tuning.lines({}) == []


def test_rows(study):
    rows = tuning.table(study)
    assert [row["rate"] for row in rows] == ["0.01", "0.1", "1"]
    assert [[cell["best"] for cell in row["cells"]] for row in rows] == [
        [False, False], [True, False], [False, True],
    ]  # fmt: skip
    assert rows[0]["cells"][0]["about"] == "2 epochs, 1 run"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("width", [40, 100])
def test_terminal_and_page(study, width):
    text = StringIO()
    print_study(study, Console(file=text, width=width, color_system=None))
    assert "all arms at the rate 0.1" in " ".join(text.getvalue().split())
    page = study_html(study)
    assert "Score against learning rate" in page
    assert "<b>60.00</b>" in page


def test_the_figure_has_a_tick_for_every_rate(study):
    drawn, _ = svgs(study, "rates", name="rates", alt="x")
    assert all(f">{rate}</text>" in drawn or f">{rate}<" in drawn for rate in ("0.01", "0.1", "1"))


@pytest.mark.usefixtures("undrawn")
def test_every_comparison_at_the_same_rate_is_told(study):
    same = study["tuning"]["same_rate"]
    same["comparisons"].append(
        {"arm": "linear-act", "against": "linear-norm-act", "sentence": "it is worse."}
    )
    first, second = tuning.lines(study)[-2:]
    assert first.startswith("all arms at the rate 0.1, linear-act-norm against linear-norm-act: In")
    assert second == "all arms at the rate 0.1, linear-act against linear-norm-act: it is worse."
    assert second in bare(study_html(study))


@pytest.mark.usefixtures("undrawn")
def test_the_rates_are_headed_by_the_arms_without_a_rate(study):
    for k, arm in enumerate(study["tuning"]["arms"]):
        arm["label"] = f"before tuning {k}"
    assert [head["name"] for head in view.tuning_heads(study)] == [
        "before tuning 0", "before tuning 1",
    ]  # fmt: skip
    table = study_html(study).split('class="n">learning rate</th>')[1].split("</table>")[0]
    assert "before tuning 1, %" in table
    assert "linear-act-norm" not in table


def lose(arm, diverged=True):
    """Make every tuning run of an arm score 0, by diverging or not."""
    for point in arm["curve"]:
        point |= {"score": 0.0, "diverged": point["runs"] if diverged else 0}


def test_an_arm_whose_runs_all_diverged_has_no_best_rate(study):
    lose(study["tuning"]["arms"][1])
    best, lost, _ = tuning.lines(study)
    assert best.startswith("each arm at its best learning rate: linear-norm-act 0.1 (of")
    assert lost.startswith("no best learning rate for linear-act-norm: every tuning run diverged")
    assert "it trained with 1, the nearest to the recipe's" in lost
    rows = tuning.table(study)
    assert not any(row["cells"][1]["best"] for row in rows)
    assert rows[0]["cells"][1]["about"] == "2 epochs, 1 run, 1 diverged"


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_called_best_where_nothing_scored(study):
    for arm in study["tuning"]["arms"]:
        lose(arm, diverged=False)
    text = " ".join(tuning.lines(study))
    assert text.count("every tuning run scored 0") == 2
    assert "at its best" not in text
    assert "may lie beyond" not in text
    assert "Score against learning rate" not in study_html(study)
