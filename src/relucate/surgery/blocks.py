"""Where a norm's places are in its block, and whether it may go from one to the other.

A block is a linear layer, an activation, and the norm that belongs to them (`sites`). Its norm may
move across the linear layer or the activation if only the block reads the values in between:
otherwise the move would change the input of another layer. Shared by `convert` and `rebuild`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from ..graph import Graph, Node
from ..graph.axes import axes_of_input, norm_axes
from ..graph.functions import is_function
from ..order import Order
from .channels import Blocked, check_separable
from .draft import Draft
from .paths import Paths, is_transparent
from .sites import Site

_Axes = tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Place:
    """Behind the value `source`, for `readers` (None: for all, and for the model's output)."""

    source: str
    readers: tuple[str, ...] | None = None


def check_order(order: str | Order, verb: str) -> Order:
    """Return the order that a model is to have.

    Raises: InputError: one without an activation (blocks keep theirs), or one that moves dropout.
    """
    wanted = Order(order)
    if wanted.has_drop:
        raise InputError(
            f"{verb} moves norms; dropout stays where it is: give the order without drop, "
            f"'{wanted.without('drop')}', got '{wanted}'."
        )
    if not wanted.has_act:
        raise InputError(
            f"{verb} keeps the activations: expected an order with linear and act, got '{wanted}'."
        )
    return wanted


def check_crossing(graph: Graph, paths: Paths, site: Site, wanted: Order) -> None:
    """Check that the norm may move to where `wanted` has it.

    Raises: Blocked: something else reads a value that the move would change.
    """
    old, new = site.order.split("-"), list(wanted.tokens)
    others = [token for token in old if token != "norm"]
    if others != [token for token in new if token != "norm"]:
        raise Blocked(f"{' and '.join(others)} would have to change places, not only the norm")
    was, now = old.index("norm"), new.index("norm")
    if was < now:
        start = site.nodes[0]
        crossed = [old[i] for i in range(was + 1, now + 1)]
    else:
        crossed = [old[i] for i in range(now, was)]
        start = _node(site, crossed[0])
    if "linear" in crossed and len(site.linears) > 1:
        raise Blocked(f"several linear layers ({', '.join(site.linears)}) belong to it")
    if "act" in crossed:
        check_act(graph, paths, site)
    if new[:3] == ["linear", "norm", "act"]:
        _check_apart(graph, site)
    ends = [_node(site, token) for token in crossed] if was < now else [site.nodes[0]]
    _check_chain(graph, paths, start, ends[-1])


def _check_apart(graph: Graph, site: Site) -> None:
    """Check that a norm can go between a linear layer and its activation.

    Raises: Blocked: the activation is a function of the user's own that the layer calls.
    """
    linear, act = (graph.nodes[name] for name in (site.linears[0], site.act_node or ""))
    if is_function(act) and act.layer == linear.layer:
        raise Blocked(f"'{linear.layer}' calls its activation itself: make that a layer")


def check_act(graph: Graph, paths: Paths, site: Site) -> None:
    """Check that the activation treats channels apart, so that a norm may change places with it.

    Raises: Blocked: glu, softmax and the like: a norm before them computes something else.
    """
    act = site.act_node or ""
    for name in (act, *paths.gate(act)):
        node = graph.nodes[name]
        if node.operation.mixes and not is_function(node):
            raise Blocked(
                f"'{node.layer_name}' ({node.op}) mixes channels: a norm before it is another "
                "thing than one behind it"
            )


def check_separate(graph: Graph, sites: Collection[Site]) -> None:
    """Check that no part of a norm's block is in something that can only be written whole.

    Raises: Blocked: that stays as it is.
    """
    for site in sites:
        for name in (*site.nodes, *site.linears, site.act_node):
            if name:
                check_separable(graph.nodes[name])


def check_own(draft: Draft, calls: Collection[str]) -> None:
    """Check that no other layer uses a norm's tensors, because they will be replaced.

    Raises: Blocked: with the tensor's role and the other layer.
    """
    for name in calls:
        node = draft.nodes[name]
        for role in node.arrays:
            for other in sorted(draft.users(node, role) - set(calls)):
                user = draft.nodes[other].layer_name
                raise Blocked(f"'{node.layer_name}' shares its {role} with '{user}'")
        for other in sorted(draft.sharing(node) - set(calls)):
            user = draft.nodes[other].layer_name
            raise Blocked(f"'{user}' is computed from tensors of '{node.layer_name}'")


def _node(site: Site, token: str) -> str:
    if token == "linear":
        return site.linears[0]
    return site.act_node or ""


def _check_chain(graph: Graph, paths: Paths, start: str, end: str) -> None:
    """Check that every value from `start` to just before `end` is read once, on the way there."""
    name = start
    while name != end:
        following = paths.takers(name)
        if len(following) != 1 or name in graph.outputs:
            layer = graph.nodes[name].layer_name
            raise Blocked(f"'{layer}' is read outside of the block too")
        name = following[0]


def place(draft: Draft, paths: Paths, site: Site, wanted: Order) -> Place:
    """Return where the norm of a site goes; the norm itself has been taken out of the draft.

    Only the place between linear layer and activation depends on the norm: if a flatten separates
    them, the norm goes to the side that has its rank.
    """
    tokens = list(wanted.tokens)
    at = tokens.index("norm")
    if at == len(tokens) - 1 or (at == 1 and tokens[0] == "act"):
        return Place(_tail(draft, _node(site, tokens[at - 1])))
    if at == 1:
        return _between(draft, paths, site)
    first = tokens[1]
    return front_place(draft, paths, site) if first == "linear" else _at_act(draft, paths, site)


def check_same(sites: Collection[Site], sizes: Sequence[Mapping[str, tuple[int, ...]]]) -> None:
    """Check that all calls of a norm can have the same tensors, of those sizes.

    Raises: Blocked: they can't.
    """
    found = sorted({shape for size in sizes for shape in size.values()})
    if len(found) > 1:
        counts = " and ".join("x".join(map(str, shape)) for shape in found)
        name = next(iter(sites)).name
        raise Blocked(f"the calls of '{name}' would be over {counts} channels")


def fit(draft: Draft, paths: Paths, site: Site, wanted: Order) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a norm's tensors will have at its new `place`, before any change.

    Raises: Blocked: it doesn't fit there (`norm_sizes`).
    """
    node = draft.nodes[site.nodes[0]]
    tokens, linear = list(wanted.tokens), draft.nodes[site.linears[0]]
    at = tokens.index("norm")
    if tokens[: at + 2] == ["norm", "linear"]:
        source = front_place(draft, paths, site).source
    elif at and tokens[at - 1] == "linear" and (at == 2 or _same_rank(node, linear)):
        source = linear.name
    else:
        source = _node(site, "act")
    return norm_sizes(draft, node, source)


def _same_rank(one: Node, other: Node) -> bool:
    return len(one.shape) == len(other.shape)


def _tail(draft: Draft, name: str) -> str:
    """Return the value of a layer, with the border that `fold` may have added to it."""
    tail = name
    while [reader.added_for for reader in draft.readers(tail)] == [name]:
        tail = draft.readers(tail)[0].name
    return tail


def _between(draft: Draft, paths: Paths, site: Site) -> Place:
    """Directly behind the linear layer if only the activation reads it, else in front of that."""
    name = tail = _tail(draft, site.linears[0])
    if not _same_rank(draft.source.nodes[site.nodes[0]], draft.nodes[name]):
        return _at_act(draft, paths, site)
    inside = set(paths.gate(site.act_node or ""))
    while name not in draft.outputs:
        readers = {node.name for node in draft.readers(name)}
        if site.act_node in readers or readers & inside:
            if readers <= inside | {site.act_node}:
                return Place(tail)
            break
        if len(readers) != 1 or not is_transparent(draft.nodes[next(iter(readers))]):
            break
        name = next(iter(readers))
    return _at_act(draft, paths, site)


def _at_act(draft: Draft, paths: Paths, site: Site) -> Place:
    act = site.act_node or ""
    inside = paths.gate(act)
    if not inside:
        return Place(draft.nodes[act].inputs[0], (act,))
    source = paths.source(paths.graph.nodes[act])
    sources = {s for name in (*inside, act) for s in draft.nodes[name].inputs}
    # The norm that was there is gone: x is now its input.
    source = source if source in sources else _only(sources - {*inside, act})
    readers = [node.name for node in draft.readers(source) if node.name in {*inside, act}]
    return Place(source, tuple(dict.fromkeys(readers)))


def _only(names: set[str]) -> str:
    if len(names) != 1:
        raise Blocked("its activation reads several values")
    return next(iter(names))


def front_place(draft: Draft, paths: Paths, site: Site) -> Place:
    """Return the place in front of the linear layer, of the whole of a separable one."""
    if len(site.linears) != 1:
        raise Blocked(f"several linear layers ({', '.join(site.linears)}) belong to it")
    name = paths.front(paths.graph.nodes[site.linears[0]]).name
    source = draft.nodes[name].inputs[0]
    pad = draft.nodes[source]
    alone = len(draft.readers(source)) == 1 and source not in draft.outputs
    if pad.operation.kind == "pad" and alone:
        return Place(pad.inputs[0], (source,))
    return Place(source, (name,))


def check_axis(draft: Draft, site: Site) -> None:
    """Raise Blocked if a norm isn't over its linear layer's channels: a permutation is between."""
    node, linear = draft.nodes[site.nodes[0]], draft.nodes[site.linears[0]]
    rank, channel = len(node.shape), linear.channel_axis
    there = settled(draft, node, linear.name)
    axes = set(norm_axes(there))
    if rank == len(linear.shape) and channel is not None and channel not in axes:
        numbers = ", ".join(map(str, sorted(axes)))
        raise Blocked(f"its axis {numbers} isn't the channel axis of '{linear.layer}'")


def norm_sizes(draft: Draft, node: Node, source: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a norm's tensors have behind `source`, by role.

    Raises: Blocked: it doesn't fit there (another rank, a size that isn't known, groups).
    """
    shape, old = draft.nodes[source].shape, node.shape
    layer, (channel, *_) = node.layer_name, norm_axes(node)
    node = settled(draft, node, source)
    if len(shape) != len(old):
        raise Blocked(f"'{layer}' takes values of {len(old)} axes; there are {len(shape)}")
    _check_steps(draft, node, source)
    sizes = tuple(shape[axis] for axis in sorted(norm_axes(node)))
    if any(size is None for size in sizes):
        raise Blocked(f"'{layer}' needs a known size")
    if node.op == "group_norm":
        was, groups, size = old[channel], node.attrs["groups"], sizes[0] or 0
        if size % groups or (groups == was) != (groups == size):
            raise Blocked(f"'{layer}' has {groups} groups of {was} channels; there are {size}")
    known = tuple(int(size or 0) for size in sizes)
    return dict.fromkeys(node.arrays, known)


def settled(draft: Draft, node: Node, source: str) -> Node:
    """Return a norm as it is behind `source`: its axes follow the permutes in between."""
    if all(other.op != "permute" for other in draft.source):
        return node
    order = _order(draft, node, source)
    if order is None or order == tuple(range(len(order))):
        return node  # no path, or a reshape: another rank is refused
    if node.time_axes and order[1] != 1:
        return node  # `norm_sizes` refuses it
    attrs, axes = dict(node.attrs), [order[axis] - node.time_axes for axis in norm_axes(node)]
    if "axes" in attrs:
        attrs["axes"] = type(attrs["axes"])(axes)
    elif "axis" in attrs:
        (attrs["axis"],) = axes
    return replace(node, attrs=attrs)


def _order(draft: Draft, node: Node, source: str) -> tuple[int, ...] | None:
    """Return which axis behind `source` each axis of a norm is; None if that isn't known."""
    nodes, rank = draft.source.nodes, len(node.shape)
    at = source if source in nodes else draft.nodes[source].added_for
    if at not in nodes:
        return None
    down = _axes_above(draft.source, at, node.name)
    order = down and tuple(down.index(axis) for axis in range(rank) if axis in down)
    order = order or _axes_above(draft.source, node.name, at)
    return order if order is not None and len(order) == rank else None


def _check_steps(draft: Draft, node: Node, source: str) -> None:
    """Check that a norm that is applied step by step has the same axis of steps behind `source`."""
    order = _order(draft, node, source) if node.time_axes else None
    if node.time_axes and (order is None or order[1] != 1):
        raise Blocked(f"'{node.layer_name}' is applied step by step, along an axis that moves")


def _axes_above(graph: Graph, start: str, goal: str) -> tuple[int, ...] | None:
    """Return which axis of the value `goal` each axis of `start` is, which is computed from it.

    None without a path, or where an axis is made of several, or is a part of one.
    """
    rank = len(graph.nodes[start].shape)
    queue = deque([(start, tuple(frozenset({axis}) for axis in range(rank)))])
    seen = {start}
    while queue:
        name, axes = queue.popleft()
        if name == goal:
            found = [axis for several in axes for axis in several]
            return tuple(found) if len(set(found)) == len(found) == len(axes) else None
        node = graph.nodes[name]
        for other in node.inputs:
            if other in seen:
                continue
            seen.add(other)
            above = _axes_of(node, graph.nodes[other], axes)
            if above is not None:
                queue.append((other, above))
    return None


def _axes_of(node: Node, above: Node, axes: _Axes) -> _Axes | None:
    """Return the axes of an input that these axes of a node's output are made of, if known.

    They aren't where an input is stretched along others, or an unknown operation drops some.
    """
    here = axes_of_input(node, above.shape)
    if len(here) != len(node.shape):
        return None
    if len(above.shape) != len(node.shape) and not node.operation.moves_axes:
        return None
    return tuple(frozenset[int]().union(*(here[axis] for axis in several)) for several in axes)
