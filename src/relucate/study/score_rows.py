"""From records of scores to one score per metric, arm and seed: long form, wide form, mappings.

Long form: a row per run, with columns for arm, seed and score. Wide form: a row per seed, with a
column per arm. Not here: reading files (`score_table`), statistics (`given`).
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import InputError, unknown
from ..phrases import count, some
from ..stats.paired import LARGEST
from ..train.metric import Metric, metric_named, same_name
from .comparison import Seed
from .score_table import Table

METRIC = "metric"  # the column that names the metric of a row
SCORE = "score"  # the column of scores that doesn't say of which metric
_NO_METRIC = "name what the scores are: metric='mae', metric='auc', ... (--metric)"
LOST = frozenset(
    "nan inf -inf +inf infinity -infinity none null na n/a <na> diverged failed crashed".split()
) | {""}


@dataclass(frozen=True)
class Columns:
    """Names of the columns. score: one per metric, or one for all; empty: `score`, or the metric's.

    arms: the arms to compare, of the column or (wide form) the columns; None: all.
    """

    arm: str = "arm"
    seed: str = "seed"
    score: Sequence[str] = ()
    arms: Sequence[str] | None = None

    def of(self, table: Table) -> Columns:
        """Return the columns of a table: one called `order` has the arms if none is called `arm`.

        >>> Columns().of(Table("a file", [], ["order", "seed", "mae"])).arm
        'order'
        """
        usual = self.arm == Columns.arm and self.arm not in table.columns
        return replace(self, arm="order") if usual and "order" in table.columns else self


@dataclass
class Scores:
    """The scores of one metric. values: by arm and seed, None for a lost run; where: its place."""

    metric: Metric
    values: dict[str, dict[Seed, float | None]] = field(default_factory=dict)
    where: dict[tuple[str, Seed], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, where: str, arm: str, seed: Seed, raw: Any, *, text: bool) -> None:
        """Add a score.

        Raises: InputError: it isn't a number, or the arm has one with that seed already.
        """
        runs = self.values.setdefault(arm, {})
        if seed in runs:
            raise InputError(
                f"arm '{arm}' has two scores with seed {seed}: {self.where[arm, seed]} and {where}."
            )
        runs[seed], self.where[arm, seed] = number_of(raw, where, arm, text=text), where


def number_of(raw: Any, where: str, arm: str, *, text: bool) -> float | None:
    """Return a score, None for a run without one: missing, not finite, or "diverged".

    text: whether numbers are written as text, as in CSV.

    >>> number_of("0.5", "line 2", "a", text=True), number_of("diverged", "line 3", "a", text=True)
    (0.5, None)
    """
    if getattr(raw, "shape", None) == () and hasattr(raw, "item"):
        raw = raw.item()
    if _is_missing(raw):
        return None
    if isinstance(raw, str) and raw.strip().casefold() in LOST:
        return None
    written = text and isinstance(raw, str) and "_" not in raw
    if not written and (isinstance(raw, bool) or not isinstance(raw, numbers.Real)):
        raise _no_number(raw, where, arm)
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        raise _no_number(raw, where, arm) from None
    if not math.isfinite(value):
        return None
    if abs(value) >= LARGEST:
        raise InputError(f"{where}: the score {value:g} of '{arm}' is too large to compute with.")
    return value


def _is_missing(raw: Any) -> bool:
    return raw is None or type(raw).__name__ in {"NAType", "NaTType"}  # of pandas


def _no_number(raw: Any, where: str, arm: str) -> InputError:
    array = isinstance(raw, (list, tuple)) or bool(getattr(raw, "shape", ()))
    wanted = "one number" if array else "a number"
    shown = raw if isinstance(raw, str) else f"{raw!r} ({type(raw).__name__})"
    shown = f"'{shown}'" if isinstance(raw, str) else shown
    return InputError(f"{where}: expected {wanted} as the score of '{arm}', got {shown[:80]}.")


def seed_of(raw: Any, where: str) -> Seed:
    """Return a seed: a whole number, or the text that names a pair.

    >>> seed_of("07", "line 2"), seed_of(3.0, "row 0"), seed_of("fold a", "line 3")
    (7, 3, 'fold a')
    """
    if getattr(raw, "shape", None) == () and hasattr(raw, "item"):
        raw = raw.item()
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip():
        whole = re.fullmatch(r"([+-]?[0-9]{1,4000})(\.0+)?", raw.strip())
        return int(whole[1]) if whole else raw.strip()
    raise InputError(f"{where}: expected a whole number or a name as seed, got {raw!r}.")


def of_mapping(scores: Mapping[Any, Any], metric: Metric) -> Scores:
    """Return the scores of {arm: {seed: score}} or {arm: [score, ...]}, paired by position."""
    found, lists = Scores(metric), 0
    for name, runs in scores.items():
        arm = arm_of(name, "the mapping")
        if isinstance(runs, Mapping):
            pairs = [(seed_of(seed, f"arm '{arm}'"), score) for seed, score in runs.items()]
        elif isinstance(runs, (Sequence, np.ndarray)) and not isinstance(runs, (str, bytes)):
            pairs, lists = list(enumerate(runs)), lists + 1
        else:
            raise InputError(
                f"the scores of '{arm}' must be {{seed: score}} or a list of scores, got {runs!r}."
            )
        found.values.setdefault(arm, {})
        for seed, score in pairs:
            found.add(f"arm '{arm}', seed {seed}", arm, seed, score, text=False)
    if lists and lists < len(scores):
        raise InputError(
            "some arms have {seed: score} and some a list of scores: give all of them seeds."
        )
    if lists:
        found.notes.append("the scores have no seeds, so that they are paired by position")
    return found


def arm_of(raw: Any, where: str) -> str:
    """Return an arm's name."""
    if _is_missing(raw) or (isinstance(raw, float) and raw != raw) or not str(raw).strip():
        raise InputError(f"{where}: expected the name of an arm, got {raw!r}.")
    return str(raw).strip()


