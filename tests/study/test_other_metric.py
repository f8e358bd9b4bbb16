"""A study of a metric that isn't accuracy: document, terminal text and page speak of it alone."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from relucate.data import make
from relucate.errors import InputError
from relucate.report import print_study
from relucate.report.html import repr_html, study_html
from relucate.report.live import LiveStudy
from relucate.study import tuning
from relucate.study.document import document
from relucate.study.plan import StudyPlan
from relucate.study.results import StudyResults
from relucate.study.source import resolve
from relucate.study.tasks import Inspection
from relucate.study.vary import arms_from
from relucate.train import Recipe
from relucate.train.metric import Metric

GOLDEN = Path(__file__).parent / "golden" / "mae.txt"
MAE = Metric("MAE", lower_is_better=True, unit="mm", worst=100.0)
FACTORS = {"act": ["relu", "tanh"]}


def plan_of(metric=MAE, margin=0.5, factors=None, **more):
    x, y = np.zeros((8, 3), np.float32), np.arange(8) % 2
    data = make("toy", x, y, x, y)
    arms = arms_from(["before", "after"], factors)
    recipe = Recipe(epochs=3, batch_size=4)
    return StudyPlan(
        arms, resolve("mlp"), data, recipe, metric=metric, margin=margin, factors=factors or {},
        **more,
    )  # fmt: skip


def inspection(arms):
    report = {"shared": 3, "tensors": 4, "only": [], "parameters": 10, "norm_parameters": 4}
    reports = [{**report, "label": arm.label, "fingerprint": arm.label} for arm in arms]
    engine = {"name": "torch", "reason": "it can", "backend": "torch", "device": "cpu"}
    return Inspection(engine, {"torch": "2"}, tuple(reports), ())


def finished(plan, metrics, lost=()):
    """The results of a plan: metrics[arm][pair], scores per example with that mean, a curve."""
    made = StudyResults(plan, inspection(plan.arms), seconds=6.0)
    random = np.random.default_rng(0)
    for place, (arm, row) in enumerate(zip(plan.arms, metrics, strict=True)):
        for seed, metric in enumerate(row):
            done = (place, seed) not in lost
            curve = [metric + 8, metric + 2, metric if done else None]
            made.results[arm.label, seed] = {
                "status": "done" if done else "diverged",
                "metric": metric if done else None,
                "loss": metric**2 if done else None,
                "curve": {"epoch": [1, 2, 3], "train_loss": [9.0, 4.0, 2.0], "MAE": curve},
                "seconds": {"total": 1.5},
                "note": "" if done else "the loss was nan",
            }
            made.hashes[arm.label, seed] = f"{place}{seed}"
            values = random.normal(size=8)
            made.per_example[arm.label, seed] = values - values.mean() + metric
    return made


TWO = [[6.1, 6.4, 5.9, 6.2, 6.0, 6.3], [4.2, 4.9, 3.8, 4.6, 4.1, 4.4]]


@pytest.fixture
def study():
    made = finished(plan_of(pairs=6), TWO)
    return document(made, command="relucate compare mlp")


def text_of(study, width=80):
    file = io.StringIO()
    print_study(study, Console(file=file, width=width, color_system=None))
    return file.getvalue()


class Words(HTMLParser):
    """The text of a page, with what a screen reader says of its figures."""

    def __init__(self, page):
        super().__init__()
        self.inside, self.found = "", []
        self.feed(page)
        self.text = " ".join(" ".join(self.found).split())

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.found.append(dict(attrs).get("aria-label") or "")

    def handle_data(self, data):
        self.found += [data] if self.inside != "style" else []


def check_words(text):
    """No word of accuracy's, and a percent sign only behind levels and whole shares."""
    text = " ".join(text.split())
    assert not re.search(r"accurac|\bpoints?\b|percent", text, re.IGNORECASE)
    assert "%" not in re.sub(r"[\d.]+ % interval|at [\d.]+ %|\b\d+ %", "", text)


def test_the_document_names_the_metric_and_decides_by_its_direction(study):
    assert study["metric"] == {
        "name": "MAE", "unit": "mm", "scale": 1.0, "direction": "lower", "worst": 100.0,
    }  # fmt: skip
    assert (study["verdict"], study["winner"]) == ("better", "linear-act-norm")
    assert study["margin"] == 0.5
    assert study["difference"]["estimate"] == pytest.approx(-10.9 / 6)
    first = study["comparisons"][0]
    assert first["classical"]["superiority"] == 1.0
    assert first["examples"]["estimate"] == pytest.approx(first["difference"]["estimate"])
    assert first["learning"]["target"] == pytest.approx(1.05 * np.mean(TWO[0]))
    assert first["learning"]["steps"]["estimate"] < 0
    assert first["learning"]["reached"] == [6, 6]
    json.dumps(study, allow_nan=False)


def test_golden_terminal_text(study):
    text = text_of(study)
    assert text == GOLDEN.read_text("utf-8"), text
    check_words(text)


@pytest.mark.parametrize("width", [40, 120])
def test_the_terminal_at_other_widths(study, width):
    check_words(text_of(study, width))


def test_the_page_and_the_fragment(study):
    for page in (study_html(study), repr_html(study)):
        text = Words(page).text
        check_words(text)
        assert "MAE lower by 1.82 mm" in text
    text = Words(study_html(study)).text
    assert "mean MAE 4.33 mm after, the best" in text
    assert "the run counts with an MAE of 100.00 mm" in text
    assert "mean test MAE over all epochs" in text
    assert re.search(r"steps to 6\.46 mm test MAE", text)


def test_figures_favour_the_lower_side(study):
    svg = study_html(study).partition('<svg class="plot wide"')[2].partition("</svg>")[0]
    assert "← after ahead" in svg
    assert "before ahead →" in svg
    assert "difference (mm)" in svg


