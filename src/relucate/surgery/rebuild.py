"""Rebuild: the same architecture in another order, to be trained from scratch.

Norms move, and the activation too if the order needs it. A bias is removed where a norm that
subtracts a mean per channel now follows directly, and added where none does any longer. Some norms
stay, and the report says why: the activation follows behind an addition (the last norm of a
residual branch), the norm has no linear layer of its own, a value in between is read elsewhere too,
or the linear layer makes the network's output. An order without a norm removes every norm.

The framework initialises the weights (`fresh` of `ReadModel.write`). Not here: keeping the function
(`convert`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..arguments import one_of
from ..errors import Refused
from ..graph import Graph, Node
from ..graph.axes import norm_axes
from ..order import Order
from .blocks import (
    check_act,
    check_axis,
    check_crossing,
    check_order,
    check_own,
    check_same,
    check_separate,
    fit,
    front_place,
    norm_sizes,
    place,
    settled,
)
from .channels import Blocked, check_separable
from .convert import check_wanted, read_again, unproved
from .draft import Draft, Edit, SiteResult
from .fold import check_left, norm_calls
from .paths import Paths
from .sites import Site, site_calls

BIASES = ("rule", "keep")


def rebuild_graph(
    graph: Graph,
    order: str | Order,
    bias: str = "rule",
    left: Mapping[str, str] | None = None,
) -> Edit:
    """Return the graph with its norms where `order` has them, and what became of each.

    Tensors keep their shapes where they can; their values are meaningless.
    Args: bias: "rule" drops and adds biases by the bias rule, "keep" leaves them as they are; left:
        norms that stay, by their first node, and why.
    Raises: InputError: an order without activation or with dropout, an unknown `bias`; Refused: a
        layer is quantized or has LoRA's weights.
    """
    wanted = check_order(order, "rebuild")
    one_of(bias, "choice of bias for a rebuilt model", BIASES)
    _check_plain(graph)
    paths, draft = Paths(graph), Draft(graph)
    by_node = {site.nodes[0]: site for site in site_calls(graph, paths)}
    outcomes: dict[str, SiteResult] = {}  # by the norm's first node
    moving: list[tuple[str, Site]] = []
    touched: dict[str, None] = {}
    settled: dict[str, list[Site]] = {}  # norms that have the order already
    for calls in norm_calls(graph):
        sites = [by_node[name] for name in calls]
        node, old = graph.nodes[calls[0]], sites[0].order
        layer = node.layer_name
        try:
            how = _check(draft, paths, sites, wanted)
            check_left(calls, left)
        except Blocked as blocked:
            outcomes[calls[0]] = SiteResult(layer, "skipped", str(blocked), old=old, new=old)
            stays = calls[0] in (left or {})
            if not stays and all(site.order == str(wanted) for site in sites):  # biases: the rule
                settled[calls[0]] = sites
                touched.update(dict.fromkeys(name for site in sites for name in site.linears))
            continue
        new = str(wanted) if wanted.has_norm else old.replace("norm-", "").replace("-norm", "")
        outcomes[calls[0]] = SiteResult(layer, "done", how, old=old, new=new)
        touched.update(dict.fromkeys(name for site in sites for name in site.linears))
        moving += zip(calls, sites, strict=True)
    for call, _ in moving:
        draft.remove(call)
    if wanted.has_norm:
        for _, site in moving:
            _move_act(draft, paths, site, wanted)
        for call, site in moving:
            _put_back(draft, paths, site, call, wanted)
    _fit_slopes(draft)
    changed = _set_biases(draft, touched) if bias == "rule" else {}
    for call, sites in settled.items():
        names = [changed[name] for site in sites for name in site.linears if name in changed]
        if names:
            outcomes[call] = replace(outcomes[call], status="done", reason=names[0])
    made = draft.finish()
    if more := unproved(made, outcomes):
        return rebuild_graph(graph, order, bias, {**(left or {}), **more})
    found = read_again(made, outcomes)
    if more := _misread(outcomes, found):
        edit = rebuild_graph(graph, order, bias, {**(left or {}), **more})
        if not edit.done:
            check_promised(outcomes.values(), found)
        return edit
    return Edit(made, found)


def _misread(outcomes: Mapping[str, SiteResult], found: Sequence[SiteResult]) -> dict[str, str]:
    """Return the moved norms that `check_promised` refuses, and why; the others may move alone."""
    try:
        check_promised(outcomes.values(), found)
    except Refused as refused:
        why, pairs = str(refused).rstrip("."), zip(outcomes.items(), found, strict=True)
        return {name: why for (name, was), now in pairs if was.old != was.new != now.new}
    return {}


def check_promised(planned: Iterable[SiteResult], found: Iterable[SiteResult]) -> None:
    """Refuse a network where a norm that moved, and one that stays, don't read as planned.

    The same layers then have two readings, and the rest of the model decides for the other one.
    """
    other = [(was, now) for was, now in zip(planned, found, strict=True) if was.new != now.new]
    moved = [pair for pair in other if pair[0].old != pair[0].new]
    stay = [pair for pair in other if pair[0].old == pair[0].new]
    if moved and stay:
        (promised, comes), (was, now) = moved[0], stay[0]
        raise Refused(
            f"'{promised.name}' would read as {comes.new} in place of {promised.new}, and "
            f"'{was.name}', which stays, as {now.new} in place of {was.old}."
        )


def _check_plain(graph: Graph) -> None:
    """Refuse kernels that no initialiser makes: quantized ones, and those with LoRA's weights."""
    for node in graph:
        for attr, what in (("quantized", "is quantized to"), ("lora", "has LoRA")):
            if kind := node.attrs.get(attr):
                how = "is quantized" if kind is True else f"{what} {kind}"
                raise Refused(
                    f"'{node.layer_name}' {how}: such a layer can't be initialised from scratch. "
                    "Rebuild the model that it was made from."
                )


