"""Which modules of a model have to change places so that it computes an edited Graph.

Where a linear layer, its norm and its activation are modules that are called one after the other,
another order of the three is the same class with the same forward, and other modules under the
names that it calls; a norm that went leaves nn.Identity, or the shift that is left of it. Pure: two
Graphs and the modules that a reading found. Called by `writer`; that what it says is what happens
is shown by `proving`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...graph import Graph
from .tensors import changed_shape


@dataclass(frozen=True)
class Exchange:
    """How two graphs differ, as far as modules under other names can express that.

    Attributes:
        nodes: each node of the old graph -> the node of the new graph that is computed in its
            place; None where nothing is left.
        moved: a layer of the old graph -> the layer whose module takes its place.
        gone: the layers whose place nn.Identity takes.
        shifts: a layer of the old graph -> the new affine that takes the place of its norm.
        failing: nodes of either graph -> why modules alone can't express what became of them.
    """

    nodes: Mapping[str, str | None]
    moved: Mapping[str, str]
    gone: frozenset[str]
    shifts: Mapping[str, str]
    failing: Mapping[str, str]

    def place(self, old: Graph, name: str) -> str:
        """Return the node of the old graph whose value a reader of `name` gets now."""
        while self.nodes[name] is None:
            name = old.nodes[name].inputs[0]
        return name


def exchange(old: Graph, new: Graph, modules: Mapping[str, Any]) -> Exchange:
    """Return what has to change places, and what prevents it.

    Args: modules: a node's `layer` -> its module, for nodes that came from a module of their own.
    """
    nodes = _arranged(old, new)
    placed = set(nodes.values())
    failing = {name: "it is a new layer" for name in new.nodes if name not in {*old.nodes, *placed}}
    moved: dict[str, str] = {}
    shifts: dict[str, str] = {}
    gone: set[str] = set()
    for layer, places in _places(old, modules).items():
        targets = {_layer(old, nodes[name]) for name in places}
        if targets == {layer}:
            continue
        target = next(iter(targets))
        if len(targets) > 1:
            failing.update(dict.fromkeys(places, f"'{layer}' is used at several places"))
        elif target is None:
            gone.add(layer)
        elif len(places) == 1 and (shift := nodes[places[0]]) not in old.nodes:
            shifts[layer] = str(shift)
        elif target not in modules or not _is_single(old, places):
            failing.update(dict.fromkeys(places, "it is no module of its own"))
        else:
            moved[layer] = target
    for name, content in nodes.items():
        if old.nodes[name].layer not in modules and name != content:
            failing[name] = "it is no module of its own"
    if set(moved) != set(moved.values()):
        failing.update(dict.fromkeys(moved, "its module is used at several places"))
    found = Exchange(nodes, moved, frozenset(gone), shifts, {})
    failing.update(_wrong(old, new, found, modules))
    return replace(found, failing=failing)


def _places(old: Graph, modules: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in old:
        if node.layer in modules:
            found.setdefault(node.layer, []).append(node.name)
    return found


def _layer(old: Graph, name: str | None) -> str | None:
    """Return the layer of a node; that of a new one has a name that none of the old graph has."""
    if name is None:
        return None
    return old.nodes[name].layer if name in old.nodes else f"{name} (new)"


def _is_single(old: Graph, names: list[str]) -> bool:
    """Return whether each call of a module made one node, with one input."""
    calls = Counter(old.nodes[name].call for name in names)
    return set(calls.values()) == {1} and all(len(old.nodes[n].inputs) == 1 for n in names)


def rows(old: Graph) -> list[list[str]]:
    """Return the nodes with one input, in rows in which each is read by the next alone."""
    rows: dict[str, list[str]] = {}  # by the last node
    for node in old:
        if len(node.inputs) != 1:
            continue
        (source,) = node.inputs
        alone = old.consumers[source] == (node.name,) and source not in old.outputs
        row = rows.pop(source) if alone and source in rows else []
        rows[node.name] = [*row, node.name]
    return list(rows.values())


def _arranged(old: Graph, new: Graph) -> dict[str, str | None]:
    """Return for each node of the old graph the one that has its place in the new graph's row.

    A new affine has the place of the norm that it is left of.
    """
    rank = {name: number for number, name in enumerate(new.nodes)}
    stays = {name: name for name in old.nodes if name in rank}
    fresh = [node for node in new if node.op == "affine" and node.name not in old.nodes]
    stays.update((n.added_for, n.name) for n in fresh if n.added_for in old.nodes.keys() - rank)
    found: dict[str, str | None] = {name: stays.get(name) for name in old.nodes}
    for row in rows(old):
        places = [name for name in row if name in stays]
        contents = (stays[name] for name in places)
        found.update(zip(places, sorted(contents, key=rank.__getitem__), strict=True))
    return found


def _wrong(
    old: Graph, new: Graph, found: Exchange, modules: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield the nodes that wouldn't read what the new graph has them read, and why."""
    for node in old:
        name = found.nodes[node.name]
        if name is None:
            if len(node.inputs) != 1:
                yield node.name, "it has several inputs"
            continue
        if any(len(old.nodes[s].inputs) != 1 for s in node.inputs if found.nodes[s] is None):
            continue
        reads = tuple(found.nodes[found.place(old, source)] for source in node.inputs)
        if reads != new.nodes[name].inputs:
            yield name, "what it reads is read by others too"
        if name not in old.nodes:
            continue
        if old.nodes[name].layer not in modules and changed_shape(old, new, name):
            yield name, "its weights are no module's"
    ends = tuple(found.nodes[found.place(old, name)] for name in old.outputs)
    for end in new.outputs if ends != new.outputs else ():
        yield end, "it makes the model's output"


