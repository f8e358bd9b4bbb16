"""Each norm of a Graph with the linear layer and the activation that it belongs to: its order.

A norm with a linear layer right before it reads as linear-norm-act, and one behind an activation
as linear-act-norm; where the layer before belongs to an earlier norm already, it belongs to the
layer behind it (norm-act-linear, norm-linear-act). In a plain chain both readings fit every norm
except those at the ends, so the ends decide; if they fit both too, the rest of the model decides,
and then the commoner reading (linear first). Only data flow counts, never names or the order of
registration.

An unknown node may be the norm's linear layer, its activation, or the end of a chain, so the norm
does not simply belong to the layer on its other side. The graph is read once for each kind that
unknown nodes can be. A norm that reads the same every time is known; the others name the layers
that they depend on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..graph import Graph, Node, select
from .paths import GUESSES, End, Paths

_HEADS = select(head=True)


@dataclass(frozen=True)
class Site:
    """One norm layer in one role; `calls` counts the calls of the layer in that role.

    order: tokens in data-flow order, without dropout: an order such as linear-norm-act, or part of
    one where there is no linear layer or no activation on its path (linear-norm, norm-act, norm),
    or an unknown one.
    unknown: layers that couldn't be read and that the order depends on; it may be any of `orders`.
    """

    name: str  # the norm's layer
    kind: str  # batch, layer, group, ...
    linear: str | None  # the linear layer that it belongs to (of several, the first)
    act: str | None  # the activation's layer
    act_op: str | None  # relu, gelu, ...
    order: str
    calls: int = 1
    note: str = ""
    unknown: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()  # the norm's nodes in the graph, one per call
    linears: tuple[str, ...] = ()  # nodes of the linear layers
    act_node: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the site as the JSON of `relucate audit` has it."""
        names = ("name", "kind", "linear", "act", "act_op", "order", "calls", "note")
        return {name: getattr(self, name) for name in names} | {"unknown": list(self.unknown)}


@dataclass
class _Norm:
    """A norm's node with its neighbours; `prev` and `next` are linear layers."""

    node: Node
    up: End
    ends: tuple[End, ...]
    prev: Node | None = None
    prev_act: Node | None = None  # the activation between prev and the norm
    lone_act: Node | None = None  # one right before the norm that belongs to no block
    act: Node | None = None  # the activation right behind the norm
    next: list[Node] = field(default_factory=list)
    forward: bool = False  # belongs to `next`
    unknown: bool = False  # the node in front is unknown, so it belongs to no layer
    lends: bool = False  # `next` belongs to the norm behind it

    @property
    def direct(self) -> bool:
        """Whether the linear layer of this norm's own family of readings comes right before."""
        return self.prev_act is None if self.prev else self.act is not None

    @property
    def reads_next(self) -> bool:
        """Whether `next` is a reading: of linear-norm-act, norm-act-linear is the other one."""
        return bool(self.next) and (self.act is not None) == self.direct


def sites(graph: Graph, paths: Paths | None = None) -> tuple[Site, ...]:
    """Return every norm of `graph` as a site, in topological order of the first call.

    Linear in the size of the graph.
    """
    return _grouped(site_calls(graph, paths))


def site_calls(graph: Graph, paths: Paths | None = None) -> list[Site]:
    """Return a site for each call of each norm: of reused layers, more than one."""
    paths = paths or Paths(graph)
    if not any(paths.is_unknown(node) for node in graph):
        return list(_read(paths).values())
    found = _read(paths, unknown=True)
    guesses = [_read(paths.guessing(guess)) for guess in GUESSES]
    return [_settled(paths, site, [g[name] for g in guesses]) for name, site in found.items()]


def _read(paths: Paths, unknown: bool = False) -> dict[str, Site]:
    """Return a site for each norm's node; `unknown`: nothing is read past an unknown node."""
    nodes = [node for node in paths.graph if paths.kind(node) == "norm"]
    norms = [_neighbours(paths, node, unknown) for node in nodes]
    _resolve(paths, norms)
    real = (norm for norm in norms if norm.node.kind == "norm")
    return {norm.node.name: _site(paths, norm) for norm in real}


def _settled(paths: Paths, site: Site, guesses: Sequence[Site]) -> Site:
    """Return the site that all guesses agree on, else what is known and what it depends on."""
    first = guesses[0]
    if all(
        (g.order, g.linears, g.act_node) == (first.order, first.linears, first.act_node)
        for g in guesses
    ):
        return first
    direct, behind = _unknown_next_to(paths, site)
    unread = [node for node in paths.graph if paths.is_unknown(node)]
    names = direct or _unknown_around(paths, site) or unread
    layers = tuple(dict.fromkeys(node.layer_name for node in names))
    note = site.note or (f"'{behind[0].layer_name}' couldn't be read" if behind else "")
    orders = tuple(dict.fromkeys((site.order, *(guess.order for guess in guesses))))
    return replace(site, unknown=layers, orders=orders, note="" if site.act else note)


