"""A comparison study as terminal text: the verdict, a table of arms, the difference with its interval.

Legible without colour, at 80 columns and below; accuracies in percent, differences in points. Not
here: any number's computation, the HTML report, progress. Called by the command line and by the
study's `__str__`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from relucate.report.facts import bare_sentence, difference_text, failed_runs
from relucate.report.numbers import MISSING, count, duration, interval, percent, plain, points
from relucate.report.strip import ASCII, LINES, interval_strip

VERDICT_STYLE = {"better": "bold green", "equivalent": "bold cyan", "inconclusive": "bold yellow"}
NARROW = 72  # below this the table of arms doesn't fit, and each arm becomes two lines
STRIP_WIDTH = 60


def verdict_table(study: dict[str, Any]) -> StudyView:
    """Return a study (schema relucate.compare/1) as something rich can print at any width."""
    return StudyView(study)


def print_study(study: dict[str, Any], console: Console) -> None:
    """Print a study's verdict, arms, differences and notes to `console`."""
    console.print(verdict_table(study))


@dataclass(frozen=True)
class StudyView:
    """A study that rich lays out for the width and the encoding it finds."""

    study: dict[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        encoding = options.encoding or "utf-8"
        study = speakable(self.study, encoding)
        yield _headline(study)
        yield Text("")
        narrow = options.max_width < NARROW
        yield _arm_lines(study) if narrow else Padding(_arm_table(study), (0, 0, 0, 2))
        yield Text("")
        yield from _differences(study, options)
        yield from _closing(study)


def speakable(value: Any, encoding: str = "utf-8") -> Any:
    """Return a copy whose texts hold only what a terminal of that encoding can show.

    Control characters (an escape sequence in a file's name, say) become "?", as does what the
    encoding lacks.

    >>> speakable({"name": "a\\x1b[31mb", "size": 3})
    {'name': 'a?[31mb', 'size': 3}
    """
    if isinstance(value, str):
        shown = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in value)
        return shown.encode(encoding, "replace").decode(encoding)
    if isinstance(value, dict):
        return {key: speakable(item, encoding) for key, item in value.items()}
    if isinstance(value, list):
        return [speakable(item, encoding) for item in value]
    return value


def _headline(study: dict[str, Any]) -> Text:
    """Return the verdict in a word and in the study's sentence."""
    verdict = str(study["verdict"])
    style = VERDICT_STYLE.get(verdict, "bold")
    sentence = bare_sentence(verdict, str(study["sentence"]))
    return Text.assemble((verdict.upper(), style), ": ", (sentence, "bold"))


def _arm_table(study: dict[str, Any]) -> Table:
    """Return one row per arm; columns that say nothing (no alias, label = order) are left out."""
    arms = study["arms"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    columns = _arm_columns(study)
    for heading, justify, _ in columns:
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=justify == "right")
    for arm in arms:
        style = "bold" if arm["label"] == study["winner"] else ""
        table.add_row(*(Text(show(arm), style=style) for _, _, show in columns))
    return table


