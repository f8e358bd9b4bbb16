"""Rules about parameters that are redundant or missing: biases, and a norm's own scale."""

from __future__ import annotations

from collections.abc import Iterator

from ...graph import Node
from ..paths import is_transparent
from .rule import (
    CHANNEL_NORMS,
    PER_CHANNEL,
    Facts,
    Hit,
    channel_axis,
    layer,
    norm_axes,
    rule,
    some,
)

# f(s · x) = s · f(x) for s > 0; a relu with a ceiling or threshold isn't.
_HOMOGENEOUS = frozenset({"relu", "leaky_relu", "prelu", "rrelu"})
_KEEPS_SCALE = frozenset(
    "dropout alpha_dropout gaussian_dropout stochastic_depth max_pool avg_pool global_max_pool "
    "global_avg_pool zero_pad crop slice flatten reshape permute upsample resize identity".split()
)


@rule("N101", "redundant-bias", "warning")
def redundant_bias(facts: Facts) -> Iterator[Hit]:
    """A bias right before a norm that subtracts the mean per channel: it has no effect."""
    layers: dict[str, list[Node]] = {}
    for node in facts.graph:
        if node.kind == "linear" and "bias" in node.arrays:
            layers.setdefault(node.arrays["bias"], []).append(node)
    for key, nodes in layers.items():
        norms = [_cancelling(facts, node) for node in nodes]
        if all(norms):
            count = facts.graph.tensors[key].size
            where = layer(nodes[0])
            takers = some(dict.fromkeys(layer(norm) for found in norms for norm in found))
            yield Hit(
                where,
                f"its bias ({count} parameters) is subtracted again by {takers}",
                facts.say("use_bias=False", "bias=False") + f" in {where}",
                parameters=int(count),
            )


def _cancelling(facts: Facts, node: Node) -> list[Node]:
    """Return the norms that cancel this call's bias, none if anything else sees it."""
    found: list[Node] = []
    axis = channel_axis(node)
    waiting = [(node.name, axis)]
    while waiting:
        name, axis = waiting.pop()
        if name in facts.graph.outputs or axis is None:
            return []
        for reader in facts.graph.consumers[name]:
            follower = facts.graph.nodes[reader]
            if _cancels(facts, follower, axis):
                found.append(follower)
            elif (moved := _constant_through(facts, follower, axis)) is not None:
                waiting.append((reader, moved))
            else:
                return []
    return found


def _cancels(facts: Facts, norm: Node, axis: int) -> bool:
    if norm.name not in facts.by_node or facts.by_node[norm.name].kind not in PER_CHANNEL:
        return False
    attrs = norm.attrs
    fixed = attrs.get("frozen") or attrs.get("forced") is False or attrs.get("renorm")
    return not fixed and norm_axes(norm) == (axis,)


def _constant_through(facts: Facts, node: Node, axis: int) -> int | None:
    """Return where the channel axis is behind `node`, None if a bias is no longer a constant."""
    rank = len(node.shape)
    if node.op in {"identity", "max_pool", "crop"} or _unpadded(node):
        return axis
    if node.op in {"global_avg_pool", "global_max_pool"} and axis not in node.attrs["axes"]:
        gone = sum(a < axis for a in node.attrs["axes"]) if not node.attrs.get("keepdims") else 0
        return axis - gone
    # Each position of each channel gets its own mean, and the bias is a constant in it.
    return 1 if node.op == "flatten" and rank == 2 else None


def _unpadded(node: Node) -> bool:
    if node.op != "avg_pool":
        return False
    return node.attrs["padding"] == "valid" or not node.attrs.get("count_include_pad")


@rule("N102", "missing-bias", "warning")
def missing_bias(facts: Facts) -> Iterator[Hit]:
    """A linear layer without bias whose activation comes before the norm: it can't be shifted."""
    seen: set[str] = set()
    for site in facts.sites:
        if site.order not in {"linear-act-norm", "norm-linear-act"} or site.act_node is None:
            continue
        for name in site.linears:
            node = facts.graph.nodes[name]
            where = layer(node)
            if node.op == "attention" or "bias" in node.arrays or where in seen:
                continue
            if not any(end.node.name == site.act_node for end in facts.paths.ahead(name)):
                continue
            seen.add(where)
            yield Hit(
                where,
                f"has no bias, but {site.act_op} follows it directly: {site.name} "
                + ("comes too late to shift it" if site.order[0] == "l" else "shifts its input"),
                facts.say("use_bias=True", "bias=True") + f" in {where}",
            )


