"""An audit as terminal text and as a notebook fragment: sites, counts per order, findings.

Takes the JSON-ready dict (schema relucate.audit/1). Models with many norms are shown by groups of
equal sites and findings by rule, unless `every` is set. Not here: SARIF (`sarif`), judgements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..order import ALIASES
from ..phrases import count, some
from .rendering import render
from .terminal import displayable, rendered, simple_table

FEW = 24  # norms: more are shown by groups
STYLE = {"error": "bold red", "warning": "bold yellow", "note": "cyan"}
_NAMES = {text: alias for alias, text in ALIASES.items()}


def print_audit(audit: dict[str, Any], console: Console, *, every: bool = False) -> None:
    """Print an audit to `console`; `every` shows each site and finding on its own."""
    console.print(AuditView(audit, every))


@dataclass(frozen=True)
class AuditView:
    """An audit that rich lays out for the console's width and encoding."""

    audit: dict[str, Any]
    every: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        audit = displayable(self.audit, options.encoding or "utf-8")
        yield from rendered(_parts(audit, self.every), console, options)


def _parts(audit: dict[str, Any], every: bool) -> Iterator[RenderableType]:
    """Yield the parts of the view from top to bottom."""
    yield Text(headline(audit), style="bold")
    if audit["sites"]:
        grouped = len(audit["sites"]) > FEW and not every
        yield Text("")
        header, rows = groups(audit) if grouped else table(audit)
        yield Padding(simple_table(sided(header), rows), (0, 0, 0, 2))
        if len(audit["summary"]) > 1:
            yield Text("\n" + "\n".join(orders(audit)))
    if text := unread(audit):
        yield Text("\n" + text, style="yellow")
    yield Text("\n" + conclusion(audit), style="bold")
    for severity, title, lines in findings(audit, every):
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text(f"{severity:<7}", STYLE[severity]), Text(title))
        for line in lines:
            grid.add_row("", Text(line))
        yield Text("")
        yield grid


def sided(header: list[str]) -> list[tuple[str, str]]:
    """Return each heading with its side: counts are on the right."""
    return [(name, "left" if name in left(header) else "right") for name in header]


def left(header: list[str]) -> list[str]:
    """Return the headings whose cells are text."""
    return [name for name in header if name not in {"norms", "calls"}]


def headline(audit: dict[str, Any]) -> str:
    """Return one sentence: the number of norms, and the order of most of them."""
    number = len(audit["sites"])
    name = f"{audit['model']} ({audit['framework']})"
    if not number:
        hidden = sum(len(row["norms"]) for row in audit.get("hidden", ()))
        inside = f"{count(hidden, 'norm')}, inside layers that could not be read"
        return f"{name}: {inside if hidden else 'no norms'}."
    order, most = next(iter(audit["summary"].items()))
    norms = f"{name}: {count(number, 'norm')}"
    if 2 * most <= number:
        return f"{norms} in {len(audit['summary'])} orders"
    return f"{norms}, {'all' if most == number else most} {named(order)}"


def named(order: str) -> str:
    """Return an order with its alias, if any.

    >>> named("linear-act-norm")
    'linear-act-norm (after)'
    """
    return f"{order} ({_NAMES[order]})" if order in _NAMES else order


def table(audit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row per site."""
    shared = any(site["calls"] > 1 for site in audit["sites"])
    header = ["norm", "kind", "linear layer", "activation", "order"] + ["calls"] * shared
    rows = [
        [site["name"], site["kind"], _linear(site), _activation(site), _order(site)]
        + [str(site["calls"])] * shared
        for site in audit["sites"]
    ]
    return header, rows


def _linear(site: dict[str, Any]) -> str:
    return site["linear"] or ("?" if site.get("unknown") else "-")


def _order(site: dict[str, Any]) -> str:
    return site["order"] + (" ?" if site.get("unknown") else "")


def _activation(site: dict[str, Any]) -> str:
    return site["act_op"] or (f"({site['note']})" if site["note"] else "-")


def groups(audit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row per kind of site, the commonest first."""
    found: dict[tuple[str, ...], list[str]] = {}
    for site in audit["sites"]:
        key = (_order(site), site["kind"], _activation(site))
        found.setdefault(key, []).append(site["name"])
    rows = [
        [
            str(len(names)),
            *key,
            f"{names[0]} to {names[-1]}" if len(names) > 2 else ", ".join(names),
        ]
        for key, names in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    return ["norms", "order", "kind", "activation", "norm layers"], rows


def orders(audit: dict[str, Any]) -> list[str]:
    """Return one line per order with its count."""
    return [f"{number:>5}  {named(order)}" for order, number in audit["summary"].items()]


def unread(audit: dict[str, Any]) -> str:
    """Return the sentences on layers that couldn't be read and the norms that depend on them."""
    found = []
    if audit["unknown"]:
        names = some(audit["unknown"], 5)
        found.append(f"Could not be read: {names}. Norms inside these layers are not listed")
        hidden = [name for row in audit.get("hidden", ()) for name in row["norms"]]
        found[0] += f": {len(hidden)} found, {some(hidden, 5)}." if hidden else "."
    unsure = [site for site in audit["sites"] if site.get("unknown")]
    if unsure:
        names = dict.fromkeys(name for site in unsure for name in site["unknown"])
        norms = dict.fromkeys(site["name"] for site in unsure)
        found.append(f"The order of {some(norms, 5)} (?) depends on {some(names, 5)}.")
    return " ".join(found)


def conclusion(audit: dict[str, Any]) -> str:
    """Return the number of findings by severity."""
    found = audit["findings"]
    if not found:
        return "No findings."
    severities = [finding["severity"] for finding in found]
    parts = [(name, severities.count(name)) for name in STYLE]
    return ", ".join(count(number, name) for name, number in parts if number) + ":"


def findings(audit: dict[str, Any], every: bool = False) -> Iterator[tuple[str, str, list[str]]]:
    """Yield severity, title and lines of each finding, or of each rule's findings together."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for number, finding in enumerate(audit["findings"]):
        key = number if every else (finding["severity"], finding["code"])
        found.setdefault(key, []).append(finding)
    for same in found.values():
        first = same[0]
        title = f"{first['code']} {first['rule']}: {_places(same)}"
        example = "" if len(same) == 1 else f"for example {first['where']}: "
        total = sum(finding["parameters"] for finding in same)
        saved = f" {total:,} parameters in all." if total and len(same) > 1 else ""
        lines = [f"{example}{first['message']}.", f"Fix: {first['fix']}.{saved}"]
        yield first["severity"], title, lines


def _places(same: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(finding["where"] for finding in same))
    if len(names) <= 3:
        return ", ".join(names)
    return f"{len(names)} layers ({', '.join(names[:2])}, ..., {names[-1]})"


def audit_html(audit: dict[str, Any]) -> str:
    """Return an audit as an HTML fragment for notebooks; every text is escaped."""
    header, rows = groups(audit) if len(audit["sites"]) > FEW else table(audit)
    return render(
        "audit.html.j2",
        headline=headline(audit),
        header=header,
        rows=rows,
        texts=left(header),
        unread=unread(audit),
        conclusion=conclusion(audit),
        findings=list(findings(audit)),
    )
