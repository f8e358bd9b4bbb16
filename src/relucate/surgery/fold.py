"""Fold: absorb every batch norm into the linear layers around it, exactly, for inference.

    behind a linear layer:       s · (W x + b) + t = (s W) x + (s b + t)
    in front of linear layers:   W (s · x + t) + b = (W s) x + (b + W t)

Backwards first (it needs no more than a bias), else forwards into every taker. Where zero padding
stands between a norm and a convolution the shift is no bias at the border; then one of these, all
exact for any statistics, gammas of zero included:

    map     the convolution of the constant shift, added behind (needs a known image size)
    ones    a channel of ones beside x, padded with zeros like the rest; its taps are W t
    branch  the same in a convolution of its own, added behind (grouped, depthwise, transposed)
    shift   only the scale is folded; x + t / s stays in the norm's place

and one that isn't, on request only:

    approximate   the shift becomes a bias, as if the zeros were shifted too: wrong at the border

Pure: Graph to Graph and a report. Not here: checking the result (`verify`), writing it back.
Sources: Ioffe and Szegedy, Batch Normalization, 2015; Jacob et al., Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018 (backward fold).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..affine import batch_norm_affine
from ..errors import unknown
from ..graph import Graph, Node
from ..graph.conventions import conventions
from ..graph.evaluate import evaluate
from . import algebra
from .channels import Absorption, Blocked, Channels, ahead, behind, check_shared
from .draft import Draft, Edit, SiteResult
from .sites import sites

STRATEGIES = ("auto", "map", "ones", "branch", "shift", "approximate")


def fold_graph(graph: Graph, strategy: str = "auto") -> Edit:
    """Return a graph without the norms that could be absorbed exactly, and what became of each.

    Raises: InputError: a strategy that doesn't exist.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    draft = Draft(graph)
    orders = {node: site.order for site in sites(graph) for node in site.nodes}
    outcomes = []
    for calls in norm_calls(graph):
        old = orders.get(calls[0], "norm")
        outcomes.append(_fold_one(draft, calls, strategy, old))
    return Edit(draft.finish(), tuple(outcomes), warnings=fixed_sizes(graph, outcomes))


def norm_calls(graph: Graph) -> list[tuple[str, ...]]:
    """Return the norms of a graph, the calls of a reused layer together."""
    groups: dict[Any, list[str]] = {}
    for node in graph:
        if node.kind == "norm":
            key = tuple(sorted(node.arrays.items())) or node.name
            groups.setdefault(key, []).append(node.name)
    return [tuple(names) for names in groups.values()]


def _fold_one(draft: Draft, calls: Sequence[str], strategy: str, old: str) -> SiteResult:
    layer = draft.nodes[calls[0]].layer or calls[0]
    try:
        into, chosen = absorb_norm(draft, calls, strategy)
    except Blocked as blocked:
        return SiteResult(layer, "skipped", str(blocked), old=old, new=old)
    new = "-".join(token for token in old.split("-") if token != "norm")
    return SiteResult(layer, "done", f"into {into}", chosen, old, new)


def absorb_norm(
    draft: Draft, calls: Sequence[str], strategy: str = "auto", only: str | None = None
) -> tuple[str, str | None]:
    """Take a norm (all its calls) out of a draft and let linear layers absorb it.

    Args: only: "backwards" or "forwards"; None tries the first, then the second.
    Returns: the layers that absorbed it, and the border strategy where one was needed.
    Raises: Blocked: with the reason; the draft is as it was.
    """
    channels = norm_channels(draft, calls)
    backwards = ""
    if only != "forwards":
        try:
            return _absorb_backwards(draft, calls, channels), None
        except Blocked as blocked:
            if only:
                raise
            backwards = f"backwards: {blocked}; forwards: "
    try:
        return _absorb_forwards(draft, calls, channels, strategy)
    except Blocked as blocked:
        raise Blocked(f"{backwards}{blocked}") from blocked


