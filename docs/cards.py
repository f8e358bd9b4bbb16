"""Write our own results into the pages: python docs/cards.py [--check]

A page has a mark for each result, and what stands between a mark and its end is made from the cards
in src/relucate/records/own, never typed:

    <!-- cards: cifar10-cnn-*-early digits-mlp-tanh -->     a table, a row for each result
    <!-- /cards -->
    <!-- card: cifar10-cnn-relu-early difference --><!-- /card -->     one number in a sentence
    <!-- changes: cifar10-cnn-relu-early cifar10-cnn-*-early; ... -->   by how much the difference
    <!-- /changes -->     of the orders changes from the first card to each of the others
    <!-- grid: relu tanh; cifar10-cnn-*-early ... -->     a row for each activation, which stands
    <!-- /grid -->     for the star, and a column for each pattern; empty where no card is
    <!-- beside: caffenet-benchmark CaffeNet --><!-- /beside -->     what a publication found with a
                       network, beside our own studies of the same rows
    <!-- published: before act=relu net!=MLP* tuned=True --><!-- /published -->     in how many of
                       the published comparisons that fit before is ahead


Several names or patterns may stand in a mark, and !PATTERN leaves cards out; the fields of a single
card are before, after, none, difference, and numbers: the difference and its interval without
words. Those of published comparisons are before and after, in how many each is ahead; before-by and
after-by, by how much; and spread, how many report one. The picture of all cards on CIFAR-10 is
drawn again too. A test compares the pages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from relucate.records.place import place_of_norm
from relucate.records.results import Result, known
from relucate.report.evidence import digits_of, numbers
from relucate.stats.spending import critical_value
from relucate.stats.welch import welch_half_width

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PICTURE = ROOT / "docs" / "images" / "cards.svg"
PICTURED = "cifar10-*"
USUAL_SIZE = "10,000"  # of the training set of the studies in the picture
_MARK = re.compile(
    r"(<!-- (cards?|changes|grid|beside|published): ([^>]*?) -->)(.*?)(<!-- /\2 -->)", re.DOTALL
)
NO_BREAK = "\N{NO-BREAK SPACE}"
_HEAD = "| network, data | activation | trained | before | after | after minus before | pairs | |"
_CHANGES = "| from | to | after minus before | changes to | change |"
LEVEL = 0.95  # of the intervals of changes
_BESIDE = "| activation | setting | none | before | after | our before | our after | difference |"
_PLACES = ("before", "after")
_OURS = {  # settings of caffenet-benchmark, and what our cards call them
    "no scale and shift in the norm": "{act}",
    "norm with scale and shift": "{act}-affine",
    "orthonormal initialisation": "{act}-orthonormal",
    "dropout 0.2 (0.5 elsewhere)": "{act}-fc-dropout-0.2",
    "dropout 0 (0.5 elsewhere)": "{act}-fc-dropout-0",
}


def results(patterns: str) -> list[Result]:
    """Return our own results whose card fits one of the patterns, in their order.

    Those that fit a pattern with an exclamation mark are left out.
    Raises: ValueError: there is no card of a name without a star.
    """
    words, found = patterns.split(), []
    without = [word[1:] for word in words if word.startswith("!")]
    own = [row for row in known() if row.study.own and not _fits(row, without)]
    for pattern in (word for word in words if not word.startswith("!")):
        fitting = [row for row in own if _fits(row, [pattern])]
        if not fitting and "*" not in pattern:
            raise ValueError(f"no card is called {pattern}")
        found += [row for row in fitting if row not in found]
    return found


def _fits(row: Result, patterns: list[str]) -> bool:
    return any(fnmatch(row.study.id, pattern) for pattern in patterns)


def rendered(text: str) -> str:
    """Return a page's text with what its marks stand for."""
    return _MARK.sub(lambda mark: mark[1] + _between(mark[2], mark[3]) + mark[5], text)


def _between(kind: str, what: str) -> str:
    if kind == "cards":
        return _table(_HEAD, map(_line, results(what)))
    if kind == "changes":
        return _table(_CHANGES, (line for group in what.split(";") for line in _changes(group)))
    if kind == "grid":
        return _grid(*(part.split() for part in what.split(";")))
    if kind == "beside":
        source, net = what.split()
        rows = (row for row in known() if (row.study.id, row.net) == (source, net))
        return _table(_BESIDE, map(_beside, rows))
    if kind == "published":
        return _published(*what.split())
    name, field = what.split()
    (row,) = results(name)
    if field == "numbers":
        return _difference(row)
    return _difference(row, words=True) if field == "difference" else _score(row, field)


def _table(head: str, lines: Iterable[str]) -> str:
    rule = "|---" * (head.count("|") - 1) + "|"
    return "\n" + "\n".join([head, rule, *lines]) + "\n"


