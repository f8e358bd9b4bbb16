"""The driver: the same bits however it runs, what finished is kept, and nothing hangs."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.in_process import InProcess

from relucate import Study
from relucate.data import make
from relucate.errors import InputError
from relucate.report.html import study_html
from relucate.study import driver
from relucate.study.arms import Arm
from relucate.study.display import NoDisplay
from relucate.study.document import document
from relucate.study.driver import MACHINES, _arrange, run_study
from relucate.study.executors import EXECUTORS, Crowded, Died, Done
from relucate.study.executors.local import LocalExecutor
from relucate.study.plan import StudyPlan
from relucate.study.results import StudyResults
from relucate.study.source import resolve
from relucate.study.store import Store
from relucate.study.tasks import Inspection
from relucate.study.vary import arms_from
from relucate.train import Recipe, RunResult

ROOT = Path(__file__).parents[2]


def builder(order, width=6, trouble="", counter=""):
    """Build a torch module with dropout, or get into trouble from the n-th build on, or at it."""
    import os
    import time

    from torch import nn

    if counter:
        with open(counter, "a") as stream:
            stream.write("x")
        what, first, *last = trouble.split()
        builds = os.path.getsize(counter)
        if int(first) <= builds <= int(last[0] if last else builds):
            os._exit(5) if what == "exit" else time.sleep(600)
    norm = nn.BatchNorm1d(width)
    steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
    return nn.Sequential(nn.Linear(5, width), *steps, nn.Dropout(0.2), nn.Linear(width, 4))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = (random.normal(size=(4, 5))[y] + random.normal(size=(120, 5))).astype("f4")
    return make("blobs", x[:80], y[:80], x[80:], y[80:])


@pytest.fixture
def plan(data):
    recipe = Recipe(epochs=2, batch_size=16)
    return StudyPlan(
        arms_from(["before", "after"]), resolve(builder), data, recipe, pairs=3, jobs=1
    )


class Ear:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.told.append((name, args, kwargs))

    def count(self, name, **kwargs):
        return sum(n == name and kw == kwargs for n, _, kw in self.told)


def ran(plan, path, ear=None):
    display = ear or NoDisplay()
    with Store.open(path) as store, plan.open_executor(display) as executor:
        return run_study(plan, store, display, executor)


def bits(outcome):
    """Everything of the results that isn't a clock."""
    return {
        key: {name: value for name, value in result.items() if name != "seconds"}
        for key, result in outcome.results.items()
    }


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished study with one worker: its outcome, its store and what the display heard."""
    recipe = Recipe(epochs=2, batch_size=16)
    plan = StudyPlan(
        arms_from(["before", "after"]), resolve(builder), data, recipe, pairs=3, jobs=1
    )
    path, ear = tmp_path_factory.mktemp("study") / "runs.sqlite", Ear()
    return ran(plan, path, ear), path, ear


class TestBits:
    def test_they_do_not_depend_on_the_jobs(self, finished, plan, tmp_path):
        outcome = ran(replace(plan, jobs=2), tmp_path / "two.sqlite")
        assert bits(outcome) == bits(finished[0])
        assert outcome.hashes == finished[0].hashes

    def test_nor_does_a_keras_nets(self, data, tmp_path, in_process):
        source = resolve("mlp", {"width": 6, "depth": 1, "dropout": 0.2})
        arms = arms_from(["linear-norm-act-drop", "linear-act-norm-drop"])
        plan = StudyPlan(arms, source, data, Recipe(epochs=1, batch_size=16), pairs=1, jobs=2)
        one = ran(plan, tmp_path / "one.sqlite")
        EXECUTORS["local"] = LocalExecutor
        two = ran(plan, tmp_path / "two.sqlite")
        assert bits(one) == bits(two)
        assert one.hashes == two.hashes
        assert len({result["loss"] for result in one.results.values()}) == 2

    def test_every_run_has_its_own_result(self, finished):
        outcome, _, _ = finished
        assert len({result["loss"] for result in outcome.results.values()}) == 6
        assert outcome.finished_pairs() == [0, 1, 2]


def rescaled(order):
    """Build a Keras model that scales its inputs itself."""
    import keras

    norm, act = keras.layers.BatchNormalization(), keras.layers.ReLU()
    steps = (norm, act) if order == "before" else (act, norm)
    first = (keras.Input((5,)), keras.layers.Rescaling(0.5), keras.layers.Dense(6))
    return keras.Sequential([*first, *steps, keras.layers.Dense(4)])


def test_inputs_are_not_scaled_twice(plan, tmp_path, in_process):
    own = replace(plan, source=resolve(rescaled), pairs=1)
    outcome = ran(own, tmp_path / "own.sqlite")
    assert not outcome.plan.recipe.standardize
    assert any("aren't standardised" in note for note in document(outcome, command="")["notes"])
    asked = replace(own, recipe=own.recipe.changed(standardize=False))
    assert ran(asked, tmp_path / "asked.sqlite").hashes == outcome.hashes


class TestAnotherExecutor:
    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch):
        monkeypatch.setitem(EXECUTORS, "in process", InProcess)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    def test_the_plan_chooses_it_and_no_bit_differs(self, finished, plan, tmp_path):
        ear = Ear()
        outcome = ran(replace(plan, executor="in process"), tmp_path / "runs.sqlite", ear)
        assert bits(outcome) == bits(finished[0])
        assert outcome.hashes == finished[0].hashes
        assert [told for told in ear.told if told[0] == "run_progress"] == [
            told for told in finished[2].told if told[0] == "run_progress"
        ]

    def test_runs_that_found_no_memory_are_repeated_and_that_is_said_once(
        self, finished, plan, tmp_path, monkeypatch
    ):
        class Small(InProcess):
            turned_away = 3

            def run(self, tasks):
                for task in tasks:
                    if task.key != "inspect" and self.turned_away:
                        self.turned_away -= 1
                        yield Crowded(task.key, "the GPU is too small for two; one from now on")
                    else:
                        yield from super().run([task])

        monkeypatch.setitem(EXECUTORS, "in process", Small)
        ear = Ear()
        outcome = ran(replace(plan, executor="in process"), tmp_path / "runs.sqlite", ear)
        assert bits(outcome) == bits(finished[0])
        said = [args[0] for name, args, _ in ear.told if name == "say" and "repeated" in args[0]]
        assert len(said) == 1
        assert "the GPU is too small for two" in said[0]

    @pytest.fixture
    def losing(self, monkeypatch):
        """A function: how often each run is lost -> the runs that the executor is given."""

        def registered(often, lost=lambda key: Died(key, "gone")):
            given = []

            class Losing(InProcess):
                def run(self, tasks):
                    for task in tasks:
                        given.append(task.key)
                        if given.count(task.key) <= often.get(task.key, 0):
                            yield lost(task.key)
                        else:
                            yield from super().run([task])

            monkeypatch.setitem(EXECUTORS, "in process", Losing)
            return given

        return registered

    def test_a_run_is_repeated_before_the_next_one_starts(self, losing, finished, plan, tmp_path):
        before, after = (arm.label for arm in plan.arms)
        given = losing({(before, 0): 1, (after, 1): 1})
        outcome = ran(replace(plan, executor="in process"), tmp_path / "runs.sqlite")
        assert bits(outcome) == bits(finished[0])
        first, second = ([(before, seed), (after, seed)] for seed in (0, 1))
        assert given[1:7] == [first[0], *first, *second, second[1]]

    def test_lost_runs_of_an_arm_end_a_study_only_in_a_row(self, losing, plan, tmp_path):
        label = plan.arms[0].label
        losing({(label, 0): 2, (label, 2): 2})
        outcome = ran(replace(plan, executor="in process"), tmp_path / "runs.sqlite")
        assert set(outcome.failed) == {(label, 0), (label, 2)}
        assert outcome.finished_pairs() == [1]
        losing({(label, 1): 2, (label, 2): 2})
        with pytest.raises(InputError, match="seed 2 failed: gone"):
            ran(replace(plan, executor="in process"), tmp_path / "others.sqlite")

    @pytest.mark.parametrize("often", [MACHINES, MACHINES + 1])
    def test_a_run_may_lose_so_many_machines(self, losing, plan, tmp_path, often):
        key = plan.arms[0].label, 0
        given = losing({key: often}, lambda key: Died(key, "its node was lost", machine=True))
        outcome = ran(replace(plan, executor="in process"), tmp_path / "runs.sqlite")
        assert given.count(key) == MACHINES + 1
        assert (key in outcome.failed) is (often > MACHINES)

    def test_lost_runs_of_an_arm_that_had_results_do_not_end_a_study(self, losing, plan, tmp_path):
        label, lost = plan.arms[0].label, RunResult("failed", note="no score")
        losing({(label, seed): 9 for seed in (1, 2, 3)}, lambda key: Done(key, lost))
        own = replace(plan, executor="in process", pairs=4)
        assert ran(own, tmp_path / "runs.sqlite").finished_pairs() == [0]
        losing({(label, seed): 9 for seed in range(4)}, lambda key: Done(key, lost))
        with pytest.raises(InputError, match=f"no run of '{label}' has finished: .*no score"):
            ran(own, tmp_path / "others.sqlite")

    @pytest.mark.parametrize(("limit", "first"), [(2.0, 60.0), (90.0, 90.0), (None, None)])
    def test_a_runs_limit_is_too_short_for_imports(self, plan, tmp_path, monkeypatch, limit, first):
        limits = []

        class Noting(InProcess):
            def run(self, tasks):
                for task in tasks:
                    limits.append(task.limit)
                    yield from super().run([task])

        monkeypatch.setitem(EXECUTORS, "in process", Noting)
        own = replace(plan, executor="in process", pairs=1, run_timeout=limit)
        ran(own, tmp_path / "runs.sqlite")
        assert limits == [first, limit, limit]

    def test_an_answer_ends_a_study_whatever_still_runs(self, plan, tmp_path, monkeypatch):
        class Ahead(InProcess):
            """Takes up to four runs before the first is done."""

            def run(self, tasks):
                for task in [task for task, _ in zip(tasks, range(4), strict=False) if task]:
                    yield from super().run([task])

        monkeypatch.setitem(EXECUTORS, "in process", Ahead)
        answered = property(lambda outcome: len(outcome.results) >= 2)
        monkeypatch.setattr(StudyResults, "decided", answered)
        outcome = ran(replace(plan, executor="in process"), tmp_path / "runs.sqlite")
        assert {seed for _, seed in outcome.results} == {0}
        assert len(outcome.results) == 2

    def test_its_errors_end_a_study_as_any_other(self, plan, tmp_path):
        def broken(order):
            raise RuntimeError("no such luck")

        other = replace(plan, source=resolve(broken), executor="in process")
        with pytest.raises(InputError, match="RuntimeError: no such luck"):
            ran(other, tmp_path / "runs.sqlite")


class TestManyRunsOnAGpu:
    """How many it takes at a time is measured before the first run."""

    @pytest.fixture
    def arranged(self, plan, monkeypatch):
        """Return a function: the answer of the measurement, jobs -> calls, what was asked, said."""
        monkeypatch.setattr(StudyPlan, "gpus", ("0", "1"))

        def act(answer, jobs=0, device="cuda", studies=1, **options):
            asked, called, ear = [], [], Ear()

            class Measuring(InProcess):
                measured = None

                def run(self, tasks):
                    (task,) = tasks
                    asked.append(task.work["counts"])
                    yield answer if isinstance(answer, Died) else Done("measure", answer)

                def arrange(self, side, jobs):
                    called.append((side, jobs))

            found = replace(INSPECTION, engine={**INSPECTION.engine, "device": device})
            executor = Measuring(None)
            for _ in range(studies):
                outcome = StudyResults(replace(plan, jobs=jobs, **options), found)
                _arrange(outcome, executor, ear)
            said = [args[0] for name, args, _ in ear.told if name == "say"]
            return called, asked, said, outcome.plan

        return act

    def test_the_best_number_is_taken_on_each(self, arranged):
        called, asked, said, plan = arranged({1: 0.8, 2: 0.5, 4: 0.4}, pairs=20)
        assert called == [(4, 8)]
        assert asked == [[1, 2, 4, 8]]
        assert plan.workers == 8
        assert "8 runs at a time: a step of each takes 800.00 ms with 1, 500.00" in said[0]

    def test_no_more_are_tried_than_are_missing(self, arranged):
        called, asked, _, _ = arranged({1: 0.8, 2: 0.5}, pairs=3)
        assert asked == [[1, 2]]
        assert called == [(2, 4)]

    def test_jobs_override_it(self, arranged):
        called, asked, said, plan = arranged({1: 0.8}, jobs=5, pairs=20)
        assert asked == [[1]]
        assert called == [(3, 5)]
        assert (plan.workers, said) == (5, [])

    def test_nor_do_more_jobs_than_are_missing(self, arranged):
        called, _, _, plan = arranged({1: 0.8}, jobs=50, pairs=3)
        assert called == [(25, 6)]
        assert plan.workers == 6

    def test_runs_that_wait_for_python_have_a_process_each(self, arranged):
        called, *_ = arranged({}, jobs=6, pairs=20)
        assert called == [(1, 6)]

    def test_a_measurement_that_is_lost_is_said(self, arranged):
        called, _, said, _ = arranged(Died("measure", "it ended"), jobs=4, pairs=20)
        assert called == [(1, 4)]
        assert said == ["how many runs a GPU takes isn't known: it ended."]

    def test_an_executor_without_turns_is_left_alone(self, arranged, plan):
        found = replace(INSPECTION, engine={**INSPECTION.engine, "device": "cuda"})
        _arrange(StudyResults(plan, found), InProcess(None), NoDisplay())

    def test_it_is_measured_once(self, arranged):
        called, asked, *_ = arranged({1: 0.8, 2: 0.5}, pairs=20, studies=2)
        assert called == [(2, 4)] * 2
        assert asked == [[1, 2, 4, 8]]

    def test_if_pytorch_does_not_use_them_nothing_is_measured(self, arranged, monkeypatch):
        monkeypatch.setattr(StudyPlan, "without_gpus", SimpleNamespace(workers=3))
        called, asked, _, _ = arranged({1: 0.8}, device="cpu")
        assert (called, asked) == ([(1, 3)], [])


def number(store):
    """How many runs are stored."""
    return store._connection.execute("SELECT count(*) FROM runs").fetchone()[0]


class TestContinuing:
    def test_the_first_call_trains_everything(self, finished):
        outcome, path, ear = finished
        assert outcome.resumed == 0
        assert ear.count("run_started") == ear.count("run_finished") == 6
        assert ear.count("run_progress") == 12
        assert ear.count("difference") == 5  # once a pair is complete, after every run
        with Store.open(path) as store:
            assert number(store) == 6
            assert all(
                store.get_per_example(h, len(outcome.plan.data.y_test)) is not None
                for h in outcome.hashes.values()
            )

    def test_the_next_call_trains_only_what_is_new(self, finished, plan, in_process):
        outcome, path, _ = finished
        ear = Ear()
        again = ran(replace(plan, pairs=4, jobs=2), path, ear)
        assert again.resumed == 6
        assert ear.count("run_finished", resumed=True) == 6
        assert ear.count("run_progress") == 4  # the two runs of the new pair
        assert {k: v for k, v in bits(again).items() if k[1] < 3} == bits(outcome)
        for key, scores in outcome.per_example.items():
            np.testing.assert_array_equal(again.per_example[key], scores)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"metric": 7.0}, "a run has an accuracy of 7, which isn't between 0 and 1"),
            ({"metric": "0.9"}, "'metric' of the run's result can't be '0.9'"),
        ],
    )
    def test_a_stored_result_that_cannot_be_is_refused(
        self, finished, plan, tmp_path, change, message, in_process
    ):
        outcome, _, _ = finished
        with Store.open(tmp_path / "odd.sqlite") as store:
            for key, result in outcome.results.items():
                store.put(outcome.hashes[key], {}, {**result, **change}, None)
        with pytest.raises(InputError, match=re.escape(message)):
            ran(plan, tmp_path / "odd.sqlite")


INSPECTION = Inspection(
    {"name": "torch", "reason": "", "backend": "torch", "device": "cpu"},
    {"torch": "2"},
    ({"fingerprint": "f0"}, {"fingerprint": "f1"}),
    (),
    "code",
)


def hashes(plan, inspection=INSPECTION):
    return [plan.spec(inspection, index, 0).hash for index in range(len(plan.arms))]


class TestHash:
    def renamed(self, data):
        return replace(data, name="another name", notes=("a note",))

    def test_what_does_not_matter(self, plan):
        others = [
            replace(plan, jobs=7),
            replace(plan, pairs=50),
            replace(plan, level=0.9),
            replace(plan, data=self.renamed(plan.data)),
            replace(plan, first_seed=0),
        ]
        assert all(hashes(other) == hashes(plan) for other in others)
        reason = replace(INSPECTION, engine={**INSPECTION.engine, "reason": "x"}, notes=("n",))
        assert hashes(plan, reason) == hashes(plan)

    def test_what_matters(self, plan, data):
        pixel = data.x_train.copy()
        pixel[0, 0] += 1
        changed = make("blobs", pixel, data.y_train, data.x_test, data.y_test)
        others = [
            replace(plan, source=resolve(lambda order: builder(order))),
            replace(plan, source=resolve(builder, {"width": 7})),
            replace(plan, recipe=plan.recipe.changed(epochs=3)),
            replace(plan, data=changed),
            replace(plan, threads=2),
            replace(plan, arms=arms_from(["before", "none"])),
        ]
        seen = [hashes(plan)] + [hashes(other) for other in others]
        assert len({both[1] for both in seen}) == len(seen)
        engines = [{"name": "keras"}, {"backend": "jax"}, {"device": "cuda"}]
        inspections = [
            replace(INSPECTION, versions={"torch": "3"}),
            replace(INSPECTION, code="other code"),
            replace(INSPECTION, arms=({"fingerprint": "f0"}, {"fingerprint": "f2"})),
            *(replace(INSPECTION, engine={**INSPECTION.engine, **e}) for e in engines),
        ]
        seen = [hashes(plan)[1]] + [hashes(plan, each)[1] for each in inspections]
        assert len(set(seen)) == len(seen)

    def test_an_arm_knows_the_arms_whose_values_it_takes(self, plan):
        swapped = replace(plan, arms=arms_from(["after", "before"]))
        assert set(hashes(plan)).isdisjoint(hashes(swapped))

    def test_a_third_arm_leaves_the_first_two_alone(self, plan):
        three = replace(plan, arms=arms_from(["before", "after", "none"]))
        inspection = replace(INSPECTION, arms=(*INSPECTION.arms, {"fingerprint": "f3"}))
        assert hashes(three, inspection)[:2] == hashes(plan)


@pytest.fixture
def dying(monkeypatch):
    """How often the process of a run still dies, by arm and seed, as the local executor tells."""
    left = Counter()

    class Dying(InProcess):
        def run(self, tasks):
            for task in tasks:
                if left[task.key]:
                    left[task.key] -= 1
                    yield Died(task.key, "the worker process ended with code 5")
                else:
                    yield from super().run([task])

    monkeypatch.setitem(EXECUTORS, "local", Dying)
    return left


class TestTrouble:
    def test_runs_that_always_die_end_the_study_and_what_finished_is_kept(
        self, plan, tmp_path, dying
    ):
        dying.update({(arm.label, seed): 2 for arm in plan.arms for seed in (1, 2)})
        with pytest.raises(InputError, match=r"seed 2 failed: .*ended with code 5.*are kept"):
            ran(plan, tmp_path / "runs.sqlite")
        with Store.open(tmp_path / "runs.sqlite") as store:
            assert number(store) == 2

    def test_a_worker_that_dies_at_the_first_build(self, plan, tmp_path):
        options = {"trouble": "exit 1", "counter": str(tmp_path / "builds")}
        broken = replace(plan, source=resolve(builder, options), jobs=2)
        with pytest.raises(InputError, match="ended with code 5"):
            ran(broken, tmp_path / "runs.sqlite")

    def test_a_builder_that_hangs_is_told_of_and_ends_with_ctrl_c(
        self, plan, tmp_path, monkeypatch
    ):
        monkeypatch.setitem(EXECUTORS, "local", partial(LocalExecutor, patience=0.3))
        options = {"trouble": "hang 1", "counter": str(tmp_path / "builds")}
        hanging = replace(plan, source=resolve(builder, options))

        class Impatient(NoDisplay):
            def say(self, text):
                if text.startswith("still importing the frameworks, building"):
                    raise KeyboardInterrupt(text)

        with pytest.raises(KeyboardInterrupt, match=r"test_driver.builder.*Ctrl-C"):
            ran(hanging, tmp_path / "runs.sqlite", Impatient())

    def test_a_run_whose_worker_dies_is_repeated_and_no_bit_differs(self, finished, plan, tmp_path):
        options = {"trouble": "exit 6 6", "counter": str(tmp_path / "builds")}
        ear = Ear()
        outcome = ran(replace(plan, source=resolve(builder, options)), tmp_path / "runs", ear)
        assert bits(outcome) == bits(finished[0])
        assert not outcome.failed
        said = [args[0] for name, args, _ in ear.told if name == "say"]
        assert sum("is repeated: the worker process ended with code 5" in s for s in said) == 1

    def test_runs_that_share_a_worker_are_repeated_each_time_it_dies(
        self, finished, plan, tmp_path, monkeypatch
    ):
        class Shared(LocalExecutor):
            def __enter__(self):
                super().__enter__().arrange(4, 4)
                return self

        monkeypatch.setitem(EXECUTORS, "local", Shared)
        options = {"trouble": "exit 5 6", "counter": str(tmp_path / "builds")}
        ear = Ear()
        outcome = ran(replace(plan, source=resolve(builder, options)), tmp_path / "runs", ear)
        assert bits(outcome) == bits(finished[0])
        assert not outcome.failed
        said = [args[0] for name, args, _ in ear.told if name == "say"]
        assert sum("is repeated: the worker process ended with code 5" in s for s in said) == 4 + 2

    def test_a_run_that_dies_twice_is_failed_and_its_pair_does_not_count(
        self, finished, plan, tmp_path, dying
    ):
        lost = ("linear-norm-act", 1)
        dying[lost] = 2
        ear = Ear()
        outcome = ran(plan, tmp_path / "runs.sqlite", ear)
        assert list(outcome.failed) == [lost]
        assert outcome.finished_pairs() == [0, 2]
        assert bits(outcome) == {k: v for k, v in bits(finished[0]).items() if k != lost}
        assert ("run_finished", (*lost, None, "failed", None), {}) in ear.told
        page = document(outcome, command="")
        (run,) = (run for run in page["runs"] if run["status"] == "failed")
        assert (run["arm"], run["seed"], run["metric"]) == (*lost, None)
        assert "1 failed" in str(Study(page))
        assert "failed" in study_html(page)
        note = "run of 'linear-norm-act' with seed 1 failed twice, so that its pair doesn't count"
        assert any(note in each and "ended with code 5" in each for each in page["notes"])
        with Store.open(tmp_path / "runs.sqlite") as store:
            assert number(store) == 5  # the same command tries the lost one again
        assert ran(plan, tmp_path / "runs.sqlite").finished_pairs() == [0, 1, 2]

    def test_looks_go_on_past_a_pair_that_is_lost(self, plan, tmp_path, dying):
        dying["linear-norm-act", 1] = 2
        looking = replace(plan, looks=True, pairs=5)
        assert ran(looking, tmp_path / "runs.sqlite").finished_pairs() == [0, 2, 3, 4]

    def test_a_study_of_which_no_pair_is_left(self, plan, tmp_path, dying):
        dying["linear-norm-act", 0] = 2
        with pytest.raises(InputError, match=r"no pair has finished: run of .* code 5"):
            ran(replace(plan, pairs=1), tmp_path / "runs.sqlite")

    def test_a_run_that_hangs_is_shown_and_ended_at_its_limit(
        self, finished, plan, tmp_path, monkeypatch
    ):
        monkeypatch.setitem(EXECUTORS, "local", partial(LocalExecutor, patience=0.2))
        monkeypatch.setattr(driver, "QUIET", 1.0)
        options = {"trouble": "hang 6 6", "counter": str(tmp_path / "builds")}
        hanging = replace(plan, source=resolve(builder, options), run_timeout=10)
        ear = Ear()
        outcome = ran(hanging, tmp_path / "runs.sqlite", ear)
        assert bits(outcome) == bits(finished[0])
        said = [args[0] for name, args, _ in ear.told if name == "say"]
        name = "run of 'linear-act-norm' with seed 0"
        assert any(re.match(rf"{name}: no sign of life for \d s", each) for each in said)
        assert (
            f"{name} is repeated: it took longer than 10 seconds (--run-timeout) and was ended."
            in said
        )

    def test_an_arm_that_always_hangs_ends_the_study_in_time(self, plan, tmp_path, monkeypatch):
        monkeypatch.setattr(driver, "PREPARING", 2.0)
        options = {"trouble": "hang 1", "counter": str(tmp_path / "builds")}
        hanging = replace(plan, source=resolve(builder, options), run_timeout=2)
        with pytest.raises(InputError, match="it took longer than 2 seconds"):
            ran(hanging, tmp_path / "runs.sqlite")

    def test_divergence_in_one_arm_is_a_result(self, plan, tmp_path, in_process):
        wild = replace(plan, recipe=Recipe(epochs=1, batch_size=16, lr=1e30), pairs=2)
        ear = Ear()
        outcome = ran(wild, tmp_path / "runs.sqlite", ear)
        assert {r["status"] for r in outcome.results.values()} == {"diverged"}
        shown = [args for name, args, _ in ear.told if name == "difference"]
        assert shown[-1] == (None, None, None, 2)
        with Store.open(tmp_path / "runs.sqlite") as store:
            assert {store.get(h)["status"] for h in outcome.hashes.values()} == {"diverged"}


SCRIPT = """
    import sys
    sys.path.insert(0, {root!r})
    from dataclasses import replace
    from pathlib import Path
    from relucate.study.vary import arms_from
    from relucate.study.display import NoDisplay
    from relucate.study.driver import run_study
    from relucate.study.plan import StudyPlan
    from relucate.study.executors.local import LocalExecutor
    from relucate.study.interruption import interruptible
    from relucate.study.source import resolve
    from relucate.study.store import Store
    from relucate.train import Recipe
    from relucate.data import Dataset
    from tests.study.test_driver import builder

    class Display(NoDisplay):
        def say(self, text):
            pass
        def run_finished(self, *args, **kwargs):
            print("finished", flush=True)

    start = LocalExecutor._start
    def told(self, number):
        worker = start(self, number)
        print("worker", worker.process.pid, flush=True)
        return worker
    LocalExecutor._start = told

    data = Dataset.open({data!r})
    recipe = Recipe(epochs=2, batch_size=16)
    arms = arms_from(["before", "after"])
    plan = StudyPlan(arms, resolve(builder), data, recipe, pairs=400, jobs=2)
    with interruptible(last=True), Store.open({store!r}) as store:
        with plan.open_executor(Display()) as executor:
            run_study(plan, store, Display(), executor)
