"""`relucate.probe`: run a model on data once, and measure what its norms and layers see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import on_host, texts, whole
from ..backend import installed
from ..data.labels import read as read_labels
from ..errors import InputError, Refused, unknown
from ..frameworks import HOST, framework_of, full_float32, lower, named
from ..graph import Graph
from ..moments import rank
from ..moments.channels import Channels
from ..moments.claims import claims
from ..moments.rank import Covariance
from ..moments.sample import EDGES
from ..moments.seen import Seen, in_threads, measure, seen
from ..phrases import count, some
from ..surgery.audit import hidden_text
from ..surgery.points import Place, Point, places
from ..train.framework import Framework, ReadModel
from ..train.task import Task
from ..train.tasks import TASKS, task_for
from ..train.watching import Target, Watchable
from .inputs import arrays_for
from .shown import Shown

SCHEMA = "relucate.probe/1"
_FEW = 96  # below, the standard error of a normal distribution's skewness, sqrt(6 / n), is over 1/4
_VERY_FEW = 30


@dataclass(frozen=True)
class ProbeReport(Shown):
    """What the norms, the activations and the next layers of a model see. Prints as a table.

    Attributes: sites: each norm (in a model without norms each activation) with its points by role;
        points: a `Seen` for each; gradients: the same for the loss's gradients there, if they were
        asked for; unseen: nodes whose values can't be looked at; examples: how many the figures
        are of; warnings: figures that aren't reliable, layers that couldn't be read.
    """

    model: str
    framework: str
    examples: int
    sites: tuple[Place, ...]
    points: tuple[Seen, ...]
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gradients: tuple[Seen, ...] = ()

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

    def plot(
        self,
        kind: str = "channels",
        ax: Any = None,
        *,
        others: Sequence[ProbeReport] = (),
        dark: bool = False,
    ) -> Any:
        """Draw `kind` with matplotlib and return the axes; `.figure.savefig` writes SVG or PNG.

        Args:
            kind: "channels", the skewness of the channels by depth; "dead", the share of dead
                channels by depth; "distributions", small multiples by depth; "drift", the 15, 50
                and 85 % quantiles of what the next layer reads, over this report and the others.
            ax: matplotlib axes to draw on; by default those of a new figure.
            others: the model in the other order, beside this one; for "drift" the same model later.
            dark: for a dark page.
        Raises: InputError: another kind.
        """
        from ..report.probe import plot

        further = [report.to_dict() for report in others]
        return plot(self.to_dict(), kind, ax, others=further, dark=dark)

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
            "gradients": [point.to_dict() for point in self.gradients],
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
    gradients: bool = False,
    labels: Any = None,
    task: Task | str | None = None,
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

    `rank` is the effective rank (Roy and Vetterli, 2007) of what a linear layer reads, at most its
    number of channels: exp of the entropy of the covariance's normalised eigenvalues. With
    `gradients`, the same figures for the gradient of each example's loss at each point.

    Args:
        model: a Keras model, on any backend, or a torch module.
        data: inputs in the model's layout, one array per input, as the model is trained on.
        batch: examples per batch; it changes figures only by the rounding of the model itself.
        site: look only at sites with this text in their names.
        gradients: also measure gradients; labels: of the data, which they need; task: what the
            model is for ("classification", "regression", ...), by default what the labels are for.
            A Keras model is lowered to PyTorch for them.
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
    framework = framework_of(model)
    read = framework.read(model, _example(data, example), texts(leaves, "leaves"))
    arrays = arrays_for(read.graph, data, "data")
    if len(arrays[0]) < 2:
        raise InputError("data of one example has no distribution: expected at least 2, got 1.")
    target = _target(read.graph, gradients, labels, task, arrays[0])
    sites, points = places(read.graph, site)
    batches = [[x[at : at + batch] for x in arrays] for at in range(0, len(arrays[0]), batch)]
    found, wide = _forward(read, points, sites, batches)
    back: tuple[Seen, ...] = ()
    if target is not None:
        source = _with_gradients(framework, read, target.task)
        back = _backward(source, points, sites, batches, target)
    known = {point.node for point in found}
    return ProbeReport(
        model=read.graph.name,
        framework=read.graph.framework,
        examples=len(arrays[0]),
        sites=tuple(sites),
        points=found,
        unseen=tuple(point.node for point in points if point.node not in known),
        warnings=(*_warnings(read.graph, sites, len(arrays[0])), *wide),
        gradients=back,
    )


def _target(graph: Graph, gradients: bool, labels: Any, task: Any, x: np.ndarray) -> Target | None:
    """Return what the loss needs, None if no gradients are wanted."""
    if not isinstance(gradients, bool):
        raise InputError(f"gradients must be True or False, got {gradients!r:.80}.")
    if not gradients:
        return None
    if labels is None:
        raise InputError("gradients=True needs labels=, one for each example of the data.")
    name = task if isinstance(task, str) else None
    if name is not None and name not in TASKS:
        raise unknown("task", name, TASKS)
    kind, (read,), names, _ = read_labels([(labels, "labels")], x.shape, task=name)
    if len(read) != len(x):
        raise InputError(
            f"there are {len(x):,} examples and {len(read):,} labels: give one for each."
        )
    y, given = read, np.asarray(labels)
    if kind in ("classes", "masks") and given.dtype.kind in "iu" and given.size == read.size:
        y = given.reshape(read.shape).astype(np.int64)  # codes of a model that may know more
    classes = _classes(graph, y.shape[1:]) if kind in ("classes", "masks") else len(names)
    if kind in ("classes", "masks") and not 0 <= y.min() <= y.max() < classes:
        raise InputError(
            f"the labels go from {y.min()} to {y.max()}, but the model has {classes} classes."
        )
    return Target(task_for(task, kind), y, classes)


def _classes(graph: Graph, label_shape: tuple[int, ...]) -> int:
    """Return the number of classes that a model's first output is for."""
    shape = graph.nodes[graph.outputs[0]].shape[1:]
    first = len(shape) > 1 and shape[1:] == label_shape and shape[:-1] != label_shape
    width = (shape[0] if first else shape[-1]) if shape else 1
    return max(width or 0, 2)


