"""Workers that start before their study is planned: who gets them, and that none is left."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import relucate
from relucate.data import make
from relucate.study import devices, early
from relucate.study.early import Started, end, start, take, workers
from relucate.study.environment import variables
from relucate.study.executors import Setup
from relucate.study.executors.local import LocalExecutor
from relucate.study.source import resolve


class Process:
    """A process that does nothing, and notes that it was killed."""

    stdin = None

    def __init__(self, ended=False):
        self.pid, self.ended = 2**31 - 1, ended

    def poll(self):
        return 0 if self.ended else None

    def kill(self):
        self.ended = True

    def wait(self):
        return 0


@pytest.fixture
def started(monkeypatch):
    """What was started, instead of starting it."""
    found = []

    def pretend(log, environment, *more):
        log.write_bytes(b"")
        found.append(Started(Process(), log.open("rb"), environment))
        return found[-1]

    monkeypatch.setattr(early, "start", pretend)
    monkeypatch.setattr("relucate.cores.cores", lambda: 4)
    monkeypatch.setattr(devices, "_installed_gpus", lambda: ())
    yield found
    for each in found:
        each.log.close()


def test_one_per_core_in_the_environment_of_the_executor(started):
    with workers("cnn", {"threads": 2}):
        assert [each.environment for each in started] == [{**os.environ, **variables(2)}] * 2
        assert take({**os.environ, **variables(1)}) is None
        assert take({**os.environ, **variables(2)}) is started[0]
    assert not started[0].process.ended  # its executor ends it
    assert started[1].process.ended


@pytest.mark.parametrize(
    ("model", "given", "count"),
    [
        (None, {}, 4),
        ("model.keras", {}, 4),
        ("mlp", {"jobs": 3}, 3),
        ("mlp", {"pairs": 1}, 2),
        ("mlp", {"device": "cpu"}, 4),
        ("mlp", {"device": "cuda"}, 0),  # there is none
        ("mlp", {"device": "cuda:0"}, 0),
        ("mlp", {"device": "mps"}, 0),
        ("mlp", {"device": "gpu"}, 0),  # the plan refuses it
        ("mlp", {"executor": "ray"}, 0),
        ("mlp", {"threads": 0}, 0),
        ("mlp", {"threads": "2"}, 0),
        ("mlp", {"jobs": "2"}, 0),
        ("mlp", {"imports": ["own.py"]}, 0),
        ("own.py:build", {}, 0),  # may set up its process before it imports anything
        (print, {}, 0),
    ],
)
def test_only_for_what_is_known_beforehand(started, model, given, count):
    with workers(model, given):
        assert len(started) == count
    assert all(each.process.ended for each in started)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", ["0", "3"]),
        ("cuda", ["0", "3"]),
        ("cuda:1", ["3"]),
        ("cuda:1,cuda:0", ["3", "0"]),
        ("cuda:0,cuda:2", ["0"]),  # the plan refuses it
        ("cpu", [None] * 4),
    ],
)
def test_one_for_each_gpu(started, monkeypatch, device, expected):
    monkeypatch.setattr(devices, "_installed_gpus", lambda: ("0", "3"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with workers("mlp", {"device": device}):
        assert [each.environment.get("CUDA_VISIBLE_DEVICES") for each in started] == expected


def test_they_are_those_that_the_plan_will_want(monkeypatch):
    """What PyTorch lists and what the machine's folder of devices has are named alike."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for listed in ("1, 3", "GPU-a,GPU-b", None):
        names = listed.replace(" ", "").split(",") if listed else ["0", "1"]
        if listed is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        monkeypatch.setattr(devices, "_installed_gpus", lambda names=names: tuple(names))
        for text in ("cuda", "cuda:1", "cuda:1,cuda:0"):
            of = devices.Devices.of(text)
            assert devices.likely_gpus(of) == devices.gpus_of(of)


def test_a_second_call_inside_starts_no_more(started):
    with workers("mlp", {}), workers("mlp", {}):
        assert len(started) == 4


def test_a_process_that_has_ended_is_not_taken(started):
    with workers("mlp", {"jobs": 1}):
        started[0].process.ended = True
        assert take(started[0].environment) is None


def test_where_none_can_be_started_the_study_goes_on(monkeypatch):
    def fails(*_):
        raise OSError("no room")

    monkeypatch.setattr(early, "start", fails)
    with workers("mlp", {}):
        assert not early._waiting


def test_it_imports_little():
    code = "import relucate.study.early, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "keras", "torch", "scipy", "rich", "relucate.frameworks"}
    assert not heavy & set(done.stdout.split())


def test_without_a_driver_it_ends(tmp_path):
    waiting = start(tmp_path / "log", {**os.environ, **variables(1)}, early.EARLY)
    try:
        waiting.process.stdin.close()
        assert waiting.process.wait(120) in (0, -9)  # by itself, or by its guard
        assert waiting.log.read() == b""
    finally:
        end(waiting)


def test_the_executor_takes_them_and_ends_the_others(monkeypatch):
    x, y = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32), np.arange(20) % 2
    setup = Setup(resolve("mlp"), make("toy", x, y, x, y), 1, 1)
    with workers("mlp", {"jobs": 2}):
        one, other = early._waiting
        with LocalExecutor(setup) as executor:
            assert executor.workers[0].started is one
            assert not early._waiting
            assert other.process.poll() is not None
            assert executor.alive == 1
        assert one.process.poll() is not None


def test_the_bits_are_the_same(monkeypatch):
    """A study whose workers imported before they knew their task, and one whose did not."""
    more = {"options": {"width": 4, "depth": 1}, "recipe": {"epochs": 1}, "pairs": 2, "jobs": 1}
    taken = []
    monkeypatch.setattr(
        "relucate.study.executors.local.take", lambda found: taken.append(take(found)) or taken[-1]
    )
    with_early = relucate.compare("mlp", "digits", progress=False, **more).to_dict()
    assert taken[0] is not None
    monkeypatch.setattr(early, "_environments", lambda *_: ())
    without = relucate.compare("mlp", "digits", progress=False, **more).to_dict()
    assert taken[1] is None
    for run in (*with_early["runs"], *without["runs"]):
        run.pop("seconds")
    assert with_early["runs"] == without["runs"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_command_that_is_refused_leaves_no_process(tmp_path):
    command = [sys.executable, "-m", "relucate", "compare", "mlp", "--data", "nothing"]
    mine = {**os.environ, "RELUCATE_TEST": str(tmp_path)}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, env=mine
    )
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert not [path for path in Path("/proc").glob("[0-9]*") if mine_too(path, tmp_path)]


def mine_too(path, folder):
    try:
        return f"RELUCATE_TEST={folder}".encode() in (path / "environ").read_bytes()
    except OSError:  # it has ended
        return False
