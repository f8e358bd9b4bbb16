"""A Graph that is being edited: nodes are removed, added and changed; the result is a new Graph.

The original graph is never changed. Tensors are float64 while they are worked on and
cast once, at the end. A planner returns an Edit: the new Graph and a SiteResult for every norm.
Not here: what to edit (`fold`, `convert`), the algebra (`algebra`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import Refused
from ..graph import Graph, Node
from ..graph.nodes import is_floating


@dataclass(frozen=True)
class SiteResult:
    """What happens to one norm layer: done or skipped, and why.

    strategy: how zero padding behind the norm is treated, where it matters (`fold`).
    old, new: the order of its block before and after.
    """

    name: str
    status: str
    reason: str
    strategy: str | None = None
    old: str = ""
    new: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row of the report."""
        names = ("name", "status", "reason", "strategy", "old", "new")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Edit:
    """The graph that a verb returns, and what happened to each norm.

    placed: the norms that `convert` put elsewhere as the identity (node names).
    warnings: what users of the new graph have to know, in whole sentences.
    left: norms that the framework couldn't write elsewhere, by their first node, and why.
    """

    graph: Graph
    outcomes: tuple[SiteResult, ...]
    placed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def done(self) -> tuple[SiteResult, ...]:
        """The norms that something was done to."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "done")


def plan_writable(
    plan: Callable[[Mapping[str, str]], Edit], unwritable: Callable[[Graph], Mapping[str, str]]
) -> Edit:
    """Return a plan that leaves those norms alone whose edit the framework can't write.

    Args:
        plan: makes an Edit that leaves some norms alone (first node -> why).
        unwritable: of `ReadModel`.
    Raises: Refused: nothing is left to do.
    """
    left: dict[str, str] = {}
    edit = plan(left)
    while more := {n: why for n, why in unwritable(edit.graph).items() if n not in left}:
        left.update(more)
        edit = plan(left)
    stuck = any(outcome.reason in left.values() for outcome in edit.outcomes)
    if stuck and not edit.done:
        raise Refused(f"nothing can be done: {next(iter(left.values()))}.")
    return replace(edit, left=left)


class Draft:
    """A copy of a graph that can be edited; only the order of its nodes may be wrong meanwhile."""

    def __init__(self, graph: Graph) -> None:
        self.source = graph
        self.nodes: dict[str, Node] = dict(graph.nodes)
        self.tensors: dict[str, np.ndarray] = dict(graph.tensors)
        self.trainable = set(graph.trainable)
        self.outputs = list(graph.outputs)
        self._readers: dict[str, list[str]] = {n: list(r) for n, r in graph.consumers.items()}
        self._users: dict[str, set[str]] = {}
        self._given: dict[tuple[str, str], str] = {}  # keys of what norms are given in `restore`
        self._names = {name for node in graph for name in (node.name, node.layer)}
        for node in graph:
            for key in node.arrays.values():
                self._users.setdefault(key, set()).add(node.name)
        self._kin: dict[str, set[str]] = {}  # what tensors are made of -> these tensors
        for key in graph.tensors:
            for part in self._parts(key):
                self._kin.setdefault(part, set()).add(key)

    def _parts(self, key: str) -> frozenset[str]:
        return self.source.made_of.get(key) or frozenset({key})

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read a value, once per use."""
        return [self.nodes[reader] for reader in self._readers[name]]

    def sharing(self, node: Node) -> frozenset[str]:
        """Return the nodes that use a tensor of this one, itself included (a reused layer).

        A tensor that is made of the same weights (tied, transposed) counts as the same.
        """
        parts = (part for key in node.arrays.values() for part in self._parts(key))
        kin = {key for part in parts for key in self._kin.get(part, ())} | {*node.arrays.values()}
        return frozenset({node.name}).union(*(self._users.get(key, ()) for key in kin))

    def users(self, node: Node, role: str) -> frozenset[str]:
        """Return the nodes that use one tensor of this node, itself included."""
        return frozenset(self._users[node.arrays[role]])

    def array(self, node: Node, role: str) -> np.ndarray | None:
        """Return a node's tensor in float64, None if it has none."""
        key = node.arrays.get(role)
        return None if key is None else np.asarray(self.tensors[key], np.float64)

    def set_array(self, name: str, role: str, value: np.ndarray) -> None:
        """Give a node, and all calls of its layer, a tensor: a new value, or a new one."""
        node = self.nodes[name]
        key = node.arrays.get(role)
        if key is None:
            kernel = node.arrays.get("kernel", f"{node.layer_name}/kernel")
            key = _numbered(_sibling(kernel, role), self.tensors)
            first = next(
                (node.arrays[r] for r in ("kernel", "moving_mean") if r in node.arrays), None
            )
            calls = {name} if first is None else set(self._users[first])
            self._users[key] = calls
            for call in calls:
                other = self.nodes[call]
                self.nodes[call] = replace(other, arrays={**other.arrays, role: key})
            if _trains(node, role, self.trainable):
                self.trainable.add(key)
        self.tensors[key] = np.asarray(value, np.float64)

    def drop_array(self, name: str, role: str) -> None:
        """Take a tensor from a node and from all calls of its layer."""
        key = self.nodes[name].arrays[role]
        for user in self._users.pop(key):
            node = self.nodes[user]
            kept = {r: k for r, k in node.arrays.items() if k != key}
            self.nodes[user] = replace(node, arrays=kept)
        del self.tensors[key]
        self.trainable.discard(key)

    def remove(self, name: str) -> None:
        """Take out a node with one input: its readers read its input instead."""
        self._unhook(name)
        del self._readers[name]
        self._release(self.nodes.pop(name))

    def _unhook(self, name: str) -> None:
        (source,) = self.nodes[name].inputs
        moved = self._readers[name]
        self._readers[source] = [r for r in self._readers[source] if r != name] + moved
        self._readers[name] = []
        for reader in set(moved):
            self._rewire(reader, name, source)
        self.outputs = [source if output == name else output for output in self.outputs]

    def drop_input(self, name: str, source: str) -> None:
        """Let a sum do without one of its terms; where one is left, that takes its place."""
        node = self.nodes[name]
        self._readers[source].remove(name)
        rest = tuple(other for other in node.inputs if other != source)
        self.nodes[name] = replace(node, inputs=rest)
        if len(rest) == 1:
            self.remove(name)

    def move(self, name: str, source: str, readers: Iterable[str] | None = None) -> None:
        """Put a node with one input behind `source`, read by all readers that `source` had.

        Args: readers: only these then read the moved node; None: all, and the model's output.
        """
        self._unhook(name)
        node = self.nodes[name]
        behind = [
            r for r in dict.fromkeys(self._readers[source]) if readers is None or r in set(readers)
        ]
        self._readers[source].append(name)
        shape = self.nodes[source].shape
        self.nodes[name] = replace(node, inputs=(source,), shape=shape)
        for reader in behind:
            self._redirect(reader, source, name)
        if readers is None:
            self.outputs = [name if output == source else output for output in self.outputs]

    def restore(
        self,
        node: Node,
        source: str,
        readers: Iterable[str] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Put a node that was removed back in, behind `source`.

        Args:
            readers: only these then read it; None: all that read `source`, and the model's output.
            arrays: its tensors; all calls of its layer get the same ones.
        """
        old = self.source.nodes[node.name]
        keys = {role: old.arrays.get(role) or self._given_key(old, role) for role in arrays or {}}
        shape = self.nodes[source].shape
        self.nodes[node.name] = replace(node, inputs=(source,), shape=shape, arrays=keys)
        self._readers[node.name] = []
        for role, value in (arrays or {}).items():
            self.tensors[keys[role]] = np.asarray(value, np.float64)
            self._users.setdefault(keys[role], set()).add(node.name)
            if _trains(old, role, self.source.trainable):
                self.trainable.add(keys[role])
        behind = list(dict.fromkeys(self._readers[source]))
        wanted = behind if readers is None else [r for r in behind if r in set(readers)]
        self._readers[source].append(node.name)
        for reader in wanted:
            self._redirect(reader, source, node.name)
        if readers is None:
            self.outputs = [node.name if o == source else o for o in self.outputs]

    def _given_key(self, node: Node, role: str) -> str:
        """Return a key for a tensor that a norm didn't have: the same one for all of its calls."""
        known = next(iter(node.arrays.values()), f"{node.layer_name}/")
        return self._given.setdefault((known, role), self._unused(_sibling(known, role)))

    def _unused(self, base: str) -> str:
        """Return a key that no tensor has, and none of the source's had."""
        return _numbered(base, self.tensors.keys() | self.source.tensors.keys())

    def _rewire(self, reader: str, old: str, new: str) -> None:
        node = self.nodes[reader]
        inputs = tuple(new if source == old else source for source in node.inputs)
        self.nodes[reader] = replace(node, inputs=inputs)

    def _release(self, node: Node) -> None:
        for key in set(node.arrays.values()):
            self._users[key].discard(node.name)
            if not self._users[key]:
                del self._users[key], self.tensors[key]
                self.trainable.discard(key)

    def insert(
        self,
        op: str,
        name: str,
        inputs: Iterable[str],
        shape: tuple[int | None, ...],
        *,
        attrs: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        trainable: bool = True,
        before: Iterable[str] = (),
        added_for: str = "",
    ) -> str:
        """Add a node; the nodes named in `before` read it in place of its first input.

        Args: added_for: the node that it belongs to; later walks know it by that, not by its name.
        Returns: its name: `name`, or `name_1`, ... where that is taken.
        """
        free = _numbered(name, self.nodes.keys() | self._names)
        sources = tuple(inputs)
        keys = {role: self._unused(f"{free}/{role}") for role in arrays or {}}
        made = Node(free, op, sources, shape, free, 0, dict(attrs or {}), keys, added_for)
        self.nodes[free] = made
        self._readers[free] = []
        for role, value in (arrays or {}).items():
            self.tensors[keys[role]] = np.asarray(value, np.float64)
            self._users[keys[role]] = {free}
            if trainable and not role.startswith("moving"):
                self.trainable.add(keys[role])
        for source in sources:
            self._readers[source].append(free)
        for reader in before:
            self._redirect(reader, sources[0], free)
        return free

    def insert_behind(self, name: str, op: str, label: str, **more: Any) -> str:
        """Add a node that reads `name` (and `others`) and is read by all that read `name` so far.

        Args: more: as for `insert`; `others`: further inputs.
        """
        readers = [node.name for node in self.readers(name)]
        others = tuple(more.pop("others", ()))
        shape = self.nodes[name].shape
        added = self.insert(
            op, label, (name, *others), shape, before=dict.fromkeys(readers), **more
        )
        self.outputs = [added if output == name else output for output in self.outputs]
        return added

    def _redirect(self, reader: str, old: str, new: str) -> None:
        count = self.nodes[reader].inputs.count(old)
        self._rewire(reader, old, new)
        for _ in range(count):
            self._readers[old].remove(reader)
            self._readers[new].append(reader)

    def change(self, name: str, **fields: Any) -> None:
        """Replace fields of a node that leave its inputs alone (attrs, shape, layer)."""
        self.nodes[name] = replace(self.nodes[name], **fields)

    def finish(self) -> Graph:
        """Return the edited graph, in topological order, tensors in their own types again."""
        nodes = self._sorted()
        floats = (array.dtype for array in self.source.tensors.values() if is_floating(array))
        dtype = next(floats, np.dtype(np.float32))  # of new tensors: that of the first weight
        known = self.source.tensors
        tensors = {
            key: np.asarray(value, known[key].dtype if key in known else dtype)
            for key, value in self.tensors.items()
        }
        return replace(
            self.source,
            nodes=nodes,
            outputs=tuple(self.outputs),
            tensors=tensors,
            trainable=frozenset(self.trainable),
            penalties=tuple(p for p in self.source.penalties if p.tensor in tensors),
        )

    def _sorted(self) -> dict[str, Node]:
        missing = {name: len(node.inputs) for name, node in self.nodes.items()}
        rank = {name: number for number, name in enumerate(self.source.nodes)}
        ready = [name for name, count in missing.items() if not count]
        ready.sort(key=lambda name: -rank.get(name, -1))
        done: dict[str, Node] = {}
        while ready:
            name = ready.pop()
            done[name] = self.nodes[name]
            for reader in self._readers[name]:
                missing[reader] -= 1
                if not missing[reader]:
                    ready.append(reader)
        return done


def _trains(node: Node, role: str, trainable: Set[str]) -> bool:
    """Return whether a layer's tensor trains; a new one does if the layer's others do."""
    if role.startswith("moving"):
        return False
    if role in node.arrays:
        return node.arrays[role] in trainable
    own = {key for known, key in node.arrays.items() if not known.startswith("moving")}
    return not own.isdisjoint(trainable) if own else not node.attrs.get("frozen")


def _sibling(key: str, role: str) -> str:
    """Return what a tensor of another role is called in the layer that has the tensor `key`."""
    return f"{key[: max(key.rfind('/'), key.rfind('.')) + 1]}{role}"


def _numbered(base: str, taken: Container[str]) -> str:
    """Return `base`, or `base_1`, ... where that is taken."""
    free, number = base, 1
    while free in taken:
        free, number = f"{base}_{number}", number + 1
    return free