def stuck_norms(old: Graph, new: Graph, found: Exchange) -> dict[str, str]:
    """Return the norms whose edit modules alone can't express: first node -> why.

    Every failing node belongs to norms: itself; what it was made for; those that changed places
    with it; the one whose term a sum lost; the next ones in its row; else all that changed.
    """
    parts = {name: part for row in rows(old) for part in _parts(row, found) for name in part}
    changed = [n.name for n in old if n.kind == "norm" and found.nodes[n.name] != n.name]
    stuck: dict[str, str] = {}
    for name, why in found.failing.items():
        near = parts.get(name, {name}) if name in old.nodes else {new.nodes[name].added_for}
        if name in old.nodes and len(old.nodes[name].inputs) > 1:
            near = {*near, *_lost_terms(old, found, name)}
        norms = [other for other in changed if other in near] or _nearest(old, changed, name)
        for norm in norms or _closest(old, name):
            stuck.setdefault(norm, f"'{name}': {why}")
    return stuck


def norms_around(failing: Mapping[str, str], old: Graph, new: Graph) -> dict[str, str]:
    """Return the norms next to nodes that can't be written, changed or not: first node -> why."""
    left = {n.name for n in old if n.kind == "norm" and _moved(old, new, n.name)}
    found: dict[str, str] = {}
    for name, why in failing.items():
        near = _closest(old, name)
        for norm in [n for n in near if n in left] or near or sorted(left):
            found.setdefault(norm, why)
    return found


def _moved(old: Graph, new: Graph, name: str) -> bool:
    return name not in new.nodes or old.nodes[name].inputs != new.nodes[name].inputs


def _closest(old: Graph, name: str) -> list[str]:
    """Return the node itself if it is a norm, else the next ones in its row, on either side."""
    norms = [n.name for n in old if n.kind == "norm"]
    if name in norms:
        return [name]
    row = next((row for row in rows(old) if name in row), [name])
    at = row.index(name)
    before = [n for n in row[:at] if n in norms][-1:]
    after = [n for n in row[at:] if n in norms][:1]
    return [*after, *before]


def _nearest(old: Graph, changed: list[str], name: str) -> list[str]:
    """Return the changed norms next to a node in its row, or all."""
    row = next((row for row in rows(old) if name in row), [])
    number = row.index(name) if row else 0
    before = [other for other in row[:number] if other in changed]
    after = [other for other in row[number:] if other in changed]
    return [*before[-1:], *after[:1]] or changed


def _lost_terms(old: Graph, found: Exchange, name: str) -> set[str]:
    """Return the norms, gone with what follows them, whose values a node of several inputs read."""
    lost: set[str] = set()
    for source in old.nodes[name].inputs:
        while found.nodes[source] is None and old.nodes[source].op == "identity":
            (source,) = old.nodes[source].inputs
        lost |= {source} if found.nodes[source] is None else set()
    return lost


def _parts(row: list[str], found: Exchange) -> Iterator[set[str]]:
    """Cut a row where the nodes so far are the same in both graphs."""
    part: set[str] = set()
    after: set[str] = set()
    for name in row:
        part.add(name)
        if (content := found.nodes[name]) is not None:
            after.add(content)
        if {n for n in part if found.nodes[n] is not None} == after:
            yield part
            part, after = set(), set()
