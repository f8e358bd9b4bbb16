"""Read published results and our own cards into one kind of row, and find those for a network.

A row has the score of each order on one net, data set and activation. Only rows whose axis is
"order" answer whether the norm belongs before or after the activation; others move it relative to a
residual addition ("residual") or to dropout ("dropout").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from .place import place_of_norm

_FOLDER = Path(__file__).parent
_SCHEMAS = {"relucate.published/1", "relucate.card/1"}


@dataclass(frozen=True)
class Study:
    """Where results come from: a publication, or a study of our own.

    checked: how far its numbers were checked against the source; own: made by `compare --card`;
    yours: on a card that the user gave, not on one of this package.
    """

    id: str
    authors: str
    title: str
    year: int | None
    source: str
    checked: str
    remark: str = ""
    own: bool = False
    yours: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the source as JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """The scores of some orders on one network, data set and activation.

    scores: by order or other arrangement, each with "value", and "sd" over runs where it is known.
    interval: of after minus before, in `unit`, if the study has one.
    runs: for each score; tuned: whether each order had its own best learning rate.
    depth: linear layers on the network's longest path, if it is known.
    """

    study: Study
    net: str
    data: str
    act: str
    scores: Mapping[str, Mapping[str, float]]
    metric: str
    unit: str = ""
    lower_is_better: bool = False
    runs: int = 1
    tuned: bool = False
    task: str = "classification"
    norm: str = "batch"
    axis: str = "order"
    setting: str = ""
    interval: tuple[float, float] | None = None
    verdict: str = ""
    depth: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        """After minus before; None without both orders."""
        if self.axis != "order":
            return None
        places = {place_of_norm(order): score["value"] for order, score in self.scores.items()}
        if not {"before", "after"} <= set(places):
            return None
        return places["after"] - places["before"]

    @property
    def gain(self) -> float | None:
        """By how much after is ahead, below 0 if it is behind; None without both orders."""
        found = self.difference
        return -found if found is not None and self.lower_is_better else found

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON-ready data, with its difference."""
        plain = {**asdict(self), "scores": {name: dict(s) for name, s in self.scores.items()}}
        interval = None if self.interval is None else list(self.interval)
        return {**plain, "interval": interval, "difference": self.difference}


@cache
def known() -> tuple[Result, ...]:
    """Return every result of this package: our own first, then the published ones by year."""
    own = [row for path in sorted((_FOLDER / "own").glob("*.json")) for row in read_card(path)]
    studies = _read(_FOLDER / "published.json")["studies"]
    published = sorted(studies, key=lambda found: found["year"] or 0)
    return (*own, *(row for found in published for row in _rows(found, found)))


def without_numbers() -> tuple[Study, ...]:
    """Return the publications whose conclusion is known, but whose numbers could not be read."""
    studies = _read(_FOLDER / "published.json")["studies"]
    return tuple(_study(found) for found in studies if not found["rows"])


def read_card(path: Path) -> list[Result]:
    """Return the results on one card, a file that `compare --card` wrote.

    Raises: InputError: the file isn't a card.
    """
    found = _read(path)
    try:
        return _rows(found["study"], found)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' isn't a card of relucate compare: {error!r}.") from None


def _rows(study: Mapping[str, Any], found: Mapping[str, Any]) -> list[Result]:
    source, rows = _study(study), []
    for row in found["rows"]:
        given = {key: value for key, value in row.items() if key not in ("checked", "interval")}
        ends = row.get("interval")
        rows.append(
            Result(
                replace(source, checked=row.get("checked", source.checked)),
                interval=None if ends is None else (float(ends[0]), float(ends[1])),
                **given,
            )
        )
    return rows


def _study(found: Mapping[str, Any]) -> Study:
    return Study(**{key: value for key, value in found.items() if key != "rows"})


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"can't read the results in '{path}': {error}.") from None
    if not isinstance(found, dict) or found.get("schema") not in _SCHEMAS:
        raise InputError(f"'{path}' isn't a file of results; expected one of {sorted(_SCHEMAS)}.")
    return found


def matching(
    results: Iterable[Result],
    *,
    act: str | None = None,
    net: str | None = None,
    data: str | None = None,
    task: str | None = None,
    norm: str | None = None,
    depth: int | None = None,
) -> list[Result]:
    """Return the results that fit: act, task and norm by name, net and data by a part of it.

    Case and punctuation don't count, and swish is silu. A depth fits from its half to its double,
    and where it isn't known.

    >>> sorted({r.net for r in matching(known(), act="softsign")})
    ['VGG16']
    """
    exact = {"act": act, "task": task, "norm": norm}
    part = {"net": net, "data": data}
    return [
        result
        for result in results
        if all(v is None or _same(getattr(result, k), v) for k, v in exact.items())
        and all(v is None or _plain(v) in _plain(getattr(result, k)) for k, v in part.items())
        and (depth is None or result.depth is None or 0.5 <= result.depth / depth <= 2)
    ]


def summary(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return, per activation, what the rows with both orders say: published ones, then our own.

    Those with most rows come first. Each: own; act; unit, and metric where the unit doesn't say it;
    rows; after, before: the number of rows in which that order is ahead; level: no difference at
    all; low, high: the extremes of after minus before; tuned, spread: rows with each order's own
    rate, and with a spread over runs.

    Our own rows have a verdict: ahead means better, level equivalent; the others are undecided.
    """
    found: dict[tuple[bool, str, str, str], list[Result]] = {}
    for result in results:
        if result.difference is not None and result.axis == "order":
            usual = result.unit == "%" and not result.lower_is_better
            metric = "" if usual else result.metric
            key = (result.study.own, result.act, result.unit, metric)
            found.setdefault(key, []).append(result)
    ordered = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1])))
    return [_summed(*key, rows) for key, rows in ordered]


def _summed(own: bool, act: str, unit: str, metric: str, rows: list[Result]) -> dict[str, Any]:
    differences = [row.difference or 0.0 for row in rows]
    sides = [_side(row) for row in rows]
    return {
        "own": own,
        "act": act,
        "unit": unit,
        "metric": metric,
        "rows": len(rows),
        **{side: sides.count(side) for side in ("after", "before", "level", "undecided")},
        "low": min(differences),
        "high": max(differences),
        "tuned": sum(row.tuned for row in rows),
        "spread": sum(any("sd" in score for score in row.scores.values()) for row in rows),
    }


def _side(row: Result) -> str:
    if row.verdict in ("equivalent", "inconclusive"):
        return "level" if row.verdict == "equivalent" else "undecided"
    gain = row.gain or 0.0
    return "level" if not gain else "after" if gain > 0 else "before"


def _same(a: str, b: str) -> bool:
    one, other = ("silu" if name == "swish" else name for name in (_plain(a), _plain(b)))
    return one == other


def _plain(text: str) -> str:
    """Return the letters and digits of a name: VGG-16 and vgg16 are one.

    >>> _plain("VGG-16")
    'vgg16'
    """
    return "".join(c for c in text.lower() if c.isalnum())