def _arm_columns(study: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (heading, justification, arm -> text) for the columns that this study needs."""
    arms = study["arms"]
    renamed = any(arm["label"] != arm["order"] for arm in arms)
    failed = failed_runs(study)
    columns = [
        ("arm", "left", lambda arm: arm["label"]) if renamed else None,
        ("order", "left", lambda arm: arm["order"]),
        ("alias", "left", lambda arm: arm.get("alias") or MISSING)
        if any(arm.get("alias") for arm in arms)
        else None,
        ("mean %", "right", lambda arm: percent(arm["mean"])),
        ("sd", "right", lambda arm: percent(arm["sd"])),
        ("n", "right", lambda arm: str(arm["n"])),
        ("parameters", "right", lambda arm: f"{arm['parameters']:,}"),
        ("s/run", "right", lambda arm: plain(arm["seconds"], 1)),
        ("diverged", "right", lambda arm: str(arm["diverged"])),
        ("failed", "right", lambda arm: str(failed.get(arm["label"], 0))) if failed else None,
    ]
    return [column for column in columns if column is not None]


def _arm_lines(study: dict[str, Any]) -> Text:
    """Return the arms for a narrow terminal: a line with the name, then the numbers in words."""
    failed = failed_runs(study)
    lines = Text()
    for arm in study["arms"]:
        name = arm["label"] + (f" ({arm['alias']})" if arm.get("alias") else "")
        numbers = [
            f"{percent(arm['mean'])} %",
            f"sd {percent(arm['sd'])}",
            f"n {arm['n']}",
            f"{arm['parameters']:,} parameters",
            f"{plain(arm['seconds'], 1)} s/run",
        ]
        numbers += [f"{arm['diverged']} diverged"] if arm["diverged"] else []
        numbers += [f"{failed[arm['label']]} failed"] if arm["label"] in failed else []
        lines.append(name, style="bold" if arm["label"] == study["winner"] else "")
        lines.append("\n  " + ", ".join(numbers) + "\n")
    lines.rstrip()
    return lines


def _differences(study: dict[str, Any], options: ConsoleOptions) -> Iterator[RenderableType]:
    """Yield the comparisons: in sentences for two arms, as a table for more."""
    comparisons = study["comparisons"]
    if len(comparisons) > 1 and options.max_width >= NARROW:
        yield Text(f"minus {comparisons[0]['against']}, in points:")
        yield Padding(_comparison_table(comparisons), (0, 0, 0, 2))
        yield Text(_margin_line(study))
        return
    for comparison in comparisons:
        yield Text(f"{comparison['arm']} minus {comparison['against']}:")
        yield Text(f"  {difference_text(comparison['difference'], study['level'])}")
        yield from _strip(comparison["difference"], study["margin"], options)
        yield Text(f"  {_margin_line(study)}, {_pair_text(comparison)}")


def _strip(
    difference: dict[str, Any], margin: float | None, options: ConsoleOptions
) -> Iterator[Text]:
    """Yield the interval drawn in one line, where it fits."""
    drawn = interval_strip(
        difference["estimate"],
        difference["low"],
        difference["high"],
        margin=margin,
        width=min(STRIP_WIDTH, options.max_width - 2),
        marks=ASCII if options.ascii_only else LINES,
    )
    if drawn:
        yield Text(f"  {drawn}", no_wrap=True)


def _margin_line(study: dict[str, Any]) -> str:
    """Return the margin in words."""
    return f"margin {percent(study['margin'])} points"


def _pair_text(comparison: dict[str, Any]) -> str:
    """Return the pairs and the correlation between the two arms in words."""
    return f"{count(comparison['pairs'], 'pair')}, correlation {plain(comparison['correlation'])}"


def _comparison_table(comparisons: list[dict[str, Any]]) -> Table:
    """Return one row per comparison against the first arm."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("arm", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for heading in ("difference", "interval", "pairs", "correlation"):
        table.add_column(heading, justify="right", no_wrap=True)
    for comparison in comparisons:
        difference = comparison["difference"]
        table.add_row(
            Text(comparison["arm"]),
            Text(comparison["verdict"], style=VERDICT_STYLE.get(comparison["verdict"], "")),
            points(difference["estimate"]),
            interval(difference["low"], difference["high"]),
            str(comparison["pairs"]),
            plain(comparison["correlation"]),
        )
    return table


def _closing(study: dict[str, Any]) -> Iterator[Text]:
    """Yield what was run, then the notes."""
    data, engine = study["data"], study["engine"]
    yield Text("")
    yield Text(
        f"{study['model']['name']} on {data['name']} ({data['train']:,} train, {data['test']:,} "
        f"test), {count(len(study['runs']), 'run')} in {duration(study['seconds'])}, "
        f"engine {engine['name']}"
    )
    for note in study["notes"]:
        yield Text(f"note: {note}")
