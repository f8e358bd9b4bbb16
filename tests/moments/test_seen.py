"""Values are measured in threads: in their order, in bounded memory, with one thread of BLAS."""

from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info

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


def test_no_more_than_the_limit_waits(monkeypatch):
    monkeypatch.setattr(seen, "_MOST", 4 * 8)
    waiting = []

    class Slow(Channels):
        def add(self, values):
            waiting.append(sum(size for _, size, _ in queue[0]._waiting))
            return super().add(values)

    queue, made = [], seen._Queue.__init__
    monkeypatch.setattr(
        seen._Queue, "__init__", lambda self, *args: (queue.append(self), made(self, *args))[1]
    )
    streams = {name: Slow() for name in "abc"}
    run([[np.ones((4, 1))] for _ in range(20)], streams, lambda name, part: part)
    assert len(waiting) == 60
    assert max(waiting) <= 2 * 4 * 8


def test_blas_has_one_thread_while_measuring_and_its_own_number_afterwards():
    def numbers():
        return [x["num_threads"] for x in threadpool_info() if "numpy" in x["filepath"]]

    before = numbers()
    with threads():
        assert set(numbers()) <= {1}
    assert numbers() == before
