"""A Graph that is being edited: nodes go, come and change, and a new Graph comes out.

The graph that it started from is never changed. Tensors are float64 while they are worked on and
cast once, at the end. Not here: what to edit (`fold`, `convert`), the algebra (`algebra`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..graph import Graph, Node


class Draft:
    """A copy of a graph, open to edits; every edit keeps it a valid graph but for its order."""

    def __init__(self, graph: Graph) -> None:
        self.source = graph
        self.nodes: dict[str, Node] = dict(graph.nodes)
        self.tensors: dict[str, np.ndarray] = dict(graph.tensors)
        self.trainable = set(graph.trainable)
        self.outputs = list(graph.outputs)
        self._readers: dict[str, list[str]] = {n: list(r) for n, r in graph.consumers.items()}
        self._users: dict[str, int] = {}
        for node in graph:
            for key in set(node.arrays.values()):
                self._users[key] = self._users.get(key, 0) + 1

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read a value, once per use."""
        return [self.nodes[reader] for reader in self._readers[name]]

    def is_shared(self, node: Node) -> bool:
        """Return whether another node uses a tensor of this one (a reused layer, tied weights)."""
        return any(self._users[key] > 1 for key in node.arrays.values())

    def array(self, node: Node, role: str) -> np.ndarray | None:
        """Return a node's tensor in float64, None if it has none."""
        key = node.arrays.get(role)
        return None if key is None else np.asarray(self.tensors[key], np.float64)

    def set_array(self, name: str, role: str, value: np.ndarray) -> None:
        """Give a node a tensor: a new value for the one it has, or a new one beside its kernel."""
        node = self.nodes[name]
        key = node.arrays.get(role)
        if key is None:
            key = self._new_key(node, role)
            self._users[key] = 1
            self.nodes[name] = replace(node, arrays={**node.arrays, role: key})
            if node.arrays.get("kernel") in self.trainable:
                self.trainable.add(key)
        self.tensors[key] = np.asarray(value, np.float64)

    def _new_key(self, node: Node, role: str) -> str:
        kernel = node.arrays.get("kernel", f"{node.layer or node.name}/kernel")
        cut = max(kernel.rfind("/"), kernel.rfind("."))
        base = key = f"{kernel[: cut + 1]}{role}"
        number = 1
        while key in self.tensors:
            key = f"{base}_{number}"
            number += 1
        return key

    def remove(self, name: str) -> None:
        """Take out a node with one input: whoever read it reads its input instead."""
        node = self.nodes.pop(name)
        (source,) = node.inputs
        moved = self._readers.pop(name)
        self._readers[source] = [r for r in self._readers[source] if r != name] + moved
        for reader in set(moved):
            self._rewire(reader, name, source)
        self.outputs = [source if output == name else output for output in self.outputs]
        self._release(node)

    def _rewire(self, reader: str, old: str, new: str) -> None:
        node = self.nodes[reader]
        inputs = tuple(new if source == old else source for source in node.inputs)
        self.nodes[reader] = replace(node, inputs=inputs)

    def _release(self, node: Node) -> None:
        for key in set(node.arrays.values()):
            self._users[key] -= 1
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
    ) -> str:
        """Add a node; the nodes named in `before` read it in place of its first input.

        Returns: its name: `name`, or `name_1`, ... where that is taken.
        """
        free = self._free(name)
        sources = tuple(inputs)
        keys = {role: f"{free}/{role}" for role in arrays or {}}
        self.nodes[free] = Node(free, op, sources, shape, free, 0, dict(attrs or {}), keys)
        self._readers[free] = []
        for role, value in (arrays or {}).items():
            self.tensors[keys[role]] = np.asarray(value, np.float64)
            self._users[keys[role]] = 1
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

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self.nodes or free in self.source.nodes:
            free = f"{name}_{number}"
            number += 1
        return free

    def change(self, name: str, **fields: Any) -> None:
        """Replace fields of a node that leave its inputs alone (attrs, shape, layer)."""
        self.nodes[name] = replace(self.nodes[name], **fields)

    def finish(self) -> Graph:
        """Return the edited graph, in topological order, tensors in their own types again."""
        nodes = self._sorted()
        dtype = _main_dtype(self.source)
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


def _main_dtype(graph: Graph) -> np.dtype:
    """Return the type of the graph's weights (of the first floating tensor)."""
    floats = (a.dtype for a in graph.tensors.values() if a.dtype.kind == "f")
    return next(floats, np.dtype(np.float32))
