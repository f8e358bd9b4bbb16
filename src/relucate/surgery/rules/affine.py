"""Rules about parameters that are redundant or missing: biases, and a norm's own scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...graph import Graph, Node
from ...graph.padding import adds_zeros, explicit_padding
from ...phrases import some
from ..paths import is_transparent
from ..sites import Site
from .axes import bias_axis, carried, channel_axis, input_axis, norm_axes, time_axes
from .rule import CHANNEL_NORMS, Facts, Hit, layer, rule


@rule("N101", "redundant-bias", "warning")
def redundant_bias(facts: Facts) -> Iterator[Hit]:
    """A bias right before a norm that subtracts the mean per channel: it has no effect."""
    layers: dict[str, list[Node]] = {}
    for node in facts.graph:
        if node.kind == "linear" and "bias" in node.arrays:
            layers.setdefault(node.arrays["bias"], []).append(node)
    for key, nodes in layers.items():
        norms = [_cancelling(facts, node) for node in nodes]
        if all(norms) and facts.users[key] == len(nodes):
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
    graph, found = facts.graph, []
    waiting = [(node.name, bias_axis(graph, node))]
    seen = {node.name}
    while waiting:
        name, axis = waiting.pop()
        if name in graph.outputs or axis is None:
            return []
        for reader in graph.consumers[name]:
            follower = graph.nodes[reader]
            if _cancels(facts, follower, axis):
                found.append(follower)
            elif not _keeps_constant(graph, follower, axis):
                return []
            elif reader not in seen:
                seen.add(reader)
                waiting.append((reader, carried(graph, follower, axis)))
    return found


def _cancels(facts: Facts, norm: Node, axis: int) -> bool:
    if norm.name not in facts.by_node or not norm.centers_channels:
        return False
    attrs = norm.attrs
    fixed = attrs.get("frozen") or attrs.get("forced") is False or attrs.get("renorm")
    return not fixed and norm_axes(norm) == (axis,)


def _keeps_constant(graph: Graph, node: Node, axis: int) -> bool:
    """Return whether what is added per channel before `node` is still that behind it."""
    attrs, what = node.attrs, node.operation
    shift = what.shift_of(attrs)
    if node.op == "concat":
        return _along(node, axis)
    if what.kind == "merge":  # of which one input alone has the constant
        same = all(graph.nodes[name].shape == node.shape for name in node.inputs)
        return what.scale == "any" and same
    if what.training in ("multiplies", "other"):
        idle = not attrs.get("rate") or attrs.get("forced") is False
        return shift == "commutes" and idle
    if node.op == "avg_pool" and shift == "borders":  # zeros that count pull the borders down
        return not _pads(graph, node)
    return shift in ("commutes", "constant")


def _along(concat: Node, axis: int) -> bool:
    return concat.attrs["axis"] % len(concat.shape) == axis


@rule("N102", "missing-bias", "warning")
def missing_bias(facts: Facts) -> Iterator[Hit]:
    """A linear layer without bias whose activation comes before the norm: it can't be shifted."""
    seen: set[str] = set()
    for site in facts.sites:
        if not _norm_out_of_reach(site) or site.act_node is None:
            continue
        for name in site.linears:
            node = facts.graph.nodes[name]
            where = layer(node)
            if node.op == "attention" or "bias" in node.arrays or where in seen:
                continue
            if not _feeds(facts, node, site.act_node):
                continue
            seen.add(where)
            late = site.order == "linear-act-norm"
            yield Hit(
                where,
                f"has no bias, but {site.act_op} follows it directly: {site.name} "
                + ("comes too late to shift it" if late else "shifts its input only"),
                facts.say("use_bias=True", "bias=True") + f" in {where}",
                None if late else "note",
            )


def _norm_out_of_reach(site: Site) -> bool:
    # Behind a layer norm a bias is left out on purpose, as in many transformers.
    before = site.order == "norm-linear-act" and site.kind in CHANNEL_NORMS
    return site.order == "linear-act-norm" or before


def _feeds(facts: Facts, linear: Node, act: str) -> bool:
    """Return whether the activation takes this layer's output, with no shift in between."""
    if all(end.node.name != act for end in facts.paths.ahead(linear.name)):
        return False
    source = facts.paths.source(facts.graph.nodes[act])
    between = facts.paths.between(source, linear.name)
    return not any(node.op == "affine" and "offset" in node.arrays for node in between)


@rule("N103", "absorbable-scale", "note")
def absorbable_scale(facts: Facts) -> Iterator[Hit]:
    """A gamma that the next linear layer could take over: it adds parameters, not functions."""
    seen: set[str] = set()
    for site in facts.sites:
        node = facts.node(site)
        gamma = facts.array(node, "gamma")
        if gamma is None or site.kind not in CHANNEL_NORMS or facts.shared(node):
            continue
        takers = _takers(facts, node)
        if takers.layers and site.name not in seen:
            seen.add(site.name)
            names = some(dict.fromkeys(map(layer, takers.layers)))
            through = f" through {takers.act}" if takers.act else ""
            negative = int((gamma < 0).sum()) if takers.signed else 0
            but = f", but for the sign of {negative}" if negative else ""
            yield Hit(
                site.name,
                f"its gamma ({gamma.size} parameters{but}) could be absorbed by {names}{through}",
                facts.say("scale=False", "no gamma (affine=False drops beta too)")
                + f" in {site.name}, for equal functions with fewer parameters",
                parameters=int(gamma.size),
            )