def _absorb_backwards(draft: Draft, calls: Sequence[str], channels: Channels) -> str:
    plan = [a for name in calls for a in behind(draft, draft.nodes[name].inputs[0], channels)]
    check_shared(draft, plan)
    for name in calls:
        draft.remove(name)
    done: set[str] = set()
    for absorption in plan:
        if absorption.node not in done:
            done |= draft.sharing(draft.nodes[absorption.node])
            absorb_outputs(draft, absorption)
    return _names(draft, plan)


def norm_channels(draft: Draft, calls: Sequence[str]) -> Channels:
    """Return a norm's scale and shift at inference.

    Raises: Blocked: it has none: its statistics depend on the data, or it insists on a mode; or
    its calls do different things.
    """
    first, *others = (_one_norm_channels(draft, draft.nodes[name]) for name in calls)
    if not all(first.equals(other) for other in others):
        raise Blocked("its calls differ, in epsilon or in axis")
    return first


def _one_norm_channels(draft: Draft, node: Node) -> Channels:
    if node.op != "batch_norm":
        raise Blocked(f"a {node.op.replace('_', ' ')} depends on the data at inference")
    mean, variance = draft.array(node, "moving_mean"), draft.array(node, "moving_variance")
    if mean is None or variance is None or node.attrs.get("forced") is True:
        raise Blocked("it uses the batch's own statistics at inference")
    for attr, what in (("renorm", "renorm"), ("time_distributed", "TimeDistributed")):
        if node.attrs.get(attr):
            raise Blocked(f"{what} isn't handled")
    gamma, beta = draft.array(node, "gamma"), draft.array(node, "beta")
    affine = batch_norm_affine(mean, variance, node.attrs["epsilon"], gamma, beta)
    if not (np.all(np.isfinite(affine.scale)) and np.all(np.isfinite(affine.shift))):
        raise Blocked("its weights or statistics are not finite, or its variance is negative")
    return Channels(affine.scale, affine.shift, node.attrs["axis"] % len(node.shape))


def absorb_outputs(draft: Draft, absorption: Absorption) -> None:
    """Let a linear layer scale and shift its own outputs."""
    node, channels = draft.nodes[absorption.node], absorption.channels
    if node.op == "affine":
        _shift_offset(draft, node, channels)
        return
    kernel, bias = draft.array(node, "kernel"), draft.array(node, "bias")
    if kernel is None:
        raise Blocked(f"'{node.layer}' has no kernel")
    draft.set_array(node.name, "kernel", algebra.scale_outputs(node, kernel, channels.scale))
    shift = channels.shift if bias is None else channels.scale * bias + channels.shift
    if bias is not None or np.any(shift != 0):
        draft.set_array(node.name, "bias", shift)


def _shift_offset(draft: Draft, node: Node, channels: Channels) -> None:
    """Make a x + m of an affine a x + (s m + t): what it reads is scaled by s already."""
    scale, shift = (_along(node, channels.axis, v) for v in (channels.scale, channels.shift))
    offset = draft.array(node, "offset")
    draft.set_array(node.name, "offset", shift if offset is None else scale * offset + shift)


def _along(node: Node, axis: int, values: np.ndarray) -> np.ndarray:
    """Return values per channel as they broadcast against one example of a node."""
    return values.reshape([-1 if a == axis else 1 for a in range(1, len(node.shape))])


def absorb_inputs(draft: Draft, absorption: Absorption) -> None:
    """Let a linear layer scale its inputs, and shift them by its bias."""
    node, channels = draft.nodes[absorption.node], absorption.channels
    kernel, bias = draft.array(node, "kernel"), draft.array(node, "bias")
    if kernel is None:
        raise Blocked(f"'{node.layer}' has no kernel")
    draft.set_array(node.name, "kernel", algebra.scale_inputs(node, kernel, channels.scale))
    if channels.shifts:
        taps = algebra.shift_kernel(node, kernel, channels.shift)
        # The taps' sum, per output: outputs are last, but for transposed kernels.
        axis = -2 if node.op == "conv_transpose" else -1
        added = np.moveaxis(taps, axis, -1).reshape(-1, taps.shape[axis]).sum(axis=0)
        draft.set_array(node.name, "bias", added if bias is None else bias + added)