def _unknown_next_to(paths: Paths, site: Site) -> tuple[list[Node], list[Node]]:
    """Return the unknown nodes right before and behind a norm, and those behind alone."""
    before: list[Node] = []
    if site.linear is None:
        end = paths.back(paths.graph.nodes[site.nodes[0]].inputs[0])
        if end.kind == "act":
            end = paths.back(paths.source(end.node))
        before = [end.node]
    ends = () if site.act else paths.ahead(site.nodes[0])
    behind = [end.node for end in ends if paths.is_unknown(end.node) and end.kind != "output"]
    return [node for node in (*before, *behind) if paths.is_unknown(node)], behind


def _unknown_around(paths: Paths, site: Site) -> list[Node]:
    """Return the first unknown nodes up and down the chain of layers that a norm is in."""
    graph, found = paths.graph, []
    node = graph.nodes[site.nodes[0]]
    while not paths.is_unknown(node) and len(node.inputs) == 1:
        node = graph.nodes[node.inputs[0]]
    found += [node] * (paths.is_unknown(node))
    waiting, seen = [site.nodes[0]], set()
    while waiting:
        for reader in graph.consumers[waiting.pop()]:
            node = graph.nodes[reader]
            if paths.is_unknown(node):
                found.append(node)
            elif len(node.inputs) == 1 and reader not in seen:
                seen.add(reader)
                waiting.append(reader)
    return found


def _neighbours(paths: Paths, node: Node, unknown: bool) -> _Norm:
    up = paths.back(node.inputs[0])
    norm = _Norm(node, up, paths.ahead(node.name))
    if up.kind == "linear":
        norm.prev = up.node
    elif up.kind == "act":
        behind = paths.back(paths.source(up.node))
        if behind.kind == "linear":
            norm.prev, norm.prev_act = behind.node, up.node
        elif behind.kind != "norm":
            norm.lone_act = up.node
            norm.unknown = unknown and paths.is_unknown(behind.node)
    else:
        norm.unknown = unknown and paths.is_unknown(up.node)
    acts = [end.node for end in norm.ends if end.kind == "act"]
    norm.act = acts[0] if acts else None
    # All of several activations count: their order in the graph means nothing.
    ends = [end for act in acts for end in paths.ahead(act.name)] if acts else norm.ends
    takers = (paths.whole(end.node) for end in ends if end.kind == "linear")
    norm.next = list({node.name: node for node in takers}.values())
    return norm


def _resolve(paths: Paths, norms: Sequence[_Norm]) -> None:
    """Decide for each norm whether it belongs to the linear layer before or behind it."""
    anchored: Counter[bool] = Counter()
    open_chains = []
    for chain in _chains(norms):
        if any(norm.prev is None and not norm.unknown for norm in chain):
            _read_forward(paths, chain)
        elif any(norm.unknown for norm in chain) or all(norm.reads_next for norm in chain):
            open_chains.append(chain)
            continue
        if chain[0].direct:  # how many norms are known to read norm-act-linear, and how many not
            anchored.update(norm.forward for norm in chain if norm.act)
    for chain in open_chains:
        if chain[0].direct and anchored[True] > anchored[False]:
            for norm in chain:
                norm.forward = norm.reads_next and not norm.unknown


def _read_forward(paths: Paths, chain: Sequence[_Norm]) -> None:
    """Let each norm whose layer before is taken take the layer behind it.

    The activation between the two is the norm's own if that of the norm before came before it.
    """
    if _ends_at_head(paths, chain):
        return
    taken: dict[str, bool] = {}  # linear layers, and whether their norm's activation came first
    for norm in chain:  # in topological order
        if norm.unknown:
            continue
        if norm.reads_next and (norm.prev is None or norm.prev.name in taken):
            norm.forward = True
            if norm.prev is not None and taken[norm.prev.name]:
                norm.lone_act = norm.prev_act
            for linear in norm.next:
                taken[linear.name] = taken.get(linear.name, False) or norm.lone_act is not None


