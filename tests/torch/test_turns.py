"""Runs that take turns in one process: none of them notices the others."""

import functools
import random
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relucate.torch import capture, train, trainer, turns
from relucate.torch.capture import Step
from relucate.torch.turns import Pace, Turn
from relucate.train import Recipe
from relucate.train.waiting import finish

from .on_a_gpu import images, net
from .test_capture import Generator

RECIPES = (
    {},
    {"optimizer": "adamw", "augment": ("flip", "crop"), "batch_size": 12},
    {"precision": "bf16", "validation": 0.25, "epochs": 3},
)


class Drawing(nn.Module):
    """A module that draws from every source of random numbers there is."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(72, 4)

    def forward(self, x):
        x = F.dropout(self.drop(x.flatten(1)), 0.2, self.training)
        if self.training:
            x = x * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        return self.head(x)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Let runs on the CPU wait after every step, as if a GPU worked alone."""
    monkeypatch.setattr(turns, "CHUNK", 1)
    monkeypatch.setattr(trainer, "mark_of", lambda device: lambda: lambda: True)


def state(model):
    return {key: x.clone() for key, x in model.state_dict().items()}


def all_in_turn(works):
    """Finish generators one step at a time; return their results and how often they took turns."""
    left, results, rounds = dict(enumerate(works)), {}, 0
    while left:
        rounds += len(left) > 1
        for number, work in list(left.items()):
            torch.rand(7), np.random.rand(3), random.random()  # someone else's draws
            try:
                next(work)
            except StopIteration as end:
                results[number] = end.value
                del left[number]
    return [results[number] for number in sorted(results)], rounds


@pytest.mark.parametrize("build", [lambda: net(dropout=0.3), Drawing], ids=["net", "drawing"])
def test_bits_do_not_depend_on_what_runs_beside(on_a_gpu, build):
    recipes = [Recipe(**{"epochs": 2, "batch_size": 16, **recipe}) for recipe in RECIPES]
    alone, together = [], [build() for _ in recipes]
    for recipe in recipes:
        random.seed(5), np.random.seed(5)
        model = build()
        alone.append((train(model, images(), recipe, seed=3), state(model)))

    def started(model, recipe):
        random.seed(5), np.random.seed(5)
        return (yield from trainer.training(model, images(), recipe, seed=3))

    results, rounds = all_in_turn(list(map(started, together, recipes)))
    assert rounds > 10
    for (expected, values), result, model in zip(alone, results, together, strict=True):
        assert result.loss == expected.loss
        assert result.curve == expected.curve
        for name, value in state(model).items():
            assert torch.equal(value, values[name]), name


def test_each_run_goes_on_with_its_own_state_of_the_gpu(monkeypatch):
    gpu = Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", [gpu])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def drawn(turn):
        with turn._own_draws():
            return torch.rand(3).tolist()

    torch.manual_seed(7)
    everyones = gpu.graphsafe_get_state()
    alone, one, other = (Turn(torch.device("cpu"), tf32=False) for _ in range(3))
    expected = [drawn(alone) for _ in range(3)]
    assert len({tuple(values) for values in expected}) == 3
    found = []
    for _ in range(3):
        found.append(drawn(one))
        drawn(other), drawn(other)
    assert found == expected
    assert gpu.graphsafe_get_state() is everyones


def test_without_a_gpu_no_run_waits():
    work = trainer.training(net(), images(), Recipe(epochs=2, batch_size=16), seed=0)
    with pytest.raises(StopIteration) as end:
        next(work)
    assert end.value.value.status == "done"


def test_a_run_that_is_dropped_puts_the_settings_back(on_a_gpu):
    before = torch.backends.cudnn.deterministic, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        work = trainer.training(net(), images(), Recipe(epochs=2, batch_size=16), seed=0)
        next(work)
        assert torch.get_float32_matmul_precision() == "high"  # others' turn
        work.close()
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.deterministic == before[0]
    finally:
        torch.set_float32_matmul_precision(before[1])


def test_a_run_is_at_most_two_chunks_ahead(monkeypatch):
    monkeypatch.setattr(turns, "CHUNK", 3)
    made = []

    def mark():
        number = len(made)
        made.append(number)
        return lambda: number

    pace = Pace(Turn(torch.device("cpu"), tf32=False), mark)
    with pace._turn:
        waits = [[ready() for ready in pace.step()] for _ in range(12)]
        assert waits == [[]] * 5 + [[0]] + [[]] * 2 + [[1]] + [[]] * 2 + [[2]]
        assert [ready() for ready in pace.end()] == [4]


def test_finish_returns_the_result_of_what_waits():
    def work():
        yield lambda: False
        return 3

    assert finish(work()) == 3


class Graph:
    """A graph that notes which thread repeats it."""

    def __init__(self, step, threads):
        self._step, self._threads = step._step, threads

    def replay(self):
        self._threads.add(threading.current_thread().name)
        self._step()


