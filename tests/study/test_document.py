"""The document: strict JSON in every case, in an order that no race decides."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from relucate.api.finished import Study
from relucate.data import make
from relucate.errors import InputError
from relucate.report.facts import current
from relucate.stats.sequential import Monitor
from relucate.study.document import document
from relucate.study.next_steps import continuation, next_steps
from relucate.study.plan import StudyPlan
from relucate.study.results import StudyResults
from relucate.study.source import resolve
from relucate.study.tasks import Inspection
from relucate.study.vary import arms_from
from relucate.train import Recipe


def inspection(arms, engine="torch", parameters=(10, 12, 8)):
    reports = [
        {
            "label": arm.label,
            "fingerprint": f"f{k}",
            "shared": 3,
            "tensors": 4,
            "only": ["block/bias"] if k else [],
            "parameters": parameters[k],
            "norm_parameters": 4,
        }
        for k, arm in enumerate(arms)
    ]
    chosen = {"name": engine, "reason": "it can", "backend": "torch", "device": "cpu"}
    return Inspection(chosen, {"torch": "2"}, tuple(reports), ("an inspection's note",))


def result(metric=0.9, status="done", note=""):
    done = status == "done"
    return {
        "status": status,
        "metric": metric if done else None,
        "loss": 0.3 if done else None,
        "curve": {
            "epoch": [1, 2],
            "train_loss": [1.0, 0.5 if done else None],
            "accuracy": [0.5, None],
        },
        "seconds": {"train": 1.0, "total": 2.0},
        "parameters": 10,
        "norm_parameters": 4,
        "shared": 3,
        "tensors": 4,
        "note": note,
    }


def outcome(metrics, orders=("before", "after"), **given):
    """An outcome with metrics[arm][pair]; None is a diverged run, a missing one hasn't finished."""
    x, y = np.zeros((8, 3), np.float32), np.arange(8) % 2
    data = make("toy", x, y, x, y, notes=["a note of the data's"])
    arms = arms_from(list(orders))
    pairs = max(1, *(len(row) for row in metrics))
    plan = StudyPlan(arms, resolve("mlp"), data, Recipe(epochs=2, batch_size=4), pairs=pairs)
    made = StudyResults(plan, inspection(arms, **given))
    for arm, row in zip(arms, metrics, strict=True):
        for seed, metric in enumerate(row):
            diverged = metric is None
            made.results[arm.label, seed] = result(
                metric, "diverged" if diverged else "done", "the loss was nan" if diverged else ""
            )
            made.hashes[arm.label, seed] = f"{arm.label}-{seed}"
    return made


CASES = {
    "three pairs": [[0.8, 0.81, 0.79], [0.9, 0.92, 0.9]],
    "one pair": [[0.8], [0.9]],
    "two equal pairs": [[0.8, 0.8], [0.8, 0.8]],
    "some diverged": [[None, 0.8, 0.81], [0.9, None, 0.9]],
    "all diverged": [[None, None, None], [None, None, None]],
    "one arm diverged": [[0.8, 0.8, 0.81], [None, None, None]],
    "one pair, diverged": [[None], [None]],
    "unfinished": [[0.8, 0.81, 0.8], [0.9]],
}


@pytest.mark.parametrize("metrics", CASES.values(), ids=CASES)
def test_it_is_strict_json_whatever_came_out(metrics):
    made = document(outcome(metrics), command="relucate compare")
    again = json.loads(json.dumps(made, allow_nan=False))
    assert again["schema"] == "relucate.compare/2"
    assert current(again) is again
    assert again["pairs"] == min(len(row) for row in metrics)
    assert len(again["runs"]) == sum(len(row) for row in metrics)
    assert again["verdict"] in {"better", "equivalent", "inconclusive"}
    assert not any(isinstance(v, float) and not math.isfinite(v) for v in leaves(again))


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_the_winner_and_the_difference():
    made = document(outcome(CASES["three pairs"]), command="")
    assert (made["verdict"], made["winner"]) == ("better", "linear-act-norm")
    assert made["difference"]["estimate"] == pytest.approx(0.32 / 3)
    assert [d["value"] for d in made["differences"]] == pytest.approx([0.1, 0.11, 0.11])
    assert made["difference"]["of"] == "linear-act-norm minus linear-norm-act"
    assert [arm["mean"] for arm in made["arms"]] == pytest.approx([0.8, 2.72 / 3])


