"""What a study compares and how it decides, without how its scores came about.

`plan.StudyPlan` adds the training of networks. Called by `results` and `document`, which work on
any comparison. Not here: scores (`results`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from ..arguments import whole
from ..errors import InputError, unknown
from ..stats.paired import check_level
from ..stats.sequential import Monitor
from ..stats.spending import LAST, LEVELS
from ..stats.verdict import check_margin
from ..train.metric import Metric, check_share_margin, margin_of
from .compared import Compared
from .contrasts import Contrast, contrasts_of
from .interaction import Interaction, grid, interactions_of


class Schedule(NamedTuple):
    """How long an arm trains."""

    epochs: int
    steps: int  # of one epoch


_LARGEST = 2**53  # JSON readers keep whole numbers up to here
Seed = Any  # of a pair: a whole number, or another name (of a fold, a data set) of given scores


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and how it is decided.

    arms: what is compared; against: the order or label that the others are compared against, by
        default the first; all_pairs: every arm with every other.
    pairs: the largest number; first_seed: the seeds count from here on.
    looks: look after every pair, from the third on, and stop as soon as every answer is certain.
        Otherwise all pairs count.
    level: coverage of all intervals together.
    metric: what the scores are; margin: in the metric's own unit, None: the metric's default.
    factors: what varies besides the order, as given to `vary.arms_from`.
    target: a score; the steps to it are reported.
    metrics: the number of metrics whose verdicts share the error.
    paired: compare seed by seed; otherwise all runs of one arm with all of another, which needs a
        fixed number of runs.
    given_seeds: the seeds of scores that exist already, instead of consecutive ones.
    """

    arms: tuple[Compared, ...]
    pairs: int = 12
    first_seed: int = 0
    level: float = 0.95
    looks: bool = False
    metric: Metric
    margin: float = None  # type: ignore[assignment]  # a number from __post_init__ on
    factors: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    target: float | None = None
    metrics: int = 1
    paired: bool = True
    given_seeds: tuple[Seed, ...] | None = None
    against: str | None = None
    all_pairs: bool = False

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        if len(self.arms) < 2:
            raise InputError(f"a comparison needs at least two arms, got {labels}.")
        self._check_labels()
        if not isinstance(self.all_pairs, bool):
            raise InputError(f"all_pairs must be True or False, got {self.all_pairs!r}.")
        _ = self.reference
        most = LAST if self.given_seeds is None else _LARGEST
        object.__setattr__(self, "pairs", whole(self.pairs, "pairs", 1, most))
        first = whole(self.first_seed, "first_seed", 0, _LARGEST - LAST)
        object.__setattr__(self, "first_seed", first)
        check_level(self.level)
        if self.margin is None:
            object.__setattr__(self, "margin", margin_of(self.metric))
        check_margin(self.margin)
        check_share_margin(self.metric, self.margin)
        if self.looks:
            self._check_looks()

    def _check_labels(self) -> None:
        for arm in self.arms:
            same = [other for other in self.arms if other.label == arm.label]
            if len(same) > 1:
                given = " and ".join(repr(getattr(a, "given", a.label)) for a in same)
                raise InputError(
                    f"the arm '{arm.label}' is given twice (as {given}): the arms must differ."
                )

    def _check_looks(self) -> None:
        """Refuse a level, each interval's share of it, or a number of pairs without bounds."""
        if not self.paired:
            raise InputError("looking after every pair needs pairs: remove one of the two.")
        _ = Monitor(self.level, self.pairs)
        if self.share > LEVELS[1]:
            raise InputError(
                f"a level of {self.level:g} shared by {self.intervals} intervals makes "
                f"{self.share:.6g} for each; bounds go up to {LEVELS[1]:g}: take a lower level, or "
                "fix the number of pairs."
            )

    @property
    def seeds(self) -> list[Seed]:
        """The seeds, one per pair."""
        if self.given_seeds is not None:
            return list(self.given_seeds)
        return list(range(self.first_seed, self.first_seed + self.pairs))

    @property
    def rule(self) -> Monitor:
        """When to stop."""
        return Monitor(self.share, self.pairs)

    @property
    def share(self) -> float:
        """The level of one interval, so that all of them hold together at `level` (Bonferroni).

        With k intervals: 1 - (1 - level) / k.
        """
        return self.level if self.intervals == 1 else 1 - (1 - self.level) / self.intervals

    @property
    def intervals(self) -> int:
        """The number of intervals that share the error, those of all metrics together.

        They are: the comparisons, and with factors also the change of each order's effect with each
        further value.
        """
        return (len(self.contrasts) + len(self.interactions)) * self.metrics

    @cached_property
    def reference(self) -> int:
        """The place, among the orders, of the one that the others are compared against."""
        orders = grid(self.arms, self.factors)[0]
        if self.against is None:
            return 0
        for place, arm in enumerate(orders):
            if self.against in _names_of(arm):
                return place
        raise unknown("arm to compare against", self.against, [arm.name for arm in orders])

    @cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The comparisons, each of an arm with a reference."""
        return contrasts_of(self.arms, self.factors, self.reference, all_pairs=self.all_pairs)

    @cached_property
    def interactions(self) -> tuple[Interaction, ...]:
        """The questions whether each order's effect depends on each factor."""
        return interactions_of(self.arms, self.factors, self.reference)

    # ---- what only some comparisons know

    @property
    def examples(self) -> int | None:
        """The number of test examples behind each score, None if that isn't known."""
        return None

    def schedule(self, arm: Any) -> Schedule | None:
        """Return how long an arm trains, None if that isn't known."""
        return None

    def report(self, inspection: Any, arm: Any) -> Mapping[str, Any]:
        """Return the inspection's report on an arm's network; empty if there is none."""
        return {}

    def activation(self, inspection: Any, arm: Any) -> str | None:
        """Return the activation of an arm's network, None if it isn't known or there are more."""
        return None

    def settings(self, inspection: Any) -> dict[str, Any]:
        """Return the document's sections on how the scores came about; None for an unknown one."""
        sections = ("model", "data", "recipe", "engine", "pairing")
        return {**dict.fromkeys(sections), "versions": {}}

    def remarks(self, inspection: Any) -> tuple[list[str], list[str]]:
        """Return the notes that come before and after the statistics' own notes."""
        return [], []


def _names_of(arm: Compared) -> set[Any]:
    """Return the names by which a user may mean an arm: its order or label, as given, the alias."""
    return {arm.name, getattr(arm, "given", None), arm.order and arm.order.alias}


AnyComparison = TypeVar("AnyComparison", bound=Comparison, covariant=True)
