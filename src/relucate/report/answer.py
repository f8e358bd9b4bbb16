"""The first screen of a study's page: the answer, the numbers behind it, and one surprise.

Text only, from the document. Not here: the verdict's own sentence (`stats.wording` wrote it),
drawing. Called by `view`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from relucate.phrases import count, some
from relucate.report.effects import Effect, effects
from relucate.report.facts import (
    NO_RESULT,
    all_lost,
    headline,
    identical,
    short_names,
    span,
    unpaired,
)
from relucate.report.numbers import MISSING, Units, duration, known, level_percent
from relucate.stats.sequential import MONITORED

Study = dict[str, Any]

WORDS = ("better", "worse", "equivalent", "inconclusive")
SHOWN = 3  # names in the answer; more are counted
SLOWER = 1.25  # times as long: worth saying
LONG = 1.0  # seconds of a run: less isn't


def word(study: Study) -> str:
    """Return the verdict of the only comparison, or "" for several."""
    found = headline(study)
    return found[0][1] if len(found) == 1 else ""


def sentence(study: Study) -> str:
    """Return the answer: the verdict's sentence, or how several comparisons came out."""
    found = headline(study)
    if len(found) == 1:
        return found[0][2]
    rows = effects(study)
    if all(map(all_lost, study["arms"])):
        return "Every run of every arm diverged, so there is nothing to compare."
    by_word = {name: [row.name for row in rows if row.word == name] for name in WORDS}
    varied = bool(study.get("factors")) and all(row.arm not in row.name for row in rows)
    noun = "comparison" if study.get("factors") else "arm"  # an arm is compared at each value
    parts = [
        f"{name} with {_joined(names, 'choice')}" if varied else _are(names, name, len(rows), noun)
        for name, names in by_word.items()
        if names
    ]
    return f"{_compared(rows)}: {'; '.join(parts)}."


def _are(names: list[str], word: str, total: int, noun: str = "arm") -> str:
    """Return a clause on the arms, or comparisons, with the same verdict.

    >>> _are(["after"], "better", 2), _are(list("abcd"), "worse", 4)
    ('after is better', 'all 4 arms are worse')
    """
    every = "all " if len(names) == total and len(names) > SHOWN else ""
    return f"{every}{_joined(names, noun)} {'is' if len(names) == 1 else 'are'} {word}"


def _joined(names: list[str], noun: str) -> str:
    """Return a few names in words, or how many there are."""
    if len(names) > SHOWN:
        return count(len(names), noun)
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _compared(rows: list[Effect]) -> str:
    """Return what all rows have in common.

    >>> row = Effect("tanh", "after", "before", "better", 0.1, 0.0, 0.2)
    >>> _compared([row, row])
    'After against before'
    """
    arms, against = ({getattr(row, side) for row in rows} for side in ("arm", "against"))
    if len(against) > 1:
        return f"{count(len(rows), 'comparison')}"
    first = against.pop()
    if len(arms) > 1:
        return f"Against {first}"
    arm = arms.pop()
    return f"{arm[:1].upper()}{arm[1:]} against {first}"


def keys(study: Study) -> list[dict[str, str]]:
    """Return the three numbers that matter, as name, value and what it is about."""
    rows = [_several(study) if len(effects(study)) > 1 else _difference(study)]
    rows += [_means(study), _pairs(study)]
    return [{"name": n, "value": v, "about": a} for n, v, a in rows]


def _difference(study: Study) -> tuple[str, str, str]:
    """Return the difference with its interval."""
    (row,), units, found = effects(study), Units.of_study(study), study["difference"]
    value = units.differing(found["estimate"])
    about = f"{row.arm} minus {row.against}; {_interval(found, study, units)}"
    return "difference", value, about


def _interval(found: Study, study: Study, units: Units) -> str:
    """Return an interval in words, or why there is none."""
    if not known(found["estimate"]):
        return NO_RESULT
    if identical(found, study["pairs"]):
        return f"the same in all {count(study['pairs'], 'pair')}"
    if not known(found["low"]):
        few = "two" if study["pairs"] < 2 else "more"
        return f"no interval: it needs {few} pairs with results"
    level = level_percent(found.get("level") or study["level"])
    return f"{level} interval {span(found, study['pairs'], units)}"


def _several(study: Study) -> tuple[str, str, str]:
    """Return the largest difference of several comparisons."""
    units = Units.of_study(study)
    rows = [row for row in effects(study) if known(row.estimate)]
    if not rows:
        return "largest difference", MISSING, NO_RESULT
    row = max(rows, key=lambda row: abs(row.estimate or 0.0))
    ends = units.interval(row.low, row.high)
    interval = "" if ends == MISSING else f"; interval {ends}"
    name = row.name if row.arm in row.name else f"{row.name}: {row.arm}"
    about = f"{name} against {row.against}{interval}"
    return "largest difference", units.differing(row.estimate), about


def _means(study: Study) -> tuple[str, str, str]:
    """Return the best arm's mean score, and the first comparison's other one."""
    units, short = Units.of_study(study), short_names(study)
    lower = units.metric.lower_is_better
    arms = [arm for arm in study["arms"] if known(arm["mean"])]
    name = f"mean {units.metric.name}"
    if not arms:
        return name, MISSING, "no run has a score"
    ranked = sorted(arms, key=lambda arm: arm["mean"], reverse=not lower)
    best, rest = ranked[0], ranked[1:]
    about = f"{short[best['label']]}, the best"
    if rest:
        what = "" if len(study["arms"]) == 2 else "next "
        about += f"; {what}{short[rest[0]['label']]} {units.valued(rest[0]['mean'])}"
    return name, units.valued(best["mean"]), about