def _absorb_forwards(
    draft: Draft, calls: Sequence[str], channels: Channels, strategy: str
) -> tuple[str, str | None]:
    plan = _plan_ahead(draft, calls, channels)
    borders = [absorption for absorption in plan if absorption.border]
    chosen = _chosen(draft, calls, borders, strategy) if borders else None
    stays = None
    if chosen == "approximate":
        plan = [replace(absorption, border=False, pad=None) for absorption in plan]
    if chosen == "shift":
        stays, channels = _left_in_place(channels)
        plan = _plan_ahead(draft, calls, channels)
    for name in calls:
        if stays is not None:
            _leave_shift(draft, name, draft.nodes[name].layer or name, stays)
        draft.remove(name)
    done: set[str] = set()
    for absorption in plan:
        if not absorption.border and absorption.node not in done:
            done |= draft.sharing(draft.nodes[absorption.node])
            absorb_inputs(draft, absorption)
    add_borders(draft, [a for a in plan if a.border], chosen or "")
    return _names(draft, plan), chosen


def _plan_ahead(draft: Draft, calls: Sequence[str], channels: Channels) -> list[Absorption]:
    plan = _merged([a for name in calls for a in ahead(draft, name, channels)])
    check_shared(draft, plan)
    return plan


def _merged(plan: Sequence[Absorption]) -> list[Absorption]:
    """Make one of all absorptions of a layer: they are about different channels of its input."""
    found: dict[str, Absorption] = {}
    for absorption in plan:
        if absorption.node in found:
            first = found[absorption.node]
            one, two = first.channels, absorption.channels
            scale, shift = one.scale * two.scale, one.shift + two.shift
            absorption = replace(
                absorption,
                channels=Channels(scale, shift, two.axis),
                border=first.border or absorption.border,
            )
        found[absorption.node] = absorption
    return list(found.values())


def _left_in_place(channels: Channels) -> tuple[Channels, Channels]:
    """Split s · x + t into what stays (a shift, and channels with s = 0) and what is folded."""
    zero = channels.scale == 0
    scale = np.where(zero, 1.0, channels.scale)
    stays = Channels(np.where(zero, 0.0, 1.0), channels.shift / scale, channels.axis)
    return stays, Channels(scale, np.zeros_like(scale), channels.axis)


def _leave_shift(draft: Draft, name: str, layer: str, left: Channels) -> None:
    node = draft.nodes[name]
    arrays = {"offset": _along(node, left.axis, left.shift)}
    if np.any(left.scale != 1):
        arrays["scale"] = _along(node, left.axis, left.scale)
    draft.insert_behind(name, "affine", f"{layer}_shift", arrays=arrays, trainable=False)


def _chosen(
    draft: Draft, calls: Sequence[str], borders: Sequence[Absorption], strategy: str
) -> str:
    """Return the strategy for a norm's borders; `auto` takes the one that moves fewest values."""
    _check_masks(draft, calls, borders, strategy)
    if strategy in {"shift", "approximate"}:
        return strategy
    known = all(_is_sized(draft, absorption) for absorption in borders)
    if strategy == "map" and not known:
        raise Blocked("the strategy map needs a known image size")
    if strategy == "ones" and not all(_takes_ones(draft, a, borders) for a in borders):
        raise Blocked("the strategy ones needs plain convolutions (no groups, not transposed)")
    if strategy != "auto":
        return strategy
    behind_convs = sum(_size(draft.nodes[absorption.node]) for absorption in borders)
    there = sum(_size(draft.nodes[name]) for name in calls)
    fixed = known and not conventions(draft.source).sized_by_example
    if fixed and (behind_convs <= there or _is_masked(draft, calls)):
        return "map"
    _check_masks(draft, calls, borders, "shift")
    return "shift"


