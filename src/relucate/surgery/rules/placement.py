"""Rules about where norms sit: mixed orders, norms that meet nothing nonlinear, axis, dropout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...graph import Node
from ...graph.nodes import MERGES
from ..paths import is_transparent
from ..sites import Site
from .rule import CHANNEL_NORMS, Facts, Hit, channel_axis, layer, norm_axes, rule, some

_PRE_ACTIVATION = {"linear-norm-act", "norm-act-linear"}


@rule("N201", "mixed-orders", "warning")
def mixed_orders(facts: Facts) -> Iterator[Hit]:
    """Norms that sit otherwise than most norms of the model."""
    full = [site for site in facts.sites if site.order.count("-") == 2]
    counts = Counter(site.order for site in full)
    if len(counts) < 2:
        return
    main = counts.most_common(1)[0][0]
    for order, count in counts.most_common()[1:]:
        odd = [site.name for site in full if site.order == order]
        # A stem before pre-activation blocks is how such networks are built.
        severity = "note" if {order, main} <= _PRE_ACTIVATION else None
        yield Hit(
            odd[0],
            f"{order} in {count} of {len(full)} norms ({some(odd)}), {main} in {counts[main]}",
            "use one order throughout, or say in the code why these differ",
            severity,
        )


@rule("N202", "norm-at-output", "warning")
def norm_at_output(facts: Facts) -> Iterator[Hit]:
    """A norm on the model's output, or right before the softmax or sigmoid that is its output."""
    for site in facts.sites:
        if site.kind not in CHANNEL_NORMS:
            continue
        ends = facts.paths.ahead(facts.node(site).name)
        if ends and all(end.kind == "output" for end in ends):
            yield _at_output(site, "is the model's output")
        for end in ends:
            if end.kind == "act" and end.node.op in {"softmax", "log_softmax", "sigmoid"}:
                beyond = facts.paths.ahead(end.node.name)
                if any(e.kind == "output" for e in beyond):
                    yield _at_output(site, f"feeds the output's {end.node.op} directly")


def _at_output(site: Site, how: str) -> Hit:
    return Hit(
        site.name,
        f"{how}: what a batch happens to hold, and gamma and beta, decide the scale of the outputs",
        "end with a linear layer with a bias (and its activation), without a norm",
    )


@rule("N203", "stacked-norms", "warning")
def stacked_norms(facts: Facts) -> Iterator[Hit]:
    """A norm that normalizes what another norm has just normalized."""
    for site in facts.sites:
        above = facts.paths.back(facts.node(site).inputs[0])
        if above.kind == "norm":
            yield Hit(
                site.name,
                f"normalizes the output of {layer(above.node)}: nothing nonlinear lies between",
                "remove one of the two, or put the activation between them",
            )


@rule("N204", "no-activation", "note")
def no_activation(facts: Facts) -> Iterator[Hit]:
    """A norm with no activation on its path: two linear layers in a row are one linear map.

    Not said of a bottleneck (the layer between has fewer channels than both sides) and of
    factorised convolutions (depthwise, grouped), where that is the point; nor of layer norms,
    which are nonlinear themselves.
    """
    for site in facts.sites:
        if site.kind not in CHANNEL_NORMS:
            continue
        ends = facts.paths.ahead(facts.node(site).name)
        if site.order == "linear-norm" and ends and all(end.kind == "linear" for end in ends):
            before = facts.graph.nodes[site.linears[0]]
            after = [end.node for end in ends]
            if not _factorised(facts, before, after):
                yield Hit(
                    site.name,
                    f"no activation between {layer(before)} and {some(map(layer, after))}",
                    "add the activation if it was forgotten; else the two layers are one",
                )
        elif site.order == "norm":
            yield Hit(
                site.name,
                "no linear layer and no activation before or behind it",
                "put it next to a linear layer or an activation, or remove it",
            )


