"""How to continue an undecided study: about how many pairs it needs, and the command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..phrases import count
from ..stats.spending import FIRST, LAST
from ..stats.verdict import NOTHING_MEASURED
from .comparison import Comparison, Seed
from .results import StudyResults


def next_steps(outcome: StudyResults[Comparison], seeds: Sequence[Seed], command: str) -> list[str]:
    """Return how to continue if a question of the study is open and more pairs would help.

    A number that was fixed in advance isn't raised: adding pairs after a look makes "better" too
    likely. With looks the bounds allow for it.
    """
    plan, done = outcome.plan, len(seeds)
    needed = _needed(outcome, seeds)
    if not needed:
        return []
    if _is_part(plan):
        return [_PART]
    undecided = f"undecided after {count(done, 'pair')}" if plan.paired else "undecided"
    if (most := _most(needed)) is None:
        return [
            f"{undecided}, and more than {LAST:,} would be needed: take a larger margin, more test "
            "examples, or longer runs"
        ]
    if plan.given_seeds is not None:
        return [f"{undecided}; {_more_scores(plan, most)}"]
    most = max(most, done + 1)
    there = f"the same command with --max-pairs {most} (max_pairs in Python)"
    if command:
        there = continued(command, most)
    if not plan.looks:
        return [
            f"{undecided}, a number that was fixed beforehand and can't be raised after looking; a "
            f"study that looks after every pair may go on: {there}"
        ]
    return [f"{undecided}; to go on from here, with no loss of error control: {there}"]


def continuation(
    outcome: StudyResults[Comparison], seeds: Sequence[Seed], command: str
) -> str | None:
    """Return the command at the end of `next_steps`, None if no command continues the study.

    A view can give it a line of its own, from which it can be copied.
    """
    most = _most(_needed(outcome, seeds))
    plan = outcome.plan
    if not command or most is None or plan.given_seeds is not None or _is_part(plan):
        return None
    return continued(command, max(most, len(seeds) + 1))


_PART = (
    "a part of a study: once the store has all pairs, the command with their number "
    f"({FIRST} or more) and without --first-seed (first_seed in Python) gives the verdict"
)


def _is_part(plan: Comparison) -> bool:
    """Return whether too few pairs for any verdict were asked for: a job of an array."""
    return plan.given_seeds is None and not plan.looks and plan.pairs < FIRST


def _needed(outcome: StudyResults[Comparison], seeds: Sequence[Seed]) -> list[int | None]:
    """Return how many pairs each open question needs; none if more pairs would not help."""
    if outcome.plan.looks and len(seeds) < outcome.plan.pairs:
        return []  # with looks and pairs left, another question ended the study
    open_ones = (v for v in outcome.verdicts(list(seeds)) if v.verdict == "inconclusive")
    return [v.pairs_needed for v in open_ones if v.reason not in NOTHING_MEASURED]


def _most(needed: Sequence[int | None]) -> int | None:
    """Return how many pairs answer all questions; None if that is too many, or nothing is open."""
    known = [number for number in needed if number]
    if not known or len(known) < len(needed) or max(known) > LAST:
        return None
    return max(*known, FIRST)


def _more_scores(plan: Comparison, needed: int) -> str:
    """Return what to do about scores that exist already and don't decide."""
    about = f"about {needed:,} {'pairs' if plan.paired else 'runs of each arm'} in all would settle"
    if plan.looks:
        return f"{about} it, and more can be added with no loss of error control"
    looks = ", or look after every pair (looks=True, --looks)" if plan.paired else ""
    return (
        f"{about} it. Adding some because the result is open makes 'better' too likely: take new "
        f"seeds and a number fixed beforehand{looks}"
    )


def continued(command: str, most: int) -> str:
    """Return a command with another largest number of pairs, and none that is fixed.

    >>> continued("relucate compare mlp --pairs 3 --epochs 2", 12)
    'relucate compare mlp --epochs 2 --max-pairs 12'
    """
    kept, skip = [], False
    for word in shlex.split(command):
        if not skip and word.partition("=")[0] not in {"--pairs", "--max-pairs"}:
            kept.append(word)
            continue
        skip = not skip and "=" not in word
    return shlex.join([*kept, "--max-pairs", str(most)])
