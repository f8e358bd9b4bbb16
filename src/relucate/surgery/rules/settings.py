"""Rules about how norms are set: epsilon, momentum, and calls that insist on a mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...graph import Node
from ...graph.conventions import conventions
from ...phrases import count, some
from .rule import Facts, Hit, rule

_LEFT = 0.05  # share of the initial statistics that is too much to be left at the end


@rule("N401", "mixed-settings", "note")
def mixed_settings(facts: Facts) -> Iterator[Hit]:
    """Norms of one kind with different epsilon or momentum in one model."""
    for attr, torch_name in (("epsilon", "eps"), ("momentum", "momentum")):
        kinds: dict[str, dict[Any, list[str]]] = {}
        for site in facts.sites:
            node = facts.node(site)
            idle = attr == "momentum" and not _moves(node)
            if node.attrs.get(attr) is not None and not idle:
                value = round(float(node.attrs[attr]), 12)
                names = kinds.setdefault(site.kind, {}).setdefault(value, [])
                if site.name not in names:
                    names.append(site.name)
        for kind, values in kinds.items():
            if len(values) > 1:
                yield _mixed(facts, kind, attr, facts.say(attr, torch_name), values)


def _moves(norm: Node) -> bool:
    """Return whether training moves statistics that inference uses."""
    fixed = norm.attrs.get("frozen") or norm.attrs.get("forced") is not None
    return "moving_mean" in norm.arrays and not fixed


def _mixed(facts: Facts, kind: str, attr: str, name: str, values: dict[Any, list[str]]) -> Hit:
    counts = Counter({value: len(names) for value, names in values.items()})
    main = counts.most_common(1)[0][0]
    odd = {value: names for value, names in values.items() if value != main}
    shown = "; ".join(f"{_own(facts, attr, v)} in {some(names)}" for v, names in odd.items())
    return Hit(
        next(iter(odd.values()))[0],
        f"{name} of {kind} norms differs: {_own(facts, attr, main)} in {counts[main]}, {shown}",
        f"one {name} for all, if there is no reason",
    )


def _own(facts: Facts, attr: str, value: float) -> str:
    """Return a value as the framework's users give it."""
    flipped = attr == "momentum" and conventions(facts.graph).momentum_of_new
    return f"{1 - value if flipped else value:g}"


@rule("N402", "slow-statistics", "warning")
def slow_statistics(facts: Facts) -> Iterator[Hit]:
    """A momentum too slow for the number of training steps: initial statistics are left over."""
    if facts.steps is None:
        return
    slow: dict[float, list[str]] = {}
    for site in facts.sites:
        node = facts.node(site)
        momentum = node.attrs.get("momentum")
        if momentum is not None and _moves(node) and momentum**facts.steps > _LEFT:
            slow.setdefault(float(momentum), []).append(site.name)
    for momentum, named in slow.items():
        names = list(dict.fromkeys(named))
        left = momentum**facts.steps
        yield Hit(
            names[0],
            f"momentum {_own(facts, 'momentum', momentum)} leaves {left:.0%} of the initial "
            f"statistics after {count(facts.steps, 'step')} ({count(len(names), 'norm')})",
            "a faster momentum, more steps, or re-estimate the statistics after training",
        )


@rule("N403", "batch-at-inference", "warning")
def batch_at_inference(facts: Facts) -> Iterator[Hit]:
    """A batch norm that uses batch statistics at inference too: outputs depend on the batch."""
    seen: set[str] = set()
    for site in facts.sites:
        for node in (facts.graph.nodes[name] for name in site.nodes):
            insists = node.attrs.get("forced") is True
            on_batch = insists or "moving_mean" not in node.arrays
            frozen = node.attrs.get("frozen") and "moving_mean" in node.arrays
            if node.op != "batch_norm" or not on_batch or frozen or site.name in seen:
                continue
            seen.add(site.name)
            how, change = _on_batch(facts, insists)
            yield Hit(site.name, how, f"{change}, unless that is wanted")


def _on_batch(facts: Facts, insists: bool) -> tuple[str, str]:
    """Return what a norm does that computes with its batch's statistics, and the change."""
    depends = "an example's output depends on the others in its batch"
    if not insists:
        change = facts.say("keep moving statistics", "track_running_stats=True")
        return f"keeps no moving statistics: {depends}", change
    # In a functional Keras model, fit and predict put their own `training` in its place.
    depends = facts.say(f"in model(x), though not in predict, {depends}", depends)
    change = facts.say("leave `training` to the model", "pass training=self.training")
    return f"is called with training=True: {depends}", change