LOST = {(1, seed) for seed in range(6)}


@pytest.mark.parametrize("lower", [True, False])
def test_a_diverged_run_is_never_better_than_the_other_of_its_pair(lower):
    sign = 1 if lower else -1
    metric = Metric("MAE", lower_is_better=lower, unit="mm", worst=0.0 if lower else 4.0)
    bad = [[sign * value for value in (5.0, 7.0, 9.0, 6.0)]] * 2
    made = finished(plan_of(metric, pairs=4), bad, lost={(1, 1), (1, 2)})
    scores = [made.scores(arm, [0, 1, 2, 3]).tolist() for arm in made.plan.arms]
    assert scores == bad
    study = document(made, command="")
    assert study["verdict"] == "inconclusive"
    assert study["difference"]["estimate"] == 0
    lost = finished(plan_of(metric, pairs=6), [[*row, sign, sign] for row in bad], lost=LOST)
    study = document(lost, command="")
    assert study["verdict"] == "inconclusive"
    assert (
        "every run of norm after the activation diverged (6 pairs), and norm before the activation "
        "is ahead of what they count with by less than the margin of 0.5 mm" in study["sentence"]
    )


def test_diverged_runs_count_with_the_metrics_worst_score():
    made = finished(plan_of(pairs=6), TWO, lost={(1, 0), (1, 1), (1, 2)})
    study = document(made, command="")
    assert study["arms"][1]["mean"] == pytest.approx((300 + 4.6 + 4.1 + 4.4) / 6)
    counted = "a diverged run counts with an MAE of 100 mm, or the other arm's if that is worse"
    assert counted in study["sentence"]
    target = study["comparisons"][0]["learning"]["target"]
    assert target == pytest.approx(1.05 * study["arms"][1]["mean"])
    check_words(text_of(study))
    check_words(Words(study_html(study)).text)


def test_a_diverged_run_of_a_metric_without_a_worst_score_is_refused():
    plan = plan_of(Metric("MAE", lower_is_better=True, unit="mm"), pairs=6)
    with pytest.raises(InputError, match="a run diverged, and 'MAE' has no worst value"):
        document(finished(plan, TWO, lost={(0, 0)}), command="")
    assert document(finished(plan, TWO), command="")["metric"]["worst"] is None


def test_runs_that_were_scored_by_another_metric_are_refused():
    made = finished(plan_of(pairs=6), TWO)
    made.results["linear-act-norm", 2]["curve"]["accuracy"] = (
        made.results["linear-act-norm", 2]["curve"].pop("MAE")
    )  # fmt: skip
    with pytest.raises(InputError, match="is about 'MAE', but a run was scored by 'accuracy'"):
        document(made, command="")


def test_what_is_varied_is_told_in_the_metrics_unit():
    plan = plan_of(factors=FACTORS, pairs=6)
    rows = [*TWO, TWO[0], [value + 1 for value in TWO[0]]]
    study = document(finished(plan, rows), command="")
    (found,) = study["interactions"]
    assert "it is 2.82 mm higher with tanh than with relu" in found["sentence"]
    text = text_of(study)
    assert "MAE in mm, effect of the order in mm (after minus before):" in text
    check_words(text)
    check_words(Words(study_html(study)).text)


def test_tuning_takes_the_rate_with_the_lowest_score():
    plan = plan_of(pairs=6)
    scores = {
        rate: {"score": s, "epochs": 2, "diverged": 0}
        for rate, s in ((0.01, 9.0), (0.1, 3.0), (1, 100.0))
    }
    assert tuning._best(scores, 1, plan) == [0.1]
    assert tuning._best(scores, 2, plan) == [0.01, 0.1]


def test_what_tuning_found_is_told_in_the_metrics_unit(study):
    def arm(label, scores):
        curve = [
            {"lr": lr, "score": score, "epochs": 2, "runs": 1, "diverged": int(score == 100.0)}
            for lr, score in zip((0.01, 0.1, 1.0), scores, strict=True)
        ]
        return {"label": label, "lr": 0.1, "edge": False, "curve": curve}

    arms = [arm("linear-norm-act", [9.0, 3.0, 100.0]), arm("linear-act-norm", [100.0] * 3)]
    same = {"lr": 0.1, "sentence": study["sentence"], "comparisons": study["comparisons"]}
    found = {"held_out": 2, "first_seed": 9, "arms": arms, "same_rate": same}
    study = {**study, "tuning": found}
    text = text_of(study)
    assert "no best learning rate for linear-act-norm: every tuning run diverged" in " ".join(
        text.split()
    )
    check_words(text)
    page = Words(study_html(study)).text
    assert "On held-out training data" in page
    check_words(page)


def test_a_margin_is_asked_for():
    with pytest.raises(InputError, match=r"a margin is needed for 'MAE': .* in the metric's own"):
        plan_of(margin=None)
    with pytest.raises(InputError, match="margin above 0, got 0"):
        plan_of(margin=0)


def test_the_live_display_shows_the_unit():
    file = io.StringIO()
    live = LiveStudy(Console(file=file, width=100), 2, ["a", "b"], 3, metric=MAE, margin=0.5)
    live.run_finished("a", 0, 6.0, "done", 1.0)
    live.run_finished("b", 0, 4.5, "done", 1.0)
    live.difference(-1.5, -2.0, -1.0, 2)
    assert file.getvalue().splitlines() == [
        "pair 1 of 2 (seed 0): a 6.00 mm, b 4.50 mm, difference -1.50 mm",
        "  so far: -1.50 mm after 2 pairs, 95 % interval -2.00 to -1.00 (b minus a)",
    ]
