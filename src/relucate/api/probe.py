"""`relucate.probe`: run a model on data once, and measure what its norms and layers see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import on_host, texts, whole
from ..errors import InputError
from ..frameworks import framework_of, full_float32
from ..graph import Graph
from ..moments.channels import Channels
from ..moments.claims import claims
from ..moments.sample import EDGES
from ..phrases import count, some
from ..surgery.audit import hidden_text
from ..surgery.points import Place, Point, places
from ..train.framework import ReadModel
from .inputs import arrays_for
from .shown import Shown

SCHEMA = "relucate.probe/1"
_FEW = 96  # below, the standard error of a normal distribution's skewness, sqrt(6 / n), is over 1/4
_VERY_FEW = 30


@dataclass(frozen=True)
class Seen:
    """What was measured at one point.

    Attributes:
        node: the node of the graph whose output it is; layer: its layer.
        roles: what it is, at which site: pairs of a site's node and a role.
        count: values per channel; kept: of them, in the sample behind quantiles and distances.
        precision: how far a channel's distribution function may be off in the sample (95 %).
        statistics: per channel, arrays of shape (channels,), by name; `histogram` (channels, 14).
    """

    node: str
    layer: str
    roles: tuple[tuple[str, str], ...]
    count: int
    kept: int
    precision: float
    statistics: Mapping[str, np.ndarray]

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
            }
        live = ~s["constant"]
        found = {name: _middle(values[live]) for name, values in per_channel.items()}
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
            "summary": self.summary,
            "statistics": {name: _plain(values) for name, values in self.statistics.items()},
        }


@dataclass(frozen=True)
class ProbeReport(Shown):
    """What the norms, the activations and the next layers of a model see. Prints as a table.

    Attributes: sites: each norm (in a model without norms each activation) with its points by role;
        points: a `Seen` for each; unseen: nodes whose values can't be looked at; examples: how many
        the figures are of; warnings: figures that aren't reliable, layers that couldn't be read.
    """

    model: str
    framework: str
    examples: int
    sites: tuple[Place, ...]
    points: tuple[Seen, ...]
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __getitem__(self, node: str) -> Seen:
        """Return what was measured at a node.

        Raises: InputError: no such point.
        """
        for point in self.points:
            if point.node == node:
                return point
        raise InputError(f"no point '{node}': {some([p.node for p in self.points], 12)}.")

    @property
    def claims(self) -> tuple[str, ...]:
        """What is said of norms and activations, with what was measured here, in sentences."""
        return tuple(claim["text"] for claim in self.to_dict()["claims"])

    def plot(self, kind: str = "channels", ax: Any = None) -> Any:
        """Draw `kind` with matplotlib and return the axes; it needs no other call.

        Args: kind: "channels", the skewness of all channels by depth at the norm's input and
            output; ax: matplotlib axes to draw on; by default those of a new figure.
        Raises: InputError: another kind.
        """
        from ..report.probe import plot

        return plot(self.to_dict(), kind, ax)

    def _data(self) -> dict[str, Any]:
        sites = [
            {
                "name": site.name,
                "node": site.node,
                "norm": site.norm,
                "kind": site.kind,
                "order": site.order,
                "act_op": site.act_op,
                "points": dict(site.points),
                "unknown": list(site.unknown),
            }
            for site in self.sites
        ]
        points = [point.to_dict() for point in self.points]
        return {
            "schema": SCHEMA,
            "model": self.model,
            "framework": self.framework,
            "examples": self.examples,
            "edges": EDGES.tolist(),
            "sites": sites,
            "points": points,
            "claims": claims(sites, points),
            "unseen": list(self.unseen),
            "warnings": list(self.warnings),
        }

    def _views(self) -> Any:
        from ..report.probe import print_probe, probe_html

        return print_probe, probe_html

    def __repr__(self) -> str:
        return f"<ProbeReport: {len(self.sites)} sites, {len(self.points)} points>"


@full_float32()
def probe(
    model: Any,
    data: Any,
    *,
    batch: int = 32,
    site: str | None = None,
    example: Any = None,
    leaves: Iterable[str] = (),
) -> ProbeReport:
    """Return what each norm, each activation and each next linear layer of a model sees.

    At every site of `audit`: the linear layer's output, the norm's input and output, the
    activation's input and output, the next linear layer's input; what is the same value is measured
    once. In a model without norms the sites are the activations. The model runs as at inference,
    once, and is never changed. Per channel: mean, variance, skewness, excess kurtosis, smallest and
    largest value, and shares of zeros are exact for these data; quantiles (15, 50, 85 %), the
    histogram and the distance from the normal distribution are of a sample of positions, with the
    stated `precision`. A channel is dead (`constant`) if it has one value on all the data.

    Args:
        model: a Keras model, on any backend, or a torch module.
        data: inputs in the model's layout, one array per input, as the model is trained on.
        batch: examples per batch; it changes no figure by more than 1e-9.
        site: look only at sites with this text in their names.
        example, leaves: for torch, as in `audit`; the example is the first of `data` by default.

    Raises: InputError: data that don't fit or are one example, no such site, values inside the
    model that aren't finite (the layer and the batch are named). Refused: it can't be read.

    >>> import keras
    >>> net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4),
    ...                         keras.layers.BatchNormalization(name="norm"), keras.layers.ReLU()])
    >>> report = probe(net, np.random.default_rng(0).standard_normal((200, 8)))
    >>> report["norm"].roles
    (('norm', 'norm_out'), ('norm', 'act_in'))
    >>> report["norm"].statistics["mean"].shape
    (4,)
    """
    batch = whole(batch, "batch", 1)
    read = framework_of(model).read(model, _example(data, example), texts(leaves, "leaves"))
    arrays = arrays_for(read.graph, data, "data")
    if len(arrays[0]) < 2:
        raise InputError("data of one example has no distribution: expected at least 2, got 1.")
    sites, points = places(read.graph, site)
    found = _measured(read, points, arrays, batch)
    return ProbeReport(
        model=read.graph.name,
        framework=read.graph.framework,
        examples=len(arrays[0]),
        sites=tuple(sites),
        points=tuple(
            _seen(point, found[point.node], sites) for point in points if point.node in found
        ),
        unseen=tuple(point.node for point in points if point.node not in found),
        warnings=tuple(_warnings(read.graph, sites, len(arrays[0]))),
    )


def _example(data: Any, example: Any) -> Any:
    """Return an example of the data for a framework that reads a model by one."""
    if example is not None:
        return example
    if isinstance(data, Mapping):
        return {name: _first(values) for name, values in data.items()}
    if isinstance(data, (list, tuple)):
        return tuple(_first(values) for values in data)
    return _first(data)


def _first(values: Any) -> np.ndarray:
    first = np.asarray(on_host(values))[:1]
    return first.astype(np.float32) if first.dtype.kind == "f" else first


def _measured(
    read: ReadModel, points: Sequence[Point], arrays: Sequence[np.ndarray], batch: int
) -> dict[str, Channels]:
    """Return the statistics by node, of the nodes that can be looked at.

    Raises: InputError: a value that isn't finite.
    """
    found: dict[str, Channels] = {}
    axes = {point.node: point.axis for point in points}
    at = 0

    def batches() -> Iterator[list[np.ndarray]]:
        nonlocal at
        for at in range(0, len(arrays[0]), batch):
            yield [x[at : at + batch] for x in arrays]

    def each(name: str, value: np.ndarray) -> None:
        channels = found.setdefault(name, Channels(axes[name]))
        if not channels.add(np.asarray(value)):
            layer, end = read.graph.nodes[name].layer_name, min(at + batch, len(arrays[0]))
            raise InputError(
                f"the output of '{layer}' ({name}) isn't finite, first in batch {at // batch} "
                f"(examples {at} to {end - 1})."
            )

    read.watch(list(axes), batches(), each)
    return found


def _seen(point: Point, channels: Channels, sites: Sequence[Place]) -> Seen:
    roles = ((s.node, role) for s in sites for role, node in s.points.items() if node == point.node)
    return Seen(
        point.node,
        point.layer,
        tuple(roles),
        channels.running.count,
        len(channels.sample.values),
        channels.sample.precision,
        channels.statistics(),
    )


def _warnings(graph: Graph, sites: Sequence[Place], examples: int) -> Iterator[str]:
    if examples < _FEW:
        unsure = "skewness and kurtosis"
        if examples < _VERY_FEW:
            unsure += ", quantiles, distances from the normal and dead channels"
        yield f"{count(examples, 'example')} are few: {unsure} aren't reliable."
    unknown = [name for site in sites for name in site.unknown]
    if unknown:
        names = some(list(dict.fromkeys(unknown)), 5)
        yield f"{names} couldn't be read: the roles of the points next to them may be others."
    if hidden := graph.hidden_norms:
        yield f"{hidden_text(hidden)}. They weren't looked at."
    if not any(site.norm for site in sites):
        yield "there are no norms: the sites are the activations."


def _middle(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _plain(values: np.ndarray) -> list[Any]:
    """Return an array as JSON has it: six significant digits, null for what is undefined."""
    if values.dtype.kind in "biu":
        return values.tolist()
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in values.tolist()]
