"""What was measured at the points of a network: the streams, and the figures that come of them.

`measure` runs whatever gives the values and streams them by point, in threads of its own; `Seen` is
the result at one point. Not here: where the points are (`surgery.points`), what gives the values.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from ..cores import cores
from ..errors import InputError
from ..graph import Graph
from .channels import Channels

Each = Callable[[str, np.ndarray], None]
_One = TypeVar("_One")
_Other = TypeVar("_Other")
Watch = Callable[[Sequence[str], Iterator[list[np.ndarray]], Each], None]
_MANY = 4  # cores
_MOST = 1 << 26  # bytes that wait to be measured


@dataclass(frozen=True)
class Seen:
    """What was measured at one point.

    Attributes:
        node: the node of the graph whose output it is; layer: its layer.
        roles: what it is, at which site: pairs of a site's node and a role.
        count: values per channel; kept: of them, in the sample behind quantiles and distances.
        precision: how far a channel's distribution function may be off in the sample (95 %).
        statistics: per channel, arrays of shape (channels,), by name; `histogram` (channels, 14).
        rank: the effective rank of the channels, None where it wasn't measured.
    """

    node: str
    layer: str
    roles: tuple[tuple[str, str], ...]
    count: int
    kept: int
    precision: float
    statistics: Mapping[str, np.ndarray]
    rank: float | None = None

    @property
    def summary(self) -> dict[str, float | int | None]:
        """Medians over the channels that aren't dead (`zeros`: the mean over all), and `dead`."""
        s = self.statistics
        with np.errstate(invalid="ignore", divide="ignore"):
            per_channel = {
                "skewness": np.abs(s["skewness"]),
                "kurtosis": s["kurtosis"],
                "normal_distance": s["normal_distance"],
                "mean_in_sd": np.abs(s["mean"]) / np.sqrt(s["variance"]),
                "saturation": s["saturation"],
                "asymmetry": s["asymmetry"],
                "sparsity": s["sparsity"],
                "rms": np.sqrt(s["variance"] + s["mean"] ** 2),
            }
        live = ~s["constant"]
        found = {name: middle(values[live]) for name, values in per_channel.items()}
        return {**found, "zeros": float(s["zeros"].mean()), "dead": int(s["constant"].sum())}

    def to_dict(self) -> dict[str, Any]:
        """Return it as the JSON of `relucate probe` has it."""
        return {
            "node": self.node,
            "layer": self.layer,
            "roles": [{"site": site, "role": role} for site, role in self.roles],
            "channels": len(self.statistics["mean"]),
            "count": self.count,
            "kept": self.kept,
            "precision": self.precision,
            "rank": None if self.rank is None else float(f"{self.rank:.6g}"),
            "summary": self.summary,
            "statistics": {name: _plain(values) for name, values in self.statistics.items()},
        }

    def brief(self) -> dict[str, Any]:
        """Return the figures of a typical channel: what a study keeps of each step.

        `quantiles`: 15, 50 and 85 %, each the median over the channels that aren't dead; `sd` too;
        `histogram`: the shares of the standardised values of all of them together.
        """
        s = self.statistics
        live = ~s["constant"]
        counts = s["histogram"][live].sum(0)
        return {
            "node": self.node,
            "layer": self.layer,
            "channels": len(live),
            "summary": {name: rounded(value) for name, value in self.summary.items()},
            "quantiles": [rounded(middle(s[name][live])) for name in ("q15", "q50", "q85")],
            "sd": rounded(middle(np.sqrt(s["variance"][live]))),
            "histogram": [rounded(share) for share in counts / max(counts.sum(), 1)],
        }


def seen(node: str, layer: str, roles: Sequence[tuple[str, str]], channels: Channels) -> Seen:
    """Return what a stream gave at a point."""
    sample, covariance = channels.sample, channels.covariance
    rank = None if covariance is None else covariance.effective_rank
    given = (channels.running.count, len(sample.values), sample.precision)
    return Seen(node, layer, tuple(roles), *given, channels.statistics(), rank)