def test_the_time_of_a_run_is_that_of_most_runs():
    made = outcome(CASES["three pairs"])
    for (_, seed), run in made.results.items():
        run["seconds"] = {"total": 4.0 if seed == 0 else 0.2}
    assert [arm["seconds"] for arm in document(made, command="")["arms"]] == [0.2, 0.2]


def test_a_diverged_run_counts_with_the_worst_score():
    made = document(outcome(CASES["one arm diverged"]), command="")
    assert made["winner"] == "linear-norm-act"
    assert [arm["diverged"] for arm in made["arms"]] == [0, 3]
    assert made["arms"][1]["mean"] == 0.0
    assert "the loss was nan (3 of 3 runs of linear-act-norm)" in made["notes"]
    assert [run["status"] for run in made["runs"]] == ["done", "diverged"] * 3


def test_a_note_of_every_run_says_so_and_scores_that_were_not_measured_have_no_note():
    lost = outcome(CASES["all diverged"])
    notes = document(lost, command="")["notes"]
    assert any(note.endswith("(every run)") for note in notes)
    assert not any("same score" in note for note in notes)


def test_all_diverged_is_inconclusive():
    made = document(outcome(CASES["all diverged"]), command="")
    assert made["verdict"] == "inconclusive"
    assert "diverged" in made["sentence"]


def test_runs_stand_by_seed_and_arm_however_they_finished():
    late = outcome(CASES["three pairs"])
    late.results = dict(reversed(late.results.items()))
    runs = document(late, command="")["runs"]
    expected = [(arm, seed) for seed in range(3) for arm in ("linear-norm-act", "linear-act-norm")]
    assert [(run["arm"], run["seed"]) for run in runs] == expected
    assert [run["hash"] for run in runs] == [f"{arm}-{seed}" for arm, seed in expected]


def test_unfinished_pairs_do_not_count_but_their_runs_show():
    made = document(outcome(CASES["unfinished"]), command="")
    assert made["pairs"] == 1
    assert [arm["n"] for arm in made["arms"]] == [1, 1]
    assert len(made["runs"]) == 4


def test_nothing_finished_is_nothing_to_report():
    with pytest.raises(InputError, match="no pair has finished"):
        document(outcome([[0.8, 0.7], []]), command="")


def test_three_arms_are_each_compared_with_the_first():
    metrics = [[0.8, 0.81], [0.9, 0.92], [0.7, 0.72]]
    made = document(outcome(metrics, ("before", "after", "none")), command="")
    assert [c["arm"] for c in made["comparisons"]] == ["linear-act-norm", "linear-act"]
    assert {c["against"] for c in made["comparisons"]} == {"linear-norm-act"}
    assert made["difference"] == made["comparisons"][0]["difference"]


def test_notes_say_what_a_reader_has_to_know():
    notes = document(outcome(CASES["one pair"]), command="")["notes"]
    assert notes[:2] == ["a note of the data's", "an inspection's note"]
    assert any("trainable parameters: linear-norm-act 10, linear-act-norm 12" in n for n in notes)
    same = outcome(CASES["one pair"], parameters=(10, 10), engine="keras")
    notes = document(same, command="")["notes"]
    assert not any("trainable parameters" in note for note in notes)
    assert "trained by the keras engine: it can" in notes


@pytest.mark.parametrize("metrics", CASES.values(), ids=CASES)
class TestStudy:
    """What `relucate.compare` returns, for every kind of outcome."""

    def test_it_shows_itself(self, metrics, tmp_path):
        study = Study(document(outcome(metrics), command="relucate compare"))
        assert study.verdict in {"better", "equivalent", "inconclusive"}
        assert study.sentence in repr(study)
        assert study.verdict.upper() in str(study).upper()
        assert "linear-act-norm" in str(study)
        assert study._repr_html_().lstrip().startswith("<")
        assert study.report(tmp_path / "page.html").read_text().startswith("<!doctype html>")

    def test_its_plain_data_is_strict_json_and_a_copy(self, metrics):
        study = Study(document(outcome(metrics), command=""))
        plain = study.to_dict()
        json.dumps(plain, allow_nan=False)
        plain["difference"]["estimate"] = 99
        study.difference["estimate"] = 99
        assert study.difference["estimate"] != 99
        assert study.winner == plain["winner"]


def looking(metrics, orders=("before", "after"), pairs=30):
    made = outcome(metrics, orders)
    made.plan = replace(made.plan, looks=True, pairs=pairs)
    return made


