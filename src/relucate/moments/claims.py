"""What is said of norms and activations, checked on what was measured, whichever way it comes out.

Takes the document of `relucate.probe` (its sites, and its points with their summaries). The book
that argues from these distributions: Goodfellow, Bengio and Courville, Deep Learning, 2016, 8.7.1;
for bounded activations: Kim, Kim and Kim, Tanh Works Better with Asymmetry, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..phrases import count, some
from .figures import Point, Seen, Site, by_node, medians, summary, table

BOUNDED = frozenset({"tanh", "softsign", "hard_tanh", "erf"})  # by -1 and 1
NEAR_ZERO = 0.1  # a mean of at most so many sd is near zero
NORMAL_SPARSITY = 1 - np.sqrt(2 / np.pi)  # Hoyer's, of normal values around 0


def claims(sites: Sequence[Site], points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return each claim that can be checked: `claim`, `act_op`, `sites`, `text` and its numbers."""
    seen = by_node(points)
    found: list[dict[str, Any]] = []
    for op in dict.fromkeys(site["act_op"] for site in sites if site["act_op"]):
        own = [site for site in sites if site["act_op"] == op]
        for check in (_skewed, _centred, _bounded):
            found += (row | {"act_op": op} for row in check(op, own, seen))
    found += _normal(sites, seen)
    found += _dead(sites, seen)
    return found


def _skewed(op: str, sites: Sequence[Site], seen: Seen) -> Iterator[dict[str, Any]]:
    pairs = table(sites, seen, "skewness", "act_in", "act_out")
    if not len(pairs):
        return
    more = int(np.sum(pairs[:, 1] > pairs[:, 0]))
    before, after = medians(pairs)
    text = (
        f"Behind {op} the values are more skewed than before it in {more} of "
        f"{count(len(pairs), 'site')}: median |skewness| {after:.2f} against {before:.2f}."
    )
    numbers = {"before": before, "after": after, "more": more}
    yield {"claim": "skewed", "sites": len(pairs), "text": text, **numbers}


def _centred(op: str, sites: Sequence[Site], seen: Seen) -> Iterator[dict[str, Any]]:
    pairs = table(sites, seen, "mean_in_sd", "act_in", "act_out")
    if not len(pairs):
        return
    near = int(np.sum(pairs[:, 1] <= NEAR_ZERO))
    before, after = medians(pairs)
    text = (
        f"The mean behind {op} is near zero (at most {NEAR_ZERO:g} sd) in {near} of "
        f"{count(len(pairs), 'site')}: median |mean| {after:.2f} sd, before it {before:.2f} sd."
    )
    numbers = {"before": before, "after": after, "near": near}
    yield {"claim": "centred", "sites": len(pairs), "text": text, **numbers}


def _bounded(op: str, sites: Sequence[Site], seen: Seen) -> Iterator[dict[str, Any]]:
    if op not in BOUNDED:
        return
    known = [summary(site, seen, "act_out") for site in sites]
    known = [row for row in known if row.get("saturation") is not None]
    if not known:
        return
    saturated, onesided = (
        float(np.median([row[name] for row in known])) for name in ("saturation", "asymmetry")
    )
    sparse = table(sites, seen, "sparsity", "next")
    text = (
        f"{op} is saturated to {saturated:.2f} of its bound (mean |x|), and {onesided:.2f} "
        "one-sided (|mean| / mean |x|, median channel)."
    )
    numbers: dict[str, Any] = {"saturation": saturated, "asymmetry": onesided, "sparsity": None}
    if len(sparse):
        (middle,) = medians(sparse)
        numbers["sparsity"] = middle
        text += (
            f" What the next layer reads has a sparsity of {middle:.2f} (Hoyer's; normal values "
            f"around 0 have {NORMAL_SPARSITY:.2f})."
        )
    yield {"claim": "saturated", "sites": len(known), "text": text, **numbers}
    yield from _sparse(op, sites, seen)


def _sparse(op: str, sites: Sequence[Site], seen: Seen) -> Iterator[dict[str, Any]]:
    """Yield whether the next layer reads sparse values with the norm behind the activation."""
    behind = [site for site in sites if site["order"] == "linear-act-norm"]
    known = table(behind, seen, "sparsity", "next")
    if not len(known):
        return
    sparse = int(np.sum(known > NORMAL_SPARSITY))
    (middle,) = medians(known)
    text = (
        f"With the norm behind {op} the next layer reads values that are sparser than normal ones "
        f"(Kim et al., 2023) in {sparse} of {count(len(known), 'site')}: median sparsity "
        f"{middle:.2f} against {NORMAL_SPARSITY:.2f}."
    )
    yield {"claim": "sparse", "sites": len(known), "text": text, "sparsity": middle, "more": sparse}


def _normal(sites: Sequence[Site], seen: Seen) -> Iterator[dict[str, Any]]:
    norms = [site for site in sites if site["norm"]]
    for order in dict.fromkeys(site["order"] for site in norms):
        own = [site for site in norms if site["order"] == order]
        pairs = table(own, seen, "normal_distance", "norm_in", "next")
        if not len(pairs):
            continue
        norm, reader = medians(pairs)
        text = (
            f"In {order} the norm reads values that are {norm:.2f} from a normal distribution, the "
            f"next layer {reader:.2f} (Kolmogorov's distance, {count(len(pairs), 'site')})."
        )
        numbers = {"order": order, "norm_in": norm, "next": reader}
        yield {"claim": "normal", "act_op": None, "sites": len(pairs), "text": text, **numbers}


def _dead(sites: Sequence[Site], seen: Seen) -> Iterator[dict[str, Any]]:
    nodes = {site["points"].get("act_out", site["points"].get("norm_out")) for site in sites}
    rows = {node: point for node, point in seen.items() if node in nodes}
    if not rows:
        return
    dead = {node: n for node, point in rows.items() if (n := point["summary"]["dead"])}
    number, channels = sum(dead.values()), sum(point["channels"] for point in rows.values())
    where = ": " + some([f"{node} ({n})" for node, n in dead.items()], 5) if dead else ""
    text = f"{number:,} of {channels:,} channels are dead (constant on all data){where}."
    numbers = {"dead": number, "channels": channels}
    yield {"claim": "dead", "act_op": None, "sites": len(rows), "text": text, **numbers}
