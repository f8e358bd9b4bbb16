"""Evidence as terminal text and as a notebook fragment: a table, and what it adds up to.

Takes the JSON-ready dict (schema relucate.evidence/1). Not here: which results fit (`evidence`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.text import Text

from ..phrases import count
from ..records.place import place_of_norm
from ..stats.wording import decimals_of
from .rendering import render
from .terminal import displayable, rendered, simple_table

_HEADER = ("network", "data", "act", "before", "after", "difference", "runs")
_OWN_HEADER = ("act", "trained", "difference", "interval", "pairs")
_OWN = "Measured with relucate compare"
_RIGHT = {"before", "after", "difference", "interval", "runs", "pairs"}
_NONE = "-"
_WIDE = 70  # columns, in which numbers needn't fold
_LEGEND = (
    "Accuracy in percent unless the source says otherwise. Differences are after minus before. "
    "t: each order at its own best learning rate. ±: sd over runs; (low to high): an interval."
)


def print_evidence(found: dict[str, Any], console: Console, *, every: bool = False) -> None:
    """Print evidence to `console`; `every`: with each source's remark and how it was checked."""
    console.print(EvidenceView(found, every))


@dataclass(frozen=True)
class EvidenceView:
    """Evidence that rich lays out for the console's width and encoding."""

    found: dict[str, Any]
    every: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        found = displayable(self.found, options.encoding or "utf-8")
        whole = _RIGHT if options.max_width >= _WIDE else ()
        yield from rendered(_parts(found, self.every, whole), console, options)


def _parts(found: dict[str, Any], every: bool, whole: Collection[str]) -> Iterator[RenderableType]:
    yield Text(headline(found), style="bold")
    for line in sums(found):
        yield Text(f"  {line}")
    for title, header, rows in tables(found, every):
        yield Text(f"\n{title}")
        heads = [(name, "right" if name in _RIGHT else "left") for name in header]
        yield Padding(simple_table(heads, rows, whole=whole), (0, 0, 0, 2))
    if found["results"]:
        yield Text(f"\n{_LEGEND}", style="dim")
    if text := others(found, every):
        yield Text(f"\n{text}")
    if every:
        yield from (Text(line) for line in _sources(found))


def headline(found: dict[str, Any]) -> str:
    """Return one sentence: how many results fit, and to what they were limited."""
    asked = ", ".join(_asked(name, value) for name, value in found["asked"].items())
    number = len(found["results"])
    sources = len({result["study"]["id"] for result in found["results"]})
    if not number:
        return f"Nothing is known for {asked}: `relucate compare` measures it on your own network."
    limited = f" for {asked}" if asked else ""
    return f"{count(number, 'result')} from {count(sources, 'source')}{limited}."


def _asked(name: str, value: Any) -> str:
    if name == "depth":
        return f"{(value + 1) // 2} to {count(2 * value, 'layer')} deep"
    return f"{name} {value}"


def sums(found: dict[str, Any]) -> Iterator[str]:
    """Yield a line per activation: how often each order is ahead, and by how much."""
    for row in found["summary"]:
        own, digits = row["own"], 2 if row["unit"] == "%" else 3
        ahead, level = ("better", "equivalent") if own else ("ahead", "level")
        said = sorted([(row["before"], f"before {ahead}"), (row["after"], f"after {ahead}")])
        said = [*said[::-1], (row["level"], level), (row["undecided"], "inconclusive")]
        words = ", ".join(f"{name} in {number}" for number, name in said if number)
        least, most = f"{row['low']:+.{digits}f}", f"{row['high']:+.{digits}f}"
        extremes = least if row["rows"] == 1 else f"from {least} to {most}"
        unit = "points" if row["unit"] == "%" else row["metric"]
        yield (
            f"{row['act']}, {'our own' if own else 'published'}: "
            f"{count(row['rows'], 'comparison')}, {words}; after minus before {extremes} {unit}. "
            f"Tuned for each order: {row['tuned']}. With a spread over runs: {row['spread']}."
        )


