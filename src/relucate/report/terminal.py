"""A comparison study as terminal text: the verdict, the arms, the difference with its interval.

Legible without colour, at 80 columns and below; numbers in the metric's unit. Not here: computing
numbers, the HTML report, progress. Called by the command line and by the study's `__str__`. Its
`rendered`, `simple_table` and `displayable` serve `audit` and `transform` too.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from relucate.errors import printable
from relucate.phrases import count
from relucate.report import reach, seen, tuning, varied
from relucate.report.facts import (
    arm_verdict,
    bare_sentence,
    current,
    difference_text,
    each_metric,
    failed_runs,
    headline,
    runs_text,
    short_names,
    sole_winner,
    source,
    span,
    unpaired,
)
from relucate.report.numbers import MISSING, Units, duration, known, level_percent, plain, whole
from relucate.report.strip import ASCII, LINES, interval_strip

VERDICT_STYLE = {
    "better": "bold green",
    "worse": "bold red",
    "equivalent": "bold cyan",
    "inconclusive": "bold yellow",
}
INDENT = (0, 0, 0, 2)
STRIP_WIDTH = 60
_SIDES = ("arm", "against", "winner")  # of a comparison
UNBOUNDED = 1000  # columns: the width of a table without a limit
_PERCENTAGE = re.compile(r"(?<=\d) (?=%)")
_GLUE = "\ue000"  # a blank at which no line ends; rich would break at a no-break space


def verdict_table(study: dict[str, Any]) -> StudyView:
    """Return a study (schema relucate.compare) as an object that rich prints at any width."""
    return StudyView(current(study))


def print_study(study: dict[str, Any], console: Console) -> None:
    """Print a study's verdict, arms, differences and notes to `console`."""
    console.print(verdict_table(study), crop=False)  # a command must stay in one line


