"""Convert: the trained network in another order, computing the same function at inference.

First the linear layers around it absorb every norm that is to move (`fold`); then the norm is put
where the order has it, as the identity. So training continues from the same function, in the other
order. The identity has the statistics of its input, if they were measured:

    mean = m, variance = v, gamma = sqrt(v + eps), beta = m       (neutral: m = 0, v = 1)

A linear layer's bias directly in front of such a norm is redundant: beta carries it. Norms whose
statistics depend on the data have no such identity, and stay. Not here: measuring (`api`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..graph import Graph
from ..order import Order
from .blocks import (
    check_axis,
    check_crossing,
    check_order,
    check_own,
    check_same,
    check_separate,
    fit,
    place,
    settled,
)
from .borders import check_strategy, warnings_of
from .channels import Blocked
from .draft import Draft, Edit, SiteResult
from .fold import absorb_norm, check_left, fold_graph, norm_calls, norm_channels
from .moments import Moments
from .paths import Paths
from .sites import Site, site_calls

# A norm that changes values by no more than this, relative to them, is the identity in float32.
_IDENTITY = 8 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class _Task:
    """A norm to move, with all its calls."""

    calls: tuple[str, ...]
    sites: tuple[Site, ...]
    layer: str


def convert_graph(
    graph: Graph,
    order: str | Order,
    strategy: str = "auto",
    moments: Mapping[str, Moments] | None = None,
    left: Mapping[str, str] | None = None,
) -> Edit:
    """Return the graph with its norms where `order` has them, and what became of each.

    Args:
        strategy: as for `fold_graph`, for norms that are absorbed forwards through zero padding.
        moments: of the inputs of the placed norms, by node name; norms without them are neutral.
        left: norms that stay, by their first node, and why.
    Raises: InputError: an order without activation or with dropout, an unknown strategy.
    """
    wanted = check_order(order, "convert")
    if not wanted.has_norm:
        return fold_graph(graph, strategy, left)
    check_strategy(strategy)
    paths, draft = Paths(graph), Draft(graph)
    by_node = {site.nodes[0]: site for site in site_calls(graph, paths)}
    outcomes: dict[str, SiteResult] = {}
    absorbed: list[tuple[_Task, SiteResult]] = []
    for calls in norm_calls(graph):
        node = graph.nodes[calls[0]]
        task = _Task(calls, tuple(by_node[name] for name in calls), node.layer_name)
        try:
            check_left(calls, left)
            reason, chosen = _take_out(draft, paths, task, wanted, strategy)
        except Blocked as blocked:
            outcomes[calls[0]] = _outcome(task, "skipped", str(blocked))
            continue
        outcome = _outcome(task, "done", reason, chosen, str(wanted))
        outcomes[calls[0]] = outcome
        absorbed.append((task, outcome))
    placed: list[str] = []
    for task, _ in absorbed:
        _put_in(draft, paths, task, wanted, moments or {})
        placed += task.calls
    made = draft.finish()
    if more := unproved(made, outcomes):
        return convert_graph(graph, order, strategy, moments, {**(left or {}), **more})
    found = read_again(made, outcomes)
    return Edit(made, found, tuple(placed), warnings_of(graph, found))


def _outcome(
    task: _Task, status: str, reason: str, strategy: str | None = None, new: str = ""
) -> SiteResult:
    old = task.sites[0].order
    return SiteResult(task.layer, status, reason, strategy, old, new or old)


def unproved(graph: Graph, outcomes: Mapping[str, SiteResult]) -> dict[str, str]:
    """Return the norms whose new order would depend on unknown layers, with the reason.

    Args: graph: the result; outcomes: by the norm's first node.
    """
    found = {}
    for site in site_calls(graph):
        outcome = outcomes.get(site.nodes[0])
        if outcome and outcome.status == "done" and outcome.old != outcome.new and site.unknown:
            names = " and ".join(f"'{name}'" for name in site.unknown)
            found[site.nodes[0]] = f"{outcome.new} would depend on {names}, which couldn't be read"
    return found


def read_again(graph: Graph, outcomes: Mapping[str, SiteResult]) -> tuple[SiteResult, ...]:
    """Return the outcomes, each norm with the order that an audit of `graph` finds.

    Two orders can be the same layers; then the layers around a block decide how it reads. So
    a norm that stays may read differently once its neighbours have moved: its reason says so.
    Args: outcomes: by the norm's first node.
    """
    orders = {site.nodes[0]: site.order for site in site_calls(graph)}
    found = []
    for name, outcome in outcomes.items():
        new = orders.get(name, outcome.new)
        if new != outcome.new:
            reason = f"{outcome.reason}; with the layers around it, it reads as {new}"
            outcome = replace(outcome, new=new, reason=reason)
        found.append(outcome)
    return tuple(found)


def why_not(site: Site, wanted: Order) -> str:
    """Return why there is nothing to do at a site: its order is right, or incomplete; else ""."""
    if site.unknown:
        return _unknown(site, wanted)
    if site.order == str(wanted):
        return f"is {wanted} already"
    if site.linear is None:
        return "no linear layer belongs to it"
    if site.act is None:
        return f"its activation comes later: {site.note}" if site.note else "it has no activation"
    return ""


def _unknown(site: Site, wanted: Order) -> str:
    """Return why a norm stays whose order depends on a layer that couldn't be read, else "".

    It moves if its own layers are known and no guess about that layer gives the wanted order.
    """
    names = " and ".join(f"'{name}'" for name in site.unknown)
    depends = f"{names}, which couldn't be read"
    if site.order == str(wanted):
        return f"is {wanted} already, but that depends on {depends}"
    if site.linear is None:
        return f"its linear layer may be {depends}"
    if site.act is None:
        return f"its activation may be {depends}"
    if str(wanted) in site.orders:
        return f"may be {wanted} already: that depends on {depends}"
    return ""


def check_wanted(sites: Collection[Site], wanted: Order) -> None:
    """Raise Blocked if there is nothing to do at one of a norm's sites."""
    orders = sorted({site.order for site in sites})
    for site in sites:
        reason = why_not(site, wanted)
        if reason and len(orders) > 1:
            raise Blocked(f"its calls disagree: one is {' and one '.join(orders)}")
        if reason:
            raise Blocked(reason)


