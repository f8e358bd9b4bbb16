"""What a rule is: a code, a severity, and a function from the model's facts to findings.

Each rule's docstring starts with its one-line summary; it is also the rule's page (`pages`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...graph import OPERATIONS, Graph, Node
from ...graph.conventions import conventions
from ..paths import Paths
from ..sites import Site

SEVERITIES = ("note", "warning", "error")
# Norms (as a site's kind) that treat the axis of the channels apart from all others.
CHANNEL_NORMS = frozenset(
    op.name.removesuffix("_norm")
    for op in OPERATIONS.values()
    if op.centers in ("channel", "group")
)


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found: where is a layer's name, or the model's."""

    code: str
    severity: str
    where: str
    message: str
    fix: str
    rule: str = ""  # the rule's name
    parameters: int = 0  # how many could go

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as the JSON of `relucate audit` has it."""
        names = ("code", "rule", "severity", "where", "message", "fix", "parameters")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Facts:
    """What the rules know: the graph, its walks, its sites, and the training steps if given."""

    graph: Graph
    paths: Paths
    sites: tuple[Site, ...]
    steps: int | None = None

    @cached_property
    def by_node(self) -> Mapping[str, Site]:
        """The site of each norm's node."""
        return {name: site for site in self.sites for name in site.nodes}

    @cached_property
    def users(self) -> Mapping[str, int]:
        """How many nodes use each tensor."""
        return Counter(key for node in self.graph for key in node.arrays.values())

    def shared(self, node: Node) -> bool:
        """Return whether another call, or another layer, uses this node's tensors too."""
        return any(self.users[key] > 1 for key in node.arrays.values())

    @cached_property
    def trained(self) -> bool:
        """Whether the weights show training: values that no usual initialiser gives.

        A norm's beta or gamma that varies over channels, moving statistics that vary, or (in Keras,
        whose biases start constant) a bias that varies.
        """
        roles = {"gamma", "beta", "moving_mean", "moving_variance"}
        keys = {key for n in self.norms() for role, key in n.arrays.items() if role in roles}
        if conventions(self.graph).constant_biases:
            linears = (n for n in self.graph if n.kind == "linear")
            keys |= {n.arrays["bias"] for n in linears if "bias" in n.arrays}
        arrays = (self.graph.tensors[key] for key in keys)
        return any(a.size > 1 and bool(np.any(a != a.flat[0])) for a in arrays)

    def norms(self) -> Iterator[Node]:
        """Yield the nodes of all norms, one per call."""
        return (self.graph.nodes[name] for site in self.sites for name in site.nodes)

    def node(self, site: Site) -> Node:
        """Return the node of the site's first call."""
        return self.graph.nodes[site.nodes[0]]

    def array(self, node: Node, role: str) -> np.ndarray | None:
        """Return a norm's or layer's tensor, None if it has none."""
        key = node.arrays.get(role)
        return None if key is None else self.graph.tensors[key]

    def say(self, keras: str, torch: str) -> str:
        """Return how users of this model's framework spell it."""
        return {"keras": keras, "torch": torch}[self.graph.framework]


def moves_statistics(norm: Node) -> bool:
    """Return whether training moves statistics that inference uses."""
    fixed = norm.attrs.get("frozen") or norm.attrs.get("forced") is not None
    return "moving_mean" in norm.arrays and not fixed


Check = Callable[[Facts], Iterable["Hit"]]


@dataclass(frozen=True)
class Hit:
    """A finding before it knows its rule; a severity of its own overrides the rule's."""

    where: str
    message: str
    fix: str
    severity: str | None = None
    parameters: int = 0


@dataclass(frozen=True)
class Rule:
    """A check with its stable code."""

    code: str
    name: str
    severity: str
    summary: str
    check: Check

    def __call__(self, facts: Facts) -> Iterator[Finding]:
        for hit in self.check(facts):
            severity = hit.severity or self.severity
            yield Finding(
                self.code, severity, hit.where, hit.message, hit.fix, self.name, hit.parameters
            )


RULES: dict[str, Rule] = {}


def rule(code: str, name: str, severity: str) -> Callable[[Check], Check]:
    """Register a check under its code."""

    def register(check: Check) -> Check:
        summary = " ".join((check.__doc__ or "").split("\n\n")[0].split())
        RULES[code] = Rule(code, name, severity, summary, check)
        return check

    return register
