"""The executor: whatever a worker does (or the user's code in it), the driver hears of it."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from relucate.data import make
from relucate.errors import InputError, Refused
from relucate.study import executor as executor_module
from relucate.study.executor import LocalExecutor, import_path, raise_remote
from relucate.study.source import resolve


def builder(order, act="fine", note=""):
    """Build a torch module after doing something that a worker has to survive, or not."""
    import os
    import subprocess
    import sys
    import time

    from torch import nn

    if act == "exit":
        print("these are my last words", flush=True)
        os._exit(3)
    if act == "kill":
        os.kill(os.getpid(), 9)
    if act == "hang":
        time.sleep(600)
    if act == "sleep":
        time.sleep(1.0)
    if act == "print":
        print("x" * 200_000)
        os.write(1, b"\x80\x03noise" * 1000)
        os.write(2, b"noise\n")
        print(repr(sys.stdin.read()), file=sys.stderr)
    if act == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(note, "w") as stream:
            stream.write(str(child.pid))
        time.sleep(600)
    if act == "error":
        raise RuntimeError("no such luck")
    norm = nn.BatchNorm1d(4)
    steps = (norm, nn.ReLU()) if order == "before" else (nn.ReLU(), norm)
    return nn.Sequential(nn.Linear(3, 4), *steps)


def inspection(act="fine", order="before", **options):
    arms = [{"given": order, "order": order, "options": {"act": act, **options}}]
    return {"task": "inspect", "arms": arms, "engine": "auto", "device": "cpu"}


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    x, y = np.random.default_rng(0).normal(size=(16, 3)).astype("f4"), np.arange(16) % 4
    folder = make("toy", x, y, x, y).save(tmp_path_factory.mktemp("data") / "data")
    return {
        "source": resolve(builder),
        "data": str(folder),
        "threads": 1,
        "path": import_path(),
    }


@pytest.fixture(scope="module")
def pair(setup):
    """Two workers that the tests must leave able to work."""
    with LocalExecutor(2, 1, setup, patience=0.3) as executor:
        list(executor.run([("warm", inspection()), ("up", inspection())]))
        yield executor


def kinds(events):
    return {event.key: event.kind for event in events if event.kind != "silent"}


class TestTwoWorkers:
    def test_every_task_is_answered(self, pair):
        tasks = [(number, inspection()) for number in range(5)]
        assert kinds(pair.run(tasks)) == dict.fromkeys(range(5), "done")

    def test_the_users_output_and_input_disturb_nothing(self, pair):
        events = list(pair.run([("loud", inspection("print")), ("quiet", inspection())]))
        assert kinds(events) == {"loud": "done", "quiet": "done"}

    def test_an_error_is_an_answer_and_the_worker_lives_on(self, pair):
        events = {
            e.key: e for e in pair.run([("bad", inspection("error")), ("good", inspection())])
        }
        assert events["good"].kind == "done"
        assert events["bad"].kind == "error"
        with pytest.raises(InputError, match="RuntimeError: no such luck"):
            raise_remote(events["bad"].data)
        assert pair.alive == 2

    def test_an_order_that_is_none_comes_back_as_the_error_it_was(self, pair):
        task = {"task": "no such task"}
        event = next(e for e in pair.run([("odd", task)]) if e.kind != "silent")
        assert event.kind == "error"
        with pytest.raises(InputError, match="no such task"):
            raise_remote(event.data)

    def test_leaving_early_leaves_no_worker_marked_busy(self, pair):
        for _ in range(2):
            for event in pair.run([("first", inspection())]):
                if event.kind == "done":
                    break
        assert not any(worker.busy for worker in pair.workers)
        assert kinds(pair.run([(n, inspection()) for n in range(3)])) == dict.fromkeys(
            range(3), "done"
        )

    def test_what_was_left_unfinished_does_not_show_up_later(self, pair):
        tasks = [("slow", inspection("sleep")), ("quick", inspection())]
        assert next(e.key for e in pair.run(tasks) if e.kind == "done") == "quick"
        assert any(worker.busy for worker in pair.workers)
        later = [(number, inspection()) for number in range(3)]
        assert kinds(pair.run(later)) == dict.fromkeys(range(3), "done")
        assert not any(worker.busy for worker in pair.workers)

    def test_tasks_are_drawn_only_when_a_worker_is_free(self, pair):
        drawn = []

        def tasks():
            for number in range(10):
                drawn.append(number)
                yield number, inspection()

        events = (e for e in pair.run(tasks()) if e.kind == "done")
        next(events)
        assert len(drawn) <= 3
        list(events)
        assert drawn == list(range(10))

    def test_a_silence_is_an_event_with_what_is_being_done(self, pair):
        events = list(pair.run([("slow", inspection("sleep"))]))
        assert events[0].kind == "silent"
        assert events[0].data == ["slow"]
        assert events[-1].kind == "done"


class TestDeath:
    def test_a_worker_that_dies_takes_only_its_own_task_along(self, setup):
        with LocalExecutor(2, 1, setup) as executor:
            tasks = [
                ("dies", inspection("exit")),
                ("lives", inspection("sleep")),
                (3, inspection()),
            ]
            events = {event.key: event for event in executor.run(tasks)}
            assert kinds(events.values()) == {"dies": "died", "lives": "done", 3: "done"}
            assert "ended with code 3" in events["dies"].data
            assert "these are my last words" in events["dies"].data
            assert executor.alive == 1
            # One that dies while it has nothing to do is found when it gets a task.
            survivor = next(w for w in executor.workers if w.connection)
            survivor.process.kill()
            survivor.process.wait()
            event = next(executor.run([("last", inspection())]))
            assert (event.kind, event.key) == ("died", "last")
            assert "code -9 (killed; out of memory?)" in event.data
            assert executor.alive == 0

    def test_leaving_ends_a_worker_that_hangs_and_what_it_started(self, setup, tmp_path):
        note = tmp_path / "child"
        start = time.monotonic()
        with LocalExecutor(1, 1, setup, patience=0.2) as executor:
            for _ in executor.run([("hangs", inspection("child", note=str(note)))]):
                if note.exists() and note.read_text():
                    break
            pid = executor.workers[0].process.pid
            left = time.monotonic()
        assert time.monotonic() - left < 5
        assert left - start < 100
        assert gone(pid)
        assert gone(int(note.read_text()))

    def test_a_worker_that_cannot_start_says_why(self, setup):
        broken = {"PYTHONPATH": "", "PYTHONHOME": "/nonexistent"}
        with pytest.raises(InputError, match=r"didn't start. Its last words: .*\w"):
            LocalExecutor(2, 1, setup, broken).__enter__()

    def test_a_backend_that_is_not_there_is_an_answer(self, setup):
        with LocalExecutor(1, 1, setup, {"KERAS_BACKEND": "caffe"}) as executor:
            events = list(executor.run([(1, inspection()), (2, inspection())]))
        assert kinds(events) == {1: "error", 2: "error"}
        assert "caffe" in events[0].data[1]

    def test_a_folder_for_temporary_files_with_a_long_name(self, setup, monkeypatch, tmp_path):
        long = tmp_path / ("a long name with spaces " * 5)
        long.mkdir()
        monkeypatch.setattr(executor_module.tempfile, "tempdir", str(long))
        with LocalExecutor(1, 1, setup) as executor:
            assert kinds(executor.run([("task", inspection())])) == {"task": "done"}


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
from relucate.study.executor import LocalExecutor
from tests.study.test_executor import inspection
import pickle
setup = pickle.loads(bytes.fromhex({setup!r}))
with LocalExecutor(2, 1, setup, patience=0.2) as executor:
    tasks = [(1, inspection("hang")), (2, inspection())]
    for event in executor.run(tasks):
        if event.kind == "done":
            print(*[worker.process.pid for worker in executor.workers], flush=True)
"""


def test_workers_end_soon_when_their_driver_is_killed(setup):
    root = Path(__file__).parents[2]
    code = ORPHANS.format(path=[str(root)], setup=pickle.dumps(setup).hex())
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert all(gone(pid) for pid in workers)  # one hangs in the user's code, one waits
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()


def test_errors_keep_their_kind_across_processes():
    with pytest.raises(Refused, match="why"):
        raise_remote(("Refused", "why"))
    with pytest.raises(InputError, match="what"):
        raise_remote(("InputError", "what"))
    with pytest.raises(InputError, match="trace"):
        raise_remote(("Failure", "trace"))