def named_by(table: Table | None, columns: Columns) -> str:
    """Return the metric that a table has scores of: the one column whose name says so.

    Raises: InputError: none does, or several, or there is no table.

    >>> named_by(Table("a file", [], ["arm", "seed", "rmse"]), Columns())
    'rmse'
    """
    if table is None:
        raise InputError(f"{_NO_METRIC}.")
    if METRIC in table.columns:
        found = list(dict.fromkeys(str(row.get(METRIC)) for _, row in table.records))
    else:
        found = [name for name in _score_names(table, columns) if _is_metric(name)]
    if len(found) > 1:
        raise InputError(f"{_NO_METRIC}, one or several. {table.source} has {some(found)}.")
    if not found:
        raise InputError(f"{_NO_METRIC}. {table.source} has the columns {some(table.columns)}.")
    return found[0]


def _score_names(table: Table, columns: Columns) -> Sequence[str]:
    """Return the columns that may have scores and be called by their metric."""
    if columns.score:
        return columns.score
    if SCORE in table.columns or columns.arm not in table.columns:
        return ()
    return [name for name in table.columns if name not in (columns.arm, columns.seed)]


def _is_metric(name: str) -> bool:
    """Return whether a name says what its scores are and which direction is better."""
    try:
        metric_named(name)
    except InputError:
        return False
    return True


def of_table(
    table: Table, metrics: Sequence[Metric], columns: Columns, *, paired: bool
) -> list[Scores]:
    """Return the scores of each metric.

    Raises: InputError: a column is missing, or a value isn't what its column needs.
    """
    if columns.arm in table.columns:
        return _long(table, metrics, columns, paired)
    scored = [name for name in table.columns if any(same_name(name, m.name) for m in metrics)]
    if columns.arm != Columns.arm or columns.score or scored or SCORE in table.columns:
        error = unknown("column", columns.arm, table.columns)
        raise InputError(f"{error} Name the column of arms (--arm).")
    return _wide(table, metrics, columns)