def _grid(acts: list[str], columns: list[str]) -> str:
    """Return a table of differences, a row for each activation; it stands for a column's star."""
    own = {row.study.id: row for row in known() if row.study.own}
    found = {act: [own.get(name.replace("*", act)) for name in columns] for act in acts}
    trained = [next(filter(None, column)) for column in zip(*found.values(), strict=True)]
    heads = [f"`{row.net}`, {re.findall(r'[0-9]+ epochs', row.setting)[0]}" for row in trained]
    lines = (
        f"| {act} | " + " | ".join("" if row is None else _cell(row) for row in rows) + " |"
        for act, rows in found.items()
    )
    return _table(f"| activation | {' | '.join(heads)} |", lines)


def _beside(row: Result) -> str:
    act = "linear" if row.act == "none" else row.act
    name = "cifar10-caffenet-" + _OURS.get(row.setting, "").format(act=act)
    ours = next((own for own in known() if own.study.own and own.study.id == name), None)
    scores = {place_of_norm(order): f"{score['value']:.1f}" for order, score in row.scores.items()}
    columns = [row.act, row.setting, *(scores.get(place, "") for place in ("none", *_PLACES))]
    columns += [_score(ours, place) if ours else "" for place in _PLACES]
    return f"| {' | '.join(columns)} | {_cell(ours) if ours else ''} |"


def _published(field: str, *conditions: str) -> str:
    """Return how often or by how much an order is ahead in publications, or how many give an sd.

    Raises: ValueError: no published comparison fits.
    """
    published = (row for row in known() if not row.study.own and row.gain is not None)
    rows = [row for row in published if all(_meets(row, word) for word in conditions)]
    place, _, by = field.partition("-")
    sign = {"before": -1, "after": 1, "spread": 0}[place]
    ahead = [abs(row.gain or 0.0) for row in rows if sign * (row.gain or 0.0) > 0]
    if not rows or (by and not ahead):
        raise ValueError(f"no published comparison fits {field} {' '.join(conditions)}")
    if by:
        return " to ".join(dict.fromkeys(f"{size + 1e-9:.1f}" for size in (min(ahead), max(ahead))))
    counted = ahead if sign else [row for row in rows if _has_spread(row)]
    return f"{len(counted)} of {len(rows)}"


def _meets(row: Result, condition: str) -> bool:
    """Return whether a row fits `field=pattern,pattern`, or with != whether it doesn't."""
    name, _, patterns = condition.partition("=")
    found = str(getattr(row, name.removesuffix("!")))
    fits = any(fnmatch(found, pattern) for pattern in patterns.split(","))
    return fits != name.endswith("!")


def _has_spread(row: Result) -> bool:
    return any("sd" in score for score in row.scores.values())


def _cell(row: Result) -> str:
    return _difference(row).replace(" to ", f"{NO_BREAK}to{NO_BREAK}")


def _line(row: Result) -> str:
    columns = [
        f"`{row.net}`, {row.data.removesuffix(' examples').replace('.npz', '')}",
        row.act,
        _trained(row),
        _score(row, "before").replace(" ", NO_BREAK),
        _score(row, "after").replace(" ", NO_BREAK),
        _cell(row),
        str(row.runs),
        _verdict(row),
    ]
    return "| " + " | ".join(columns) + " |"


def _trained(row: Result) -> str:
    words = [row.setting]
    words += [f"{row.norm} norm"] if row.norm != "batch" else []
    words += ["each order's own rate"] if row.tuned else []
    digits = digits_of(row.unit)
    words += [
        f"{order} {score['value']:.{digits}f}{_unit(row)}"
        for order, score in row.scores.items()
        if place_of_norm(order) not in ("before", "after")
    ]
    return ", ".join(words)


def _score(row: Result, place: str) -> str:
    found = [score for order, score in row.scores.items() if place_of_norm(order) == place]
    digits = digits_of(row.unit)
    sd = f" ± {found[0]['sd']:.{digits}f}" if "sd" in found[0] else ""
    return f"{found[0]['value']:.{digits}f}{sd}{_unit(row)}"


def _unit(row: Result) -> str:
    return " %" if row.unit == "%" else f" {row.metric}"


def _difference(row: Result, *, words: bool = False) -> str:
    text, interval = numbers(row.to_dict())
    if not interval:
        return text
    if not words:
        return f"{text} ({interval})"
    unit = "points" if row.unit == "%" else row.metric
    level = 100 * row.details.get("level", 0.95)
    return f"{text} {unit} ({level:.4g} % interval {interval}, {row.runs} pairs)"


def _verdict(row: Result) -> str:
    if row.verdict != "better":
        return row.verdict
    return f"{'after' if (row.difference or 0) > 0 else 'before'} is better"