"""


@pytest.mark.parametrize(
    "sent",
    [
        [signal.SIGKILL],
        [signal.SIGINT],
        [signal.SIGTERM],
        [signal.SIGHUP],
        [signal.SIGINT] * 20,
    ],
    ids=["killed", "Ctrl-C", "SIGTERM", "SIGHUP", "impatient"],
)
def test_ended_in_the_middle_it_leaves_no_process_and_keeps_what_finished(
    sent, plan, data, tmp_path
):
    store, folder = tmp_path / "runs.sqlite", data.save(tmp_path / "data")
    script = SCRIPT.format(root=str(ROOT), data=str(folder), store=str(store))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        while lines.count("finished\n") < 3:
            lines.append(process.stdout.readline())
            assert lines[-1], "the study ended by itself"
        for each in sent:
            process.send_signal(each)
            time.sleep(0.01)
        process.wait(20)
        workers = [int(line.split()[1]) for line in lines if line.startswith("worker")]
        assert len(workers) == 2
        deadline = time.monotonic() + 5
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, workers))
        errors = process.stderr.read()
        assert errors.count("Traceback") == (0 if sent == [signal.SIGKILL] else 1)
        assert errors == "" or errors.endswith("\nKeyboardInterrupt\n")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    with Store.open(store) as opened:
        kept = number(opened)
    assert 3 <= kept < 800
    if sent == [signal.SIGKILL]:
        outcome = ran(replace(plan, pairs=2), store)
        assert outcome.resumed >= 3
        assert len(outcome.results) == 4


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


class TestPlan:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"arms": (Arm("before"),)}, r"at least two arms, got \['linear-norm-act'\]"),
            ({"arms": ()}, "at least two arms"),
            (
                {"arms": (Arm("before"), Arm("linear-norm-act"))},
                "'linear-norm-act' is given twice .as 'before' and 'linear-norm-act'",
            ),
            ({"pairs": 0}, "pairs must be a whole number of at least 1, got 0"),
            ({"pairs": 2.5}, "pairs.*2.5"),
            ({"pairs": 1001}, "pairs must be at most 1,000, got 1,001"),
            ({"run_timeout": 0}, "run_timeout must be a number of seconds above 0, got 0"),
            ({"run_timeout": "1 h"}, "run_timeout must be .* got '1 h'"),
            ({"run_timeout": float("inf")}, "run_timeout must be .* got inf"),
            ({"executor": "lokal"}, "unknown executor 'lokal': did you mean 'local'"),
            ({"threads": 0}, "threads.*0"),
            ({"jobs": -1}, "jobs.*-1"),
            ({"first_seed": -5}, "first_seed.*-5"),
            ({"level": 1.0}, "level.*1.0"),
            ({"level": "x"}, "level.*'x'"),
            ({"level": 0.3, "looks": True}, "level from 0.5 .*got 0.3:"),
            (
                {"level": 0.9999, "looks": True, "arms": arms_from(["before", "after", "none"])},
                "a level of 0.9999 shared by 2 intervals makes 0.99995 for each",
            ),
            ({"recipe": Recipe(batch_size=8, validation=0.001)}, "a validation split of 0.001"),
            ({"recipe": Recipe(batch_size=8, curve=0), "target": 0.9}, "needs a learning curve"),
            ({"engine": "tourch"}, "unknown engine 'tourch': did you mean 'torch'"),
            ({"recipe": Recipe(batch_size=81)}, "batch_size 81 is larger than the 80"),
            ({"recipe": Recipe(batch_size=8, augment="flip")}, r"flip takes images.*\(5,\)"),
        ],
    )
    def test_what_cannot_be_run(self, plan, changes, message):
        with pytest.raises(InputError, match=message):
            replace(plan, **changes)

    def test_workers_are_one_per_core_and_never_more_than_runs(self, plan):
        assert replace(plan, jobs=100).workers == 6
        assert replace(plan, jobs=0, pairs=1000).workers >= 1
        assert replace(plan, jobs=0, threads=10_000).workers == 1

    def test_seeds_start_where_asked(self, plan):
        assert replace(plan, first_seed=7).seeds == [7, 8, 9]

    def test_a_misspelt_order_fails_before_anything_runs(self):
        with pytest.raises(InputError, match="aftr"):
            arms_from(["before", "aftr"])