# Far apart: after some pairs the answer is final, and later pairs don't count.
APART = [
    [0.80, 0.81, 0.79, 0.80, 0.82, 0.81, 0.1, 0.9],
    [0.90, 0.92, 0.90, 0.91, 0.92, 0.91, 0.9, 0.1],
]


def test_it_stops_at_the_first_look_that_decides():
    made = looking(APART)
    counted = made.finished_pairs()
    assert 3 <= len(counted) < 7
    assert made.decided
    data = document(made, command="")
    assert (data["verdict"], data["winner"]) == ("better", "linear-act-norm")
    assert data["pairs"] == len(counted) == data["arms"][0]["n"]
    assert {run["seed"] for run in data["runs"]} == set(counted)
    assert data["difference"]["method"] == "paired t, looks after every pair"


def test_pairs_count_in_the_order_of_their_seeds():
    """A pair that finished early by chance waits for those before it."""
    made = looking(APART)
    del made.results["linear-norm-act", 1]
    assert made.finished_pairs() == [0]
    assert not made.decided


def test_an_undecided_study_says_how_to_go_on():
    made = looking([[0.8, 0.9, 0.7], [0.9, 0.7, 0.8]], pairs=3)
    assert made.decided  # there are no more pairs to run
    assert document(made, command="")["verdict"] == "inconclusive"
    (note,) = next_steps(made, made.finished_pairs(), "")
    assert "more than 1,000 would be needed: take a larger margin" in note


def note_of(rows, command="", **options):
    made = looking(rows, **options)
    return next_steps(made, made.finished_pairs(), command)


def test_the_command_to_go_on():
    near = [[0.8, 0.81, 0.79, 0.8], [0.82, 0.81, 0.8, 0.83]]
    (note,) = note_of(near, "relucate compare mlp --max-pairs 4 --epochs 2", pairs=4)
    most = Monitor(0.95, 4).decide(*near, margin=0.005).pairs_needed
    assert "undecided after 4 pairs" in note
    assert note.endswith(f"relucate compare mlp --epochs 2 --max-pairs {most}")
    (note,) = note_of(near, pairs=4)
    assert note.endswith(f"the same command with --max-pairs {most} (max_pairs in Python)")
    assert note_of(near, pairs=5) == []  # the fifth pair is still to run


def test_a_number_fixed_beforehand_is_not_raised():
    made = outcome([[0.8, 0.81, 0.79], [0.82, 0.81, 0.8]])
    (note,) = next_steps(made, made.finished_pairs(), "relucate compare mlp --pairs=3")
    assert "can't be raised after looking" in note
    assert "a study that looks after every pair may go on: relucate compare mlp --max-" in note
    (note,) = next_steps(made, made.finished_pairs(), "")
    assert "the same command with --max-pairs" in note


@pytest.mark.parametrize("rows", [[[0.8], [0.82]], [[0.8, 0.81], [0.82, 0.81]]])
def test_a_job_of_an_array_is_a_part(rows):
    made, command = outcome(rows), "relucate compare mlp --pairs 1 --first-seed 7"
    (note,) = next_steps(made, made.finished_pairs(), command)
    assert note.startswith("a part of a study: once the store has all pairs, the command")
    assert continuation(made, made.finished_pairs(), command) is None


def test_pairs_do_not_help_where_all_runs_diverged():
    lost = [[None] * 3, [None] * 3]
    made = looking(lost, pairs=30)
    assert made.decided
    assert next_steps(made, made.finished_pairs(), "") == []


def test_looks_that_went_by_are_not_looked_at_again(monkeypatch):
    rows = (0.5 + 0.1 * np.random.default_rng(0).standard_normal((2, 100))).tolist()
    whole, made, looks = looking(rows, pairs=100), looking([[], []], pairs=100), []
    verdict = StudyResults.verdict
    monkeypatch.setattr(StudyResults, "verdict", lambda *args: looks.append(1) or verdict(*args))
    for seed in range(100):
        for arm in made.plan.arms:
            made.results[arm.label, seed] = whole.results[arm.label, seed]
            assert not made.decided or seed == 99
    assert made.finished_pairs() == whole.finished_pairs() == list(range(100))
    assert len(looks) < 600


def test_all_arms_are_decided_before_it_stops():
    near = [0.81, 0.80, 0.80, 0.79, 0.83, 0.80]
    made = looking([APART[0][:6], APART[1][:6], near], ("before", "after", "none"))
    assert not made.decided
    assert len(made.finished_pairs()) == 6
    assert made.plan.rule.level == pytest.approx(0.975)