def _with_gradients(framework: Framework, read: ReadModel, task: Task) -> Watchable:
    """Return the model, or what it is lowered to, where its own framework gives no gradients.

    Raises: Refused: it can't be lowered.
    """
    if not framework.lowers:
        return read
    if not installed(HOST):
        raise InputError("gradients need PyTorch: pip install 'relucate[torch]'.")
    try:
        return named(HOST).watchable(lower(read, task=task))
    except Refused as error:
        raise Refused(
            f"gradients of a Keras model are taken in PyTorch, and this model can't be: {error}"
        ) from None


def _forward(
    read: ReadModel, points: Sequence[Point], sites: Sequence[Place], batches: list[Any]
) -> tuple[tuple[Seen, ...], list[str]]:
    """Return what was seen, and a warning for inputs too wide for a covariance."""
    read_by_linear = {site.points["next"] for site in sites if "next" in site.points}
    widths = {point.node: read.graph.nodes[point.node].shape[point.axis] for point in points}
    wide = [point for point in points if (widths[point.node] or 0) > rank.MOST]
    wide = [point for point in wide if point.node in read_by_linear]
    narrow = read_by_linear - {point.node for point in wide}
    streams = {
        point.node: Channels(
            point.axis, covariance=Covariance(point.axis) if point.node in narrow else None
        )
        for point in points
    }
    found = measure(read.watch, read.graph, streams, batches)
    return _seen(points, sites, streams, found), list(_too_wide(wide))


def _too_wide(points: Sequence[Point]) -> Iterator[str]:
    if points:
        names = some([f"'{point.layer}'" for point in points], 5)
        yield (
            "effective rank: not measured where the next layer reads more than "
            f"{rank.MOST} channels ({names})."
        )


def _backward(
    source: Watchable,
    points: Sequence[Point],
    sites: Sequence[Place],
    batches: list[Any],
    target: Target,
) -> tuple[Seen, ...]:
    def watch(names: Any, given: Any, each: Any) -> None:
        source.gradients(names, given, target, each)

    streams = {point.node: Channels(point.axis) for point in points}
    found = measure(watch, source.graph, streams, batches, "gradient at the output")
    return _seen(points, sites, streams, found)


def _seen(
    points: Sequence[Point],
    sites: Sequence[Place],
    streams: Mapping[str, Channels],
    found: set[str],
) -> tuple[Seen, ...]:
    def of(point: Point) -> Seen:
        return seen(point.node, point.layer, _roles(point.node, sites), streams[point.node])

    return tuple(in_threads(of, [point for point in points if point.node in found]))


def _roles(node: str, sites: Sequence[Place]) -> list[tuple[str, str]]:
    return [(s.node, role) for s in sites for role, at in s.points.items() if at == node]


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
    array = np.asarray(on_host(values))
    if array.ndim == 0:
        raise InputError(
            "data must be an array with the examples along its first axis, or one for each input, "
            f"got {values!r:.80}."
        )
    first = array[:1]
    return first.astype(np.float32) if first.dtype.kind == "f" else first


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
