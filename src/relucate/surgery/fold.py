"""Fold: absorb every batch norm into the linear layers around it, exactly, for inference.

    behind a linear layer:       s · (W x + b) + t = (s W) x + (s b + t)
    in front of linear layers:   W (s · x + t) + b = (W s) x + (b + W t)

Backwards first (it needs only a bias), else forwards into every layer that reads the norm, else
into a linear layer in parallel with it (`parallel`). If zero padding is between a norm and a
convolution, the shift is no bias at the border: `borders` has the ways to carry it through, all but
one exact for any statistics, gammas of zero included.

Pure: Graph to Graph and a report. Not here: checking the result (`verify`), writing it back.
Sources: Ioffe and Szegedy, Batch Normalization, 2015; Jacob et al., Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018 (backward fold).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..affine import batch_norm_affine
from ..graph import Graph, Node
from . import algebra
from .borders import along, check_strategy, choose, crossing, warnings_of
from .channels import Absorption, Blocked, Channels, behind, check_separable, check_shared
from .draft import Draft, Edit, SiteResult
from .parallel import absorb_parallel
from .paths import halves
from .sites import sites


def fold_graph(graph: Graph, strategy: str = "auto", left: Mapping[str, str] | None = None) -> Edit:
    """Return a graph without the norms that could be absorbed exactly, and what became of each.

    Args: left: norms that stay, by their first node, and why.
    Raises: InputError: there is no such strategy.
    """
    check_strategy(strategy)
    draft = Draft(graph)
    orders = {node: site.order for site in sites(graph) for node in site.nodes}
    groups = norm_calls(graph)
    outcomes: dict[str, SiteResult] = {}
    tried = len(groups) + 1
    while 0 < len(groups) < tried:  # a norm that was folded may have blocked another
        tried = len(groups)
        for calls in groups:
            old = orders.get(calls[0], "norm")
            outcomes[calls[0]] = _fold_one(draft, calls, strategy, old, left)
        groups = [calls for calls in groups if outcomes[calls[0]].status != "done"]
    results = tuple(outcomes.values())
    return Edit(draft.finish(), results, warnings=warnings_of(graph, results))


def check_left(calls: Collection[str], left: Mapping[str, str] | None) -> None:
    """Raise Blocked for a norm that an earlier plan showed to be better left alone."""
    for reason in ((left or {}).get(name) for name in calls):
        if reason:
            raise Blocked(reason)


def norm_calls(graph: Graph) -> list[tuple[str, ...]]:
    """Return the norms of a graph, the calls of a reused layer together."""
    groups: dict[Any, list[str]] = {}
    for node in graph:
        if node.kind == "norm":
            key = tuple(sorted(node.arrays.items())) or node.name
            groups.setdefault(key, []).append(node.name)
    return [tuple(names) for names in groups.values()]


def _fold_one(
    draft: Draft, calls: Sequence[str], strategy: str, old: str, left: Mapping[str, str] | None
) -> SiteResult:
    layer = draft.nodes[calls[0]].layer_name
    try:
        check_left(calls, left)
        into, chosen = _absorb_anywhere(draft, calls, strategy)
    except Blocked as blocked:
        return SiteResult(layer, "skipped", str(blocked), old=old, new=old)
    new = "-".join(token for token in old.split("-") if token != "norm")
    return SiteResult(layer, "done", f"into {into}", chosen, old, new)


def _absorb_anywhere(draft: Draft, calls: Sequence[str], strategy: str) -> tuple[str, str | None]:
    """Let linear layers around a norm absorb it, else one in parallel, else the next norm."""
    try:
        return absorb_norm(draft, calls, strategy)
    except Blocked:
        channels = norm_channels(draft, calls)
        into = absorb_parallel(draft, calls, channels) or _absorb_in_norm(draft, calls, channels)
        if not into:
            raise
        return into, None


def _absorb_in_norm(draft: Draft, calls: Sequence[str], channels: Channels) -> str:
    """Let the norm that alone reads a norm (s, t) absorb it; "" if there is none.

    Its own scale and shift S, T become S s and S t + T; its statistics stay:
    gamma' = gamma s, beta' = S t + T + mean S s.
    """
    readers = [draft.readers(name) for name in calls]
    if any(len(r) != 1 or r[0].kind != "norm" for r in readers) or {*calls} & {*draft.outputs}:
        return ""
    node, names = readers[0][0], [reader.name for (reader,) in readers]
    try:
        own = norm_channels(draft, names)
    except Blocked:
        return ""
    gamma, beta, mean = (draft.array(node, role) for role in ("gamma", "beta", "moving_mean"))
    shared = draft.sharing(node) != {*names} or own.axis != channels.axis
    if gamma is None or beta is None or mean is None or shared or _computed(draft, node):
        return ""
    scale = own.scale * channels.scale
    for name in calls:
        draft.remove(name)
    draft.set_array(node.name, "gamma", gamma * channels.scale)
    draft.set_array(node.name, "beta", own.scale * channels.shift + own.shift + mean * scale)
    return node.layer_name


def _computed(draft: Draft, node: Node) -> bool:
    """Return whether a norm's gamma or beta is computed, or is another tensor, too."""
    keys = [node.arrays[role] for role in ("gamma", "beta")]
    return any(key in draft.source.made_of for key in keys) or len({*keys}) < len(keys)