def _take_out(
    draft: Draft, paths: Paths, task: _Task, wanted: Order, strategy: str
) -> tuple[str, str | None]:
    """Let linear layers absorb a norm; if that is Blocked, the draft is unchanged."""
    check_wanted(task.sites, wanted)
    check_separate(draft.source, task.sites)
    for site in task.sites:
        check_crossing(draft.source, paths, site, wanted)
    node = draft.nodes[task.calls[0]]
    if node.attrs.get("renorm"):
        raise Blocked("renorm has statistics of its own, which the identity would lack")
    check_own(draft, task.calls)
    channels = norm_channels(draft, task.calls)
    check_same(task.sites, [fit(draft, paths, site, wanted) for site in task.sites])
    for site in task.sites:
        check_axis(draft, site)
    mean = draft.array(node, "moving_mean")
    size = _IDENTITY * (np.abs(mean) if mean is not None else 0) + 1e-30
    if np.all(np.abs(channels.scale - 1) <= _IDENTITY) and np.all(np.abs(channels.shift) <= size):
        for name in task.calls:
            draft.remove(name)
        return "it was the identity", None
    into, chosen = absorb_norm(draft, task.calls, strategy)
    return f"into {into}", chosen


def _put_in(
    draft: Draft, paths: Paths, task: _Task, wanted: Order, moments: Mapping[str, Moments]
) -> None:
    carry = _carried(draft, task, wanted)
    for site, call in zip(task.sites, task.calls, strict=True):
        spot = place(draft, paths, site, wanted)
        node = draft.source.nodes[call]
        node = settled(draft, node, spot.source)
        (axis,) = node.counted([node.attrs["axis"]])
        size = draft.nodes[spot.source].shape[axis] or 0
        arrays = _identity(size, node.attrs["epsilon"], moments.get(call), carry)
        draft.restore(node, spot.source, spot.readers, arrays)


def _identity(
    size: int, epsilon: float, measured: Moments | None, carry: np.ndarray | None
) -> dict[str, np.ndarray]:
    mean = np.zeros(size) if measured is None else measured.mean
    variance = np.ones(size) if measured is None else measured.variance
    # Rounded as the framework rounds them, so that gamma is the root of exactly its divisor.
    mean, variance = (np.asarray(a, np.float32).astype(np.float64) for a in (mean, variance))
    return {
        "gamma": np.sqrt(variance + epsilon),
        "beta": mean if carry is None else mean + carry,
        "moving_mean": mean,
        "moving_variance": variance,
    }


def _carried(draft: Draft, task: _Task, wanted: Order) -> np.ndarray | None:
    """Take the bias from linear layers that a norm will follow directly, and return it."""
    if "linear-norm" not in str(wanted):
        return None
    linears = {site.linears[0]: site for site in task.sites}
    node = draft.nodes[task.sites[0].linears[0]]
    bias = draft.array(node, "bias")
    if bias is None or draft.sharing(node) != set(linears):
        return None  # other layers or calls need it
    for name, site in linears.items():
        readers = draft.readers(name)
        if name in draft.outputs or len(readers) != 1:
            return None
        if site.act_node and readers[0].name != site.act_node:
            return None
    draft.drop_array(node.name, "bias")
    return bias