def _pairs(study: Study) -> tuple[str, str, str]:
    """Return how many pairs or runs there were, and what decided that number."""
    first = study["comparisons"][0]
    if unpaired(study):
        runs = first["runs"]
        return "runs", f"{runs[0]:,} and {runs[1]:,}", f"of {first['against']} and {first['arm']}"
    time = f"; {duration(study['seconds'])} in all" if known(study["seconds"]) else ""
    return "pairs", f"{study['pairs']:,}", _why_so_many(study) + time


def _why_so_many(study: Study) -> str:
    if study["difference"]["method"] != MONITORED:
        return "same seed in all arms, a number fixed beforehand"
    settled = all(row.word != "inconclusive" for row in effects(study))
    ended = "stopped when the answer was certain" if settled else "no answer yet"
    return f"same seed in all arms; {ended}"


# ---- the one surprise


def surprise(study: Study) -> str:
    """Return the one finding that a reader wouldn't expect from the verdict, or ""."""
    looked: Iterable[Callable[[Study], str]] = (
        _lost_runs,
        _depends,
        _tuned,
        _new_examples,
        _sooner,
        _slower,
    )
    return next((text for find in looked if (text := find(study))), "")


def _lost_runs(study: Study) -> str:
    """Return which arms diverged, if others didn't."""
    lost = [arm for arm in study["arms"] if arm["diverged"]]
    if not lost or len(lost) == len(study["arms"]):
        return ""
    counts = [
        f"{arm['diverged']} of {arm['n']} runs of {_spoken(arm['label'], study)}" for arm in lost
    ]
    return f"Training diverged in {some(counts, 3)}, and in none of the other arms."


def _depends(study: Study) -> str:
    """Return the first sentence on an effect that depends on a varied option."""
    asked = study.get("interactions") or []
    return next((one["sentence"] for one in asked if one.get("verdict") == "better"), "")


def _tuned(study: Study) -> str:
    """Return the comparison at one rate, if it comes out otherwise than at the best rates."""
    found = study.get("tuning")
    if not found or len(study["comparisons"]) != 1:
        return ""
    same = found["same_rate"]["comparisons"][0]
    if same.get("verdict", study["verdict"]) == study["verdict"]:
        return ""
    return f"At one rate for all arms, {found['same_rate']['lr']:g}: {_said(same)}"


def _said(comparison: Study) -> str:
    """Return what a comparison found, in one clause with its interval."""
    return comparison["sentence"].split(". ")[0].rstrip(".") + "."


def _new_examples(study: Study) -> str:
    """Return the interval for new test examples, if it says less than the verdict."""
    found = study["comparisons"][0].get("examples")
    if not found or len(study["comparisons"]) > 1 or study["verdict"] == "inconclusive":
        return ""
    low, high, margin = found["low"], found["high"], study["margin"]
    ends = study["difference"]
    if not (known(low) and known(high) and known(ends["low"]) and known(ends["high"])):
        return ""
    inside = known(margin) and -margin < low and high < margin
    holds = inside if study["verdict"] == "equivalent" else low > 0 or high < 0
    if holds:
        return ""
    units = Units.of_study(study)
    return (
        "The verdict is about these test examples. For new ones too, the interval is "
        f"{units.interval(low, high)}, which leaves it open."
    )


def _sooner(study: Study) -> str:
    """Return which arm reaches the target score sooner, if its interval excludes zero."""
    found = study["comparisons"][0].get("learning")
    if not found or len(study["comparisons"]) > 1:
        return ""
    steps = found["steps"]
    if not (known(steps["low"]) and known(steps["high"])) or steps["low"] <= 0 <= steps["high"]:
        return ""
    units = Units.of_study(study)
    against, arm = (f"{mean:,.1f}" for mean in steps["means"])
    compared = study["comparisons"][0]
    spoken = [_spoken(compared[side], study) for side in ("arm", "against")]
    names = spoken if steps["estimate"] < 0 else spoken[::-1]
    means = (arm, against) if steps["estimate"] < 0 else (against, arm)
    unit, target = steps.get("unit", "steps"), units.valued(found["target"])
    return (
        f"{names[0][:1].upper()}{names[0][1:]} learns sooner: {target} test {units.metric.name} "
        f"after {means[0]} {unit} on average, {names[1]} after {means[1]}."
    )


def _slower(study: Study) -> str:
    """Return how much longer a run of the slower arm takes, if it is much."""
    if (found := slowest(study)) is None:
        return ""
    slow, fast, factor = found
    slower, faster = _spoken(slow, study), _spoken(fast, study)
    return f"A run of {slower} takes {factor:.1f} times as long as one of {faster}."


def slowest(study: Study) -> tuple[str, str, float] | None:
    """Return the slowest arm, the fastest, and the factor between them, if it is worth saying."""
    times = {arm["label"]: arm["seconds"] for arm in study["arms"] if known(arm["seconds"])}
    if len(times) < 2 or min(times.values()) <= 0:
        return None
    slow, fast = max(times, key=lambda a: times[a]), min(times, key=lambda a: times[a])
    factor = times[slow] / times[fast]
    return None if factor < SLOWER or times[slow] < LONG else (slow, fast, factor)


def _spoken(label: str, study: Study) -> str:
    """Return what a sentence calls an arm."""
    arm = next(arm for arm in study["arms"] if arm["label"] == label)
    return arm.get("words") or short_names(study)[label]
