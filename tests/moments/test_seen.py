"""Values are measured in threads: in their order, in bounded memory, with one thread of BLAS."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from relucate.errors import InputError
from relucate.moments import seen
from relucate.moments.channels import Channels
from relucate.moments.seen import measure, threads

GRAPH = SimpleNamespace(nodes={name: SimpleNamespace(layer_name=name) for name in "abc"})


def run(batches, streams, values):
    """Measure at each node what `values` makes of a batch."""

    def watch(names, given, each):
        for batch in given:
            for name in names:
                each(name, values(name, batch[0]))

    return measure(watch, GRAPH, streams, batches)


def test_every_batch_is_in_each_stream_and_in_order():
    x = np.random.default_rng(0).standard_normal((100, 4))
    streams = {name: Channels() for name in "abc"}
    batches = [[x[at : at + 7]] for at in range(0, 100, 7)]
    assert run(batches, streams, lambda name, part: part) == set("abc")
    whole = Channels()
    whole.add(x)
    for stream in streams.values():
        np.testing.assert_array_equal(stream.sample.values, whole.sample.values)
        np.testing.assert_allclose(stream.running.mean, x.mean(0), rtol=1e-12)


def test_the_first_value_that_is_not_finite_is_named():
    x = np.ones((20, 2))

    def values(name, part):
        return (
            part if name == "a" else part + np.where(np.arange(len(part)) == 3, np.nan, 0)[:, None]
        )

    streams = {name: Channels() for name in "abc"}
    with pytest.raises(InputError, match=r"'b' \(b\).*batch 1 \(examples 2 to 19\)"):
        run([[x[:2]], [x[2:]]], streams, values)


def test_a_node_that_runs_twice_keeps_its_order():
    x = np.random.default_rng(0).standard_normal((40, 2))

    def watch(names, given, each):
        for batch in given:
            each("a", batch[0][:3])
            each("a", batch[0][3:])

    streams = {"a": Channels()}
    measure(watch, GRAPH, streams, [[x[:20]], [x[20:]]])
    whole = Channels()
    whole.add(x)
    np.testing.assert_array_equal(streams["a"].sample.values, whole.sample.values)


def test_no_more_than_the_limit_waits(monkeypatch):
    monkeypatch.setattr(seen, "_MOST", 2 * 4 * 8)
    given, taken = [], []

    class Slow(Channels):
        def add(self, values):
            time.sleep(0.001)
            finite = super().add(values)
            taken.append(values)
            return finite

    def values(name, part):
        given.append(part)
        assert len(given) - len(taken) <= 4  # this one, one that ends, and two that wait
        return part

    streams = {name: Slow() for name in "abc"}
    run([[np.ones((4, 1))] for _ in range(20)], streams, values)
    assert len(given) == len(taken) == 60


def test_a_value_that_the_model_changes_in_place_is_measured_as_it_was():
    x = np.random.default_rng(0).standard_normal((1000, 50))
    streams = {name: Channels() for name in "abc"}

    def watch(names, given, each):
        for batch in given:
            value = batch[0].copy()
            for name in names:
                each(name, value)
                value *= 0

    measure(watch, GRAPH, streams, [[x]])
    np.testing.assert_allclose(streams["a"].running.mean, x.mean(0), rtol=1e-10)
    assert streams["b"].running.high.max() == 0


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_libraries_have_few_threads_while_measuring_and_their_own_number_afterwards(
    cores, monkeypatch
):
    monkeypatch.setattr(seen, "cores", lambda: cores)
    libraries = ThreadpoolController()

    def numbers():
        return {(x["user_api"], x["filepath"]): x["num_threads"] for x in libraries.info()}

    def most(kind, path):
        blas = kind == "blas" and "numpy" in path
        return 1 if blas else max(1, cores - number) if kind == "openmp" else 1 << 10

    before = numbers()
    with threads() as pools:
        number = len(pools)
        assert numbers() == {at: min(had, most(*at)) for at, had in before.items()}
    assert numbers() == before
