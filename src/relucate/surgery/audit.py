"""Audit a Graph: every norm's order, counts per order, and what the rules find.

Pure: no framework, no printing (`report`), no loading of models (`api`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..arguments import texts, whole
from ..errors import unknown
from ..graph import Graph
from ..phrases import some
from .paths import Paths
from .rules import RULES, SEVERITIES, Facts, Finding, Rule
from .sites import Site, sites

SCHEMA = "relucate.audit/1"


@dataclass(frozen=True)
class Audit:
    """What an audit of one model found; findings from the gravest to the slightest."""

    model: str
    framework: str
    sites: tuple[Site, ...]
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...] = ()  # layers that the reader didn't know
    hidden: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # norms inside, by layer

    @property
    def summary(self) -> dict[str, int]:
        """Number of norms per order, the commonest first."""
        return dict(Counter(site.order for site in self.sites).most_common())

    def at_least(self, severity: str) -> tuple[Finding, ...]:
        """Return the findings at or above a severity."""
        lowest = SEVERITIES.index(severity)
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) >= lowest)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as JSON-ready data (schema relucate.audit/1)."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "framework": self.framework,
            "sites": [site.to_dict() for site in self.sites],
            "summary": self.summary,
            "findings": [finding.to_dict() for finding in self.findings],
            "unknown": list(self.unknown),
            "hidden": hidden_rows(self.hidden),
        }


def audit_graph(
    graph: Graph,
    *,
    steps: int | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> Audit:
    """Return where each norm of `graph` sits and what the rules find.

    Args:
        steps: number of training steps, for rules about moving statistics; None if unknown.
        select: codes, their beginnings ("N1") or names of the rules to apply; empty for all.
        ignore: the same, for the rules to leave out.
    Raises: InputError: a rule that doesn't exist, steps below 1.
    """
    steps = None if steps is None else whole(steps, "steps", 1)
    chosen = list(choose(texts(select, "select"), texts(ignore, "ignore")))
    paths = Paths(graph)
    facts = Facts(graph, paths, sites(graph, paths), steps)
    found = [finding for rule in chosen for finding in rule(facts)]
    found.sort(key=lambda finding: -SEVERITIES.index(finding.severity))  # stable: then by code
    return Audit(
        model=graph.name,
        framework=graph.framework,
        sites=facts.sites,
        findings=tuple(found),
        unknown=tuple(dict.fromkeys(n.layer_name for n in graph.opaque if paths.is_unknown(n))),
        hidden=graph.hidden_norms,
    )


def hidden_rows(hidden: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return as JSON has them the norms inside layers that couldn't be read."""
    return [{"layer": layer, "norms": list(norms)} for layer, norms in hidden.items()]


def hidden_text(hidden: Mapping[str, tuple[str, ...]]) -> str:
    """Return how many norms are inside layers that couldn't be read, and inside which; or nothing.

    >>> hidden_text({"block": ("block/bn",), "stem": ("stem/bn1", "stem/bn2")})
    "3 norms are inside 'block', 'stem', which couldn't be read: block/bn, stem/bn1, stem/bn2"
    """
    names = [name for norms in hidden.values() for name in norms]
    count = "1 norm is" if len(names) == 1 else f"{len(names)} norms are"
    where = some([f"'{layer}'" for layer in hidden], 5)
    return f"{count} inside {where}, which couldn't be read: {some(names, 5)}" if names else ""


def choose(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> Iterator[Rule]:
    """Yield the rules that are selected and not ignored, by code.

    >>> [rule.code for rule in choose(["N1", "no-activation"], ["N103"])]
    ['N101', 'N102', 'N204']
    """
    wanted = set().union(*map(_codes, select)) or set(RULES)
    left = wanted - set().union(*map(_codes, ignore))
    return (RULES[code] for code in sorted(left))


def _codes(text: str) -> set[str]:
    named: Mapping[str, str] = {rule.name: code for code, rule in RULES.items()}
    key = text.strip()
    found = {code for code in RULES if key and code.startswith(key.upper())}
    if key.lower() in named:
        found.add(named[key.lower()])
    if not found:
        raise unknown("rule", text, [*RULES, *named])
    return found
