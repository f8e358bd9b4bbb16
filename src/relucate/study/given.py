"""A study of scores that exist already: from scores per arm and seed to the document.

Not here: reading scores (`score_table`, `score_rows`), the Python surface (`api.verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError, unknown
from ..phrases import count, some
from ..stats.paired import ROUNDING
from ..train.metric import Metric, is_share
from ..version import __version__
from .compared import Label
from .comparison import Comparison, Seed
from .document import document
from .results import StudyResults
from .score_rows import Scores

SHOWN = 8  # places or seeds that a message names


@dataclass(frozen=True, kw_only=True)
class Given(Comparison):
    """A comparison of scores that exist already.

    origin: the document's section `scores`; notes: on how the scores were read.
    """

    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def settings(self, inspection: Any) -> dict[str, Any]:
        """Return where the scores come from; how they came about isn't known."""
        unknown_sections = super().settings(inspection)
        return {**unknown_sections, "versions": {"relucate": __version__}, "scores": self.origin}

    def remarks(self, inspection: Any) -> tuple[list[str], list[str]]:
        """Return the notes on how the scores were read."""
        return list(self.notes), []


def verdict_document(
    scores: Sequence[Scores],
    margins: Sequence[Any],
    *,
    origin: Mapping[str, Any],
    arms: Sequence[str] | None = None,
    against: str | None = None,
    all_pairs: bool = False,
    level: float = 0.95,
    looks: bool = False,
    paired: bool = True,
    may_count: Sequence[bool],
    command: str = "",
) -> dict[str, Any]:
    """Return the document of the first metric, with those of the others under `further`.

    margins: of each metric, None: its default; may_count: for each metric, whether lost runs may
    count with its worst score.
    Raises: InputError: the scores don't make a comparison.
    """
    documents = []
    for found, margin, lost_count in zip(scores, margins, may_count, strict=True):
        labels = _labels(found, arms)
        _check(found, labels, lost_count)
        seeds, notes = _seeds(found, labels, paired)
        plan = Given(
            arms=tuple(map(Label, labels)),
            pairs=len(seeds),
            given_seeds=tuple(seeds),
            metric=found.metric,
            margin=margin,
            level=level,
            looks=looks,
            paired=paired,
            against=against,
            all_pairs=all_pairs,
            metrics=len(scores),
            origin=origin,
            notes=(*found.notes, *notes),
        )
        _check_resolution(found, labels, plan.margin)
        plan = replace(plan, notes=(*plan.notes, *_same_arms(found, plan)))
        documents.append(document(_results(plan, found), command=command))
    first, *further = documents
    return {**first, "further": further} if further else first


def _labels(found: Scores, arms: Sequence[str] | None) -> list[str]:
    """Return the arms to compare."""
    known = list(found.values)
    for name in arms or ():
        if name not in known:
            raise unknown("arm", name, known)
    labels = list(arms or known)
    if len(labels) < 2:
        raise InputError(
            f"a comparison needs the scores of at least two arms, got those of "
            f"{' and '.join(map(repr, labels)) or 'none'}."
        )
    return labels


def _check(found: Scores, labels: Sequence[str], may_count: bool) -> None:
    """Refuse scores that can't be compared, or can't be what they are called."""
    metric = found.metric
    runs = [(arm, seed, value) for arm in labels for seed, value in found.values[arm].items()]
    finite = [value for _, _, value in runs if value is not None]
    lost = [found.where[arm, seed] for arm, seed, value in runs if value is None]
    if lost and not may_count:
        raise InputError(
            f"{count(len(lost), 'score')} of '{metric.name}' {'is' if len(lost) == 1 else 'are'} "
            f"missing or not finite ({some(lost, SHOWN)}): a run without a score may not be left "
            "out, since it may be the worst one. Say what such a run counts (worst=, --worst)."
        )
    if lost and metric.worst is not None:
        _check_worst(metric, finite)
    if is_share(metric):
        _check_share(found, runs)
    if len(set(finite)) == 1 and not lost and len(finite) > 2:
        raise InputError(
            f"every score of '{metric.name}' is {finite[0]:g}, in all arms: is that the right "
            "column?"
        )


