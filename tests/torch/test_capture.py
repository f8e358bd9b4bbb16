"""A step is captured only if it does the same at every call, and draws as without a graph."""

import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relucate.data import load
from relucate.torch import capture, trainer
from relucate.torch.capture import Step, obstacle, watched
from relucate.torch.dropout import Draws
from relucate.torch.lowering.lower import Lowered
from relucate.torch.turns import Turn
from relucate.train import Recipe
from relucate.train.task import CLASSIFICATION

from .on_a_gpu import images, net


def engine(model, data=None, **options):
    recipe = Recipe(epochs=2, batch_size=8, **options)
    data = images() if data is None else data
    first = not isinstance(model, Lowered)
    here = torch.device("cpu")
    turn = Turn(here, tf32=False)
    made = trainer.Engine(model, data, recipe, 0, here, first, CLASSIFICATION, turn)
    made.model.train()
    made.feed.start(0, 0, made.rates[: made.feed.steps])
    return made


def lowered(act="relu"):
    keras = pytest.importorskip("keras")
    from relucate import nets
    from relucate.frameworks import lower
    from relucate.keras.framework import FRAMEWORK

    keras.utils.set_random_seed(0)
    return lower(
        FRAMEWORK.read(nets.build("cnn", "before", (8, 8, 1), 10, width=4, depth=2, act=act))
    )


def found(step, model):
    step()  # the optimizer makes its state
    return obstacle([watched(step, model), watched(step, model)])


MODULES = {
    "value": (lambda m, x: x / x.abs().max().item(), "waits for values of the GPU"),
    "mask": (lambda m, x: x * x[x > 0].mean(), "waits for values of the GPU .*index"),
    "nonzero": (lambda m, x: x * len(x.nonzero()), "waits for values of the GPU .*nonzero"),
    "Python's random": (lambda m, x: x * random.random(), "Python's random numbers changes"),
    "NumPy's random": (lambda m, x: x * np.random.rand(), "NumPy's random numbers changes"),
    "torch's random": (lambda m, x: x * torch.rand(()), "torch's random numbers on the CPU"),
    "counter": (lambda m, x: counted(m, x), "'1.calls' changes from step to step"),
}


class TestObstacles:
    OPTIONS = (
        {},
        {"optimizer": "adamw", "augment": ("flip", "crop")},
        {"precision": "bf16", "class_weight": "balanced", "label_smoothing": 0.1},
    )

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_our_own_step_has_none(self, options):
        model = net()
        del model[7]  # its dropout, which draws from the CPU's generator here
        made = engine(model, **options)
        assert found(made.step, made.model) == ""

    @pytest.mark.parametrize("act", ["relu", "maxout"])
    def test_the_step_of_a_lowered_network_has_none(self, act):
        made = engine(lowered(act), load("digits").subset(100, 20))
        assert found(made.step, made.model) == ""

    @pytest.mark.parametrize("kind", MODULES)
    def test_what_a_graph_would_not_repeat_is_found(self, kind):
        change, words = MODULES[kind]
        model = nn.Sequential(nn.Flatten(), Changing(change), nn.Linear(72, 4))
        made = engine(model)
        assert re.search(words, found(made.step, model))

    def test_copies_between_devices_are_found_and_numbers_of_the_host_are_none(self):
        here, there = torch.ones(3), torch.empty(3, device="meta")
        for copy in (lambda: there.copy_(here), lambda: here.to("meta")):
            found = obstacle([watched(copy, nn.Module())])
            assert found.startswith("it waits for values of the GPU (aten.")
        number = torch.tensor(2.0)
        assert obstacle([watched(lambda: there.mul_(number), nn.Module())]) == ""

    def test_operations_that_change_are_found(self):
        turns = iter([1, 1, 1, 2, 3, 4])  # two calls for the checks of the outputs

        def change(module, x):
            return x.mul(1.0) if next(turns) % 2 else x + 1.0

        model = nn.Sequential(nn.Flatten(), Changing(change), nn.Linear(72, 4))
        made = engine(model)
        assert "change from step to step" in found(made.step, model)

    def test_a_norm_that_counts_its_batches_on_the_host_waits(self):
        model = nn.Sequential(nn.BatchNorm2d(2, momentum=None), nn.Flatten(), nn.Linear(72, 4))
        made = engine(model)
        assert "waits" in found(made.step, model)