def _factorised(facts: Facts, before: Node, after: list[Node]) -> bool:
    if any(n.op not in {"conv", "dense"} or n.attrs.get("groups", 1) > 1 for n in [before, *after]):
        return True
    source, axis = facts.graph.nodes[before.inputs[0]], channel_axis(before)
    if axis is None:
        return True
    sizes = [before.shape[axis], source.shape[axis] if axis < len(source.shape) else None]
    sizes += [node.shape[a] for node in after if (a := channel_axis(node)) is not None]
    middle, *sides = [size or 0 for size in sizes]
    return middle < min(sides)


@rule("N205", "dropout-before-norm", "warning")
def dropout_before_norm(facts: Facts) -> Iterator[Hit]:
    """Dropout upstream of a batch norm, with no norm between: its variance shifts at inference."""
    dropped: dict[str, Node] = {}  # the last dropout on the way to each node
    for node in facts.graph:
        if node.kind == "norm":
            if node.op == "batch_norm" and not _fixed(node) and node.inputs[0] in dropped:
                drop = dropped[node.inputs[0]]
                yield _shifted(node, drop)
        elif node.op in {"dropout", "gaussian_dropout"} and node.attrs.get("rate"):
            if node.attrs.get("forced") is not False:
                dropped[node.name] = node
        elif node.kind in {"linear", "act"} or node.op in MERGES or is_transparent(node):
            drops = [dropped[name] for name in node.inputs if name in dropped]
            if drops:
                dropped[node.name] = drops[0]


def _fixed(node: Node) -> bool:
    return bool(node.attrs.get("frozen")) or node.attrs.get("forced") is not None


def _shifted(node: Node, drop: Node) -> Hit:
    return Hit(
        layer(node),
        f"dropout '{layer(drop)}' (rate {drop.attrs['rate']:g}) lies before it: the variance that "
        "it stores in training is not the one that it meets at inference",
        "move the dropout behind the last batch norm, or take the rate down to 0",
    )


@rule("N206", "wrong-axis", "error")
def wrong_axis(facts: Facts) -> Iterator[Hit]:
    """A norm whose axis is not the channel axis of the convolutions around it."""
    for site in facts.sites:
        node = facts.node(site)
        if node.op in {"unit_norm", "lrn"}:
            continue
        known = _spatial_neighbour(facts, node)
        if known is None:
            continue
        other, channels = known
        axes = norm_axes(node)
        wrong = channels not in axes if "axes" in node.attrs else axes != (channels,)
        if wrong:
            format = "channels_first" if channels == 1 else "channels_last"
            yield Hit(
                site.name,
                f"normalizes along axis {_shown(axes)}, but {layer(other)} is {format}: its "
                f"channels are axis {channels} of shape {_sizes(node)}",
                f"axis={channels if channels == 1 else -1} in {site.name}",
            )


def _spatial_neighbour(facts: Facts, norm: Node) -> tuple[Node, int] | None:
    """Return a layer that says which axis the channels are at the norm, and that axis."""
    rank = len(norm.shape)
    node = facts.graph.nodes[norm.inputs[0]]
    while len(node.shape) == rank:
        if (axis := _says(node)) is not None:
            return node, axis
        if not (node.inputs and _keeps_axes(node)):
            break
        node = facts.graph.nodes[node.inputs[0]]
    names = list(facts.graph.consumers[norm.name])
    for _ in range(8):  # a few steps ahead, down one path
        if not names:
            return None
        node = facts.graph.nodes[names[0]]
        if len(facts.graph.nodes[node.inputs[0]].shape) != rank:
            return None
        if (axis := _says(node)) is not None:
            return node, axis
        if not _keeps_axes(node):
            return None
        names = list(facts.graph.consumers[node.name])
    return None


def _says(node: Node) -> int | None:
    if node.op == "dense" or "data_format" not in node.attrs or node.op == "flatten":
        return None
    return channel_axis(node) if len(node.shape) > 2 else None


def _keeps_axes(node: Node) -> bool:
    return node.kind in {"act", "drop"} or node.op in {"identity", "add", "concat", "rescale"}


def _shown(axes: tuple[int, ...]) -> str:
    return ", ".join(map(str, axes))


def _sizes(node: Node) -> str:
    return "(" + ", ".join("batch" if i == 0 else str(s) for i, s in enumerate(node.shape)) + ")"