@rule("N103", "absorbable-scale", "note")
def absorbable_scale(facts: Facts) -> Iterator[Hit]:
    """A gamma that the next linear layer could take over: it adds parameters, not functions."""
    for site in facts.sites:
        node = facts.node(site)
        gamma = facts.array(node, "gamma")
        if gamma is None or site.kind not in CHANNEL_NORMS or facts.calls[site.name] > 1:
            continue
        takers = _takers(facts, node)
        if takers:
            between = f" through {site.act_op}" if _act_between(facts, node) else ""
            yield Hit(
                site.name,
                f"its gamma ({gamma.size} parameters) could be absorbed by {some(takers)}{between}",
                facts.say("scale=False", "no gamma (affine=False drops beta too)")
                + f" in {site.name}, for equal functions with fewer parameters",
                parameters=int(gamma.size),
            )


def _act_between(facts: Facts, node: Node) -> bool:
    return any(end.kind == "act" for end in facts.paths.ahead(node.name))


def _takers(facts: Facts, node: Node) -> list[str]:
    """Return the linear layers that could absorb the scale, none if anything else sees it."""
    found: list[str] = []
    waiting = [(node.name, False)]  # and whether an activation lies on the way
    while waiting:
        name, bent = waiting.pop()
        if name in facts.graph.outputs:
            return []
        for reader in facts.graph.consumers[name]:
            follower = facts.graph.nodes[reader]
            if follower.kind == "linear":
                if facts.calls[layer(follower)] > 1 or follower.inputs[0] != name:
                    return []
                found.append(layer(follower))
            elif _passes_scale(follower, bent):
                waiting.append((reader, bent or follower.kind == "act"))
            else:
                return []
    return list(dict.fromkeys(found))


def _passes_scale(node: Node, bent: bool) -> bool:
    """Return whether f(s · x) = s · f(x); one activation may lie on the way (`bent`: it did)."""
    if node.kind == "act":
        return not bent and _homogeneous(node)
    return node.op in _KEEPS_SCALE or node.op == "concat"


def _homogeneous(node: Node) -> bool:
    plain = node.attrs.get("max_value") is None and not node.attrs.get("threshold")
    return node.op in _HOMOGENEOUS and plain


@rule("N501", "padded-fold", "note")
def padded_fold(facts: Facts) -> Iterator[Hit]:
    """A batch norm in front of a zero-padded convolution: most tools fold it wrongly or not."""
    for site in facts.sites:
        node = facts.node(site)
        if site.kind != "batch" or node.attrs.get("forced"):
            continue
        if facts.paths.back(node.inputs[0]).kind == "linear":
            continue  # it folds backwards
        convs = [
            layer(end.node)
            for end in facts.paths.ahead(node.name)
            if end.kind == "linear" and _zero_padded(facts, end.node, node.name)
        ]
        if convs:
            yield Hit(
                site.name,
                f"its shift meets the zero padding of {some(convs)}: W·(s·x + t) is not a "
                "convolution of x with one bias at the border",
                "fold it with a tool that is exact at the border, or keep the norm for inference",
            )


def _zero_padded(facts: Facts, conv: Node, norm: str) -> bool:
    node = facts.graph.nodes[conv.inputs[0]]
    while node.name != norm and is_transparent(node):
        if node.op == "zero_pad" and _nonzero(node.attrs["padding"]):
            return True
        node = facts.graph.nodes[node.inputs[0]]
    return _pads(conv, facts)


def _pads(conv: Node, facts: Facts) -> bool:
    padding = conv.attrs.get("padding", "valid")
    if conv.op not in {"conv", "depthwise_conv"} or padding == "valid":
        return False
    if padding == "same":
        return any(size > 1 for size in facts.graph.tensors[conv.arrays["kernel"]].shape[:-2])
    return _nonzero(padding)


def _nonzero(padding: object) -> bool:
    return any(sum(pair) for pair in padding)  # type: ignore[union-attr]
