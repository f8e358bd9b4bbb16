"""The user's own training in workers: its identity, what it gets, and what it may do."""

import functools
import os
import random
import re
import sys
import textwrap
import time

import numpy as np
import pytest

from relucate.errors import InputError
from relucate.study.display import NoDisplay
from relucate.study.document import document
from relucate.study.driver import run_study
from relucate.study.own import OwnArm, call, look_at, own_source
from relucate.study.own_plan import OwnPlan
from relucate.study.store import Store
from relucate.train.metric import Metric

ARMS = (OwnArm("before"), OwnArm("after"))
AUC = Metric("auc")


def score(order, seed):
    return random.Random(f"{order}{seed}").random() + (order == "after")


def draws(order, seed):
    return random.random() + np.random.random()


def trouble(order, seed, what="", at=1):
    """Return a score, or do what the driver must survive, in the run of "after" at a seed."""
    if order == "after" and seed == at:
        if what == "raise":
            raise ValueError("no\ndata")
        if what == "sys.exit":
            sys.exit(3)
        if what == "os._exit":
            os._exit(4)
        if what == "fork":
            os.fork()
        if what == "print":
            print("x" * 100_000)
            os.write(1, b"\x80noise")
        if what == "hang":
            time.sleep(600)
        if what == "nan":
            return float("nan")
    return score(order, seed)


def always(order, seed):
    return 0.5


class Callable:
    def __call__(self, order, seed):
        return 1.0


def by_order(order, seed):
    return 0.5 + (order == "after")


def plan_of(run, options=None, arms=ARMS, **more):
    chosen = {"metric": AUC, "margin": 0.1, "pairs": 3, "jobs": 1, **more}
    return OwnPlan(arms, own_source(run, options, arms), **chosen)


def ran(plan, path, display=None):
    display = display or NoDisplay()
    with Store.open(path) as store, plan.open_executor(display) as executor:
        return run_study(plan, store, display, executor)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


class Ear(NoDisplay):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def hashes(plan):
    inspection = look_at(plan.source, [arm.to_dict() for arm in plan.arms])
    return [plan.spec(inspection, index, 0).hash for index in range(len(plan.arms))]


class TestIdentity:
    def test_code_arm_seed_options_metric_and_key_count(self):
        plan = plan_of(trouble)
        inspection = look_at(plan.source, [arm.to_dict() for arm in ARMS])
        others = [
            plan_of(trouble, key="v2"),
            plan_of(trouble, {"what": "no"}),
            plan_of(trouble, metric=Metric("f1")),
            plan_of(trouble, threads=2),
        ]
        found = [plan.spec(inspection, 0, 0), plan.spec(inspection, 0, 1)]
        found += [plan.spec(inspection, 1, 0)]
        found += [other.spec(inspection, 0, 0) for other in others]
        assert len({spec.hash for spec in found}) == len(found)
        assert hashes(plan_of(always)) != hashes(plan_of(by_order))

    def test_neither_the_file_nor_comments_nor_the_decision_count(self, tmp_path):
        found = []
        for name, more in (("a.py", ""), ("b.py", "# a comment\n\n")):
            file = tmp_path / name
            file.write_text(f"{more}def train(order, seed):\n    return 1.0\n")
            found.append(hashes(plan_of(f"{file}:train", margin=0.1 + bool(more))))
        assert found[0] == found[1]

    def test_the_versions_are_of_the_packages_that_it_reaches(self):
        def train(order, seed):
            from sklearn.metrics import roc_auc_score

            return np.mean(roc_auc_score)

        versions = look_at(own_source(train, {}, ARMS), [ARMS[0].to_dict()]).versions
        assert set(versions) == {"python", "machine", "numpy", "sklearn"}


class TestCall:
    def test_it_gets_the_order_as_written_the_seed_and_options(self):
        def train(order, seed, width, depth=1, *, act):
            return {"auc": seed, "w": width, "d": depth, "o": order == "before", "a": act}

        arms = (OwnArm("before", {"act": 3}),)
        plan = plan_of(train, {"width": 8}, (*arms, OwnArm("after", {"act": 3})))
        spec = plan.spec(look_at(plan.source, [arms[0].to_dict()]), 0, 7)
        result = call(spec, plan.source, nan_diverges=False)
        assert result.metric == 7
        assert result.scores == {"w": 8.0, "d": 1.0, "a": 3.0}
        assert "'o' isn't kept: it is True" in result.note

    @pytest.mark.parametrize(
        "run",
        [
            lambda arm, seed: 1.0,
            lambda **options: len(options) - 1,
            functools.partial(lambda width, order, seed: width, 1.0),
        ],
    )
    def test_arms_keywords_and_partials(self, run):
        plan = plan_of(run)
        spec = plan.spec(look_at(plan.source, []), 0, 7)
        assert call(spec, plan.source, nan_diverges=False).metric == 1.0

    @pytest.mark.parametrize(
        ("run", "message"),
        [
            (lambda order: 1.0, r"must take order and seed by name, such as .*takes \(order\)"),
            (lambda a, b: 1.0, r"must take order and seed by name.*takes \(a, b\)"),
            (lambda order, seed, /: 1.0, "must take order and seed by name"),
            (lambda order, seed, data: 1.0, "needs the arguments data"),
            (3, "must be your own training.* got 3"),
            (Callable(), "must be your own training.*Callable object.*run=it.__call__"),
            ("cnn", "must be your own training.* got 'cnn'"),
            ("nowhere.py:train", "no file"),
        ],
    )
    def test_what_cannot_be_called_is_refused_before_anything_starts(self, run, message):
        with pytest.raises(InputError, match=message):
            plan_of(run)

    def test_so_is_an_option_that_it_does_not_take(self):
        with pytest.raises(InputError, match=r"unknown option of .*'lr'"):
            plan_of(score, {"lr": 1})
        with pytest.raises(InputError, match="option seed= can't be given"):
            plan_of(score, {"seed": 1})

    def test_random_numbers_are_seeded_whatever_ran_before(self):
        plan = plan_of(draws)
        inspection = look_at(plan.source, [])
        first, other, again = (
            call(plan.spec(inspection, 0, seed), plan.source, nan_diverges=False).metric
            for seed in (0, 1, 0)
        )
        assert first == again != other