def _ends_at_head(paths: Paths, chain: Sequence[_Norm]) -> bool:
    """Return whether a chain of norm-linear-act would end with the network's last layer.

    That layer has no activation of its own, so the chain reads as linear-act-norm, and the norm in
    front of its first layer (on the inputs, say) belongs to no block.
    """
    starts = [norm for norm in chain if norm.prev is None]
    if len(starts) == len(chain) or any(norm.act or norm.lone_act for norm in starts):
        return False
    owned = {norm.prev.name for norm in chain if norm.prev is not None}
    last = [linear for norm in chain for linear in norm.next if linear.name not in owned]
    if not last or not all(_is_head(paths, linear) for linear in last):
        return False
    for norm in starts:
        norm.lends = True
    return True


def _is_head(paths: Paths, linear: Node) -> bool:
    """Return whether a linear layer makes the output, as it is or through a softmax or sigmoid."""
    for end in paths.ahead(linear.name):
        last = end.kind == "act" and paths.act_op(end.node) in _HEADS
        if end.kind == "output" or (last and end.node.name in paths.graph.outputs):
            return True
    return False


def _chains(norms: Sequence[_Norm]) -> list[list[_Norm]]:
    """Return the norms in groups: two belong together if one's `next` is the other's `prev`."""
    parent = {norm.node.name: norm.node.name for norm in norms}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    before: dict[tuple[str, bool], list[str]] = {}
    for norm in norms:
        if norm.prev is not None:
            before.setdefault((norm.prev.name, norm.direct), []).append(norm.node.name)
    for norm in norms:
        if norm.reads_next:
            for linear in norm.next:
                for name in before.get((linear.name, norm.direct), ()):
                    parent[root(name)] = root(norm.node.name)
    groups: dict[str, list[_Norm]] = {}
    for norm in norms:
        groups.setdefault(root(norm.node.name), []).append(norm)
    return list(groups.values())


def _site(paths: Paths, norm: _Norm) -> Site:
    tokens, linears, act = _reading(paths, norm)
    return Site(
        name=norm.node.layer_name,
        kind=norm.node.norm_kind,
        linear=linears[0].layer_name if linears else None,
        act=act.layer_name if act else None,
        act_op=paths.act_op(act) if act else None,
        order="-".join(tokens),
        note=_note(paths, norm) if not act else "",
        nodes=(norm.node.name,),
        linears=tuple(node.name for node in linears),
        act_node=act.name if act else None,
    )


def _reading(paths: Paths, norm: _Norm) -> tuple[list[str], list[Node], Node | None]:
    """Return the tokens, the linear layers and the activation."""
    if norm.prev is not None and not norm.forward:
        if norm.prev_act is not None:
            return ["linear", "act", "norm"], [norm.prev], norm.prev_act
        tokens = ["linear", "norm", "act"] if norm.act else ["linear", "norm"]
        return tokens, [norm.prev], norm.act
    if norm.next and norm.act and not norm.unknown:
        return ["norm", "act", "linear"], norm.next, norm.act
    if norm.next and not norm.unknown:
        if norm.lone_act:
            return ["act", "norm", "linear"], norm.next, norm.lone_act
        after = None if norm.lends else _act_behind(paths, norm.next)
        return ["norm", "linear", "act"] if after else ["norm", "linear"], norm.next, after
    if norm.act:
        return ["norm", "act"], [], norm.act
    before = norm.up.node if norm.up.kind == "act" else None
    return (["act", "norm"], [], before) if before else (["norm"], [], None)


def _act_behind(paths: Paths, linears: Iterable[Node]) -> Node | None:
    ends = (end for linear in linears for end in paths.ahead(linear.name))
    return next((end.node for end in ends if end.kind == "act"), None)


def _note(paths: Paths, norm: _Norm) -> str:
    """Return where the activation is if it follows behind a merge, or may do so."""
    unknown = ""
    for merge in (end.node for end in norm.ends if end.kind == "merge"):
        for beyond in paths.ahead(merge.name):
            if beyond.kind == "act":
                return f"{paths.act_op(beyond.node)} after {merge.op}"
            if paths.is_unknown(beyond.node):
                unknown = unknown or f"perhaps '{beyond.node.layer_name}' after {merge.op}"
    return unknown


def _grouped(found: Iterable[Site]) -> tuple[Site, ...]:
    """Make one site of all calls of a layer that have the same order and the same neighbours."""
    groups: dict[tuple[Any, ...], Site] = {}
    for site in found:
        key = (site.name, site.order, site.linear, site.act, site.act_op, site.unknown)
        if key in groups:
            first = groups[key]
            nodes = (*first.nodes, *site.nodes)
            linears = tuple(dict.fromkeys((*first.linears, *site.linears)))
            site = replace(first, calls=first.calls + 1, nodes=nodes, linears=linears)
        groups[key] = site
    return tuple(groups.values())
