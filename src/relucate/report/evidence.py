"""Evidence as terminal text and as a notebook fragment: a table, and what it adds up to.

Takes the JSON-ready dict (schema relucate.evidence/1). Not here: which results fit (`evidence`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
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
_YOURS = "Your own cards"
_AHEAD = ("act", "n", "before", "after", "even", "difference", "tuned", "sd")
_BETTER = ("act", "n", "before", "after", "even", "open", "difference", "tuned")
_AHEAD_TITLE = (
    "Published: which order is ahead in how many of n comparisons; tuned: each at its own rate; "
    "sd: with a spread over runs"
)
_BETTER_TITLE = (
    f"{_OWN}: which order is better in how many of n studies; even: equivalent; open: the interval "
    "decides nothing"
)
_RIGHT = {*_HEADER[3:], *_OWN_HEADER[2:], *_AHEAD[1:], *_BETTER[1:]}
_FEW = 4  # lines of sums that are said in sentences; more of them are tables
_NEXT_WORD = re.compile(r", (?!\S+ (?:before|after)\b)")  # "lr 0.1 before, 0.3 after" is one
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
    for title, header, rows in (*overview(found), *tables(found, every)):
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
    if not found["results"]:
        return f"Nothing is known for {asked}{_others_known(found)}."
    studies = [result["study"] for result in found["results"]]
    yours = sum(study["yours"] for study in studies)
    own = sum(study["own"] for study in studies)
    publications = len({study["id"] for study in studies if not study["own"]})
    of_them = f" ({yours} on your cards)" if yours else ""
    said = [f"{own} measured with relucate compare{of_them}"] if own else []
    if publications:
        said.append(f"{len(studies) - own} from {count(publications, 'publication')}")
    limited = f" for {asked}" if asked else ""
    return f"{count(len(studies), 'result')}{limited}: {', '.join(said)}."


def _others_known(found: dict[str, Any]) -> str:
    """Return what to ask for instead, or what measures it."""
    measure = "`relucate compare` measures it on your own network"
    said = (f"{name}: {', '.join(choices)}" for name, choices in found["choices"].items())
    known = "; ".join(said)
    return f". There are results for {known}. {measure}" if known else f": {measure}"


def _asked(name: str, value: Any) -> str:
    if name == "depth":
        return f"{(value + 1) // 2:,} to {count(2 * value, 'layer')} deep"
    return f"{name} {value}"


def sums(found: dict[str, Any]) -> Iterator[str]:
    """Yield a line per activation: how often each order is ahead, and by how much.

    None if there are many activations, which `overview` has.
    """
    for row in found["summary"] if len(found["summary"]) <= _FEW else ():
        own = row["own"]
        ahead, level = ("better", "equivalent") if own else ("ahead", "level")
        said = sorted([(row["before"], f"before {ahead}"), (row["after"], f"after {ahead}")])
        said = [*said[::-1], (row["level"], level), (row["undecided"], "inconclusive")]
        words = ", ".join(f"{name} in {number}" for number, name in said if number)
        extremes = _extremes(row) if row["rows"] == 1 else f"from {_extremes(row)}"
        unit = "points" if row["unit"] == "%" else row["metric"]
        yield (
            f"{row['act']}, {'measured with relucate' if own else 'published'}: "
            f"{count(row['rows'], 'comparison')}, {words}; after minus before {extremes} {unit}. "
            f"Tuned for each order: {row['tuned']}. With a spread over runs: {row['spread']}."
        )


def _extremes(row: dict[str, Any]) -> str:
    digits = digits_of(row["unit"])
    ends = dict.fromkeys(f"{row[end]:+.{digits}f}" for end in ("low", "high"))
    return " to ".join(ends)


def overview(found: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...], list[list[str]]]]:
    """Yield title, header and rows of what many activations add up to, publications first."""
    rows = found["summary"]
    if len(rows) <= _FEW:
        return
    published = [row for row in rows if not row["own"]]
    if published:
        yield _AHEAD_TITLE, _AHEAD, [_ahead(row) for row in published]
    own = [row for row in rows if row["own"]]
    if own:
        yield _BETTER_TITLE, _BETTER, [_better(row) for row in own]


def _ahead(row: dict[str, Any]) -> list[str]:
    counts = [str(row[name]) for name in ("rows", "before", "after", "level")]
    return [row["act"], *counts, _with_unit(row), str(row["tuned"]), str(row["spread"])]


def _better(row: dict[str, Any]) -> list[str]:
    counts = [str(row[name]) for name in ("rows", "before", "after", "level", "undecided")]
    return [row["act"], *counts, _with_unit(row), str(row["tuned"])]


def _with_unit(row: dict[str, Any]) -> str:
    return _extremes(row) + ("" if row["unit"] == "%" else f" {row['metric']}")


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
            usual = _usual(rows)
            title = f"{key}; {', '.join(usual)} unless a row says otherwise" if usual else key
            yield title, *_own_table(rows, usual, asked="act" in found["asked"])
            continue
        year = f", {study['year']}" if study["year"] else ""
        yield f"{study['authors']}: {study['title']}{year}", _HEADER, [_row(row) for row in rows]


def _own_table(
    results: list[dict[str, Any]], usual: list[str], asked: bool
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return header and rows of our own results.

    usual: what the title says of their training; asked: for one activation, which isn't shown.
    """
    shown = [i for i, name in enumerate(_OWN_HEADER) if not (asked and name == "act")]
    rows = [[_own_row(result, usual)[i] for i in shown] for result in results]
    return tuple(_OWN_HEADER[i] for i in shown), rows


