"""How many runs a GPU takes best: when measuring ends, with a pretended device and clock."""

from types import SimpleNamespace

import pytest
import torch

from relucate.torch import side_by_side as measuring
from relucate.train.waiting import WORTH


@pytest.fixture
def gpu(monkeypatch):
    """A device whose steps take what `took` says, by the number of runs; `room`: for how many."""
    gpu = SimpleNamespace(now=0.0, runs=[], closed=0, took={}, room=99)
    gpu.captured = lambda number: True

    class Running:
        def __init__(self, model, *_):
            if len(gpu.runs) == gpu.room:
                raise torch.OutOfMemoryError("full")
            self.captured = gpu.captured(len(gpu.runs))
            self.engine = SimpleNamespace(close=self.close)
            gpu.runs.append(model)

        def step(self):
            gpu.now += gpu.took[len(gpu.runs)]

        def close(self):
            gpu.closed += 1

    monkeypatch.setattr(measuring, "_Running", Running)
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: gpu.now)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return gpu


def measured(device="cuda", counts=(1, 2, 4, 8)):
    models = iter(range(100))
    given = {"device": device, "channels_first": True, "task": None}
    return measuring.side_by_side(models, None, None, counts, **given)


def test_it_goes_on_while_a_run_gets_cheaper(gpu):
    gpu.took = {1: 0.01, 2: 0.006, 4: 0.004, 8: 0.003}
    assert measured() == pytest.approx(gpu.took)
    assert gpu.closed == len(gpu.runs) == 8


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_it_ends_with_the_first_number_that_is_not_worth_it(gpu, factor):
    second = 0.01 / WORTH * factor
    gpu.took = {1: 0.01, 2: second, 4: second, 8: second}
    found = measured()
    assert list(found) == ([1, 2, 4] if factor < 1 else [1, 2])
    assert gpu.closed == len(gpu.runs)


@pytest.mark.parametrize("room", [1, 3, 5])
def test_a_full_gpu_ends_it_with_what_was_found(gpu, room):
    gpu.took, gpu.room = {1: 0.01, 2: 0.006, 3: 0.005, 4: 0.004, 5: 0.004}, room
    assert list(measured()) == {1: [1], 3: [1, 2], 5: [1, 2, 4]}[room]
    assert gpu.closed == room


def test_a_gpu_that_is_full_with_one_run_is_an_error(gpu):
    gpu.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        measured()


def test_a_step_that_is_not_captured_gives_nothing(gpu):
    gpu.took, gpu.captured = {1: 0.01, 2: 0.001}, lambda number: number == 0
    assert measured() == {}
    assert gpu.closed == 2


def test_another_device_gives_nothing(gpu):
    assert measured(device="cpu") == {}
    assert gpu.runs == []


@pytest.mark.parametrize(("alone", "steps"), [(10.0, 4), (0.0025, 40), (1e-6, 64)])
def test_a_measurement_takes_a_tenth_of_a_second_in_four_to_64_steps(gpu, alone, steps):
    gpu.took = {1: alone}
    measured(counts=(1,))
    assert gpu.now == pytest.approx((4 + steps) * alone)
