"""Rules about a norm's values: statistics that never moved, broke, or tell of another order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ...phrases import count, some
from ..sites import Site
from .rule import Facts, Hit, rule

_FEW = 16  # channels: fewer can be all of one sign by chance


def _statistics(facts: Facts) -> Iterator[tuple[Site, np.ndarray, np.ndarray]]:
    """Yield each batch norm with finite statistics, its mean and its variance; layers once."""
    seen: set[str] = set()
    for site in facts.sites:
        node = facts.node(site)
        mean, variance = facts.array(node, "moving_mean"), facts.array(node, "moving_variance")
        if mean is None or variance is None or site.name in seen or _broken(facts, site):
            continue
        seen.add(site.name)
        yield site, np.asarray(mean, np.float64), np.asarray(variance, np.float64)


def _broken(facts: Facts, site: Site) -> str:
    """Return what is wrong with a norm's tensors, or nothing."""
    for role, key in facts.node(site).arrays.items():
        array = np.asarray(facts.graph.tensors[key], np.float64)
        bad = int(np.sum(~np.isfinite(array)))
        if bad:
            return f"{role} has {bad} of {array.size} values that are not finite"
        if role == "moving_variance" and np.any(array < 0):
            return f"moving_variance is negative in {int(np.sum(array < 0))} of {array.size}"
    return ""


@rule("N301", "unmoved-statistics", "warning")
def unmoved_statistics(facts: Facts) -> Iterator[Hit]:
    """Moving statistics that are still the initial ones in a model whose weights are trained."""
    if not facts.trained:
        return
    for site, mean, variance in _statistics(facts):
        used = facts.node(site).attrs.get("forced") is not True
        if used and np.all(mean == 0) and np.all(variance == 1):
            yield Hit(
                site.name,
                "moving mean 0 and variance 1 in every channel, though the weights are trained: at "
                "inference it does not normalize",
                "train with batch statistics, or re-estimate them on training data",
            )


@rule("N302", "dead-channels", "warning")
def dead_channels(facts: Facts) -> Iterator[Hit]:
    """Channels whose moving variance is near zero: a constant comes in, noise may go out."""
    for site, _, variance in _statistics(facts):
        dead = (variance <= 1e-8) | (variance < 1e-6 * np.median(variance))
        if np.any(dead):
            yield Hit(
                site.name,
                f"moving variance near 0 in {_channels(dead)}",
                "prune these channels, or look for units before it that are always off",
            )


@rule("N303", "vanished-scale", "note")
def vanished_scale(facts: Facts) -> Iterator[Hit]:
    """Channels whose gamma is near zero: they pass on a constant."""
    seen: set[str] = set()
    for site in facts.sites:
        gamma = facts.array(facts.node(site), "gamma")
        if gamma is None or site.name in seen or _broken(facts, site):
            continue
        seen.add(site.name)
        size = np.abs(np.asarray(gamma, np.float64))
        gone = (size <= 1e-8) | (size < 1e-4 * np.median(size))
        if np.all(gone) and not _moved(facts, site):
            continue  # zero at the start on purpose, as in the last norm of a residual branch
        if np.any(gone):
            yield Hit(
                site.name,
                f"gamma near 0 in {_channels(gone)}",
                "prune these channels: only beta is left of them",
            )


def _moved(facts: Facts, site: Site) -> bool:
    node = facts.node(site)
    mean, beta = facts.array(node, "moving_mean"), facts.array(node, "beta")
    return any(array is not None and bool(np.any(array != 0)) for array in (mean, beta))


def _channels(which: np.ndarray) -> str:
    where = some(map(str, np.flatnonzero(which)))
    return f"{int(which.sum())} of {count(which.size, 'channel')} ({where})"


@rule("N304", "broken-values", "error")
def broken_values(facts: Facts) -> Iterator[Hit]:
    """NaN or infinite values in a norm, or a negative variance."""
    seen: set[str] = set()
    for site in facts.sites:
        if site.name not in seen and (what := _broken(facts, site)):
            seen.add(site.name)
            yield Hit(site.name, what, "load the weights again, or train from before they broke")


@rule("N305", "statistics-contradict-order", "warning")
def statistics_contradict_order(facts: Facts) -> Iterator[Hit]:
    """A moving mean whose signs belong to the other order: weights of another network, perhaps."""
    roles = Counter(site.name for site in facts.sites)
    for site, mean, _ in _statistics(facts):
        if roles[site.name] > 1:
            continue  # its statistics are of several places
        behind = site.order in {"linear-act-norm", "act-norm", "act-norm-linear"}
        if behind and _never_negative(facts, site):
            below = int(np.sum(mean < -1e-6 * max(1.0, float(np.abs(mean).max()))))
            if below:
                yield Hit(
                    site.name,
                    f"moving mean is negative in {below} of {count(mean.size, 'channel')}, but it "
                    f"follows {site.act_op}, which never is",
                    "check which order the weights were trained in",
                    "error",
                )
        elif _one_sign(mean) and _right_behind_linear(facts, site):
            yield Hit(
                site.name,
                f"moving mean is positive in all {mean.size} channels, as behind an activation "
                "such as relu, but it comes before",
                "check which order the weights were trained in",
            )


def _one_sign(mean: np.ndarray) -> bool:
    return mean.size >= _FEW and bool(np.all(mean > 0))


def _never_negative(facts: Facts, site: Site) -> bool:
    node = facts.graph.nodes[site.act_node] if site.act_node else None
    if node is None or not node.operation.never_negative(node.attrs):
        return False
    between = facts.paths.between(facts.node(site).inputs[0], node.name)
    return not any(n.operation.turns_negative for n in between)


def _right_behind_linear(facts: Facts, site: Site) -> bool:
    """Return whether a norm before its activation directly follows its linear layer.

    A max pool between would make the mean positive by itself.
    """
    if site.order != "linear-norm-act":
        return False
    source = facts.graph.nodes[facts.node(site).inputs[0]]
    while source.op == "identity" or source.kind == "drop":
        source = facts.graph.nodes[source.inputs[0]]
    return source.kind == "linear"