def _check(draft: Draft, paths: Paths, sites: Collection[Site], wanted: Order) -> str:
    """Return how a norm moves, or raise Blocked."""
    calls = [site.nodes[0] for site in sites]
    if not wanted.has_norm:
        for name in calls:
            check_separable(draft.nodes[name])
        return "removed"
    check_wanted(sites, wanted)
    check_separate(draft.source, sites)
    _check_mode(draft, calls)
    check_own(draft, calls)
    for site in sites:
        check_axis(draft, site)
    new = [token for token in wanted.tokens if token != "norm"]
    turned = [_others(site) != new for site in sites]
    sizes = []
    for site, turns in zip(sites, turned, strict=True):
        if turns:
            sizes.append(_check_turned(draft, paths, site, wanted))
        else:
            check_crossing(draft.source, paths, site, wanted)
            sizes.append(fit(draft, paths, site, wanted))
    check_same(sites, sizes)
    return "norm and activation moved" if any(turned) else "norm moved"


def _check_mode(draft: Draft, calls: Iterable[str]) -> None:
    for name in calls:
        attrs = draft.nodes[name].attrs
        if attrs.get("renorm"):
            raise Blocked("renorm isn't handled")
        if attrs.get("forced") is True and not attrs.get("frozen"):
            raise Blocked("it is called in training mode")


def _others(site: Site) -> list[str]:
    return [token for token in site.order.split("-") if token != "norm"]