class TestStudy:
    def test_the_jobs_change_no_score_and_the_store_answers(self, path, tmp_path):
        plan = plan_of(score)
        first = ran(plan, path)
        other = ran(plan_of(score, jobs=2), tmp_path / "other.sqlite")
        again = ran(plan, path)
        assert again.resumed == 6
        for found in (other, again):
            assert {k: r["metric"] for k, r in found.results.items()} == {
                k: r["metric"] for k, r in first.results.items()
            }

    @pytest.mark.parametrize(
        ("what", "reason"),
        [
            ("raise", r"ValueError: no data \(line \d+ of .*test_own.py\)"),
            ("sys.exit", r"it called sys.exit\(3\) \(line \d+ of .*test_own.py\)"),
            ("os._exit", "the worker process ended with code 4"),
            ("nan", "it returned nan"),
        ],
    )
    def test_a_lost_run_is_shown_and_the_others_go_on(self, what, reason, path):
        ear = Ear()
        outcome = ran(plan_of(trouble, {"what": what}, pairs=4), path, ear)
        assert outcome.finished_pairs() == [0, 2, 3]
        [(key, failed)] = outcome.failed.items()
        assert key == ("linear-act-norm", 1)
        assert re.search(reason, failed["note"])
        found = document(outcome, command="")
        assert any(re.search(reason, note) for note in found["notes"])
        assert any("lost runs: linear-norm-act 0, linear-act-norm 1" in n for n in found["notes"])
        assert [run["status"] for run in found["runs"]].count("failed") == 1
        with Store.open(path) as store:  # it is tried again by the same command
            assert store.get(outcome.hashes[key]) is None

    @pytest.mark.parametrize("what", ["fork", "print"])
    def test_what_does_no_harm(self, what, path):
        outcome = ran(plan_of(trouble, {"what": what}), path)
        assert len(outcome.results) == 6
        assert not outcome.failed

    def test_a_file_that_is_edited_meanwhile_runs_as_it_was(self, path, tmp_path):
        text = """
            import os, pathlib
            V = 1
            def train(order, seed):
                here = pathlib.Path(__file__)
                if V == 1 and "V = 2" not in here.read_text():
                    here.write_text(here.read_text().replace("V = 1", "V = 2", 1))
                    os._exit(4)
                return V + seed / 100 + (order == "after") * seed
        """
        file = tmp_path / "edited.py"
        file.write_text(textwrap.dedent(text))
        outcome = ran(plan_of(f"{file}:train"), path)
        assert sorted(round(r["metric"], 2) for r in outcome.results.values()) == [
            *(1.0, 1.0, 1.01, 1.02),
            *(2.01, 3.02),
        ]

    def test_a_run_that_takes_too_long(self, path):
        outcome = ran(plan_of(trouble, {"what": "hang"}, run_timeout=1.0), path)
        assert "took longer than 1 seconds" in outcome.failed["linear-act-norm", 1]["note"]
        assert outcome.finished_pairs() == [0, 2]

    def test_if_all_are_lost_the_first_error_ends_it(self, path):
        def train(order, seed):
            raise KeyError(f"seed {seed}")

        with pytest.raises(InputError, match=r"no run of .*seed 0 is lost.*KeyError: 'seed 0'"):
            ran(plan_of(train, pairs=20), path)

    def test_nan_counts_with_the_worst_score_if_the_user_says_so(self, path):
        plan = plan_of(trouble, {"what": "nan"}, metric=Metric("auc", worst=0.5), nan_diverges=True)
        outcome = ran(plan, path)
        assert not outcome.failed
        assert document(outcome, command="")["arms"][1]["diverged"] == 1

    def test_the_same_score_for_all_is_noted(self, path):
        notes = document(ran(plan_of(always), path), command="")["notes"]
        assert any("all runs have the same score, 0.5: check" in note for note in notes)

    def test_so_are_arms_with_the_same_scores(self, path):
        def train(order, seed):
            return 0.5 + seed / 100

        notes = document(ran(plan_of(train), path), command="")["notes"]
        assert any("the same score in every pair: check that the training" in n for n in notes)

    def test_so_is_the_same_score_for_every_seed(self, path):
        notes = document(ran(plan_of(by_order), path), command="")["notes"]
        assert any("every seed has the same score within each arm" in note for note in notes)

    def test_curves_and_examples_give_what_they_give_elsewhere(self, path):
        def train(order, seed):
            rng = np.random.default_rng((seed, len(order)))
            right = rng.random(50) < 0.7
            end = right.mean()
            return {"accuracy": end, "curve": [end / 2, end], "per_example": right, "f1": 0.5}

        metric = Metric("accuracy", unit="points", scale=100.0)
        plan = plan_of(train, metric=metric, pairs=4)
        for _ in range(2):  # the second time from the store
            found = document(ran(plan, path), command="")
            [comparison] = found["comparisons"]
            assert comparison["examples"] is not None
            assert comparison["learning"]["steps"]["unit"] == "epochs"
            assert found["runs"][0]["scores"] == {"f1": 0.5}
            assert found["runs"][0]["epochs"] == 2
            assert (found["data"], found["recipe"]) == (None, None)
            assert found["engine"]["name"] == "run"
            assert found["model"]["source"] == "your own training"