def _check_masks(
    draft: Draft, calls: Sequence[str], borders: Sequence[Absorption], strategy: str
) -> None:
    """Check that what a strategy inserts loses no mask: Raises Blocked if it does."""
    points = [_point(draft, absorption) for absorption in borders]
    if strategy == "shift" and _is_masked(draft, calls):
        raise Blocked("a mask passes the norm, which the addition of its shift would lose")
    if strategy in {"ones", "branch"} and _is_masked(draft, points):
        raise Blocked("a mask passes there, which the channel of ones would lose")


def _is_masked(draft: Draft, names: Iterable[str]) -> bool:
    return not draft.source.masked.isdisjoint(names)


def fixed_sizes(graph: Graph, outcomes: Iterable[SiteResult]) -> tuple[str, ...]:
    """Return a warning if the strategy map narrows what images the model takes."""
    names = [f"'{outcome.name}'" for outcome in outcomes if outcome.strategy == "map"]
    if not names or not conventions(graph).sized_by_example:
        return ()
    return (
        f"the strategy map fixes the size of the images: the result takes those of the example's "
        f"size only ({', '.join(names)}).",
    )


def _size(node: Node) -> int:
    return int(np.prod([size or 1 for size in node.shape[1:]]))


def _is_sized(draft: Draft, absorption: Absorption) -> bool:
    shape = draft.nodes[_point(draft, absorption)].shape
    return all(size is not None for size in shape[1:])


def _point(draft: Draft, absorption: Absorption) -> str:
    """Return the value in front of the layer and of the zero_pad that belongs to it."""
    return draft.nodes[absorption.pad or absorption.node].inputs[0]


def _takes_ones(draft: Draft, absorption: Absorption, borders: Sequence[Absorption]) -> bool:
    node = draft.nodes[absorption.node]
    if node.op != "conv" or node.attrs.get("groups", 1) != 1:
        return False
    if absorption.pad is None:
        return True
    together = {a.node for a in borders if a.pad == absorption.pad}
    return {reader.name for reader in draft.readers(absorption.pad)} == together


def add_borders(draft: Draft, borders: Sequence[Absorption], strategy: str) -> None:
    """Carry out a border strategy for each layer; a zero_pad is extended once for all its takers.

    Each takes K = W t, the kernel that a constant one needs, from the kernel before it is scaled.
    """
    extended: set[str] = set()
    kernels: dict[str, np.ndarray] = {}
    originals: dict[str, np.ndarray | None] = {}  # by key: calls of one layer share it
    for absorption in borders:
        node = draft.nodes[absorption.node]
        key = node.arrays.get("kernel", node.name)
        kernel = originals.setdefault(key, draft.array(node, "kernel"))
        if kernel is None:
            raise Blocked(f"'{node.layer}' has no kernel")
        channels = absorption.channels
        taps = algebra.shift_kernel(node, kernel, channels.shift)
        kernel = algebra.scale_inputs(node, kernel, channels.scale)
        if strategy == "ones":
            kernel = np.concatenate([kernel, taps], axis=-2)
            user = absorption.pad or absorption.node
            if user not in extended:
                extended.add(user)
                _append_ones(draft, absorption, user)
        elif strategy == "map":
            _add_map(draft, absorption, taps)
        else:
            _add_branch(draft, absorption, taps)
        kernels[node.name] = kernel
    for name, kernel in kernels.items():
        draft.set_array(name, "kernel", kernel)


