"""Activations that are spelled out: several operations that make one function of one value.

`x · sigmoid(x)`, `where(x > 0, x, 0.1 · x)`, `relu(x)²` are each one activation. What they have in
common is arithmetic, not a name: between one value and another, all is done to each element alone,
nothing inside is read elsewhere, and the result isn't a multiple of the value plus a constant. Its
name is that of the activation whose values it has, up to a positive factor; `elementwise` if none
is known. Beside them stand the two that join parts of a value: maxout and GLU. Used by `paths`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..graph import OPERATIONS, Graph, Node, select
from ..graph.evaluate import evaluate
from ..graph.functions import apply, is_function
from ..graph.ops import REQUIRED

UNNAMED = "elementwise"
_NUMBERS = frozenset({"rescale", "identity"})
_LINES = _NUMBERS | {"affine"}  # x · scale + offset
_JOINS = select(kind="merge") - {"concat"}
_ALONE = (
    select(kind="act", mixes=False, training="same") | _LINES | _JOINS
)  # what is done to each element
_PARTS = frozenset({"multiply", "maximum", "minimum"})
_STEPS = 5  # between a part of a value and what joins it with another part
_X = np.linspace(-8.0, 8.0, 161)
_CLOSE = 2e-4  # of the largest value: constants are written with few digits


@dataclass(frozen=True)
class Spelled:
    """An activation spelled out: of which node's value, the nodes between, and its name."""

    source: str
    inside: tuple[str, ...]
    op: str


@dataclass(frozen=True)
class _Run:
    """What is done to each element of `source`, up to a node.

    bends: it may be no straight line; joined: it isn't activations and lines in a row alone.
    """

    source: str
    inside: frozenset[str] = frozenset()
    bends: bool = False
    joined: bool = False


def spelled_out(graph: Graph) -> dict[str, Spelled]:
    """Return the activations that are spelled out, by the node that makes their value."""
    finder = _Finder(graph)
    found: dict[str, Spelled] = {}
    taken: set[str] = set()
    for node in reversed(list(graph)):
        if node.name in taken:
            continue
        made = finder.activation(node) or parts_of_one(graph, node)
        if made is not None:
            found[node.name] = made
            taken.update(made.inside)
    return found


