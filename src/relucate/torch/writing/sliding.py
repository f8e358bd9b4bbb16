"""Let permutations stay where a forward calls them, with other activations in front or behind.

A planner that moves a norm past an activation moves it past the permutations between them, too. An
activation that works on each value alone computes the same on either side, so that modules can
change places around the permutations. Pure: Graphs. Called by `writer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...graph import Graph, Node
from .exchanging import rows


def slid(new: Graph, old: Graph) -> Graph:
    """Return an edit of `old` with each permutation at its place in the row, where it may be."""
    if not any(node.op == "permute" for node in old):
        return new
    rank = {name: number for number, name in enumerate(new.nodes)}
    for row in rows(old):
        places = [name for name in row if name in rank]
        now = sorted(places, key=rank.__getitem__)
        changed = [k for k, (one, two) in enumerate(zip(places, now, strict=True)) if one != two]
        if changed:
            part = slice(changed[0], changed[-1] + 1)
            wanted = _with_fixed(places[part], now[part], new)
            if _is_chain(new, now[part]) and _may_slide(new, now[part], wanted):
                new = _rewired(new, now[part], wanted)
    return new


def unturned(new: Graph, old: Graph, norms: Iterable[str]) -> Graph:
    """Return an edit of `old` with norms between their permutations, where they were.

    The activations that they moved past are in front of the first permutation, or behind the last.
    """
    for name in norms:
        before, after = _permutations_around(old, name)
        for now in (_up_to(new, name)[::-1], _from(new, name)):
            others = [other for other in now if other not in {name, *before, *after}]
            inner = [*before, name, *after]
            wanted = [*others, *inner] if now[-1] == name else [*inner, *others]
            if others and set(inner) <= set(now) and all(_passes(new, n) for n in others):
                was = old.nodes[name]
                axes = {k: was.attrs[k] for k in ("axis", "axes") if k in was.attrs}
                norm = replace(new.nodes[name], attrs={**new.nodes[name].attrs, **axes})
                nodes = {**new.nodes, name: replace(norm, shape=was.shape)}
                new = _rewired(replace(new, nodes=nodes), now, wanted)
                break
    return new


def _permutations_around(old: Graph, name: str) -> tuple[list[str], list[str]]:
    before = [n for n in _up_to(old, name)[1:] if _is_permute(old, n)]
    after = [n for n in _from(old, name)[1:] if _is_permute(old, n)]
    return before[::-1], after


def _up_to(graph: Graph, name: str) -> list[str]:
    """Return a node, and the permutations and activations in front of it, the last first."""
    found = [name]
    while len(inputs := graph.nodes[found[-1]].inputs) == 1:
        (source,) = inputs
        if not _passes(graph, source) or not _is_chain(graph, [source, found[-1]]):
            break
        found.append(source)
    return found


def _from(graph: Graph, name: str) -> list[str]:
    """Return a node, and the permutations and activations behind it, in order."""
    found = [name]
    while len(readers := graph.consumers[found[-1]]) == 1:
        (reader,) = readers
        if not _passes(graph, reader) or not _is_chain(graph, [found[-1], reader]):
            break
        found.append(reader)
    return found


def _is_permute(graph: Graph, name: str) -> bool:
    return graph.nodes[name].op == "permute"


def _passes(graph: Graph, name: str) -> bool:
    return _is_permute(graph, name) or _is_elementwise(graph.nodes[name])


def _with_fixed(places: Sequence[str], now: Sequence[str], graph: Graph) -> list[str]:
    others = iter([name for name in now if graph.nodes[name].op != "permute"])
    return [name if graph.nodes[name].op == "permute" else next(others) for name in places]


def _is_chain(graph: Graph, names: Sequence[str]) -> bool:
    inner = names[:-1]
    linked = all(graph.consumers[a] == (b,) for a, b in zip(inner, names[1:], strict=True))
    single = all(len(graph.nodes[name].inputs) == 1 for name in names)
    return linked and single and not set(inner) & set(graph.outputs)


def _may_slide(graph: Graph, now: Sequence[str], wanted: Sequence[str]) -> bool:
    before, after = (_behind(graph, names) for names in (now, wanted))
    moved = [graph.nodes[name] for name in now if before[name] != after[name]]
    return bool(moved) and all(_is_elementwise(node) for node in moved)


def _behind(graph: Graph, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the permutations in front of each node; none for these themselves."""
    found: dict[str, tuple[str, ...]] = {}
    seen: tuple[str, ...] = ()
    for name in names:
        if graph.nodes[name].op == "permute":
            seen = (*seen, name)
        found[name] = () if name in seen else seen
    return found


def _is_elementwise(node: Node) -> bool:
    return node.kind == "act" and not node.arrays and not node.operation.mixes


def _rewired(graph: Graph, now: Sequence[str], wanted: Sequence[str]) -> Graph:
    nodes = dict(graph.nodes)
    (source,) = nodes[now[0]].inputs
    shapes = {name: nodes[name].shape for name in now}
    for name in wanted:
        shape = nodes[source].shape if _is_elementwise(nodes[name]) else shapes[name]
        nodes[name] = replace(nodes[name], inputs=(source,), shape=shape)
        source = name
    end = {now[-1]: wanted[-1]}
    for node in list(nodes.values()):
        if node.name not in wanted:
            inputs = tuple(end.get(name, name) for name in node.inputs)
            nodes[node.name] = replace(node, inputs=inputs)
    order = {name: wanted[k] for k, name in enumerate(now)}
    listed = {order.get(name, name): nodes[order.get(name, name)] for name in graph.nodes}
    outputs = tuple(end.get(name, name) for name in graph.outputs)
    return replace(graph, nodes=listed, outputs=outputs)
