"""A Graph as boxes to draw: what each node is in a word, what it reads, where each norm sits.

Pure: a Graph and its sites in, plain data out. Not here: where a box is drawn (`report.flow`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph import Graph, Node
from ..graph.functions import is_function
from .paths import is_unknown
from .sites import Site

_WORDS = {
    "conv": "conv",
    "depthwise_conv": "depthwise",
    "conv_transpose": "transposed",
    "batch_norm": "BN",
    "layer_norm": "LN",
    "group_norm": "GN",
    "instance_norm": "IN",
    "rms_norm": "RMS",
    "concatenate": "concat",
    "zero_pad": "pad",
}
_HIDDEN = frozenset({"identity"})


def boxes(graph: Graph, sites: Sequence[Site]) -> list[dict[str, Any]]:
    """Return a box for each node in topological order, and one behind each that is put out.

    `kind`: linear, norm, act, drop, merge, input, output, opaque or other; `label`: what it is;
    `name`: its layer; `place` of a norm: `place_of`; `order` of a norm; `inputs`: positions of
    the boxes that it reads.
    """
    placed = {node: site for site in sites for node in site.nodes}
    at: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    for node in graph:
        if node.op in _HIDDEN and node.inputs and node.name not in graph.outputs:
            at[node.name] = at[node.inputs[0]]
            continue
        at[node.name] = len(found)
        site = placed.get(node.name)
        found.append(
            {
                "kind": _kind(node),
                "label": _label(graph, node),
                "name": node.layer_name,
                "place": place_of(site) if site else None,
                "order": site.order if site else None,
                "inputs": list(dict.fromkeys(at[name] for name in node.inputs)),
            }
        )
        found += [_output(at[node.name])] * (node.name in graph.outputs)
    return found


def place_of(site: Site) -> str:
    """Return where a norm sits: before or after the activation, first, alone, or unknown.

    first: before its linear layer; alone: without an activation of its own.
    """
    tokens = site.order.split("-")
    norm = tokens.index("norm")
    if site.unknown:
        return "unknown"
    if "linear" in tokens[norm:]:
        return "first"
    if "act" not in tokens:
        return "alone"
    return "before" if "act" in tokens[norm:] else "after"


def _output(source: int) -> dict[str, Any]:
    texts = {"kind": "output", "label": "output", "name": "output", "place": None, "order": None}
    return {**texts, "inputs": [source]}


def _kind(node: Node) -> str:
    if is_unknown(node) and node.op == "opaque":
        return "other" if is_function(node) else "opaque"
    if node.op == "input":
        return "input"
    kind = node.operation.kind
    return kind if kind in {"linear", "norm", "act", "drop", "merge"} else "other"


def _label(graph: Graph, node: Node) -> str:
    if node.op == "opaque":
        return str(node.attrs.get("type") or node.layer_name)
    if node.op == "input":
        return " ".join(["input", "×".join("?" if n is None else str(n) for n in node.shape[1:])])
    word = "IN" if node.kind == "norm" and node.norm_kind == "instance" else _WORDS.get(node.op)
    return " ".join([word or node.op.replace("_", " "), *_window(graph, node), *_step(node.attrs)])


def _window(graph: Graph, node: Node) -> list[str]:
    """Return the window of a convolution or a pool, such as 3×3."""
    sizes = node.attrs.get("window")
    if node.op in {"conv", "depthwise_conv", "conv_transpose"} and "kernel" in node.arrays:
        sizes = graph.tensors[node.arrays["kernel"]].shape[:-2]
    return ["×".join(map(str, sizes))] if sizes else []


def _step(attrs: Mapping[str, Any]) -> list[str]:
    strides = attrs.get("strides") or ()
    steps = {strides} if isinstance(strides, int) else set(strides)
    return [f"/{max(steps)}"] if steps and max(steps) > 1 else []