class _Finder:
    """Finds, for each node, the value that it is a function of."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._above: dict[str, tuple[str, frozenset[str]]] = {}  # the nearest, and what is between
        self._runs: dict[str, _Run] = {}
        self._outputs = frozenset(graph.outputs)
        self._places = {name: place for place, name in enumerate(graph.nodes)}
        for node in graph:
            if _is_alone(graph, node) and (step := self._step(node)):
                self._above[node.name] = step
                self._runs[node.name] = self._run(node, *step)

    def activation(self, node: Node) -> Spelled | None:
        """Return the activation whose last operation a node is, if it is one."""
        run = self._runs.get(node.name)
        if run is None or not run.joined or node.op in _LINES:
            return None
        inside = sorted(run.inside, key=self._places.__getitem__)
        nodes = [*(self.graph.nodes[name] for name in inside), node]
        name = name_of(self.graph, run.source, nodes)
        if not name or _is_residual(nodes, name):
            return None
        if not _is_sure(nodes, name) and not self._is_alone_there(run, node):
            return None
        return Spelled(run.source, tuple(inside), name)

    def _step(self, node: Node) -> tuple[str, frozenset[str]] | None:
        """Return the nearest value that all inputs are functions of, and the nodes in between."""
        chains = [list(self._up(name)) for name in dict.fromkeys(node.inputs)]
        common = set(chains[0]).intersection(*chains[1:])
        goal = next((name for name in chains[0] if name in common), None)
        if goal is None:
            return None
        passed = {name for chain in chains for name in chain[: chain.index(goal)]}
        inside = passed.union(*(self._above[name][1] for name in passed))
        return (goal, frozenset(inside)) if self._is_read_by(inside, {node.name}) else None

    def _up(self, name: str) -> Iterator[str]:
        yield name
        while name in self._above:
            name = self._above[name][0]
            yield name

    def _is_read_by(self, names: Collection[str], others: set[str]) -> bool:
        """Return whether only these nodes, and those others, read these nodes."""
        readers = {reader for name in names for reader in self.graph.consumers[name]}
        return readers <= {*names, *others} and self._outputs.isdisjoint(names)

    def _run(self, node: Node, source: str, inside: frozenset[str]) -> _Run:
        joined = node.op == "opaque" or len(node.inputs) > 1
        bends = joined or node.kind == "act"
        before = self._runs.get(source)
        goes_on = before and (before.bends or self.graph.nodes[source].op in _NUMBERS)
        if before and goes_on and self._is_read_by({source}, {*inside, node.name}):
            inside = before.inside | {source} | inside
            return _Run(before.source, inside, bends or before.bends, joined or before.joined)
        return _Run(source, inside, bends, joined)

    def _is_alone_there(self, run: _Run, node: Node) -> bool:
        """Return whether a value goes nowhere else, and no statistic is made of it or before it."""
        if not self._is_read_by({run.source}, {*run.inside, node.name}):
            return False
        readers = (self.graph.nodes[name] for name in self.graph.consumers[node.name])
        if any(_is_statistic(each) and each.attrs.get("keepdims") for each in readers):
            return False
        above = self.graph.nodes[run.source]
        while above.operation.transparent and above.inputs and not _is_statistic(above):
            above = self.graph.nodes[above.inputs[0]]
        return not _is_statistic(above)


def _is_alone(graph: Graph, node: Node) -> bool:
    """Return whether an operation computes each element from the same element of its inputs."""
    if node.attrs.get("time_distributed") or not node.inputs:
        return False
    known = node.op in _ALONE or is_function(node)
    return known and all(graph.nodes[name].shape == node.shape for name in node.inputs)


def _is_statistic(node: Node) -> bool:
    return node.op in ("reduce", "global_avg_pool", "global_max_pool")


def _is_residual(nodes: Sequence[Node], name: str) -> bool:
    """Return whether it is a branch around an activation, as silu(x) + x, that has no name."""
    added = nodes[-1].op in ("add", "subtract", "average")
    return name == UNNAMED and added and any(each.kind == "act" for each in nodes)


def _is_sure(nodes: Sequence[Node], name: str) -> bool:
    """Return whether it is an activation wherever it stands.

    A square, a root or an absolute value alone may be a step of a norm or a distance instead.
    """
    known = name in OPERATIONS or name in ("squared_relu", "quick_gelu")
    return known or any(node.kind == "act" or node.op in ("maximum", "minimum") for node in nodes)


# Its name.


def name_of(graph: Graph, source: str, nodes: Sequence[Node]) -> str:
    """Return the name of what nodes, the last one's value, compute from `source`; "": a line."""
    learned = {key for node in nodes if node.op != "opaque" for key in node.arrays.values()}
    y = _values(graph, source, nodes, learned)
    if np.all(np.isfinite(y)) and _is_multiple(y - y[80], _X):
        return ""
    return (_known(y) if not learned else "") or _described(nodes)


def _values(
    graph: Graph, source: str, nodes: Sequence[Node], learned: Collection[str]
) -> np.ndarray:
    """Return the function's values on a line; weights may change, so any number stands for them."""
    given = Node(source, "input", (), (None,))
    inner = {node.name: replace(node, shape=(None,)) for node in nodes}
    tensors = {key: np.asarray(0.3 + 0.1 * at) for at, key in enumerate(sorted(learned))}
    part = Graph("part", {source: given, **inner}, (source,), (nodes[-1].name,), tensors)
    with np.errstate(all="ignore"):
        (y,) = evaluate(part, _X, unread=apply)
    return np.broadcast_to(y, _X.shape)