def tables(
    found: dict[str, Any], every: bool = False
) -> Iterator[tuple[str, tuple[str, ...], list[list[str]]]]:
    """Yield title, header and rows: a table for each source, of our own for each net and data.

    Results that have one order only are there if `every` is set.
    """
    sources: dict[str, list[dict[str, Any]]] = {}
    for result in found["results"]:
        both = result["difference"] is not None
        if result["axis"] == "order" and (both or every):
            study = result["study"]
            key = _place(result) if study["own"] else study["id"]
            sources.setdefault(key, []).append(result)
    for key, rows in sources.items():
        study = rows[0]["study"]
        if study["own"]:
            yield key, *_own_table(rows, asked="act" in found["asked"])
            continue
        year = f", {study['year']}" if study["year"] else ""
        yield f"{study['authors']}: {study['title']}{year}", _HEADER, [_row(row) for row in rows]


def _own_table(
    results: list[dict[str, Any]], asked: bool
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return header and rows of our own results; asked: for one activation, not shown."""
    shown = [i for i, name in enumerate(_OWN_HEADER) if not (asked and name == "act")]
    rows = [[_own_row(result)[i] for i in shown] for result in results]
    return tuple(_OWN_HEADER[i] for i in shown), rows


def _place(result: dict[str, Any]) -> str:
    data = result["data"].partition(",")[0].removesuffix(".npz")
    metric = "" if result["unit"] == "%" else f", {result['metric']}"
    return f"{_OWN}: {result['net']} on {data}{metric}"


def _own_row(result: dict[str, Any]) -> list[str]:
    words = [result["setting"], *([f"{result['norm']} norm"] if result["norm"] != "batch" else [])]
    difference, _, interval = _difference(result).partition(" (")
    return [
        result["act"],
        ", ".join(words),
        difference,
        interval.removesuffix(")") or _NONE,
        f"{result['runs']}{' t' if result['tuned'] else ''}",
    ]


def _row(result: dict[str, Any]) -> list[str]:
    return [
        result["net"],
        result["data"],
        result["act"],
        _score(result, "before"),
        _score(result, "after"),
        _difference(result),
        f"{result['runs']}{' t' if result['tuned'] else ''}",
    ]


def _score(result: dict[str, Any], place: str) -> str:
    scores = [s for order, s in result["scores"].items() if place_of_norm(order) == place]
    if not scores:
        return _NONE
    score = scores[0]
    return f"{score['value']:.2f}" + (f" ± {score['sd']:.2g}" if "sd" in score else "")


def _difference(result: dict[str, Any]) -> str:
    if result["difference"] is None:
        return _NONE
    digits = 2 if result["unit"] == "%" else 3
    text = f"{result['difference']:+.{digits}f}"
    if result["interval"] is None:
        return text
    low, high = sorted(result["interval"], key=float)
    digits = decimals_of(digits, low, high)
    return f"{text} ({low:+.{digits}f} to {high:+.{digits}f})"


def others(found: dict[str, Any], every: bool = False) -> str:
    """Return a sentence on the results that the tables leave out, or an empty text."""
    left = [
        result
        for result in found["results"]
        if result["axis"] != "order" or (result["difference"] is None and not every)
    ]
    if not left:
        return ""
    alone = sum(result["axis"] == "order" for result in left)
    said = [f"{count(alone, 'result')} for one order only (--all)"] if alone else []
    if len(left) > alone:
        said.append(
            f"{count(len(left) - alone, 'result')} on the place relative to a residual addition or "
            "to dropout, which is another question (--format json)"
        )
    return f"Left out: {'; '.join(said)}."


def _sources(found: dict[str, Any]) -> Iterator[str]:
    studies = {result["study"]["id"]: result["study"] for result in found["results"]}
    others = {study["id"]: study for study in found["without_numbers"]}
    for study in (studies | others).values():
        year = f" ({study['year']})" if study["year"] else ""
        yield f"\n{study['id']}: {study['authors']}: {study['title']}{year}. {study['source']}"
        yield f"  checked: {study['checked']}. {study['remark']}".rstrip()


def evidence_html(found: dict[str, Any]) -> str:
    """Return evidence as an HTML fragment for notebooks; every text is escaped."""
    return render(
        "evidence.html.j2",
        headline=headline(found),
        sums=list(sums(found)),
        tables=list(tables(found)),
        texts={*_HEADER, *_OWN_HEADER} - _RIGHT,
        closing=[line for line in (found["results"] and _LEGEND, others(found)) if line],
    )