def absorb_norm(
    draft: Draft, calls: Sequence[str], strategy: str = "auto", only: str | None = None
) -> tuple[str, str | None]:
    """Take a norm (all its calls) out of a draft and let linear layers absorb it.

    Args: only: "backwards" or "forwards"; None tries the first, then the second.
    Returns: the layers that absorbed it, and the border strategy where one was needed.
    Raises: Blocked: with the reason; the draft is unchanged.
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

    Raises: Blocked: its statistics depend on the data, its call forces training mode, or its calls
    do different things.
    """
    first, *others = (_one_norm_channels(draft, draft.nodes[name]) for name in calls)
    if not all(first.equals(other) for other in others):
        raise Blocked("its calls differ, in epsilon or in axis")
    return first


def _one_norm_channels(draft: Draft, node: Node) -> Channels:
    mean, variance = draft.array(node, "moving_mean"), draft.array(node, "moving_variance")
    if node.op != "batch_norm" and (node.op != "instance_norm" or mean is None):
        kind = f"{'an' if node.op[0] in 'aeiou' else 'a'} {node.op.replace('_', ' ')}"
        raise Blocked(f"{kind} depends on the data at inference")
    if mean is None or variance is None or node.attrs.get("forced") is True:
        raise Blocked("it uses the batch's own statistics at inference")
    check_separable(node)
    for other in sorted(draft.sharing(node)):
        if draft.nodes[other].kind != "norm":
            raise Blocked(f"'{draft.nodes[other].layer_name}' is computed from its tensors too")
    gamma, beta = draft.array(node, "gamma"), draft.array(node, "beta")
    affine = batch_norm_affine(mean, variance, node.attrs["epsilon"], gamma, beta)
    if not (np.all(np.isfinite(affine.scale)) and np.all(np.isfinite(affine.shift))):
        raise Blocked("its weights or statistics are not finite, or its variance is negative")
    return Channels(affine.scale, affine.shift, *node.counted([node.attrs["axis"]]))


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
    scale, shift = (along(node, channels.axis, v) for v in (channels.scale, channels.shift))
    offset = draft.array(node, "offset")
    draft.set_array(node.name, "offset", shift if offset is None else scale * offset + shift)


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
        readers = draft.readers(node.name)
        if len(readers) == 1 and halves(node, readers[0]):  # a separable layer has one bias
            shift = Channels(np.ones_like(added), added, channels.axis)
            absorb_inputs(draft, Absorption(readers[0].name, False, shift))
            return
        draft.set_array(node.name, "bias", added if bias is None else bias + added)


def _absorb_forwards(
    draft: Draft, calls: Sequence[str], channels: Channels, strategy: str
) -> tuple[str, str | None]:
    norm = crossing(draft, calls, channels)
    border = choose(norm, strategy) if norm.borders else None
    plain = border.apply(norm) if border else norm.plan
    for name in calls:
        draft.remove(name)
    done: set[str] = set()
    for absorption in plain:
        if absorption.node not in done:
            done |= draft.sharing(draft.nodes[absorption.node])
            absorb_inputs(draft, absorption)
    return _names(draft, norm.plan), border and border.name


def _names(draft: Draft, plan: Sequence[Absorption]) -> str:
    nodes = (draft.nodes[absorption.node] for absorption in plan)
    return ", ".join(dict.fromkeys(n.layer_name for n in nodes if not n.added_for))
