"""The Python surface: `relucate.verdict`, for scores that exist already.

Not here: reading (`study.score_table`), deciding (`study.given`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError
from ..phrases import count
from ..stats.verdict import check_margin
from ..study.given import verdict_document
from ..study.score_rows import Columns, Scores, named_by, of_mapping, of_table
from ..study.score_table import Table, read
from ..train.metric import Metric, metric_named
from .finished import Study


def verdict(
    scores: Any,
    *,
    metric: str | Metric | Sequence[str | Metric] | None = None,
    margin: float | Sequence[float | None] | None = None,
    lower_is_better: bool | None = None,
    unit: str | Sequence[str | None] | None = None,
    scale: float | Sequence[float | None] | None = None,
    worst: float | Sequence[float | None] | None = None,
    against: str | None = None,
    all_pairs: bool = False,
    arms: Sequence[str] | None = None,
    paired: bool = True,
    looks: bool = False,
    level: float = 0.95,
    arm: str = "arm",
    seed: str = "seed",
    score: str | Sequence[str] | None = None,
    command: str = "",
) -> Study:
    """Return the verdict on scores that exist already, whatever was trained and however.

        d_s = score(arm, seed s) - score(against, seed s)
        interval: mean(d) ± t(n - 1) · sd(d) / √n

    Args:
        scores: {arm: {seed: score}}; {arm: [score, ...]}, paired by position; a data frame (pandas,
            polars, pyarrow); or the path of a CSV or JSON lines file. Tables have a row per run
            with columns for arm, seed and score, or a row per seed with a column for each arm.
        metric: name of the scores, or a `Metric`. A list of several gives one verdict each, which
            share the error; margin, unit, scale and worst are then lists with a value for each.
            None: the one that a column of the table is called by, such as `mae`.
        margin: smallest difference that matters, in the metric's own unit. None: the metric's
            default, if it has one.
        lower_is_better: needed only for a metric whose name doesn't say it.
        unit, scale: of a metric given by name: shown value = scale · value.
        worst: what a run without a score counts: missing, NaN, infinite or "diverged". Without it
            such runs are an error.
        against: the arm that the others are compared against; arms: which to compare. None: the
            first, and all. all_pairs: compare every two arms.
        paired: False compares all runs of each arm, with Welch's interval.
        looks: True if you looked at the result after every pair, and could have stopped: the
            intervals are wider (`stats.sequential`).
        level: coverage of the intervals, of all metrics and arms together.
        arm, seed, score: names of a table's columns; `order` is taken if there is no `arm`. score:
            one per metric; None: `score`, or the metric's name.

    Returns: a Study. With several metrics it is about the first, and `Study.metrics` has all.
    Raises: InputError: with what was expected, what came, and what to do.

    >>> scores = {"before": [2.1, 2.3, 2.2, 2.4], "after": [1.9, 2.0, 2.0, 2.1]}
    >>> study = verdict(scores, metric="MAE", margin=0.1)
    >>> study.verdict, study.winner, round(study.difference["estimate"], 2)
    ('better', 'after', -0.25)
    """
    table = None if isinstance(scores, Mapping) else read(scores)
    columns = Columns(arm, seed, _texts(score, "score") or (), _texts(arms, "arms"))
    columns = columns if table is None else columns.of(table)
    if metric is None:
        metric = named_by(table, columns)
    asked = [metric] if isinstance(metric, (str, Metric)) else list(metric)
    metrics = _metrics(asked, lower_is_better, unit, scale, worst)
    margins = _for_each(margin, len(asked), "margin")
    for one in margins:
        if one is not None:
            check_margin(one)
    found, origin = _found(scores, table, metrics, columns, paired)
    document = verdict_document(
        found,
        margins,
        origin=origin,
        arms=columns.arms,
        against=against,
        all_pairs=all_pairs,
        level=level,
        looks=looks,
        paired=paired,
        may_count=[
            given is not None or (isinstance(one, Metric) and one.worst is not None)
            for one, given in zip(asked, _for_each(worst, len(asked), "worst"), strict=True)
        ],
        command=command,
    )
    return Study(document)


def _found(
    scores: Any, table: Table | None, metrics: Sequence[Metric], columns: Columns, paired: bool
) -> tuple[list[Scores], dict[str, Any]]:
    """Return the scores of each metric, and where they come from."""
    if table is not None:
        origin = {"source": table.source, "rows": len(table.records)}
        found = of_table(table, metrics, columns, paired=paired)
        return found, {**origin, "fingerprint": table.fingerprint}
    if len(metrics) > 1:
        raise InputError("scores of several metrics need a table: a data frame or a file.")
    return [of_mapping(scores, metrics[0])], dict.fromkeys(("source", "rows", "fingerprint"))


def _metrics(
    asked: Sequence[Any], lower_is_better: bool | None, unit: Any, scale: Any, worst: Any
) -> list[Metric]:
    """Return the metrics that are meant, with what the call says of them."""
    if not asked:
        raise InputError("expected a metric, got none.")
    given = (
        _for_each(values, len(asked), name)
        for name, values in {"unit": unit, "scale": scale, "worst": worst}.items()
    )
    several, metrics = len(asked) > 1, []
    for one, *more in zip(asked, *given, strict=True):
        metrics.append(_metric(one, _direction(one, lower_is_better, several), *more))
    names = [metric.name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the metric '{name}' is given twice.")
    return metrics


def _metric(
    asked: Any,
    lower_is_better: bool | None,
    unit: str | None,
    scale: float | None,
    worst: float | None,
) -> Metric:
    """Return the metric that is meant, with what the call says of it."""
    if isinstance(asked, Metric):
        if unit is not None or scale is not None:
            raise InputError(
                f"the Metric '{asked.name}' has its own unit and scale: leave out yours."
            )
        if lower_is_better not in (None, asked.lower_is_better):
            raise InputError(
                f"the Metric '{asked.name}' says lower_is_better={asked.lower_is_better}: leave "
                "lower_is_better out."
            )
        return asked if worst is None else replace(asked, worst=worst)
    found = metric_named(asked, lower_is_better)
    if unit is not None and unit != found.unit:
        found = replace(found, unit=unit, scale=1.0)
    changes = {"scale": scale, "worst": worst}
    return replace(found, **{name: v for name, v in changes.items() if v is not None})


def _direction(asked: Any, lower_is_better: bool | None, several: bool) -> bool | None:
    """Return the direction to take: of several metrics, the one given is for unknown ones."""
    if not several or lower_is_better is None:
        return lower_is_better
    if isinstance(asked, Metric):
        return None
    try:
        return metric_named(asked).lower_is_better
    except InputError:
        return lower_is_better


def _for_each(values: Any, number: int, name: str) -> list[Any]:
    """Return a value for each metric; None for all of them if there is none."""
    if values is None:
        return [None] * number
    found = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(found) != number:
        raise InputError(
            f"expected a {name} for each of {count(number, 'metric')}, got {len(found)}."
        )
    return found


def _texts(value: Any, name: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    texts = (value,) if isinstance(value, str) else tuple(value)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{name} must be names, got {text!r}.")
    return texts