def _long(table: Table, metrics: Sequence[Metric], columns: Columns, paired: bool) -> list[Scores]:
    seeded = columns.seed in table.columns
    if not seeded and (paired or columns.seed != Columns.seed):
        error = unknown("column", columns.seed, table.columns)
        raise InputError(f"{error} Name the column of seeds (--seed), or compare --unpaired.")
    _check_arms(columns, dict.fromkeys(str(row.get(columns.arm)) for _, row in table.records))
    found = [Scores(metric) for metric in metrics]
    by_row = METRIC in table.columns
    for scores, score in zip(found, _score_columns(table, metrics, columns), strict=True):
        for where, row in _rows_about(table, scores.metric, by_row):
            arm = arm_of(row.get(columns.arm), where)
            if columns.arms is not None and arm not in columns.arms:
                continue
            number = len(scores.values.get(arm, ()))
            seed = seed_of(row.get(columns.seed), where) if seeded else number
            scores.add(where, arm, seed, row.get(score), text=table.text)
    return found


def _check_arms(columns: Columns, known: Collection[str]) -> None:
    for name in columns.arms or ():
        if name not in known:
            raise unknown("arm", name, known)


def _score_columns(table: Table, metrics: Sequence[Metric], columns: Columns) -> list[str]:
    """Return the column of each metric's scores."""
    by_row = METRIC in table.columns
    if columns.score:
        for name in columns.score:
            if name not in table.columns:
                raise unknown("column", name, table.columns)
        if len(columns.score) == len(metrics):
            return list(columns.score)
        if by_row and len(columns.score) == 1:
            return list(columns.score) * len(metrics)
        raise InputError(
            f"expected one score column for each metric, got {count(len(columns.score), 'column')} "
            f"({', '.join(columns.score)}) for {count(len(metrics), 'metric')} "
            f"({', '.join(metric.name for metric in metrics)})."
        )
    if SCORE in table.columns and (by_row or len(metrics) == 1):
        _check_score(table, metrics)
        return [SCORE] * len(metrics)
    return [_column_called(metric.name, table) for metric in metrics]


def _check_score(table: Table, metrics: Sequence[Metric]) -> None:
    """Refuse a column of scores beside one that has the metric's name."""
    for column in table.columns:
        if column != SCORE and any(same_name(column, metric.name) for metric in metrics):
            raise InputError(
                f"the scores of '{column}' may be in the column '{SCORE}' or in '{column}': name "
                "the one that you mean (--score)."
            )


def _column_called(name: str, table: Table) -> str:
    for column in table.columns:
        if same_name(column, name):
            return column
    wanted = SCORE if SCORE not in table.columns else name
    error = unknown("column", wanted, table.columns)
    raise InputError(f"{error} Name the column of scores (--score).")


def _rows_about(table: Table, metric: Metric, by_row: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the records of a metric: all, unless a column names each record's metric."""
    if not by_row:
        return table.records
    rows = [r for r in table.records if same_name(str(r[1].get(METRIC)), metric.name)]
    if not rows:
        names = dict.fromkeys(str(row.get(METRIC)) for _, row in table.records)
        raise unknown("metric", metric.name, names)
    return rows


def _wide(table: Table, metrics: Sequence[Metric], columns: Columns) -> list[Scores]:
    seeded, by_row = columns.seed in table.columns, METRIC in table.columns
    if not seeded and columns.seed != Columns.seed:
        raise unknown("column", columns.seed, table.columns)
    arms = [name for name in table.columns if name not in (columns.seed, METRIC)]
    _check_arms(columns, arms)
    if len(metrics) > 1 and not by_row:
        raise InputError(
            "several metrics need a column 'metric', or a column for the arms (--arm) and one for "
            f"each metric; the columns are {some(table.columns)}."
        )
    if len(arms) < 2:
        raise InputError(
            f"expected columns {columns.arm}, {columns.seed} and score, or a column for each of "
            f"several arms, got {', '.join(table.columns)}: name yours (--arm, --seed, --score)."
        )
    found = [Scores(metric) for metric in metrics]
    for scores in found:
        for number, (where, row) in enumerate(_rows_about(table, scores.metric, by_row)):
            seed = seed_of(row.get(columns.seed), where) if seeded else number
            for arm in columns.arms or arms:
                scores.add(where, arm, seed, row.get(arm), text=table.text)
        if not seeded:
            scores.notes.append("there is no column of seeds, so that each row is a pair")
    return found