def in_threads(function: Callable[[_One], _Other], items: Iterable[_One]) -> list[_Other]:
    """Return what a function makes of each item, computed in threads with one of BLAS each."""
    with _limited("blas", "numpy", 1), ThreadPoolExecutor(min(4, cores())) as pool:
        return list(pool.map(function, items))


@contextmanager
def threads() -> Iterator[list[ThreadPoolExecutor]]:
    """Give threads to measure in while a model computes; PyTorch keeps the other cores.

    NumPy's BLAS has one thread in them: more would cost more time than such small products take.
    """
    number = 1 if cores() < _MANY else 2  # more would wait for Python's lock
    with ExitStack() as stack:
        stack.enter_context(_limited("blas", "numpy", 1))
        stack.enter_context(_limited("openmp", "", max(1, cores() - number)))
        yield [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(number)]


@contextmanager
def _limited(kind: str, path: str, most: int) -> Iterator[None]:
    """Let libraries of a kind, with this text in their paths, have at most so many threads."""
    libraries = ThreadpoolController()
    large = [
        found["filepath"]
        for found in libraries.info()
        if found["user_api"] == kind and path in found["filepath"] and found["num_threads"] > most
    ]
    with libraries.select(filepath=large).limit(limits=most):
        yield


def measure(
    watch: Watch,
    graph: Graph,
    streams: Mapping[str, Channels],
    batches: Sequence[list[np.ndarray]],
    what: str = "output",
) -> set[str]:
    """Stream the values at nodes into `streams`; return the nodes that were seen.

    Raises: InputError: a value that isn't finite: the layer, and the batch that had it first.
    """
    number = -1

    def counted() -> Iterator[list[np.ndarray]]:
        nonlocal number
        for batch in batches:
            number += 1
            yield batch

    def not_finite(name: str, number: int) -> InputError:
        first = sum(len(batch[0]) for batch in batches[:number])
        last = first + len(batches[number][0]) - 1
        return InputError(
            f"the {what} of '{graph.nodes[name].layer_name}' ({name}) isn't finite, first in "
            f"batch {number} (examples {first} to {last})."
        )

    with threads() as pools:
        queue = _Queue(pools, streams, not_finite)
        watch(list(streams), counted(), lambda name, value: queue.add(name, value, number))
        queue.wait()
    return set(queue.places)


class _Queue:
    """Values that threads add to their streams; those that wait take a bounded amount of memory.

    A point has one thread, so that its values stay in order.
    """

    def __init__(
        self,
        pools: Sequence[ThreadPoolExecutor],
        streams: Mapping[str, Channels],
        not_finite: Callable[[str, int], InputError],
    ) -> None:
        self._pools, self._streams, self._not_finite = pools, streams, not_finite
        self._waiting: deque[tuple[str, int, int, Future[bool]]] = deque()
        self._size = 0
        self.places: dict[str, int] = {}  # of the points, in the order in which they came

    def add(self, name: str, value: np.ndarray, batch: int) -> None:
        own = np.array(value, order="K")  # the model may change it in place
        place = self.places.setdefault(name, len(self.places))
        job = self._pools[place % len(self._pools)].submit(self._streams[name].add, own)
        self._waiting.append((name, batch, own.nbytes, job))
        self._size += own.nbytes
        self.wait(_MOST)

    def wait(self, most: int = 0) -> None:
        """Wait until at most so many bytes are left; a value that isn't finite raises."""
        while self._waiting and self._size > most:
            name, batch, size, job = self._waiting.popleft()
            self._size -= size
            if not job.result():
                raise self._not_finite(name, batch)


def middle(values: np.ndarray) -> float | None:
    """Return the median of the finite values, None if there are none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def rounded(value: float | int | None) -> float | int | None:
    """Return a number with five significant digits."""
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def _plain(values: np.ndarray) -> list[Any]:
    """Return an array as JSON has it: six significant digits, null for what is undefined."""
    if values.dtype.kind in "biu":
        return values.tolist()
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in values.tolist()]
