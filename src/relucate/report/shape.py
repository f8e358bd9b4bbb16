"""Check that a document has the shape of a study before anything is shown of it.

A study.json may be truncated, edited by hand, or come from somebody else. An error names the place
and the value, such as `comparisons[0].pairs`. Not here: which schema a file has (`facts`), what is
shown. Called by `facts.current`, so by every view of a study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relucate.errors import InputError

_LARGEST = 1e100  # of a number: figures square it
_MOST = 2**53  # of a count


@dataclass(frozen=True)
class _Leaf:
    """A value that isn't a dict or list; what: as the error names it."""

    what: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class _Each:
    """A dict with any text keys, whose values are all of one kind."""

    kind: Any


@dataclass(frozen=True)
class _Maybe:
    """The kind, null, or a number that isn't finite (a view shows it as missing)."""

    kind: Any


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= _LARGEST  # False for NaN


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (str, bool)) or abs(value) <= _LARGEST


_TEXT = _Leaf("a text", lambda value: isinstance(value, str))
_FLAG = _Leaf("true or false", lambda value: isinstance(value, bool))
_NUMBER = _Leaf("a number", _is_number)
_POSITIVE = _Leaf("a number above 0", lambda value: _is_number(value) and value > 0)
_SHARE = _Leaf("a number between 0 and 1", lambda value: _is_number(value) and 0 <= value <= 1)
_LEVEL = _Leaf("a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1)
_COUNT = _Leaf("a whole number from 0", _is_count)
_SEED = _Leaf("a whole number or a text", lambda value: isinstance(value, str) or _is_number(value))
_PLAIN = _Leaf("plain values", _is_plain)
_STATUS = _Leaf("done, diverged or failed", lambda value: value in ("done", "diverged", "failed"))
_DIRECTION = _Leaf("higher or lower", lambda value: value in ("higher", "lower"))
_LIMIT = _Leaf(
    "seed, example or interaction", lambda value: value in ("seed", "example", "interaction")
)

# Keys that end with "?" may be missing or null. Keys that aren't listed are ignored.
_ENDS = {"estimate": _Maybe(_NUMBER), "low": _Maybe(_NUMBER), "high": _Maybe(_NUMBER)}
_DIFFERENCE = {**_ENDS, "of": _TEXT, "method": _TEXT, "level?": _LEVEL, "degenerate?": _FLAG}
_DIFFERENCES = [{"seed": _SEED, "value": _Maybe(_NUMBER)}]
_EXAMPLES = {
    **_ENDS,
    "bootstrap_low": _Maybe(_NUMBER),
    "bootstrap_high": _Maybe(_NUMBER),
    "level": _LEVEL,
    "split": {
        "parts": dict.fromkeys(("seed", "example", "interaction"), _NUMBER),
        "limit": _LIMIT,
    },
}
_LEARNING = {
    "area": _ENDS,
    "target": _NUMBER,
    "steps": {**_ENDS, "estimate": _NUMBER, "means": [_NUMBER], "unit?": _TEXT},
    "reached": [_COUNT],
}
_CLASSICAL = {
    "level": _LEVEL,
    **dict.fromkeys(("t_low", "t_high", "t_p", "wilcoxon_p", "tost_p"), _Maybe(_NUMBER)),
    **dict.fromkeys(("superiority", "superiority_low", "superiority_high"), _SHARE),
}
_COMPARISON = {
    "arm": _TEXT,
    "against": _TEXT,
    "values?": _Each(_PLAIN),
    "verdict": _TEXT,
    "winner": _Maybe(_TEXT),
    "sentence": _TEXT,
    "pairs": _COUNT,
    "correlation": _Maybe(_NUMBER),
    "pairing_gain?": _Maybe(_NUMBER),
    "difference": _DIFFERENCE,
    "differences": _DIFFERENCES,
    "examples?": _EXAMPLES,
    "learning?": _LEARNING,
    "classical?": _CLASSICAL,
}
_ARM = {
    "label": _TEXT,
    "words?": _TEXT,
    "order?": _TEXT,
    "alias?": _TEXT,
    "mean": _Maybe(_NUMBER),
    "sd": _Maybe(_NUMBER),
    "seconds": _Maybe(_NUMBER),
    **dict.fromkeys(("n", "diverged"), _COUNT),
    **dict.fromkeys(("parameters", "norm_parameters"), _Maybe(_COUNT)),
    "options?": _Each(_PLAIN),
}
_RUN = {
    "arm": _TEXT,
    "order?": _TEXT,
    "seed": _SEED,
    "metric": _Maybe(_NUMBER),
    "loss": _Maybe(_NUMBER),
    "seconds": _Maybe(_NUMBER),
    "status": _STATUS,
    "epochs?": _COUNT,
    "scores?": _Each(_Maybe(_NUMBER)),
    "curve?": _Each([_Maybe(_NUMBER)]),
    "hash?": _TEXT,
    "note?": _TEXT,
}
_RATE = {"lr": _POSITIVE, "score": _NUMBER, "epochs": _COUNT, "runs": _COUNT, "diverged?": _COUNT}
_TUNING = {
    "held_out": _COUNT,
    "first_seed": _COUNT,
    "arms": [{"label": _TEXT, "lr": _POSITIVE, "edge": _FLAG, "curve": [_RATE]}],
    "same_rate": {
        "lr": _POSITIVE,
        "sentence": _TEXT,
        "comparisons": [{"arm": _TEXT, "against": _TEXT, "sentence": _TEXT, "verdict?": _TEXT}],
    },
}
_ROW = {
    "values": _Each(_PLAIN),
    "cells": [{"order": _TEXT, "arm?": _TEXT, "mean": _Maybe(_NUMBER)}],
    "effects": [{"order": _TEXT, "verdict?": _TEXT, "winner?": _TEXT, **_ENDS}],
}
_STUDY = {
    "verdict": _TEXT,
    "winner": _Maybe(_TEXT),
    "sentence": _TEXT,
    "metric": {
        "name": _TEXT,
        "unit?": _TEXT,
        "scale": _POSITIVE,
        "direction?": _DIRECTION,
        "worst?": _NUMBER,
    },
    "margin": _Maybe(_POSITIVE),
    "level": _LEVEL,
    "pairs": _COUNT,
    "correlation": _Maybe(_NUMBER),
    "difference": _DIFFERENCE,
    "differences": _DIFFERENCES,
    "comparisons": [_COMPARISON],
    "factors?": [{"name": _TEXT}],
    "table?": [_ROW],
    "interactions?": [{"sentence": _TEXT, "verdict?": _TEXT}],
    "tuning?": _TUNING,
    "arms": [_ARM],
    "runs": [_RUN],
    # Not known of every study: scores that exist already, a training of one's own.
    "model?": {"name": _TEXT, "options?": _Each(_PLAIN), "source?": _TEXT},
    "data?": {
        "name": _TEXT,
        "input_shape": [_COUNT],
        **dict.fromkeys(("classes", "train", "test"), _COUNT),
        "fingerprint?": _TEXT,
    },
    "recipe?": _Each(_PLAIN),
    "engine?": _Each(_PLAIN),
    "pairing?": {"shared?": _COUNT, "tensors?": _COUNT, "only?": _Each([_TEXT])},
    "versions": _Each(_PLAIN),
    "command": _TEXT,
    "continue?": _TEXT,
    "seconds": _Maybe(_NUMBER),
    "notes": [_TEXT],
    "created": _TEXT,
}


def check(study: Mapping[str, Any]) -> None:
    """Check the shape of a study's document, and that its parts belong together.

    Raises: InputError: a part is missing, of another kind, or contradicts another part; the message
    names it.
    """
    _check(_STUDY, study, "")
    _check_arms(study)
    _check_intervals(study, "")
    _check_table(study)
    _check_tuning(study)


def _check(kind: Any, value: Any, place: str) -> None:
    match kind:
        case _Leaf():
            _need(kind.fits(value), place, kind.what, value)
        case _Maybe():
            if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
                _check(kind.kind, value, place)
        case _Each():
            _need(isinstance(value, dict), place, "names with values", value)
            for key, item in value.items():
                _check(kind.kind, item, f"{place}.{key}")
        case list():
            _need(isinstance(value, list), place, "a list", value)
            for index, item in enumerate(value):
                _check(kind[0], item, f"{place}[{index}]")
        case _:
            _check_fields(kind, value, place)


def _check_fields(kind: dict[str, Any], value: Any, place: str) -> None:
    _need(isinstance(value, dict), place, "names with values", value)
    for key, inner in kind.items():
        name = key.removesuffix("?")
        where = f"{place}.{name}" if place else name
        if name != key and value.get(name) is None:
            continue
        if name not in value:
            raise InputError(f"'{where}' is missing.")
        _check(inner, value[name], where)


def _need(fits: bool, place: str, what: str, got: Any) -> None:
    if not fits:
        shown = repr(got)
        shown = shown if len(shown) <= 60 else f"{shown[:60]} ..."
        raise InputError(f"'{place}' must be {what}, got {shown}.")


def _check_arms(study: Mapping[str, Any]) -> None:
    """Check that the comparisons and runs are those of the arms."""
    labels = [arm["label"] for arm in study["arms"]]
    two = len(labels) >= 2 and len(set(labels)) == len(labels)
    _need(two, "arms", "at least two arms with different labels", labels)
    pairs = [(found["arm"], found["against"]) for found in study["comparisons"]]
    _need(bool(pairs), "comparisons", "a comparison at least", "nothing")
    for place, both in enumerate(pairs):
        fits = both[0] != both[1] and set(both) <= set(labels) and pairs.index(both) == place
        _need(fits, f"comparisons[{place}]", f"of two of {', '.join(labels)}", " and ".join(both))
    runs = [(run["arm"], run["seed"]) for run in study["runs"]]
    for place, (label, seed) in enumerate(runs):
        _need(label in labels, f"runs[{place}].arm", f"one of {', '.join(labels)}", label)
        _need(runs.index((label, seed)) == place, f"runs[{place}]", "another run", (label, seed))
    for place, found in enumerate(study["comparisons"]):
        learning = found.get("learning")
        for name in ("reached",) if learning else ():
            both = len(learning[name]) == 2 and max(learning[name]) <= found["pairs"]
            _need(both, f"comparisons[{place}].learning.{name}", "two counts", learning[name])
        if learning:
            means = learning["steps"]["means"]
            _need(
                len(means) == 2, f"comparisons[{place}].learning.steps.means", "two numbers", means
            )


def _check_intervals(value: Any, place: str) -> None:
    """Check every interval of the document: both ends or none, in their order."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_intervals(item, f"{place}[{index}]")
    elif isinstance(value, Mapping):
        if {"estimate", "low", "high"} <= value.keys():
            low, high = value["low"], value["high"]
            fits = (low is None and high is None) or (
                low is not None and high is not None and not low > high
            )
            _need(fits, place, "an interval from low to high", [low, high])
        for key, item in value.items():
            _check_intervals(item, f"{place}.{key}" if place else key)


def _check_table(study: Mapping[str, Any]) -> None:
    """Check that every row of a study with factors has the same columns."""
    names = [factor["name"] for factor in study.get("factors") or []]
    rows = study.get("table") or []
    _need(bool(rows) or not names, "table", "a row per choice of the factors", rows)
    for place, row in enumerate(rows):
        for part in ("cells", "effects"):
            orders = [[cell["order"] for cell in found[part]] for found in (row, rows[0])]
            _need(orders[0] == orders[1], f"table[{place}].{part}", f"of {orders[1]}", orders[0])
        fits = row["values"].keys() >= set(names)
        _need(fits, f"table[{place}].values", f"values of {names}", row["values"])


def _check_tuning(study: Mapping[str, Any]) -> None:
    """Check that every arm was tuned at the same rates, and compared at one."""
    found = study.get("tuning")
    if not found:
        return
    labels = [arm["label"] for arm in found["arms"]]
    expected = [arm["label"] for arm in study["arms"]]
    _need(len(labels) == len(expected), "tuning.arms", f"of {expected}", labels)
    rates = [[point["lr"] for point in arm["curve"]] for arm in found["arms"]]
    for place, tried in enumerate(rates):
        _need(bool(tried) and tried == rates[0], f"tuning.arms[{place}].curve", "rates", tried)
    compared = found["same_rate"]["comparisons"]
    _need(bool(compared), "tuning.same_rate.comparisons", "comparisons", compared)
