"""Where to look at a network: at every site what the norm, the activation and the next layer see.

Pure: a Graph in, nodes out. A value that several roles share (behind a norm before the ReLU, the
norm's output is the activation's input) is one point. Dropout is the identity at inference, so its
output is its input's point. Not here: the values (`ReadModel.watch`), what is measured (`moments`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from ..graph import Graph, Node
from ..phrases import some
from .paths import Paths
from .sites import Site, site_calls

ROLES = {
    "linear": "linear layer's output",
    "norm_in": "norm's input",
    "norm_out": "norm's output",
    "act_in": "activation's input",
    "act_out": "activation's output",
    "next": "next layer's input",
}


@dataclass(frozen=True)
class Place:
    """One norm's call, or in a model without norms one activation, with its points by role.

    name: the norm's layer, or the activation's; norm: whether it is a norm; points: role -> node.
    """

    name: str
    node: str
    norm: bool
    kind: str
    order: str
    act_op: str | None
    points: dict[str, str]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """A node whose output is looked at; axis: of the channels, counted from the end."""

    node: str
    layer: str
    axis: int


def places(graph: Graph, only: str | None = None) -> tuple[list[Place], list[Point]]:
    """Return the places of a graph and their points, both in topological order.

    Args: only: part of the name of the places that are wanted.
    Raises: InputError: no place has such a name; the model has neither norms nor activations.
    """
    walks = Paths(graph)
    found = [_at_norm(graph, walks, site) for site in site_calls(graph, walks)]
    found = found or [_at_act(walks, node) for node in graph if walks.kind(node) == "act"]
    if not found:
        raise InputError(f"'{graph.name}' has no norms and no activations to look at.")
    if only is not None:
        names = list(dict.fromkeys(place.name for place in found))
        found = [place for place in found if only in place.name]
        if not found:
            raise InputError(f"no site's name contains '{only}'. There are: {some(names, 12)}.")
    found = [_completed(graph, walks, place) for place in found]
    return found, points_of(graph, found)


def points_of(graph: Graph, found: Sequence[Place]) -> list[Point]:
    """Return the points of places, each once, in topological order."""
    axes: dict[str, int] = {}
    for place in found:
        for role, node in place.points.items():
            axes.setdefault(node, _axis(graph, place, role, node))
    return [Point(n.name, n.layer_name, axes[n.name]) for n in graph if n.name in axes]


def _at_norm(graph: Graph, walks: Paths, site: Site) -> Place:
    (name,) = site.nodes
    points = {"linear": site.linears[0]} if site.linears else {}
    points |= {"norm_in": graph.nodes[name].inputs[0], "norm_out": name}
    if site.act_node:
        points |= {"act_in": walks.source(graph.nodes[site.act_node]), "act_out": site.act_node}
    return Place(
        site.name, name, True, site.kind, site.order, site.act_op, points, tuple(site.unknown)
    )


def _at_act(walks: Paths, act: Node) -> Place:
    source = walks.source(act)
    end = walks.back(source)
    points = {"linear": end.node.name} if end.kind == "linear" else {}
    points |= {"act_in": source, "act_out": act.name}
    order = "linear-act" if end.kind == "linear" else "act"
    op = walks.act_op(act)
    return Place(act.name, act.name, False, op, order, op, points)


def _completed(graph: Graph, walks: Paths, place: Place) -> Place:
    """Return a place with the next layer's input, and with one node for each value."""
    points = dict(place.points)
    if reader := _next_linear(graph, walks, place.node):
        points["next"] = reader.inputs[0]
    return replace(place, points={role: _value(graph, node) for role, node in points.items()})


def _next_linear(graph: Graph, walks: Paths, start: str) -> Node | None:
    """Return the first linear layer behind a node, past anything but a norm or an unknown node."""
    ahead = set(graph.consumers[start])
    for node in graph:  # in topological order
        if node.name not in ahead:
            continue
        if node.kind == "linear" or walks.kind(node) == "linear":
            return node
        if node.kind != "norm" and not walks.is_unknown(node):
            ahead |= set(graph.consumers[node.name])
    return None


def _value(graph: Graph, name: str) -> str:
    """Return the node whose output a node's output is, at inference."""
    node = graph.nodes[name]
    while (node.kind == "drop" or node.op == "identity") and not node.attrs.get("forced"):
        node = graph.nodes[node.inputs[0]]
    return node.name


def _axis(graph: Graph, place: Place, role: str, name: str) -> int:
    rank = len(graph.nodes[name].shape)
    for node in _near(graph, place, role):
        axis = _channels(node)
        if axis is not None and len(node.shape) == rank:
            return axis - rank if axis >= 0 else axis
    return -1


def _near(graph: Graph, place: Place, role: str) -> Iterator[Node]:
    """Yield the layers whose channels those of a point are, the surest first."""
    if role == "next":
        yield from (graph.nodes[reader] for reader in graph.consumers[place.points["next"]])
    if place.norm:
        yield graph.nodes[place.node]
    if "linear" in place.points:
        yield graph.nodes[place.points["linear"]]
    yield from (graph.nodes[reader] for reader in graph.consumers[place.points[role]])


def _channels(node: Node) -> int | None:
    """Return the axis of a layer's channels; None if it doesn't say."""
    if node.kind != "norm":
        return node.channel_axis
    axes = node.attrs.get("axes") or ()
    axis = axes[0] if len(axes) == 1 else node.attrs.get("axis")
    return axis + node.time_axes if axis is not None and axis > 0 else axis