def _known(y: np.ndarray) -> str:
    """Return the name of the activation that has these values, up to a positive factor, or ""."""
    if not np.all(np.isfinite(y)):
        return ""
    found = (name for name, values in _candidates() if _is_multiple(y, values))
    return next(found, "") or _with_a_setting(y)


def _is_multiple(y: np.ndarray, of: np.ndarray) -> bool:
    """Return whether values are a positive multiple of others (any multiple of a line: or zero)."""
    factor = float(y @ of) / float(of @ of)
    if factor <= 0 and of is not _X:
        return False
    return bool(np.abs(y - factor * of).max() <= _CLOSE * max(np.abs(y).max(), 1e-12))


def _with_a_setting(y: np.ndarray) -> str:
    """Return the name of an activation whose slope or level below zero isn't the usual one."""
    up, down = y[-1] / _X[-1], y[0]
    if up <= 0 or not np.allclose(y[80:], up * _X[80:], rtol=0, atol=_CLOSE * np.abs(y).max()):
        return ""
    slope, level = down / _X[0] / up, -down / up
    if 0 < slope < 1 and _is_multiple(y, np.where(_X < 0, slope * _X, _X)):
        return "leaky_relu"
    alpha = level / -np.expm1(_X[0])
    return "elu" if _is_multiple(y, np.where(_X < 0, alpha * np.expm1(_X), _X)) else ""


def _described(nodes: Sequence[Node]) -> str:
    """Return what to call a function that has no name: x*sin, or its only operation's name."""
    acts = [node.op for node in nodes if node.kind == "act"]
    if nodes[-1].op == "multiply" and acts:
        return f"x*{acts[0]}"
    steps = [node for node in nodes if node.op not in _LINES]
    only = steps[0] if len(steps) == 1 else None
    name = UNNAMED if only is None else str(only.attrs.get("function", only.op))
    return UNNAMED if name == "table" else name


@cache
def _candidates() -> tuple[tuple[str, np.ndarray], ...]:
    """Return the names of activations with their values; parameters are the usual ones."""
    usual = [
        op
        for op in sorted(select(kind="act", mixes=False), key=lambda op: (op == "celu", op))
        if not OPERATIONS[op].arrays and REQUIRED not in OPERATIONS[op].attrs.values()
    ]
    return (
        *((op, _of(op, _X)) for op in usual),
        ("gelu", _of("gelu", _X, approximate=True)),
        ("quick_gelu", _of("silu", 1.702 * _X)),
        ("squared_relu", np.maximum(_X, 0) ** 2),
        ("square", _X**2),
    )


def _of(op: str, x: np.ndarray, **attrs: bool) -> np.ndarray:
    nodes = {"x": Node("x", "input", (), (None,)), "y": Node("y", op, ("x",), (None,), attrs=attrs)}
    return evaluate(Graph("one", nodes, ("x",), ("y",), {}), x)[0]


# Parts of one value, joined.


def parts_of_one(graph: Graph, node: Node) -> Spelled | None:
    """Return maxout, GLU or another product or extreme of parts of a value, if a node is one.

    And the other way round: CReLU, a value and its negative, activated and side by side.
    """
    if node.op == "reduce":
        return _largest_of_pieces(graph, node)
    if node.inputs and (node.op == "concat" or node.kind == "act"):
        return _side_by_side(graph, node)
    if node.op not in _PARTS or len(node.inputs) != 2 or len(set(node.inputs)) != 2:
        return None
    one, other = (_climb(graph, name) for name in node.inputs)
    goal = next((name for name in one if name in other), None)
    if goal is None:
        return None
    inside = (*one[: one.index(goal)], *other[: other.index(goal)])
    nodes = [graph.nodes[name] for name in inside]
    alone = all(len(graph.consumers[name]) == 1 for name in inside)
    act = next((each for each in nodes if each.kind == "act"), None)
    if not alone or set(inside) & set(graph.outputs) or (act is None and node.op == "multiply"):
        return None
    parts = sum(each.op == "slice" for each in nodes) == 2
    return Spelled(goal, inside, _joined(node, act, parts))


