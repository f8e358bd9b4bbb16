"""What was measured at the points of a network: the streams, and the figures that come of them.

`measure` runs whatever gives the values and streams them by point, in threads of its own; `Seen` is
the result at one point. Not here: where the points are (`surgery.points`), what gives the values.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import InputError
from ..graph import Graph
from .channels import Channels

Each = Callable[[str, np.ndarray], None]
Watch = Callable[[Sequence[str], Iterator[list[np.ndarray]], Each], None]
_THREADS = min(4, os.cpu_count() or 1)
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


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """Give threads to measure in; NumPy lets them run while a model computes.

    NumPy's BLAS has one thread in them: more would cost more time than such small products take.
    """
    blas = ThreadpoolController()
    own = [found["filepath"] for found in blas.info() if "numpy" in found["filepath"]]
    with blas.select(filepath=own).limit(limits=1), ThreadPoolExecutor(_THREADS) as pool:
        yield pool


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
            queue.wait()
            number += 1
            yield batch

    def not_finite(name: str) -> InputError:
        first = sum(len(batch[0]) for batch in batches[:number])
        last = first + len(batches[number][0]) - 1
        return InputError(
            f"the {what} of '{graph.nodes[name].layer_name}' ({name}) isn't finite, first in "
            f"batch {number} (examples {first} to {last})."
        )

    with threads() as pool:
        queue = _Queue(pool, streams, not_finite)
        watch(list(streams), counted(), queue.add)
        queue.wait()
    return queue.found


class _Queue:
    """Values that threads add to their streams, in order; they take a bounded amount of memory."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        streams: Mapping[str, Channels],
        not_finite: Callable[[str], InputError],
    ) -> None:
        self._pool, self._streams, self._not_finite = pool, streams, not_finite
        self._waiting: deque[tuple[str, int, Future[bool]]] = deque()
        self.found: set[str] = set()

    def add(self, name: str, value: np.ndarray) -> None:
        self.found.add(name)
        if any(name == waiting for waiting, *_ in self._waiting):
            self.wait()
        value = np.asarray(value)
        job = self._pool.submit(self._streams[name].add, value)
        self._waiting.append((name, value.nbytes, job))
        self.wait(_MOST)

    def wait(self, most: int = 0) -> None:
        """Wait until at most so many bytes are left; a value that isn't finite raises."""
        size = sum(size for _, size, _ in self._waiting)
        while self._waiting and size > most:
            name, own, job = self._waiting.popleft()
            size -= own
            if not job.result():
                raise self._not_finite(name)


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
