"""The local executor: the driver gets an event for all that a worker or the user's code does."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from relucate.data import make
from relucate.errors import InputError, Refused
from relucate.study.arms import Arm
from relucate.study.driver import MACHINES
from relucate.study.executors import Crowded, Died, Done, Epoch, Failed, Setup, Silent, Task, local
from relucate.study.executors import perform as work
from relucate.study.executors.local import LocalExecutor
from relucate.study.executors.perform import as_ours
from relucate.study.source import resolve


def builder(order, act="fine", note=""):
    """Build a torch module after doing something that a worker has to survive, or not."""
    import ctypes
    import os
    import subprocess
    import sys
    import time

    import torch
    from torch import nn

    if act == "exit":
        print("these are my last words", flush=True)
        os._exit(3)
    if act == "kill":
        os.kill(os.getpid(), 9)
    if act.startswith("child"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(note, "w") as stream:
            stream.write(str(child.pid))
    if act in ("hang", "child"):
        time.sleep(600)
    if act.endswith("c_call"):  # with the GIL
        ctypes.PyDLL(None).sleep(600)
    if act == "once" and not os.path.exists(note):
        open(note, "w").close()
        os._exit(3)
    if act == "fork":
        os.fork()
    if act == "fork and die":
        time.sleep(600) if os.fork() == 0 else os._exit(4)
    if act == "sys.exit":
        sys.exit(0)
    if act == "sleep":
        time.sleep(1.0)
    if act == "print":
        print("x" * 200_000)
        os.write(1, b"\x80\x03noise" * 1000)
        os.write(2, b"noise\n")
        print(repr(sys.stdin.read()), file=sys.stderr)
    if act == "memory" or (act == "crowd" and not os.path.exists(note)):
        if note:
            open(note, "w").close()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    if act == "lost":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if act == "error":
        raise RuntimeError("no such luck")
    norm = nn.BatchNorm1d(4)
    steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
    return nn.Sequential(nn.Linear(3, 4), *steps)


def inspection(act="fine", order="before", **options):
    return work.inspection([Arm(order, {"act": act, **options})], "auto", "cpu")


def run(executor, tasks):
    return executor.run(Task(*task) for task in tasks)


@pytest.fixture(scope="module")
def setup():
    x, y = np.random.default_rng(0).normal(size=(16, 3)).astype("f4"), np.arange(16) % 4
    return Setup(resolve(builder), make("toy", x, y, x, y))


@pytest.fixture(scope="module")
def pair(setup):
    """Two workers that the tests must leave able to work."""
    with LocalExecutor(replace(setup, jobs=2), patience=0.3) as executor:
        list(run(executor, [("warm", inspection()), ("up", inspection())]))
        yield executor


def kinds(events):
    return {event.key: type(event) for event in events if not isinstance(event, Silent)}


class TestTwoWorkers:
    def test_every_task_is_answered(self, pair):
        tasks = [(number, inspection()) for number in range(5)]
        assert kinds(run(pair, tasks)) == dict.fromkeys(range(5), Done)

    def test_the_users_output_and_input_disturb_nothing(self, pair):
        events = list(run(pair, [("loud", inspection("print")), ("quiet", inspection())]))
        assert kinds(events) == {"loud": Done, "quiet": Done}

    def test_an_error_is_an_answer_and_the_worker_lives_on(self, pair):
        events = {
            e.key: e for e in run(pair, [("bad", inspection("error")), ("good", inspection())])
        }
        assert isinstance(events["good"], Done)
        assert isinstance(events["bad"], Failed)
        with pytest.raises(InputError, match="RuntimeError: no such luck"):
            raise events["bad"].error
        assert pair.alive == 2

    def test_an_order_that_is_none_comes_back_as_the_error_it_was(self, pair):
        task = {"task": "no such task"}
        event = next(e for e in run(pair, [("odd", task)]) if not isinstance(e, Silent))
        assert isinstance(event, Failed)
        with pytest.raises(InputError, match="no such task"):
            raise event.error

    def test_leaving_early_leaves_no_worker_marked_busy(self, pair):
        for _ in range(2):
            for event in run(pair, [("first", inspection())]):
                if isinstance(event, Done):
                    break
        assert not any(worker.works for worker in pair.workers)
        assert kinds(run(pair, [(n, inspection()) for n in range(3)])) == dict.fromkeys(
            range(3), Done
        )

    def test_what_was_left_unfinished_does_not_show_up_later(self, pair):
        tasks = [("slow", inspection("sleep")), ("quick", inspection())]
        assert next(e.key for e in run(pair, tasks) if isinstance(e, Done)) == "quick"
        assert any(worker.works for worker in pair.workers)
        later = [(number, inspection()) for number in range(3)]
        assert kinds(run(pair, later)) == dict.fromkeys(range(3), Done)
        assert not any(worker.works for worker in pair.workers)

    def test_tasks_are_drawn_only_when_a_worker_is_free(self, pair):
        drawn = []

        def tasks():
            for number in range(10):
                drawn.append(number)
                yield Task(number, inspection())

        events = (e for e in pair.run(tasks()) if isinstance(e, Done))
        next(events)
        assert len(drawn) <= 3
        list(events)
        assert drawn == list(range(10))

    def test_a_silence_is_an_event_with_what_is_being_done(self, pair):
        events = run(pair, [("slow", inspection("sleep"))])
        *silences, last = (event for event in events if not isinstance(event, Epoch))
        assert {type(event) for event in silences} == {Silent}
        assert {event.key for event in silences} == {"slow"}
        assert silences[0].seconds >= 0.3
        assert all(b.seconds > a.seconds for a, b in pairwise(silences))
        assert isinstance(last, Done)


class TestDeath:
    def test_a_worker_that_dies_takes_only_its_own_task_along(self, setup):
        with LocalExecutor(replace(setup, jobs=2)) as executor:
            tasks = [
                ("dies", inspection("exit")),
                ("lives", inspection("sleep")),
                (3, inspection()),
            ]
            events = {event.key: event for event in run(executor, tasks)}
            assert kinds(events.values()) == {"dies": Died, "lives": Done, 3: Done}
            assert "ended with code 3" in events["dies"].reason
            assert "these are my last words" in events["dies"].reason
            assert executor.alive == 2  # another took its place
            # One that dies while it has nothing to do is found when it gets a task.
            idle = executor.workers[0]
            idle.process.kill()
            idle.process.wait()
            event = next(run(executor, [("last", inspection())]))
            assert (type(event), event.key) == (Died, "last")
            assert "code -9 (killed; out of memory?)" in event.reason
            assert event.reason.endswith("Its last words: (nothing)")  # its start says nothing
            assert executor.alive == 1

    def test_leaving_ends_a_worker_that_hangs_and_what_it_started(self, setup, tmp_path):
        note = tmp_path / "child"
        with LocalExecutor(setup, patience=0.2) as executor:
            for _ in run(executor, [("hangs", inspection("child", note=str(note)))]):
                if note.exists() and note.read_text():
                    break
            pid = executor.workers[0].process.pid
        assert gone(pid)
        assert gone(int(note.read_text()))

    def test_a_worker_that_cannot_start_says_why(self, setup):
        broken = {"PYTHONPATH": "", "PYTHONHOME": "/nonexistent"}
        with pytest.raises(InputError, match=r"didn't start. Its last words: .*\w"):
            LocalExecutor(replace(setup, jobs=2), broken).__enter__()

    def test_a_backend_that_is_not_there_is_an_answer(self, setup):
        with LocalExecutor(setup, {"KERAS_BACKEND": "caffe"}) as executor:
            events = list(run(executor, [(1, inspection()), (2, inspection())]))
        assert kinds(events) == {1: Failed, 2: Failed}
        assert "caffe" in str(events[0].error)

    def test_a_folder_for_temporary_files_with_a_long_name(self, setup, monkeypatch, tmp_path):
        long = tmp_path / ("a long name with spaces " * 5)
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        with LocalExecutor(setup) as executor:
            assert kinds(run(executor, [("task", inspection())])) == {"task": Done}


def gone(pid, within=5.0):
    """Whether the process has ended (or does soon); one that nobody waits for may stay a zombie."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            status = Path(f"/proc/{pid}/stat")
            if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