def _place(result: dict[str, Any]) -> str:
    data = result["data"].partition(",")[0].removesuffix(".npz")
    metric = "" if result["unit"] == "%" else f", {result['metric']}"
    title = _YOURS if result["study"]["yours"] else _OWN
    return f"{title}: {result['net']} on {data}{metric}"


def _usual(results: list[dict[str, Any]]) -> list[str]:
    """Return how most of these were trained; nothing for a single one."""
    trained = [_trained(result) for result in results]
    times = Counter(chain.from_iterable(trained)) if len(results) > 1 else Counter()
    usual = [word for word, number in times.items() if 2 * number > len(results)]
    order = max(trained, key=lambda words: len(set(usual) & set(words)))
    return sorted(usual, key=lambda word: order.index(word) if word in order else len(order))


def _trained(result: dict[str, Any]) -> list[str]:
    words = _NEXT_WORD.split(result["setting"]) if result["setting"] else []
    words += result["data"].partition(", ")[2:]  # how many examples
    words += [f"{result['norm']} norm"] if result["norm"] != "batch" else []
    return words + ([f"{len(result['scores'])} orders"] if len(result["scores"]) > 2 else [])


def _differing(words: list[str], usual: list[str]) -> str:
    """Return the words that aren't usual, and the usual ones that have nothing in their place."""
    told = {_what(word) for word in words}
    missing = [f"without {word}" for word in usual if _what(word) not in told]
    return ", ".join([*(word for word in words if word not in usual), *missing])


def _what(word: str) -> str:
    """Return what a word on training is about: `lr` of "lr 0.1", `epoch` of "12 epochs"."""
    first, *_, last = word.split()
    return last.rstrip("s") if first[0].isdigit() or last == "norm" else first


def _own_row(result: dict[str, Any], usual: list[str]) -> list[str]:
    difference, interval = numbers(result)
    return [
        result["act"],
        _differing(_trained(result), usual),
        difference,
        interval or _NONE,
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
    difference, interval = numbers(result)
    return f"{difference} ({interval})" if interval else difference


def numbers(result: dict[str, Any]) -> tuple[str, str]:
    """Return a result's difference and its interval as text; the interval is "" without one."""
    if result["difference"] is None:
        return _NONE, ""
    digits = digits_of(result["unit"])
    text = f"{result['difference']:+.{digits}f}"
    if result["interval"] is None:
        return text, ""
    low, high = sorted(result["interval"], key=float)
    digits = decimals_of(digits, low, high)
    return text, f"{low:+.{digits}f} to {high:+.{digits}f}"


def digits_of(unit: str) -> int:
    """Return the decimals of scores and differences in a unit.

    >>> digits_of("%"), digits_of("")
    (2, 3)
    """
    return 2 if unit == "%" else 3


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
        tables=[*overview(found), *tables(found)],
        texts={*_HEADER, *_OWN_HEADER, *_AHEAD} - _RIGHT,
        closing=[line for line in (found["results"] and _LEGEND, others(found)) if line],
    )