def _changes(names: str) -> Iterator[str]:
    """Yield a line for each card but the first, which they are held against."""
    first, _, others = names.strip().partition(" ")
    (reference,) = results(first)
    for row in results(f"{others} !{first}"):
        change, half = change_of(reference, row)
        columns = [
            ", ".join([f"`{reference.net}`", reference.act, *_telling(reference)]),
            ", ".join(_differing(row, reference)),
            f"{reference.difference:+.2f}",
            f"{row.difference:+.2f}",
            f"{change:+.2f} ({change - half:+.2f}{NO_BREAK}to{NO_BREAK}{change + half:+.2f})",
        ]
        yield "| " + " | ".join(columns) + " |"


def change_of(reference: Result, row: Result) -> tuple[float, float]:
    """Return how after minus before changes between two studies, and half the interval's width.

    That is the interaction of the order with what differs between the studies, with Welch's
    interval of the pairs' differences: as if the studies shared no seeds, and had not stopped at
    an answer.
    """
    (a, sd_a), (b, sd_b) = _effect(reference), _effect(row)
    return b - a, welch_half_width(sd_a, sd_b, reference.runs, row.runs, LEVEL)


def _effect(row: Result) -> tuple[float, float]:
    """Return the mean and the sd of the pairs' differences, the sd from the study's interval."""
    if row.interval is None or row.difference is None:
        raise ValueError(f"{row.study.id} has no interval")
    half, bound = (row.interval[1] - row.interval[0]) / 2, _critical(row)
    return row.difference, half / bound * math.sqrt(row.runs)


def _critical(row: Result) -> float:
    return critical_value(row.runs, row.details["level"])


def _differing(row: Result, reference: Result) -> list[str]:
    one, other = ([f"`{r.net}`", r.act, *_trained(r).split(", ")] for r in (row, reference))
    more = [word for word in one if word not in other]
    return more or [f"without {word}" for word in other if word not in one]


def digest() -> str:
    """Return what identifies the rows of the picture."""
    numbers = [[_label(row), row.difference, row.interval] for row in _pictured()]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:16]


def _pictured() -> list[Result]:
    found = [row for row in known() if row.study.own and fnmatch(row.study.id, PICTURED)]
    return [row for row in found if row.interval is not None]


def draw() -> None:
    """Draw the differences of all cards on CIFAR-10 with their intervals."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "relucate"
    rows = sorted(_pictured(), key=lambda row: row.difference or 0.0)
    figure = Figure(figsize=(7.5, 0.9 + 0.24 * len(rows)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.axvspan(-0.5, 0.5, color="#e8ebf0")
    axes.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(rows):
        colour = "#d55e00" if (row.difference or 0) > 0 else "#0072b2"
        axes.plot(row.interval or (), [place, place], color=colour, linewidth=2)
        axes.plot([row.difference], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), map(_label, rows), fontsize=8)
    figure.supxlabel(
        "after minus before, points of accuracy; shaded: the margin; (pairs)", fontsize=8
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None, "Description": digest()})


def _label(row: Result) -> str:
    """Return a row's label in the picture, without the settings that its kind of row shares."""
    words = [word for word in _telling(row) if "batch" in row.study.id or "batch " not in word]
    others = [word for word in words if word.endswith(" %")]  # scores of other orders
    words = [word for word in words if word not in others]
    words += [f"{2 + len(others)} orders"] if others else []
    size = row.data.partition(", ")[2].removesuffix(" examples")
    words += [] if size == USUAL_SIZE else [f"{size} images"]
    usual_start = row.net != "caffenet" or "initialization" in row.setting
    words += [] if usual_start else ["without initialization lsuv"]
    return f"{row.net}, {row.act}, {', '.join(words)} ({row.runs})"


def _telling(row: Result) -> list[str]:
    """Return how a row was trained, without what its kind of row shares, and without rates."""
    shared = ("width ", "affine never", "fc_dropout 0.5", "bias ", "lr ", "schedule ")
    shared += ("initialization lsuv",)  # as CaffeNet's recipe
    words = _trained(row).split(", ")
    words = [word for word in words if not word.endswith(" after")]  # "lr 0.1 before, 0.3 after"
    return [word for word in words if not word.startswith(shared)]


def stale() -> Iterator[str]:
    """Yield the pages, and the picture, that differ from the cards."""
    for page in PAGES:
        text = page.read_text("utf-8")
        if rendered(text) != text:
            yield str(page.relative_to(ROOT))
    if _pictured() and (not PICTURE.is_file() or digest() not in PICTURE.read_text("utf-8")):
        yield str(PICTURE.relative_to(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say which pages differ")
    found = list(stale())
    print("\n".join(found) or "All pages show what the cards say.")
    if parser.parse_args().check:
        raise SystemExit(bool(found))
    for page in PAGES:
        page.write_text(rendered(page.read_text("utf-8")), "utf-8")
    draw()


if __name__ == "__main__":
    main()