class Changing(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change, self.calls = change, 0

    def forward(self, x):
        return self.change(self, x)


def counted(module, x):
    module.calls += 1
    return x * module.calls


class Generator:
    """PyTorch's default generator as one of a GPU: with states that are exchanged in place."""

    def __init__(self):
        self.state = State()

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    def graphsafe_get_state(self):
        return self.state

    def graphsafe_set_state(self, state):
        self.state.bits = torch.get_rng_state()
        self.state = state
        torch.set_rng_state(state.bits)

    def clone_state(self):
        return State()


class State:
    def __init__(self):
        self.bits = torch.get_rng_state()

    def manual_seed(self, seed):
        self.bits = torch.Generator().manual_seed(seed).get_state()


class Masks(nn.Module):
    """Two dropout modules, one of them called twice, and a functional dropout between."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Dropout(0.5), nn.Dropout2d(0.5)
        self.seen = []

    def forward(self, x):
        a = self.second(self.first(x))
        b = F.dropout(x, 0.5, self.training)
        c = self.first(x)
        self.seen.append(torch.stack([a, b, c]))
        return a + b + c


class TestDraws:
    def test_a_captured_step_draws_what_it_draws_without_a_graph(self):
        x = torch.ones(4, 8, 3, 3)
        plain = Masks()
        draws = Draws(plain, 7, Generator())
        for _ in range(6):
            draws.begin()
            plain(x)

        model, registered = Masks(), []
        draws = Draws(model, 7, Generator())
        for _ in range(3):
            draws.begin()
            model(x)
        draws.capture(registered.append)
        assert len(registered) == 3
        draws.captured(done=True)  # nothing is drawn in a capture
        for _ in range(3):
            draws.reseed()
            draws._next = iter(registered)  # what the graph's kernels draw from
            model(x)
        for a, b in zip(plain.seen, model.seen, strict=True):
            assert torch.equal(a, b)
        assert not torch.equal(plain.seen[0], plain.seen[1])

    def test_the_capture_itself_takes_one_state_for_each_call(self):
        model, registered = Masks(), []
        draws = Draws(model, 7, Generator())
        draws.begin()
        model(torch.ones(4, 8, 3, 3))
        draws.capture(registered.append)
        model(torch.ones(4, 8, 3, 3))
        with pytest.raises(StopIteration):
            model.first(torch.ones(4))
        draws.captured(done=True)

    def test_a_capture_that_fails_leaves_the_draws_as_they_were(self):
        x, seen = torch.ones(4, 8, 3, 3), []
        for fails in (False, True):
            model, generator = Masks(), Generator()
            draws = Draws(model, 7, generator)
            for step in range(4):
                if fails and step == 2:
                    draws.capture(lambda state: None)
                    F.dropout(x, 0.5)  # a state that has seen a capture isn't used again
                    draws.captured(done=False)
                draws.begin()
                model(x)
            seen.append(model.seen)
        for a, b in zip(*seen, strict=True):
            assert torch.equal(a, b)

    def test_at_inference_nothing_is_drawn(self):
        model = Masks().eval()
        generator = Generator()
        draws = Draws(model, 7, generator)
        state = generator.state
        draws.begin()
        model(torch.ones(4, 8, 3, 3))
        assert generator.state is state
        assert draws._called == []


class Graph:
    """A CUDA graph as far as a step can tell: every replay is one step with its own draws."""

    def __init__(self, step):
        self.step, self.draws, self.states = step._step, step._draws, []
        self.draws.capture(self.states.append)
        self.draws.captured(done=True)

    def replay(self):
        self.draws._next = iter(self.states)
        self.step()


def with_graphs(engine):
    return Step(engine.step, engine.model, Draws(engine.model, 0, Generator()))


def without(engine):
    draws = Draws(engine.model, 0, Generator())

    def step():
        draws.begin()
        engine.step()

    return step


class TestStep:
    def trained(self, monkeypatch, repeated, **options):
        monkeypatch.setattr(trainer.Engine, "_repeated", repeated)
        model = net(dropout=0.3)
        recipe = Recipe(epochs=2, batch_size=8, **options)
        result = trainer.train(model, images(), recipe, seed=0)
        return [x.clone() for x in model.state_dict().values()], result

    def same(self, monkeypatch, **options):
        ours, result = self.trained(monkeypatch, with_graphs, **options)
        theirs, _ = self.trained(monkeypatch, without, **options)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        return result

    @pytest.mark.parametrize("options", [{}, {"optimizer": "adamw", "augment": ("flip",)}], ids=str)
    def test_it_trains_as_the_step_does(self, monkeypatch, options):
        graphs = []

        def captured(step):
            graphs.append(Graph(step))
            return graphs[-1]

        monkeypatch.setattr(capture, "_host_state", lambda model: {})  # dropout draws there here
        monkeypatch.setattr(Step, "_captured", captured)
        assert self.same(monkeypatch, **options).note == ""
        assert len(graphs) == 1
        assert len(graphs[0].states) == 1

    def test_a_capture_that_fails_trains_as_without_and_the_result_says_why(self, monkeypatch):
        def captured(step):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

        monkeypatch.setattr(capture, "_host_state", lambda model: {})
        monkeypatch.setattr(Step, "_captured", captured)
        result = self.same(monkeypatch)
        assert result.note.startswith("a training step can't be captured in a CUDA graph")
        assert "not permitted when stream is capturing" in result.note

    def test_a_gpu_that_is_full_is_no_obstacle_but_an_error(self, monkeypatch):
        """The run is repeated with fewer beside it; without a graph it would be slow in silence."""

        def captured(step):
            raise torch.OutOfMemoryError("full")

        monkeypatch.setattr(Step, "_captured", captured)
        step = Step(lambda: None, nn.Module(), FakeDraws())
        for _ in range(capture._FIRST):
            step()
        with pytest.raises(torch.OutOfMemoryError):
            step()
        assert step.note == ""

    def test_an_obstacle_is_noted_and_nothing_is_captured(self, monkeypatch):
        monkeypatch.setattr(Step, "_captured", lambda step: pytest.fail("captured"))
        calls = []
        model = nn.Module()
        step = Step(lambda: calls.append(torch.ones(2).sum().item()), model, FakeDraws())
        for _ in range(capture._FIRST + 2):
            step()
        assert len(calls) == capture._FIRST + 2
        assert "waits for values of the GPU (aten._local_scalar_dense" in step.note


class FakeDraws:
    def begin(self):
        pass
