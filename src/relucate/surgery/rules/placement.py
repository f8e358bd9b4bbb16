"""Rules about where norms sit: mixed orders, norms that meet nothing nonlinear, axis, dropout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ...graph import Node
from ...phrases import some
from ..paths import is_transparent
from ..sites import Site
from .axes import channel_axis, norm_axes, time_axes
from .rule import CHANNEL_NORMS, Facts, Hit, layer, rule

_NONLINEAR = {"prod", "var", "std"}
_PRE_ACTIVATION = {"linear-norm-act", "norm-act-linear"}


@rule("N201", "mixed-orders", "warning")
def mixed_orders(facts: Facts) -> Iterator[Hit]:
    """Norms that sit otherwise than most norms of the model."""
    full = [s for s in facts.sites if s.order.count("-") == 2 and not s.unknown]
    # A transformer's layer norms keep to an order of their own beside the batch norms of a stem.
    yield from _odd([site for site in full if site.kind in CHANNEL_NORMS])
    yield from _odd([site for site in full if site.kind not in CHANNEL_NORMS])


def _odd(sites: Sequence[Site]) -> Iterator[Hit]:
    counts = Counter(site.order for site in sites)
    (main, most), *others = counts.most_common() or [("", 0)]
    for order, number in others:
        odd = [site.name for site in sites if site.order == order]
        # A stem before pre-activation blocks is how such networks are built.
        severity = "note" if {order, main} <= _PRE_ACTIVATION else None
        yield Hit(
            odd[0],
            f"{order} in {number} of {len(sites)} norms ({some(odd)}), {main} in {most}",
            "use one order throughout, or say in the code why these differ",
            severity,
        )


@rule("N202", "norm-at-output", "warning")
def norm_at_output(facts: Facts) -> Iterator[Hit]:
    """A norm on the model's output, or right before the softmax or sigmoid that is its output."""
    for site in facts.sites:
        if site.kind in CHANNEL_NORMS:
            hows = (_where_at_output(facts, name) for name in site.nodes)
            how = next(filter(None, hows), "")
            if how:
                yield _at_output(site, how)


def _where_at_output(facts: Facts, norm: str) -> str:
    ends = facts.paths.ahead(norm)
    if ends and all(end.kind == "output" for end in ends):
        return "is the model's output"
    for end in ends:
        last = any(beyond.kind == "output" for beyond in facts.paths.ahead(end.node.name))
        if last and end.kind == "act" and end.node.operation.head:
            return f"feeds the output's {end.node.op} directly"
    return ""


def _at_output(site: Site, how: str) -> Hit:
    return Hit(
        site.name,
        f"{how}: what a batch happens to hold, and gamma and beta, decide the scale of the outputs",
        "end with a linear layer with a bias (and its activation), without a norm",
    )


@rule("N203", "stacked-norms", "warning")
def stacked_norms(facts: Facts) -> Iterator[Hit]:
    """A norm that normalizes what another norm has just normalized."""
    seen: set[str] = set()
    for site in facts.sites:
        for name in site.nodes:
            source = facts.graph.nodes[name].inputs[0]
            above = facts.paths.back(source)
            if above.kind != "norm" or site.name in seen or _bends(facts, source, above.node.name):
                continue
            seen.add(site.name)
            yield Hit(
                site.name,
                f"normalizes the output of {layer(above.node)}: nothing nonlinear lies between",
                "remove one of the two, or put the activation between them",
            )


def _bends(facts: Facts, name: str, ancestor: str) -> bool:
    """Return whether a max pool or the like lies between: looked through, but not linear."""
    between = facts.paths.between(name, ancestor)
    return any(
        n.operation.scale_of(n.attrs) == "positive" or n.attrs.get("function") in _NONLINEAR
        for n in between
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
        node = facts.node(site)
        ends = facts.paths.ahead(node.name)
        if site.order == "linear-norm" and ends and all(end.kind == "linear" for end in ends):
            before = facts.graph.nodes[site.linears[0]]
            after = [end.node for end in ends]
            bent = _bends(facts, node.inputs[0], before.name) or any(
                _bends(facts, conv.inputs[0], node.name) for conv in after
            )
            if not bent and not _factorised(facts, before, after):
                names = some(dict.fromkeys(map(layer, after)))
                one = "; else the two layers are one" if site.kind == "batch" else ""
                yield Hit(
                    site.name,
                    f"no activation between {layer(before)} and {names}",
                    f"add the activation if it was forgotten{one}",
                )
        elif site.order == "norm" and not _open(facts, node):
            yield Hit(
                site.name,
                "no linear layer and no activation before or behind it",
                "put it next to a linear layer or an activation, or remove it",
            )


def _open(facts: Facts, norm: Node) -> bool:
    """Return whether a merge or an unknown layer stands next to a norm: what is beyond counts."""
    ends = [facts.paths.back(norm.inputs[0]), *facts.paths.ahead(norm.name)]
    return any(end.kind in {"merge", "other"} for end in ends)


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
    seen: set[str] = set()
    for node in facts.graph:
        if node.kind == "norm":
            if _keeps_statistics(node) and node.inputs[0] in dropped and layer(node) not in seen:
                seen.add(layer(node))
                yield _shifted(node, dropped[node.inputs[0]])
        elif _drops(node):
            dropped[node.name] = node
        elif node.operation.kind in {"linear", "act", "merge"} or is_transparent(node):
            drops = [dropped[name] for name in node.inputs if name in dropped]
            if drops:
                dropped[node.name] = drops[0]


def _drops(node: Node) -> bool:
    """Return whether this is dropout in training only, of values and not of whole branches."""
    if node.op not in {"dropout", "gaussian_dropout"} or not node.attrs.get("rate"):
        return False
    kept = node.attrs.get("noise_shape") or ()
    branch = len(kept) > 1 and all(size == 1 for size in kept[1:])
    return node.attrs.get("forced") is None and not branch


def _keeps_statistics(node: Node) -> bool:
    moves = not node.attrs.get("frozen") and node.attrs.get("forced") is None
    return moves and "moving_variance" in node.arrays


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
    seen: set[str] = set()
    for site in facts.sites:
        node = facts.node(site)
        if not node.operation.arrays or site.name in seen:  # it has nothing per channel
            continue
        known = _spatial_neighbour(facts, node)
        if known is None or _keeps_apart(node, known[1]):
            continue
        other, channels = known
        seen.add(site.name)
        last = channels == len(node.shape) - 1
        # Of the model's input another axis may be meant, such as a spectrogram's frequencies.
        on_input = facts.paths.back(node.inputs[0]).kind == "input"
        yield Hit(
            site.name,
            f"normalizes along axis {_shown(norm_axes(node))}, but {layer(other)} is channels_"
            f"{'last' if last else 'first'}: its channels are axis {channels} of shape "
            f"{_sizes(node)}",
            facts.say(
                f"axis={-1 if last else channels - time_axes(node)} in {site.name}",
                f"move the channels to where {site.name} looks for them",
            ),
            "warning" if on_input else None,
        )


def _keeps_apart(norm: Node, channels: int) -> bool:
    """Return whether a norm treats this axis as one of channels.

    A layer norm over all other axes than the batch and the channels is an instance norm.
    """
    axes = norm_axes(norm)
    if "axes" not in norm.attrs:
        return axes == (channels,)
    return channels in axes or {*axes, channels} == set(range(1 + time_axes(norm), len(norm.shape)))


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
    sizes = ["?" if size is None else str(size) for size in node.shape[1:]]
    return f"({', '.join(['batch', *sizes])})"
