"""A network as plain data: nodes in topological order, edges by name, weights as NumPy arrays.

A Graph holds what is computed, in no framework's terms: readers (`relucate.keras.read`,
`relucate.torch.read`) make it, planners and `relucate.torch.lower` consume it, `graph.evaluate`
defines its meaning, slowly and obviously. A layer that a reader doesn't know becomes an `opaque`
node: kept, never guessed. Not here: any framework, any decision.

What each op is, its attributes and the layouts of its tensors are in `ops`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .ops import OPERATIONS, Operation


@dataclass(frozen=True)
class Node:
    """One computation of one call of one layer.

    A layer with a fused activation gives two nodes with the same `layer`; a layer that is called
    twice gives one node per call, numbered by `call`; all of them name the same tensors.
    """

    name: str  # unique in the graph
    op: str  # one of OPERATIONS
    inputs: tuple[str, ...]  # names of the nodes that it reads
    shape: tuple[int | None, ...]  # of its output, batch axis first
    layer: str = ""  # the layer that it came from
    call: int = 0  # which call of that layer
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)  # role -> key in Graph.tensors
    added_for: str = ""  # the node (a linear layer, or a norm that went) that a planner made it for

    @property
    def kind(self) -> str:
        """`linear`, `norm`, `act`, `drop` (the tokens of an order) or `other`."""
        return self.operation.token

    @property
    def layer_name(self) -> str:
        """The name that messages use: of its layer, or its own if it has none."""
        return self.layer or self.name

    @property
    def operation(self) -> Operation:
        """The record of its op in the registry."""
        return OPERATIONS[self.op]

    @property
    def centers_channels(self) -> bool:
        """Whether it is a norm that subtracts a mean per channel: a bias before it is lost.

        A frozen one subtracts the same mean whatever the bias is.
        """
        if self.attrs.get("frozen"):
            return False
        if self.operation.centers == "group":
            return self.attrs["groups"] == self.shape[self.counted([self.attrs["axis"]])[0]]
        return self.operation.centers == "channel"

    @property
    def time_axes(self) -> int:
        """1 if it is time-distributed: then it doesn't see its input's axis 1; else 0."""
        return 1 if self.attrs.get("time_distributed") else 0

    def counted(self, axes: Iterable[int], rank: int | None = None) -> tuple[int, ...]:
        """Return axes as an attribute counts them in the numbering of a tensor of this rank.

        An attribute of a node that is time-distributed doesn't count the time axis.
        Args: rank: by default that of the output.

        >>> attrs = {"time_distributed": True}
        >>> Node("n", "batch_norm", (), (None, 7, 5, 3), attrs=attrs).counted([0, 1, -1])
        (0, 2, 3)
        """
        time = self.time_axes
        inner = (len(self.shape) if rank is None else rank) - time
        return tuple(axis % inner + (time if axis % inner else 0) for axis in axes)

    def of_one_step(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the shape of an input or output as the node sees it, without the time axis."""
        return (*shape[:1], *shape[1 + self.time_axes :])

    @property
    def channel_axis(self) -> int | None:
        """The axis of a spatial or dense layer's output that its channels are, None of others.

        >>> attrs = {"data_format": "channels_first"}
        >>> Node("c", "conv", (), (None, 8, 5, 5), attrs=attrs).channel_axis
        1
        """
        layout = self.operation.complete(self.attrs).get("data_format")
        if layout is None and self.op != "dense":
            return None
        return 1 + self.time_axes if layout == "channels_first" else len(self.shape) - 1

    @property
    def norm_kind(self) -> str:
        """`batch`, `layer`, ...; `instance` for a group norm with one channel in each group."""
        own = self.operation.centers == "group" and self.centers_channels
        return "instance" if own else self.op.removesuffix("_norm")


def is_floating(array: np.ndarray) -> bool:
    """Return whether an array holds floating numbers, bfloat16 (no type of NumPy's own) too."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


@dataclass(frozen=True)
class Penalty:
    """l1 · Σ|w| + l2 · Σw² over one tensor, added to the training loss (Keras regularizers)."""

    tensor: str
    l1: float
    l2: float


@dataclass(frozen=True)
class Graph:
    """A whole network. `nodes` keeps topological order; `tensors` has Keras's layouts (`ops`)."""

    name: str
    nodes: Mapping[str, Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    trainable: frozenset[str] = frozenset()
    penalties: tuple[Penalty, ...] = ()
    obstacles: tuple[str, ...] = ()  # why training it elsewhere would be different training
    framework: str = "keras"  # of the source, whose spelling messages use
    masked: frozenset[str] = frozenset()  # nodes whose values carry a mask (Keras's Masking)
    # Tensors that are computed from others, or are one of them turned: what they are made of.
    made_of: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    @cached_property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        """For each node's name, the names of the nodes that read it (once per use)."""
        readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self:
            for source in node.inputs:
                readers[source].append(node.name)
        return {name: tuple(names) for name, names in readers.items()}

    @property
    def opaque(self) -> tuple[Node, ...]:
        """The nodes that the reader didn't know."""
        return tuple(node for node in self if node.op == "opaque")

    @property
    def hidden_norms(self) -> dict[str, tuple[str, ...]]:
        """The norms inside layers that the reader didn't know, by layer; they are no nodes."""
        found = ((node.layer_name, node.attrs.get("norms")) for node in self.opaque)
        return {layer: tuple(norms) for layer, norms in found if norms}

    @property
    def input_scaling(self) -> tuple[str, ...]:
        """The layers that scale or shift the inputs by constants, before any other computation."""
        found: list[str] = []
        ahead = [reader for name in self.inputs for reader in self.consumers[name]]
        while ahead:
            node = self.nodes[ahead.pop()]
            if node.op in ("rescale", "affine"):
                found.append(node.layer_name)
            elif node.kind in ("linear", "norm", "act") or not node.operation.transparent:
                continue
            ahead += self.consumers[node.name]
        return tuple(dict.fromkeys(found))

    @property
    def depth(self) -> int:
        """Number of linear layers on the longest path."""
        layers: dict[str, int] = {}
        for node in self:
            before = max((layers[source] for source in node.inputs), default=0)
            layers[node.name] = before + (node.kind == "linear")
        return max(layers.values(), default=0)

    def count_parameters(self, kind: str | None = None) -> int:
        """Number of trainable scalars, of all layers or of those of one kind (`norm`, ...)."""
        keys = self.trainable
        if kind is not None:
            keys = keys & {key for n in self if n.kind == kind for key in n.arrays.values()}
        return sum(int(self.tensors[key].size) for key in keys)