@dataclass(frozen=True)
class StudyView:
    """A study that rich lays out for the console's width and encoding."""

    study: dict[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        study = displayable(self.study, options.encoding or "utf-8")
        yield from rendered(_every_part(study, console, options), console, options)


@dataclass(frozen=True)
class Unbroken:
    """A line that is never broken or cut: a command must still run when it was copied."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        yield Segment(self.text)
        yield Segment.line()


def rendered(
    parts: Iterable[RenderableType], console: Console, options: ConsoleOptions
) -> Iterator[Segment]:
    """Yield the parts line by line, without blanks at the ends of lines (they spoil a copy).

    No line ends between a number and its %.
    """
    for part in parts:
        if isinstance(part, Unbroken):
            yield from console.render(part, options)
        else:
            _glue(part)
            yield from _trimmed(console.render_lines(part, options, pad=False))


def _glue(part: Any) -> None:
    """Join each number with its %, in place."""
    if isinstance(part, Text):
        part.plain = _PERCENTAGE.sub(_GLUE, part.plain)
    elif isinstance(part, Padding):
        _glue(part.renderable)
    elif isinstance(part, Group):
        for each in part.renderables:
            _glue(each)
    elif isinstance(part, Table):
        for column in part.columns:
            for cell in column.cells:
                _glue(cell)


def _trimmed(lines: list[list[Segment]]) -> Iterator[Segment]:
    for line in lines:
        length = len("".join(segment.text for segment in line).rstrip())
        for segment in line:
            if length > 0:
                shown = segment.text[:length].replace(_GLUE, " ")
                yield Segment(shown, segment.style, segment.control)
            length -= len(segment.text)
        yield Segment.line()


def simple_table(
    headings: Iterable[tuple[str, Any]],
    rows: Iterable[Sequence[str | Text]],
    gap: int = 3,
    whole: Container[str] = (),
) -> Table:
    """Return a table with one rule under its headings (text, "left" or "right").

    gap: blanks between columns; with 3, cells may fold; whole: headings whose cells do so last.
    """
    padding = (0, 1, 0, 0) if gap == 2 else (0, 1)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
    for heading, justify in headings:
        overflow: Any = "fold" if gap == 3 else "ellipsis"
        table.add_column(heading, justify=justify, overflow=overflow, no_wrap=heading in whole)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def _every_part(
    study: dict[str, Any], console: Console, options: ConsoleOptions
) -> Iterator[RenderableType]:
    """Yield the parts of every metric's view."""
    documents = each_metric(study)
    for number, document in enumerate(documents):
        if number:
            yield Text("")
        if len(documents) > 1:
            yield Text(f"{document['metric']['name']}", style="underline")
        yield from _parts(document, console, options)


def _parts(
    study: dict[str, Any], console: Console, options: ConsoleOptions
) -> Iterator[RenderableType]:
    """Yield the parts of the view from top to bottom."""
    yield from _headline(study)
    yield Text("")
    if study.get("factors"):
        yield from _factors(study, console, options)
    else:
        table = Padding(_arm_table(study), INDENT)
        yield table if _fits(table, console, options) else _arm_lines(study)
    if study.get("tuning"):
        yield Text("")
        yield from map(_hanging, tuning.lines(study))
    if not study.get("factors") or _across(study):
        yield Text("")
        yield from _differences(study, console, options)
    yield from _closing(study)


def _across(study: dict[str, Any]) -> bool:
    """Return whether arms with different values are compared, which the table of values lacks."""
    return any(not comparison.get("values") for comparison in study["comparisons"])


def displayable(value: Any, encoding: str = "utf-8") -> Any:
    """Return a copy whose texts hold only characters that a terminal of that encoding can show.

    Control characters (for example an escape sequence in a file's name) and characters that the
    encoding lacks become "?".

    >>> displayable({"name": "a\\x1b[31mb", "size": 3})
    {'name': 'a?[31mb', 'size': 3}
    """
    if isinstance(value, str):
        return printable(value).encode(encoding, "replace").decode(encoding)
    if isinstance(value, dict):
        return {
            displayable(key, encoding): displayable(item, encoding) for key, item in value.items()
        }
    if isinstance(value, list):
        return [displayable(item, encoding) for item in value]
    return value


def _fits(renderable: RenderableType, console: Console, options: ConsoleOptions) -> bool:
    """Return whether a table fits without breaking any of its words."""
    wanted = Measurement.get(console, options.update(max_width=UNBOUNDED), renderable).maximum
    return wanted <= options.max_width


def _headline(study: dict[str, Any]) -> Iterator[Text]:
    """Yield each comparison's verdict in the study's sentence, then whether effects differ."""
    for values, verdict, sentence in headline(study):
        style = VERDICT_STYLE.get(verdict, "bold")
        if values:
            yield Text.assemble((values, style), ": ", (sentence, "bold"))
        else:
            words = (bare_sentence(verdict, sentence), "bold")
            yield Text.assemble((verdict.upper(), style), ": ", words)
    for sentence in varied.sentences(study):
        yield Text(sentence)


def _arm_table(study: dict[str, Any]) -> Table:
    """Return one row per arm, without empty columns (no alias, label = order)."""
    columns = _arm_columns(study)
    rows = []
    for arm in study["arms"]:
        style = "bold" if arm["label"] == sole_winner(study) else ""
        rows.append([Text(show(arm), style=style) for _, _, show in columns])
    return simple_table([column[:2] for column in columns], rows, gap=2)


def _arm_columns(study: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (heading, justification, arm -> text) for the columns that this study needs."""
    arms = study["arms"]
    ordered = any(arm["order"] and not arm["label"].startswith(f"{arm['order']} (") for arm in arms)
    renamed = any(arm["label"] != arm["order"] for arm in arms)
    failed, units = failed_runs(study), Units.of_study(study)
    columns = [
        ("arm", "left", lambda arm: arm["label"]) if renamed else None,
        ("order", "left", lambda arm: arm["order"] or MISSING) if ordered else None,
        ("alias", "left", lambda arm: arm.get("alias") or MISSING)
        if any(arm.get("alias") for arm in arms)
        else None,
        (f"mean {units.metric.value_unit}", "right", lambda arm: units.value(arm["mean"])),
        ("sd", "right", lambda arm: units.value(arm["sd"])),
        ("n", "right", lambda arm: str(arm["n"])),
        ("parameters", "right", lambda arm: whole(arm["parameters"]))
        if any(known(arm["parameters"]) for arm in arms)
        else None,
        ("s/run", "right", lambda arm: plain(arm["seconds"], 1)) if study["engine"] else None,
        ("diverged", "right", lambda arm: str(arm["diverged"])),
        ("failed", "right", lambda arm: str(failed.get(arm["label"], 0))) if failed else None,
    ]
    return [column for column in columns if column is not None]


def _arm_lines(study: dict[str, Any]) -> RenderableType:
    """Return the arms where the table doesn't fit: a line with the name, then the numbers."""
    failed, units = failed_runs(study), Units.of_study(study)
    lines: list[RenderableType] = []
    for arm in study["arms"]:
        renamed = arm["order"] and not arm["label"].startswith(arm["order"])
        named = f"{arm['label']}" + (f" = {arm['order']}" if renamed else "")
        name = named + (f" ({arm['alias']})" if arm.get("alias") else "")
        numbers = [
            units.valued(arm["mean"]),
            f"sd {units.value(arm['sd'])}",
            f"n {arm['n']}",
        ]
        numbers += [f"{whole(arm['parameters'])} parameters"] if known(arm["parameters"]) else []
        numbers += [f"{plain(arm['seconds'], 1)} s/run"] if study["engine"] else []
        numbers += [f"{arm['diverged']} diverged"] if arm["diverged"] else []
        numbers += [f"{failed[arm['label']]} failed"] if arm["label"] in failed else []
        lines.append(Text(name, style="bold" if arm["label"] == sole_winner(study) else ""))
        lines.append(_indented(", ".join(numbers)))
    return Group(*lines)


def _hanging(text: str) -> Table:
    """Return text after a dash, its further lines indented."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row("-", Text(text))
    return grid


def _indented(text: str) -> Padding:
    """Return text that stays indented when it wraps."""
    return Padding(Text(text), INDENT)


def _differences(
    study: dict[str, Any], console: Console, options: ConsoleOptions
) -> Iterator[RenderableType]:
    """Yield the comparisons: in words for two arms, as a table for more, if it fits."""
    comparisons, units, short = study["comparisons"], Units.of_study(study), short_names(study)
    comparisons = [
        {**found, **{side: short.get(found[side], found[side]) for side in _SIDES}}
        for found in comparisons
    ]
    references = {comparison["against"] for comparison in comparisons}
    tables = [Padding(_comparison_table(comparisons, units, n), INDENT) for n in (2, 1, 0)]
    table = next((table for table in tables if _fits(table, console, options)), None)
    if len(comparisons) > 1 and table is not None:
        unit = f", in {units.metric.unit}" if units.metric.unit else ""
        minus = f"minus {references.pop()}" if len(references) == 1 else "arm minus reference"
        yield Text(f"{minus}{unit}:")
        yield table
        yield _indented(f"{_margin_text(study, units)}, {_interval_text(study)}")
        return
    for comparison in comparisons:
        word = f" {arm_verdict(comparison)}" if len(comparisons) > 1 else ""
        yield Text(f"{comparison['arm']} minus {comparison['against']}:{word}")
        found, pairs = comparison["difference"], comparison["pairs"]
        yield _indented(difference_text(found, study["level"], pairs, units))
        yield from _strip(found, study["margin"], units, options)
        about = [_margin_text(study, units), runs_text(comparison)]
        if not unpaired(study):
            about.append(f"correlation {plain(comparison['correlation'])}")
        yield _indented(", ".join(about))
        if line := reach.line(comparison, units):
            yield _indented(line)


def _factors(
    study: dict[str, Any], console: Console, options: ConsoleOptions
) -> Iterator[RenderableType]:
    """Yield the table of a study that varies several things: a row for each choice of values."""
    headings, rows = varied.table(study)
    tables = [(headings, rows), varied.long_table(study)]
    drawn = [Padding(simple_table(*table, gap=2), INDENT) for table in tables]
    shown = next((table for table in drawn if _fits(table, console, options)), None)
    metric = Units.of_study(study).metric
    score = f"{metric.name} in {metric.words[0]}" if metric.unit else metric.name
    effect = f" in {metric.unit}" if metric.unit else ""
    yield Text(f"{score}, effect of the order{effect}{_minus(study)}:")
    if shown is not None:
        yield shown
    else:
        for row in rows:
            pairs = zip(headings, row, strict=True)
            yield _indented(", ".join(f"{heading[0]} {cell}" for heading, cell in pairs))
    units = Units.of_study(study)
    about = [_margin_text(study, units), _interval_text(study), count(study["pairs"], "pair")]
    yield _indented(", ".join([*_aliases(study), *about]))


def _minus(study: dict[str, Any]) -> str:
    """Return what an effect is the difference of, where it is the same for all of them."""
    short, effects = short_names(study), study["table"][0]["effects"]
    if not effects or "against" not in effects[0]:
        return ""
    against = short.get(effects[0]["against"], effects[0]["against"])
    if len(effects) > 1:
        return f" (minus {against})"
    return f" ({short.get(effects[0]['order'], effects[0]['order'])} minus {against})"


def _aliases(study: dict[str, Any]) -> list[str]:
    """Return what the short names of orders stand for."""
    known = {arm["alias"]: arm["order"] for arm in study["arms"] if arm.get("alias")}
    return [f"{alias} = {order}" for alias, order in known.items()]


def _strip(
    difference: dict[str, Any], margin: float | None, units: Units, options: ConsoleOptions
) -> Iterator[Text]:
    """Yield the interval drawn in one line, where it fits."""
    drawn = interval_strip(
        difference["estimate"],
        difference["low"],
        difference["high"],
        units=units,
        margin=margin,
        width=min(STRIP_WIDTH, options.max_width - 2),
        marks=ASCII if options.ascii_only else LINES,
    )
    if drawn:
        yield Text(f"  {drawn}", no_wrap=True)


def _margin_text(study: dict[str, Any], units: Units) -> str:
    """Return the margin in words, and the direction if lower is better."""
    direction = f", a lower {units.metric.name} is better" if units.metric.lower_is_better else ""
    return f"margin {units.metric.amount(units.margin(study['margin']))}{direction}"


def _interval_text(study: dict[str, Any]) -> str:
    """Return the intervals' level and their methods in words."""
    level = level_percent(study["difference"].get("level") or study["level"])
    methods = dict.fromkeys(found["difference"]["method"] for found in study["comparisons"])
    return f"{level} intervals ({'; '.join(methods)})"


def _comparison_table(comparisons: list[dict[str, Any]], units: Units, counts: int) -> Table:
    """Return one row per comparison, with a column of references if there are several.

    counts: how many of the columns pairs and correlation there is room for.
    """
    several = len({comparison["against"] for comparison in comparisons}) > 1
    names = ("arm", "reference", "verdict") if several else ("arm", "verdict")
    headings = [(name, "left") for name in names]
    paired = not any(comparison.get("runs") for comparison in comparisons)
    counted = (("pairs", "correlation") if paired else ("runs",))[:counts]
    headings += [(name, "right") for name in ("difference", "interval", *counted)]
    rows = []
    for comparison in comparisons:
        difference, word = comparison["difference"], arm_verdict(comparison)
        rows.append(
            [
                comparison["arm"],
                *([comparison["against"]] if several else []),
                Text(word, style=VERDICT_STYLE.get(word, "")),
                units.difference(difference["estimate"]),
                span(difference, comparison["pairs"], units),
                *_counted(comparison)[:counts],
            ]
        )
    return simple_table(headings, rows, gap=2)


def _counted(comparison: dict[str, Any]) -> list[str]:
    if runs := comparison.get("runs"):
        return [f"{runs[0]:,} and {runs[1]:,}"]
    return [str(comparison["pairs"]), plain(comparison["correlation"])]


def _closing(study: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what was run, then the notes."""
    if shown := seen.lines(study):
        yield Text("")
        yield Text(f"{seen.heading(study)}:")
        yield from (_indented(line) for line in shown)
    yield Text("")
    yield Text(_about(study))
    notes = Table.grid(padding=(0, 1, 0, 0))
    command = study.get("continue") or ""
    for note in study["notes"]:
        notes.add_row("note:", Text(str(note).removesuffix(command).rstrip()))
    if study["notes"]:
        yield notes
    if command:
        yield Unbroken(command)


def _about(study: dict[str, Any]) -> str:
    """Return what was run, as far as it is known."""
    data, engine = study["data"], study["engine"]
    if not engine:
        known_source = (study.get("scores") or {}).get("source")
        return (f"{known_source}: " if known_source else "") + count(len(study["runs"]), "score")
    sizes = f" ({data['train']:,} train, {data['test']:,} test)" if data else ""
    runs = f"{count(len(study['runs']), 'run')} in {duration(study['seconds'])}"
    return f"{source(study)}{sizes}, {runs}, engine {engine['name']}{_where(engine)}"


def _where(engine: dict[str, Any]) -> str:
    """Return the device and the precision, unless they are the usual ones of a CPU."""
    device, precision = engine.get("device"), engine.get("precision") or "fp32"
    if device in (None, "", "auto", "cpu"):
        return "" if precision == "fp32" else f", {precision}"
    card = f" ({engine['card']})" if engine.get("card") else ""
    return f" on {device}{card}, {precision}"