def _joined(node: Node, act: Node | None, parts: bool) -> str:
    if act is not None and node.op == "multiply":
        return "glu" if parts and act.op == "sigmoid" else f"x*{act.op}"
    return "maxout" if parts and act is None and node.op == "maximum" else node.op


def _side_by_side(graph: Graph, node: Node) -> Spelled | None:
    """Return one activation of several multiples of a value, side by side: CReLU and the like."""
    joined = node if node.op == "concat" else graph.nodes[node.inputs[0]]
    if joined.op != "concat" or len(set(joined.inputs)) < 2:
        return None
    ways = [_climb(graph, name) for name in joined.inputs]
    goal = next((name for name in ways[0] if all(name in way for way in ways)), None)
    if goal is None:
        return None
    parts = [way[: way.index(goal)] for way in ways]
    acts = [[n for n in map(graph.nodes.get, part) if n and n.kind == "act"] for part in parts]
    inside = tuple(dict.fromkeys(name for part in parts for name in part))
    if joined is not node:
        acts, inside = [[node, *found] for found in acts], (*inside, joined.name)
    alone = all(len(graph.consumers[name]) == 1 for name in inside)
    if not alone or set(inside) & set(graph.outputs) or any(len(found) != 1 for found in acts):
        return None
    if len({(found[0].op, *map(str, found[0].attrs.items())) for found in acts}) > 1:
        return None
    cut = any(graph.nodes[name].op == "slice" for name in inside)
    return None if cut else Spelled(goal, inside, _name_side_by_side(acts[0][0]))


def _name_side_by_side(act: Node) -> str:
    return "crelu" if act.op == "relu" else act.op


def _climb(graph: Graph, start: str) -> list[str]:
    """Return a node and those that it is computed from, one from the other, as a part may be."""
    found = [start]
    while len(found) <= _STEPS:
        node = graph.nodes[found[-1]]
        if node.kind != "act" and node.op not in ("rescale", "identity", "slice"):
            break
        found.append(node.inputs[0])
    return found


def _largest_of_pieces(graph: Graph, node: Node) -> Spelled | None:
    """Return maxout as the maximum over an axis that a reshape has made of the channels' axis."""
    pieces = graph.nodes[node.inputs[0]]
    axes = tuple(node.attrs.get("axes", ()))
    if node.attrs.get("function") != "max" or pieces.op != "reshape" or len(axes) != 1:
        return None
    if graph.consumers[pieces.name] != (node.name,) or pieces.name in graph.outputs:
        return None
    source = graph.nodes[pieces.inputs[0]]
    split = _split_axis(source.shape, pieces.shape)
    if split is None or axes[0] % len(pieces.shape) not in (split, split + 1):
        return None
    if _channel_axis(graph, source) != split:
        return None
    return Spelled(source.name, (pieces.name,), "maxout")


def _split_axis(shape: tuple[int | None, ...], parted: tuple[int | None, ...]) -> int | None:
    """Return which axis of a shape two axes of another one are made of; all others are the same."""
    for axis, size in enumerate(shape):
        pair = parted[axis : axis + 2]
        alike = shape[:axis] == parted[:axis] and shape[axis + 1 :] == parted[axis + 2 :]
        if alike and len(pair) == 2 and size and pair[0] and pair[1] and pair[0] * pair[1] == size:
            return axis
    return None


def _channel_axis(graph: Graph, node: Node) -> int | None:
    """Return the axis of the channels of a value, by the layer that made it; None: unknown."""
    rank = len(node.shape)
    while node.operation.transparent and not node.operation.moves_axes and node.inputs:
        node = graph.nodes[node.inputs[0]]
    if node.kind != "norm":
        return node.channel_axis if len(node.shape) == rank else None
    axes = node.attrs.get("axes") or (node.attrs.get("axis", -1),)
    return axes[0] % rank if len(axes) == 1 and len(node.shape) == rank else None