def _check_turned(
    draft: Draft, paths: Paths, site: Site, wanted: Order
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a norm's tensors in a block whose activation moves, too."""
    _check_turn(draft, paths, site, _others(site))
    first = wanted.tokens[0] == "norm" or wanted.tokens[:2] == ("act", "norm")
    source = front_place(draft, paths, site).source if first else site.linears[0]
    return norm_sizes(draft, draft.nodes[site.nodes[0]], source)


def _check_turn(draft: Draft, paths: Paths, site: Site, old: list[str]) -> None:
    """Check that linear layer and activation may change places."""
    graph, act = draft.source, site.act_node or ""
    if len(site.linears) != 1:
        raise Blocked(f"several linear layers ({', '.join(site.linears)}) read its activation")
    if paths.is_spelled(act):
        raise Blocked("its activation is spelled out as arithmetic")
    check_act(graph, paths, site)
    linear = site.linears[0]
    front = paths.front(graph.nodes[linear]).name
    for name in (front, linear, act):
        if len(draft.sharing(draft.nodes[name])) > 1:
            raise Blocked(f"'{graph.nodes[name].layer}' is used more than once")
    members = {act, front, linear, site.nodes[0]}
    first, last = (front, act) if old[0] == "linear" else (act, linear)
    if site.order.startswith("norm"):
        first = site.nodes[0]
    if site.order.endswith("norm"):
        last = site.nodes[0]
    name, steps = first, 0
    while name != last:
        readers = paths.takers(name)
        if len(readers) != 1 or name in graph.outputs:
            raise Blocked(f"'{graph.nodes[name].layer_name}' is read outside of the block too")
        name = readers[0]
        own_pad = graph.nodes[name].operation.kind == "pad" and paths.takers(name) == (front,)
        steps += name not in members and graph.nodes[name].kind != "drop" and not own_pad
    if steps:
        raise Blocked("pooling, padding or reshaping is between its parts")
    if old[0] == "act" and _makes_output(paths, linear):
        raise Blocked(f"'{graph.nodes[linear].layer}' makes the network's output")


def _makes_output(paths: Paths, linear: str) -> bool:
    """Return whether a linear layer's values reach the output past no other linear layer."""
    waiting, seen = [linear], set()
    while waiting:
        name = waiting.pop()
        for end in paths.ahead(name):
            if end.kind == "output":
                return True
            if end.kind not in {"linear", "other", "merge"} and end.node.name not in seen:
                seen.add(end.node.name)
                waiting.append(end.node.name)
    return False


def _move_act(draft: Draft, paths: Paths, site: Site, wanted: Order) -> None:
    tokens = [token for token in wanted.tokens if token != "norm"]
    if tokens == _others(site) or site.act_node is None:
        return
    linear = site.linears[0]
    if tokens[0] == "linear":
        draft.move(site.act_node, linear)
    else:
        spot = place(draft, paths, site, Order("norm-linear-act"))  # where a norm would go
        draft.move(site.act_node, spot.source, spot.readers)


def _put_back(draft: Draft, paths: Paths, site: Site, call: str, wanted: Order) -> None:
    spot = place(draft, paths, site, wanted)
    node = draft.source.nodes[call]
    arrays = {}
    for role, shape in norm_sizes(draft, node, spot.source).items():
        ones = role in {"gamma", "moving_variance"}
        arrays[role] = np.ones(shape) if ones else np.zeros(shape)
    draft.restore(settled(draft, node, spot.source), spot.source, spot.readers, arrays)


def _fit_slopes(draft: Draft) -> None:
    """Give an activation that came to other channels slopes for them: the mean of those it had."""
    for node in list(draft.nodes.values()):
        alpha = draft.array(node, "alpha")
        if alpha is None:
            continue
        axis = node.attrs.get("axis")
        sizes = node.shape[-alpha.ndim :] if axis is None else (node.shape[axis],)
        pairs = zip(alpha.shape, sizes, strict=True)
        fitting = tuple(1 if own == 1 else size or own for own, size in pairs)
        if fitting != alpha.shape:
            draft.set_array(node.name, "alpha", np.full(fitting, alpha.mean()))


# The bias rule, on the network as it is now.


def _set_biases(draft: Draft, linears: Iterable[str]) -> dict[str, str]:
    """Drop and add biases by the bias rule; return what was done, by node."""
    done: set[str] = set()
    changed: dict[str, str] = {}
    for name in linears:
        node = draft.nodes[name]
        if node.attrs.get("inseparable"):
            continue  # it is written unchanged
        axis = node.channel_axis
        if name in done or axis is None or "kernel" not in node.arrays:
            continue
        calls = draft.sharing(node)
        done |= calls
        redundant = all(_is_redundant(draft, draft.nodes[call]) for call in calls)
        if redundant and "bias" in node.arrays:
            draft.drop_array(name, "bias")
            changed.update(dict.fromkeys(calls, "only its layer's redundant bias is removed"))
        elif not redundant and "bias" not in node.arrays:
            draft.set_array(name, "bias", np.zeros(node.shape[axis] or 0))
            changed.update(dict.fromkeys(calls, "only its layer's missing bias is added"))
    return changed


def _is_redundant(draft: Draft, node: Node) -> bool:
    """Return whether a norm that subtracts a mean per channel directly follows, and nothing else.

    Pooling, padding and the like between them may change a bias at the border.
    """
    readers = draft.readers(node.name)
    if len(readers) != 1 or node.name in draft.outputs:
        return False
    (norm,) = readers
    return norm.centers_channels and norm_axes(norm) == (node.channel_axis,)