class TestCapturedSteps:
    @pytest.fixture
    def threads(self, monkeypatch):
        """Let runs on the CPU repeat their steps as on a GPU; return the threads that did."""
        threads = set()

        def repeated(engine):
            return Step(engine.step, engine.model, Nothing())

        monkeypatch.setattr(capture, "_host_state", lambda model: {})
        monkeypatch.setattr(Step, "_captured", lambda step: Graph(step, threads))
        monkeypatch.setattr(trainer.Engine, "_repeated", repeated)
        return threads

    def test_a_thread_gives_them_and_the_bits_are_the_same(self, on_a_gpu, threads):
        recipe = Recipe(epochs=3, batch_size=16)
        models = [net() for _ in range(3)]
        expected = train(net(), images(), recipe, seed=3)
        assert "steps" in threads
        started = [trainer.training(model, images(), recipe, seed=3) for model in models]
        results, _ = all_in_turn(started)
        for result in results:
            assert result.loss == expected.loss
            assert result.curve == expected.curve

    def test_without_a_mark_they_need_no_thread(self, threads):
        train(net(), images(), Recipe(epochs=2, batch_size=16), seed=3)
        assert threads == {threading.current_thread().name}

    def test_an_error_in_the_thread_is_the_run_s(self, on_a_gpu, threads, monkeypatch):
        def replay(graph):
            raise RuntimeError("CUDA error: the GPU is gone")

        monkeypatch.setattr(Graph, "replay", replay)
        with pytest.raises(RuntimeError, match="the GPU is gone"):
            train(net(), images(), Recipe(epochs=2, batch_size=4), seed=3)

    def test_a_run_that_ends_waits_for_what_the_thread_still_gives(self):
        given, may_go = [], threading.Event()

        def step():
            may_go.wait(10)
            given.append(len(given))

        turn = Turn(torch.device("cpu"), tf32=False)
        with turn:
            pace = Pace(turn, lambda: lambda: True)
            assert list(pace.repeat(step, 2)) == []
            ready = next(pace.repeat(step, 3))
            assert not ready()
            threading.Timer(0.05, may_go.set).start()
            pace.settle()
        assert given == [0, 1, 2, 3, 4]
        assert ready()

    @pytest.mark.parametrize("at_its_end", [False, True])
    def test_so_does_a_run_that_is_dropped_while_it_waits(self, at_its_end):
        given, may_go, turn = [], threading.Event(), Turn(torch.device("cpu"), tf32=False)

        def step():
            may_go.wait(10)
            given.append(1)

        with turn:
            pace = Pace(turn, lambda: lambda: True)
            chunks = pace.repeat(step, turns.CHUNK if at_its_end else 2 * turns.CHUNK)
            if at_its_end:
                assert list(chunks) == []
                chunks = pace.end()
            assert not next(chunks)()
            chunks.close()
            threading.Timer(0.05, may_go.set).start()
            pace.settle()
        assert len(given) == (1 if at_its_end else 2) * turns.CHUNK

    def test_runs_get_one_step_each_in_turn(self):
        given, begun, may_go = [], threading.Event(), threading.Event()
        turn = Turn(torch.device("cpu"), tf32=False)

        def busy():
            begun.set()
            may_go.wait(10)

        with turn:
            first, second, third = (Pace(turn, lambda: lambda: True) for _ in range(3))
            list(first.repeat(busy, 1))  # so that the others come at the same time
            begun.wait(10)
            a, b = (functools.partial(given.append, name) for name in "ab")
            for pace, step, count in ((second, a, 2), (second, a, 1), (third, b, 4)):
                next(pace.repeat(step, count), None)
            may_go.set()
            for pace in (first, second, third):
                pace.settle()
        assert given == list("abababb")

    def test_they_are_given_a_chunk_at_a_time_and_at_most_two_ahead(self, monkeypatch):
        monkeypatch.setattr(turns, "CHUNK", 2)
        given, marks, turn = [], [], Turn(torch.device("cpu"), tf32=False)

        def mark():
            marks.append(len(given))
            return lambda: True

        with turn:
            pace = Pace(turn, mark)
            for waits, _ in enumerate(pace.repeat(lambda: given.append(1), 5), 1):
                pace._ahead[-1].result(10)
                assert len(given) == min(2 * waits + 2, 5)
            list(pace.end())
        assert waits == 2
        assert marks == [2, 4, 5]

    def test_one_run_s_error_is_not_the_others(self):
        def fails():
            raise ValueError("of this run")

        given, turn = [], Turn(torch.device("cpu"), tf32=False)
        with turn:
            good, bad = (Pace(turn, lambda: lambda: True) for _ in range(2))
            list(good.repeat(lambda: given.append(1), 3))
            list(bad.repeat(fails, 3))
            with pytest.raises(ValueError, match="of this run"):
                list(bad.end())
            good.settle()
        assert given == [1, 1, 1]


class Nothing:
    """The draws of a run that draws nothing."""

    begin = reseed = capture = captured = lambda self, **_: None