class TestLearning:
    """Area under the learning curve and steps to a target."""

    @staticmethod
    def made(curves, target=None):
        made = outcome([[0.9] * len(rows) for rows in curves])
        made.plan = replace(made.plan, target=target)
        for arm, rows in zip(made.plan.arms, curves, strict=True):
            for seed, curve in enumerate(rows):
                found = made.results[arm.label, seed]
                if curve is None:
                    found |= {"status": "diverged", "metric": None, "loss": None}
                    curve = [0.5, None]
                found["curve"] = {"epoch": [1, 2], "train_loss": [1.0, 0.5], "accuracy": curve}
        return document(made, command="x")["comparisons"][0]["learning"]

    def test_by_hand(self):
        found = self.made([[[0.4, 0.6]] * 3, [[0.6, 0.6]] * 3], target=0.5)
        assert math.isclose(found["area"]["estimate"], 0.1)
        assert found["steps"]["means"] == [3.0, 2.0]  # two steps an epoch
        assert found["steps"]["estimate"] == -1.0
        assert found["reached"] == [3, 3]

    def test_the_target_is_95_percent_of_the_lower_end(self):
        found = self.made([[[0.4, 0.6]] * 3, [[0.4, 0.8]] * 3])
        assert math.isclose(found["target"], 0.57)

    def test_a_target_that_a_run_misses(self):
        found = self.made([[[0.4, 0.6]] * 3, [[0.4, 0.8]] * 3], target=0.7)
        assert found["reached"] == [0, 3]
        assert found["steps"]["means"] == [4.0, 3.5]

    def test_a_diverged_run_counts_with_zeros(self):
        found = self.made([[[0.5, 0.5]] * 3, [[0.5, 0.5], None, [0.5, 0.5]]], target=0.4)
        assert math.isclose(found["area"]["estimate"], -0.25 / 3)

    def test_an_arm_that_lost_every_run_sets_no_target(self):
        found = self.made([[[0.5, 0.6]] * 3, [None] * 3])
        assert math.isclose(found["target"], 0.95 * 0.6)
        assert found["reached"] == [3, 0]
        assert self.made([[None] * 3, [None] * 3]) is None

    def test_without_a_curve(self):
        assert self.made([[[None, None]] * 3, [[0.5, 0.5]] * 3]) is None


def test_what_the_arms_differ_in_is_said():
    made = outcome([[0.8] * 3, [0.81] * 3])
    one, two = made.inspection.arms
    one |= {"biases": 4, "settings": ["BatchNormalization eps 0.001 momentum 0.99"]}
    two |= {"biases": 6, "settings": ["BatchNorm2d eps 1e-05 momentum 0.1"]}
    made.plan = replace(made.plan, recipe=made.plan.recipe.changed(decay_all=True))
    notes = document(made, command="x")["notes"]
    assert any("10, linear-act-norm 12 (biases: 4, 6)" in note for note in notes)
    assert any("norms' settings: linear-norm-act BatchNormalization eps" in note for note in notes)
    assert any("weight decay acts on gamma" in note for note in notes)


def test_runs_that_diverged_are_told_of_every_arm():
    rows = [[0.8, 0.81, 0.8], [0.8, 0.82, 0.8], [0.8, None, None]]
    notes = document(outcome(rows, ("before", "after", "none")), command="x")["notes"]
    told = (
        "diverged runs: 2 of 3 of linear-act; each counts with the worst score, an accuracy of 0 %"
    )
    assert told in notes
    assert not any("diverged runs" in n for n in document(outcome(rows[:2]), command="x")["notes"])


def test_a_handful_of_test_examples_is_said():
    notes = document(outcome([[0.8] * 3, [0.9, 0.8, 0.9]]), command="x")["notes"]
    assert any("with 8 test examples, one more right answer is 12.5 points" in n for n in notes)


def test_a_note_on_arms_with_other_numbers_of_steps():
    made = outcome(CASES["three pairs"])
    note = "the arms take different numbers of steps"
    assert not any(note in text for text in document(made, command="")["notes"])
    first, second = made.plan.arms
    large = replace(second, recipe={"batch_size": 8})
    made.plan = replace(made.plan, arms=(first, large), recipe=Recipe(batch_size=2))
    for found in (made.results, made.hashes):
        for seed in range(3):
            found[large.label, seed] = found.pop((second.label, seed))
    (text,) = [text for text in document(made, command="")["notes"] if note in text]
    assert "from 10 (linear-act-norm (batch_size=8)) to 40 (linear-norm-act)" in text