@dataclass
class _Takers:
    """The linear layers that could absorb a scale; signed: of positive scales only."""

    layers: list[Node] = field(default_factory=list)
    act: str = ""
    signed: bool = False


def _takers(facts: Facts, norm: Node) -> _Takers:
    """Return the linear layers that could absorb the scale, none if anything else sees it."""
    graph, found = facts.graph, _Takers()
    waiting: list[tuple[str, int | None]] = [(norm.name, norm_axes(norm)[0])]
    seen = {norm.name}
    while waiting:
        name, axis = waiting.pop()
        if name in graph.outputs or axis is None:
            return _Takers()
        for reader in graph.consumers[name]:
            follower = graph.nodes[reader]
            if follower.kind == "linear":
                if not _absorbs(facts, follower, axis):
                    return _Takers()
                found.layers.append(follower)
                continue
            sign = _keeps_scale(follower, axis)
            if sign is None:
                return _Takers()
            found.signed |= sign
            found.act = follower.op if follower.kind == "act" else found.act
            if reader not in seen:
                seen.add(reader)
                waiting.append((reader, carried(graph, follower, axis)))
    return found


def _absorbs(facts: Facts, linear: Node, axis: int) -> bool:
    """Return whether the kernel is free to be scaled along this axis of its input."""
    if facts.shared(linear) or linear.attrs.keys() & {"reparametrized", "quantized", "lora"}:
        return False
    if linear.op != "einsum":
        return axis == input_axis(facts.graph, linear)
    taken, kernel = linear.attrs["equation"].replace(" ", "").split("->")[0].split(",")
    rank = len(facts.graph.nodes[linear.inputs[0]].shape)
    letters = taken.removeprefix("...")
    return rank - axis <= len(letters) and letters[axis - rank] in kernel


def _keeps_scale(node: Node, axis: int) -> bool | None:
    """Return whether f(s · x) = s · f(x) holds of positive s only, None if it doesn't hold."""
    what = node.operation
    if what.kind == "merge":
        return False if node.op == "concat" and _along(node, axis) else None
    scale = what.scale_of(node.attrs)
    if scale == "none" or what.training not in ("same", "multiplies"):
        return None
    return scale == "positive"


@rule("N501", "padded-fold", "note")
def padded_fold(facts: Facts) -> Iterator[Hit]:
    """A batch norm in front of a zero-padded convolution: most tools fold it wrongly or not."""
    for site in facts.sites:
        node = facts.node(site)
        fixed = "moving_mean" in node.arrays and not node.attrs.get("forced")
        if site.kind != "batch" or not fixed or _folds_back(facts, node):
            continue
        convs = [
            layer(end.node)
            for end in facts.paths.ahead(node.name)
            if end.kind == "linear" and _zero_padded(facts.graph, end.node, node.name)
        ]
        if convs:
            yield Hit(
                site.name,
                f"its shift meets the zero padding of {some(convs)}: W·(s·x + t) is not a "
                "convolution of x with one bias at the border",
                "fold it with a tool that is exact at the border, or keep the norm for inference",
            )


def _folds_back(facts: Facts, norm: Node) -> bool:
    """Return whether the linear layer before could take the norm, alone and exactly."""
    graph, name = facts.graph, norm.inputs[0]
    while len(graph.consumers[name]) == 1 and name not in graph.outputs:
        node = graph.nodes[name]
        if node.kind == "linear":
            return not facts.shared(node)
        if not _commutes(graph, node):
            return False
        name = node.inputs[0]
    return False


def _commutes(graph: Graph, node: Node) -> bool:
    """Return whether any scale and shift of channels pass a node at inference."""
    what, shift = node.operation, node.operation.shift_of(node.attrs)
    if node.op == "slice" or what.kind == "merge" or (what.moves_axes and what.kind != "pool"):
        return False
    averages = node.op == "avg_pool" and not _pads(graph, node)
    commutes = what.scale_of(node.attrs) == "any" and (shift == "commutes" or averages)
    return commutes or node.op == "rescale"


def _zero_padded(graph: Graph, conv: Node, norm: str) -> bool:
    node = graph.nodes[conv.inputs[0]]
    while node.name != norm and is_transparent(node):
        constant = node.operation.shift_of(node.attrs) == "borders"
        if node.operation.kind == "pad" and constant and adds_zeros(node.attrs["padding"]):
            return True
        node = graph.nodes[node.inputs[0]]
    return conv.operation.pads and _pads(graph, conv)


def _pads(graph: Graph, node: Node) -> bool:
    """Return whether a convolution or a pool pads its input, at this size of it."""
    padding = node.attrs.get("padding", "valid")
    if padding != "same":
        return adds_zeros(padding)
    window = node.attrs.get("window")
    if window is None:
        key = node.arrays.get("kernel")
        if key is None:
            return False
        window = graph.tensors[key].shape[:-2]
    rank, strides = len(window), node.attrs["strides"]
    before = graph.nodes[node.inputs[0]].shape
    first = 1 + time_axes(node) + (channel_axis(node) == 1 + time_axes(node))
    # Of an unknown size: one that the stride divides.
    sizes = [n or 8 * s for n, s in zip(before[first : first + rank], strides, strict=True)]
    dilation = node.attrs.get("dilation") or (1,) * rank
    return adds_zeros(explicit_padding("same", sizes, window, strides, dilation))