def _check_resolution(found: Scores, labels: Sequence[str], margin: float) -> None:
    """Refuse scores of which the statistics take differences like the margin for rounding."""
    sizes = [abs(value) for arm in labels for value in found.values[arm].values() if value]
    known_to = ROUNDING * max(sizes, default=0.0)
    if margin < known_to:
        raise InputError(
            f"scores as large as {max(sizes):g} count to {known_to:.2g}, the rounding of float32, "
            f"and the margin of {margin:g} is less: subtract one number from all scores (what they "
            "have in common), or take a larger margin."
        )


def _check_worst(metric: Metric, finite: Sequence[float]) -> None:
    worst = metric.worst or 0.0
    sign = -1 if metric.lower_is_better else 1
    if any(sign * value < sign * worst for value in finite):
        extreme = max(finite) if metric.lower_is_better else min(finite)
        raise InputError(
            f"worst={worst:g} isn't the worst score of '{metric.name}': a run has {extreme:g}, and "
            f"a {metric.direction} one is better. Lost runs must not count as better than others."
        )


def _check_share(found: Scores, runs: Sequence[tuple[str, Seed, float | None]]) -> None:
    for arm, seed, value in runs:
        if value is not None and not 0 <= value <= 1:
            raise InputError(
                f"{found.where[arm, seed]}: expected {found.metric.named} from 0 to 1, got "
                f"{value:g}. If the scores are percent, divide them by 100, or say so: unit='%' "
                "(--unit %), with the margin in percent too."
            )


def _seeds(found: Scores, labels: Sequence[str], paired: bool) -> tuple[list[Seed], list[str]]:
    """Return the seeds that count, in order, and notes on those that don't."""
    seeds = list(dict.fromkeys(seed for arm in labels for seed in found.values[arm]))
    if all(isinstance(seed, int) for seed in seeds):
        seeds.sort()
    if not paired:
        counts = {arm: len(found.values[arm]) for arm in labels}
        if min(counts.values()) < 2:
            shown = ", ".join(f"{arm} {number}" for arm, number in counts.items())
            raise InputError(f"unpaired runs need at least two of each arm, got {shown}.")
        return seeds, ["all runs of one arm are compared with all of the other, not seed by seed"]
    lacking = {s: [arm for arm in labels if s not in found.values[arm]] for s in seeds}
    both = [seed for seed, arms in lacking.items() if not arms]
    left = [f"{seed} (not in {', '.join(arms)})" for seed, arms in lacking.items() if arms]
    if len(both) < 2:
        raise InputError(
            f"pairs need the same seed in every arm, and there {'is' if len(both) == 1 else 'are'} "
            f"{count(len(both), 'such seed')}"
            + (f"; left out: {some(left, SHOWN)}" if left else "")
            + ". Compare the runs unpaired (paired=False, --unpaired), or give more pairs."
        )
    word = "seed" if len(left) == 1 else "seeds"
    return both, [f"left out, because not in every arm: {word} {some(left, SHOWN)}"] if left else []


def _same_arms(found: Scores, plan: Given) -> list[str]:
    """Return a note for each comparison of two arms with the same scores."""
    pairs = [(arm.label, against.label) for arm, against in plan.contrasts]
    return [
        f"the scores of {arm} are those of {against}, seed by seed"
        for arm, against in pairs
        if all(found.values[arm].get(s, 0) == found.values[against].get(s, 0) for s in plan.seeds)
    ]


def _results(plan: Given, found: Scores) -> StudyResults[Given]:
    results = {
        (arm.label, seed): _result(found.values[arm.label][seed])
        for arm in plan.arms
        for seed in plan.seeds
        if seed in found.values[arm.label]
    }
    return StudyResults(plan, results=results, seconds=None)


def _result(score: float | None) -> dict[str, Any]:
    status = "diverged" if score is None else "done"
    more = {"loss": None, "curve": {}, "seconds": {}, "note": ""}
    return {"status": status, "metric": score, **more}
