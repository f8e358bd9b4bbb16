"""A report of fold, convert or rebuild as terminal text and as a notebook fragment.

Takes the JSON-ready dict (schemas relucate.fold/1, .convert/1, .rebuild/1) and shows the old and
the new order of each norm, the reasons of skipped norms, the certificate. Not here: judgements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.text import Text

from ..phrases import count, some
from .audit import FEW, left, named, sided
from .rendering import render
from .terminal import displayable, rendered, simple_table

_PAST = {"fold": "folded", "convert": "converted", "rebuild": "rebuilt"}


@dataclass(frozen=True)
class TransformView:
    """A report that rich lays out for the console's width and encoding."""

    report: dict[str, Any]
    every: bool = False
    planned: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        report = displayable(self.report, options.encoding or "utf-8")
        yield from rendered(_parts(report, self.every, self.planned), console, options)


def print_transform(
    report: dict[str, Any], console: Console, *, every: bool = False, planned: bool = False
) -> None:
    """Print a report; `every`: each norm on its own; `planned`: nothing has been done yet."""
    console.print(TransformView(report, every, planned))


def _parts(report: dict[str, Any], every: bool, planned: bool) -> Iterator[RenderableType]:
    yield Text(headline(report, planned), style="bold")
    header, rows = table(report, every)
    if rows:
        yield Text("")
        yield Padding(simple_table(sided(header), rows), (0, 0, 0, 2))
    yield Text("")
    for line in closing(report, planned):
        yield Text(line)


def headline(report: dict[str, Any], planned: bool = False) -> str:
    """Return one sentence: the number of changed norms and of all norms."""
    done, skipped = report["summary"]["done"], report["summary"]["skipped"]
    verb = report["verb"] if "verb" in report else report["schema"].split(".")[1].split("/")[0]
    to = f" to {named(report['order'])}" if report["order"] else ""
    past = f"to be {_PAST[verb]}" if planned else _PAST[verb]
    hidden = sum(len(row["norms"]) for row in report.get("hidden", ()))
    total = done + skipped + hidden
    name = f"{report['model']} ({report['framework']})"
    unread = f"; {hidden} could not be read" if hidden else ""
    there = sum(
        row["status"] != "done" and row["old"] == report["order"] for row in report["sites"]
    )
    already = f"; {there} had that order already" if there else ""
    return f"{name}: {done} of {count(total, 'norm')} {past}{to}{already}{unread}"


def table(report: dict[str, Any], every: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: one per norm, or per group of equal norms if there are many."""
    rows = report["sites"]
    if len(rows) <= FEW or every:
        return ["norm", "so far", "then", "how"], [
            [row["name"], row["old"], _then(row), _how(row)] for row in rows
        ]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        how = "" if row["status"] == "done" else _without_names(_how(row))
        key = (row["old"], _then(row), row["strategy"] or "", how)
        groups.setdefault(key, []).append(row)
    found = []
    for (old, then, strategy, how), same in sorted(groups.items(), key=lambda g: -len(g[1])):
        note = f"border: {strategy}" if strategy else how
        found.append([str(len(same)), old, then, _example(same), note])
    header = ["norms", "so far", "then", "norm layers", "how"]
    shown = len(header) - (not any(row[-1] for row in found))
    return header[:shown], [row[:shown] for row in found]


def _without_names(reason: str) -> str:
    """Return a reason without layer names, so that equal reasons are grouped.

    >>> _without_names("'conv1' is read by others (conv1, add)")
    '... is read by others'
    """
    return re.sub(r"'[^']*'", "...", re.sub(r" \([^)]*\)", "", reason))


def _example(same: list[dict[str, Any]]) -> str:
    names = [row["name"] for row in same]
    return f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]


def _then(row: dict[str, Any]) -> str:
    return row["new"] if row["status"] == "done" else "stays"


def _how(row: dict[str, Any]) -> str:
    border = f" (border: {row['strategy']})" if row["strategy"] else ""
    return f"{row['reason']}{border}"


def closing(report: dict[str, Any], planned: bool) -> list[str]:
    """Return the lines below the table: parameters, certificate, warnings."""
    before, after = report["parameters"]["before"], report["parameters"]["after"]
    lines = [f"Trainable parameters: {before:,} -> {after:,}."]
    found = report["certificate"]
    if found:
        lines.append(certificate_line(found))
    elif report["seed"] is not None:
        lines.append(f"Weights are new (seed {report['seed']}).")
    elif planned:
        lines.append("Nothing was written (dry run).")
    if renamed := report.get("renamed"):
        lines.append(renamed_line(renamed))
    return lines + [f"Warning: {text}" for text in report["warnings"]]


def renamed_line(renamed: Mapping[str, str]) -> str:
    """Return which modules have other names now, as their weights in the state dict have.

    >>> renamed_line({"act": "norm", "norm": "act"})
    "Modules changed places: 'act' is what was 'norm', 'norm' is what was 'act'."
    """
    named = (f"'{new}' is what was '{old}'" for new, old in renamed.items())
    return f"Modules changed places: {some(named)}."


def certificate_line(found: dict[str, Any]) -> str:
    """Return a certificate in one line."""
    verdict = "Verified: same function" if found["passed"] else "NOT the same function"
    if found["max_rel"] is None:
        numbers = "outputs have different shapes or are not finite"
    else:
        numbers = (
            f"largest difference {found['max_rel']:.1e} of the output's scale "
            f"(allowed {found['tolerance']:.0e}) over {found['inputs']} inputs, {found['dtype']}"
        )
    where = f"; they first differ at '{found['worst']}'" if found["worst"] else ""
    return f"{verdict}: {numbers}{where}."


def transform_html(report: dict[str, Any]) -> str:
    """Return a report as an HTML fragment for notebooks; every text is escaped."""
    header, rows = table(report)
    return render(
        "audit.html.j2",
        headline=headline(report),
        header=header,
        rows=rows,
        texts=left(header),
        unread="",
        conclusion=" ".join(closing(report, False)),
        findings=[],
    )