ORPHANS = """
import sys, time
sys.path[:0] = {path!r}
from dataclasses import replace
from relucate.study.executors import Done
from relucate.study.executors.local import LocalExecutor
from relucate.study.executors.perform import as_ours
from tests.study.executors.test_local import inspection, run
import pickle
setup = pickle.loads(bytes.fromhex({setup!r}))
with LocalExecutor(replace(setup, jobs=2), patience=0.2) as executor:
    tasks = [(1, inspection({act!r}, note={note!r})), (2, inspection())]
    for event in run(executor, tasks):
        if isinstance(event, Done):
            print(*[worker.process.pid for worker in executor.workers], flush=True)
"""


@pytest.mark.parametrize("act", ["hang", "c_call", "child and c_call"])
def test_workers_end_soon_when_their_driver_is_killed(setup, act, tmp_path):
    note = tmp_path / "child"
    root = Path(__file__).parents[3]
    code = ORPHANS.format(
        path=[str(root)], setup=pickle.dumps(setup).hex(), act=act, note=str(note)
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
        if act.startswith("child"):
            while not note.exists() or not note.read_text():
                time.sleep(0.05)
            workers.append(int(note.read_text()))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert all(gone(pid) for pid in workers)  # one hangs in the user's code, one waits
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()


def test_errors_keep_their_kind_across_processes():
    with pytest.raises(Refused, match="why"):
        raise work.as_ours(Refused("why"))
    with pytest.raises(InputError, match="what"):
        raise work.as_ours(InputError("what"))
    with pytest.raises(InputError, match="trace"):
        raise work.as_ours(RuntimeError("trace"))


class TestHardUse:
    def test_a_task_at_its_limit_is_ended_and_the_next_gets_a_new_worker(self, setup):
        with LocalExecutor(setup, patience=0.5) as executor:
            events = list(run(executor, [("hangs", inspection("hang"), 1.0), (2, inspection())]))
        assert kinds(events) == {"hangs": Died, 2: Done}
        (died,) = (event for event in events if isinstance(event, Died))
        assert died.reason == "it took longer than 1 seconds (--run-timeout) and was ended"

    def test_the_limit_does_not_count_the_start(self, setup):
        with LocalExecutor(setup) as executor:  # which imports PyTorch before the first task
            assert kinds(run(executor, [(1, inspection("sleep"), 2.0)])) == {1: Done}

    def test_a_task_that_is_to_be_repeated_can_be_given_after_its_death(self, setup, tmp_path):
        again = []

        def tasks():
            yield Task("dies", inspection("once", note=str(tmp_path / "note")))
            while not again:
                yield None
            yield again[0]

        with LocalExecutor(setup) as executor:
            events = []
            for event in executor.run(tasks()):
                events.append(event)
                if isinstance(event, Died):
                    again.append(Task("again", inspection("once", note=str(tmp_path / "note"))))
        assert kinds(events) == {"dies": Died, "again": Done}

    def test_a_forked_child_does_not_answer_in_its_parents_place(self, setup):
        with LocalExecutor(setup) as executor:
            events = [
                *run(executor, [(1, inspection("fork"))]),
                *run(executor, [(2, inspection())]),
            ]
        ends = [(type(event), event.key) for event in events if not isinstance(event, Epoch)]
        assert ends == [(Done, 1), (Done, 2)]

    def test_a_forked_child_that_stays_does_not_hide_its_parents_death(self, setup):
        with LocalExecutor(setup) as executor:
            (event,) = run(executor, [(1, inspection("fork and die"))])
        assert isinstance(event, Died)
        assert "ended with code 4" in event.reason

    def test_leaving_the_process_is_an_error_and_no_success(self, setup):
        with LocalExecutor(setup) as executor:
            (event,) = run(executor, [(1, inspection("sys.exit"))])
            assert executor.alive == 1
        assert isinstance(event, Failed)
        assert "sys.exit(0)" in str(event.error)

    def test_the_temporary_folder_vanishing_does_not_hide_what_happened(self, setup):
        def fail():
            with LocalExecutor(setup) as executor:
                list(run(executor, [(1, inspection())]))
                shutil.rmtree(executor._folder)
                (event,) = run(executor, [(2, inspection("exit"))])
                raise ValueError(event.reason)

        with pytest.raises(ValueError, match=r"ended with code 3.*these are my last words"):
            fail()

    def test_without_the_temporary_folder_no_new_worker_can_start(self, setup):
        def fail():
            with LocalExecutor(setup) as executor:
                list(run(executor, [(1, inspection())]))
                shutil.rmtree(executor._folder)
                list(run(executor, [(2, inspection("exit")), (3, inspection())]))

        with pytest.raises(InputError, match=r"can't be started: .*No such file"):
            fail()


class TestGpu:
    def test_a_full_gpu_is_said_in_a_sentence_wherever_a_run_is(self):
        import torch

        error = as_ours(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."))
        assert "the GPU has too little memory" in str(error)
        assert "--batch-size" in str(error)
        assert "Traceback" not in str(error)

    def test_where_memory_is_short_one_worker_less_goes_on(self, setup, tmp_path):
        crowd = inspection("crowd", note=str(tmp_path / "full"))
        tasks = [("a", inspection()), ("b", crowd), ("c", inspection())]
        with LocalExecutor(replace(setup, jobs=3)) as executor:
            events = {event.key: event for event in run(executor, tasks)}
            assert kinds(events.values()) == {"a": Done, "b": Crowded, "c": Done}
            assert "too little memory for 3 runs side by side; 2 runs from now on" in (
                events["b"].reason
            )
            assert "Tried to allocate" in events["b"].reason
            assert executor.alive == 2
            tasks = [(number, inspection()) for number in range(5)]
            assert kinds(run(executor, tasks)) == dict.fromkeys(range(5), Done)
            assert executor.alive == 2

    def test_one_run_that_does_not_fit_alone_is_an_error(self, setup):
        with LocalExecutor(setup) as executor:
            (event,) = run(executor, [("big", inspection("memory"))])
            assert isinstance(event, Failed)
            with pytest.raises(InputError, match=r"one run alone needs more .*--batch-size"):
                raise event.error
            assert kinds(run(executor, [("next", inspection())])) == {"next": Done}

    def test_each_gpu_has_workers_of_its_own(self, setup):
        with LocalExecutor(replace(setup, jobs=2, gpus=("0", "1"))) as executor:
            events = list(run(executor, [("big", inspection("memory")), (1, inspection())]))
            assert kinds(events) == {"big": Failed, 1: Done}

    def test_a_gpu_that_is_gone_takes_its_worker_along(self, setup):
        with LocalExecutor(setup) as executor:
            events = list(run(executor, [("lost", inspection("lost")), ("next", inspection())]))
        assert kinds(events) == {"lost": Died, "next": Done}
        assert "the GPU doesn't answer any more" in events[0].reason
        assert "illegal memory access" in events[0].reason


class TestSeveralTasksInOneWorker:
    @pytest.fixture
    def shared(self, setup):
        with LocalExecutor(replace(setup, jobs=4, gpus=("0",)), patience=0.3) as executor:
            assert executor.alive == 1
            executor.arrange(2, 2)
            yield executor

    def test_they_are_all_answered(self, shared):
        tasks = [(number, inspection("print" if number == 2 else "fine")) for number in range(5)]
        assert kinds(run(shared, tasks)) == dict.fromkeys(range(5), Done)
        assert shared.alive == 1

    def test_an_error_of_one_is_not_the_others(self, shared):
        tasks = [("bad", inspection("error")), ("good", inspection())]
        assert kinds(run(shared, tasks)) == {"bad": Failed, "good": Done}

    def test_if_one_of_them_ends_the_process_none_is_to_blame_until_it_was_alone(self, shared):
        tasks = [("bad", inspection("exit")), ("good", inspection())]
        lost = [event for event in run(shared, tasks) if isinstance(event, Died)]
        assert {event.key: event.machine for event in lost} == {"bad": True, "good": True}
        again = [event for event in run(shared, tasks) if not isinstance(event, Silent)]
        assert kinds(again) == {"bad": Died, "good": Done}
        assert [event.machine for event in again if isinstance(event, Died)] == [False]

    def test_one_that_takes_too_long_is_to_blame_itself(self, shared):
        list(run(shared, [("warm", inspection())]))
        tasks = [Task("slow", inspection("hang"), 0.5), Task("good", inspection(), 100.0)]
        lost = [event for event in shared.run(tasks) if isinstance(event, Died)]
        assert {event.key: event.machine for event in lost} == {"slow": False, "good": True}
        assert all("took longer than 0.5 seconds" in event.reason for event in lost)

    def test_where_memory_is_short_one_less_goes_on_in_the_same_process(self, shared, tmp_path):
        before = shared.workers[0].process.pid
        crowd = inspection("crowd", note=str(tmp_path / "full"))
        events = {e.key: e for e in run(shared, [("a", crowd), ("b", inspection())])}
        assert kinds(events.values()) == {"a": Crowded, "b": Done}
        assert "for 2 runs side by side; 1 run from now on" in events["a"].reason
        assert [worker.seats for worker in shared.workers] == [1]
        assert shared.workers[0].process.pid == before
        assert kinds(run(shared, [("big", inspection("memory"))])) == {"big": Failed}

    def test_one_that_was_alone_does_not_fit_at_all(self, shared):
        assert kinds(run(shared, [("big", inspection("memory"))])) == {"big": Failed}

    def test_those_that_are_left_early_are_not_heard_later(self, shared):
        tasks = [("quick", inspection()), ("slow", inspection("sleep"))]
        assert next(e.key for e in run(shared, tasks) if isinstance(e, Done)) == "quick"
        later = [(number, inspection()) for number in range(3)]
        assert kinds(run(shared, later)) == dict.fromkeys(range(3), Done)

    @pytest.mark.parametrize("seats", [2, 5, 8, 64, 1000])
    def test_it_is_alone_before_it_counts_as_lost(self, setup, seats, monkeypatch):
        monkeypatch.setattr(local, "end", lambda started: None)
        executor, watched = LocalExecutor(setup), SimpleNamespace(wanted=True, task=Task("a", None))
        worker = local._Worker(0, SimpleNamespace(), seats=seats)
        shared = 0
        while worker.seats > 1:
            worker.works = {0: watched, 1: watched}
            assert all(event.machine for event in executor._bury(worker, "it died"))
            shared += 1
        assert shared <= MACHINES


class TestArranging:
    def test_where_steps_are_not_captured_each_run_has_a_process(self, setup):
        with LocalExecutor(replace(setup, jobs=3, gpus=("0",))) as executor:
            assert executor.alive == 1
            executor.arrange(1, 3)
            assert executor.alive == 3
            assert [worker.seats for worker in executor.workers] == [1, 1, 1]

    @pytest.fixture
    def standing(self, setup):
        """An executor with two workers that have room for three tasks each, and do nothing."""
        executor = LocalExecutor(setup)
        executor._numbers = count()
        line = SimpleNamespace(send=lambda message: None)
        executor.workers = [
            local._Worker(number, SimpleNamespace(), connection=line, seats=3) for number in (0, 1)
        ]
        return executor

    def test_every_gpu_has_a_run_before_one_has_two(self, standing):
        standing._feed(iter([Task(number, None) for number in range(4)]))
        given = [[work.task.key for work in w.works.values()] for w in standing.workers]
        assert given == [[0, 2], [1, 3]]

    def test_a_living_worker_comes_before_one_that_has_to_be_started(self, standing):
        standing.workers[0].connection = None
        standing._replace = lambda worker: pytest.fail("started")
        standing._feed(iter([Task("one", None)]))
        assert len(standing.workers[1].works) == 1

    def test_a_new_process_has_as_much_room_as_the_one_that_died(self, standing, monkeypatch):
        fresh = local._Worker(1, SimpleNamespace())
        monkeypatch.setattr(LocalExecutor, "_start", lambda executor, number: fresh)
        monkeypatch.setattr(LocalExecutor, "_connect", lambda executor, started: None)
        assert standing._replace(standing.workers[1]) is standing.workers[1] is fresh
        assert fresh.seats == 3

    def test_runs_are_spread_over_the_gpus(self, setup):
        with LocalExecutor(replace(setup, jobs=8, gpus=("0", "1"))) as executor:
            executor.arrange(4, 5)
            assert [worker.seats for worker in executor.workers] == [3, 2]