def _ones(draft: Draft, point: str, axis: int, layer: str) -> str:
    """Insert a channel that is one everywhere, in standard operations: 0 · x[..., :1] + 1."""
    shape = list(draft.nodes[point].shape)
    shape[axis] = 1
    cut = {"axis": axis, "start": 0, "stop": 1, "step": 1}
    one = draft.insert("slice", f"{layer}_channel", [point], tuple(shape), attrs=cut)
    attrs = {"scale": 0.0, "offset": 1.0}
    return draft.insert("rescale", f"{layer}_ones", [one], tuple(shape), attrs=attrs)


def _append_ones(draft: Draft, absorption: Absorption, user: str) -> None:
    point, axis = _point(draft, absorption), absorption.channels.axis
    layer = draft.nodes[absorption.node].layer
    ones = _ones(draft, point, axis, layer)
    shape = list(draft.nodes[point].shape)
    shape[axis] = (shape[axis] or 0) + 1
    label = f"{layer}_with_ones"
    draft.insert("concat", label, [point, ones], tuple(shape), attrs={"axis": axis}, before=[user])
    if absorption.pad:
        padded = list(draft.nodes[absorption.pad].shape)
        padded[axis] = (padded[axis] or 0) + 1
        draft.change(absorption.pad, shape=tuple(padded))


def _add_branch(draft: Draft, absorption: Absorption, taps: np.ndarray) -> None:
    node, point = draft.nodes[absorption.node], _point(draft, absorption)
    axis = absorption.channels.axis
    source = _ones(draft, point, axis, node.layer)
    if absorption.pad:
        pad = draft.nodes[absorption.pad]
        shape = list(pad.shape)
        shape[axis] = 1
        label = f"{node.layer}_ones_padded"
        source = draft.insert("zero_pad", label, [source], tuple(shape), attrs=pad.attrs)
    op, attrs = _plain(node)
    border = draft.insert(
        op, f"{node.layer}_border", [source], node.shape, attrs=attrs, arrays={"kernel": taps}
    )
    draft.insert_behind(node.name, "add", f"{node.layer}_with_border", others=[border])


def _plain(node: Node) -> tuple[str, dict[str, Any]]:
    """Return op and attributes of the same layer for one input channel."""
    op = "conv" if node.op == "depthwise_conv" else node.op
    return op, {**node.attrs, "groups": 1}


def _add_map(draft: Draft, absorption: Absorption, taps: np.ndarray) -> None:
    node = draft.nodes[absorption.node]
    first = node.attrs.get("data_format") == "channels_first"
    shape = draft.nodes[_point(draft, absorption)].shape
    spatial = shape[2:] if first else shape[1:-1]
    values = _response(draft, absorption, taps, tuple(int(size or 0) for size in spatial))
    if first:
        values = np.moveaxis(values, -1, 0)
    label = f"{node.layer}_border"
    draft.insert_behind(node.name, "affine", label, arrays={"offset": values}, trainable=False)


def _response(
    draft: Draft, absorption: Absorption, taps: np.ndarray, spatial: tuple[int, ...]
) -> np.ndarray:
    """Return what the layer with kernel `taps` makes of ones: (*output, channels)."""
    node, shape = draft.nodes[absorption.node], (None, *spatial, 1)
    nodes, last = {"x": Node("x", "input", (), shape)}, "x"
    if absorption.pad:
        attrs = {**draft.nodes[absorption.pad].attrs, "data_format": "channels_last"}
        nodes["pad"] = Node("pad", "zero_pad", ("x",), shape, attrs=attrs)
        last = "pad"
    op, attrs = _plain(node)
    attrs["data_format"] = "channels_last"
    nodes["y"] = Node("y", op, (last,), shape, attrs=attrs, arrays={"kernel": "kernel"})
    (values,) = evaluate(
        Graph("border", nodes, ("x",), ("y",), {"kernel": taps}), np.ones((1, *spatial, 1))
    )
    return values[0]


def _names(draft: Draft, plan: Sequence[Absorption]) -> str:
    nodes = (draft.nodes[absorption.node] for absorption in plan)
    return ", ".join(dict.fromkeys(n.layer or n.name for n in nodes if n.op != "affine"))
