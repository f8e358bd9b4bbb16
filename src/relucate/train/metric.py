"""The metric of a run: its name, direction, unit, scale and worst value.

The loop, the store, statistics, documents and reports share this record; a new metric is a new
record in `METRICS`. Not here: computing a score from outputs, and which task has which metrics
(`task`), sentences about it (`stats`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..arguments import is_finite
from ..errors import InputError

NOT_SCORES = ("epoch", "train_loss")  # the entries of a learning curve besides the metric


@dataclass(frozen=True)
class Metric:
    """The metric of a run: its name, direction, unit, scale and worst value.

    Args:
        name: as documents and reports show it.
        lower_is_better: True for a loss or an error.
        unit: of a difference, as shown: "points" for accuracy.
        scale: shown value = scale * value: 100 for accuracy. Above 0.
        worst: the score of a diverged run; None if no such value is known.

    Raises: InputError: an empty name, a scale that isn't above 0, a worst value that isn't finite.

    >>> Metric("error", lower_is_better=True).direction
    'lower'
    """

    name: str
    lower_is_better: bool = False
    unit: str = ""
    scale: float = 1.0
    worst: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"a metric needs a name, got {self.name!r}.")
        if self.name in NOT_SCORES:
            raise InputError(f"a metric can't be called '{self.name}': a curve has that already.")
        if not isinstance(self.lower_is_better, bool):
            raise InputError(
                f"lower_is_better must be True or False, got {self.lower_is_better!r}."
            )
        if not isinstance(self.unit, str):
            raise InputError(f"unit must be a text such as 'points', got {self.unit!r}.")
        if not (is_finite(self.scale) and self.scale > 0):
            raise InputError(f"scale must be a finite number above 0, got {self.scale!r}.")
        if self.worst is not None and not is_finite(self.worst):
            raise InputError(f"worst must be a finite number or None, got {self.worst!r}.")

    @property
    def direction(self) -> str:
        """Which scores are better: "higher" or "lower"."""
        return "lower" if self.lower_is_better else "higher"

    @property
    def value_unit(self) -> str:
        """The unit of a value: percent if differences are in points, else the unit itself."""
        return "%" if self.unit == "points" else self.unit

    @property
    def words(self) -> tuple[str, str]:
        """The units of a value and of a difference, written out.

        >>> ACCURACY.words, Metric("MAE", unit="mm").words
        (('percent', 'percentage points'), ('mm', 'mm'))
        """
        percent = ("percent", "percentage points")
        return percent if self.unit == "points" else (self.unit, self.unit)

    def amount(self, number: str) -> str:
        """Return a number with the unit of differences.

        >>> ACCURACY.amount("0.5"), ACCURACY.amount("1"), Metric("AUC").amount("0.01")
        ('0.5 points', '1 point', '0.01')
        """
        unit = "point" if number == "1" and self.unit == "points" else self.unit
        return f"{number} {unit}".rstrip()

    @property
    def named(self) -> str:
        """The name with its article, capitals read letter by letter: an accuracy, an MAE."""
        vowels = "AEFHILMNORSX" if self.name.isupper() else "aeiouAEIOU"
        return f"{'an' if self.name[0] in vowels else 'a'} {self.name}"

    @property
    def diverged(self) -> str:
        """What a diverged run counts with; a run can be worse, unless the worst score is a bound.

        >>> Metric("MAE", lower_is_better=True, worst=2.5).diverged
        "an MAE of 2.5, or the other arm's if that is worse"
        """
        worst = f"{self.named} of {self.scale * (self.worst or 0.0):g} {self.value_unit}".rstrip()
        if self.is_worst_possible:
            return f"the worst score, {worst}"
        return f"{worst}, or the other arm's if that is worse"

    @property
    def is_worst_possible(self) -> bool:
        """Whether no run can be worse than the score of a diverged run."""
        return self.worst == 0.0 and not self.lower_is_better

    def to_dict(self) -> dict[str, Any]:
        """Return name, unit, scale and direction as JSON-ready data, for documents."""
        return {
            "name": self.name,
            "unit": self.unit,
            "scale": self.scale,
            "direction": self.direction,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metric:
        """Return the metric from a document's data; `worst` is None unless the data has it.

        >>> Metric.from_dict(Metric("auc").to_dict()) == Metric("auc")
        True
        """
        direction = values.get("direction", "higher")
        if direction not in ("higher", "lower"):
            raise InputError(f"direction must be 'higher' or 'lower', got {direction!r}.")
        return cls(
            values["name"],
            lower_is_better=direction == "lower",
            unit=values.get("unit", ""),
            scale=values.get("scale", 1.0),
            worst=values.get("worst"),
        )


def margin_of(metric: Metric) -> float:
    """Return a metric's default margin: the smallest difference that matters.

    Raises: InputError: the metric isn't accuracy, so it has no default.
    """
    if replace(metric, worst=ACCURACY.worst) != ACCURACY:
        raise InputError(
            f"a margin is needed for '{metric.name}': the smallest difference that matters to you, "
            "in the metric's own unit."
        )
    return 0.005


def metric_named(name: str, lower_is_better: bool | None = None) -> Metric:
    """Return the metric that a user names: the one in `METRICS`, or a new one of that name.

    Case, spaces, underscores and hyphens don't matter. The direction of a new metric is the given
    one, or follows from a word of its name (loss, error, AUC, F1, ...).

    Raises: InputError: neither gives the direction, or the given one isn't that of the known
    metric.

    >>> metric_named("roc_auc").name, metric_named("val_loss").direction
    ('ROC AUC', 'lower')
    """
    if not isinstance(name, str):
        raise InputError(f"a metric is given by its name, got {name!r}.")
    known = next((metric for metric in METRICS.values() if same_name(metric.name, name)), None)
    if known is None:
        lower = _lower_by_words(name) if lower_is_better is None else lower_is_better
        if lower is None:
            raise InputError(
                f"is a higher or a lower '{name}' better? Say so with lower_is_better=True or "
                "False (--lower-is-better or --higher-is-better)."
            )
        return Metric(name, lower_is_better=lower)
    if lower_is_better not in (None, known.lower_is_better):
        raise InputError(
            f"a {known.direction} {known.name} is better, but lower_is_better={lower_is_better} "
            "was given: leave it out, or give your metric another name."
        )
    return known


def is_share(metric: Metric) -> bool:
    """Return whether a metric's scores are from 0 to 1, as far as that is known.

    >>> is_share(ACCURACY), is_share(Metric("MAE")), is_share(Metric("accuracy", unit="%"))
    (True, False, False)
    """
    known = METRICS.get(metric.name)
    bounded = known is not None and known.worst == 0.0 and metric.unit == known.unit
    return bounded or metric.unit == "points"


def check_share_margin(metric: Metric, margin: float) -> None:
    """Raise InputError for a margin of half the range of a share: points for a fraction."""
    if is_share(metric) and margin >= 0.5:
        shown = metric.amount(f"{metric.scale * margin:g}")
        raise InputError(
            f"a margin of {shown} would make every result equivalent: {metric.named} goes from 0 "
            "to 1, where half a point is 0.005."
        )


def same_name(a: str, b: str) -> bool:
    """Return whether two spellings of a metric's name mean the same.

    >>> same_name("top-5 accuracy", "Top5_Accuracy"), same_name("F1", "macro F1")
    (True, False)
    """
    first, second = (re.sub(r"[\s_-]", "", name).casefold().replace("²", "2") for name in (a, b))
    return first == second


def _lower_by_words(name: str) -> bool | None:
    """Return whether less of a metric is better, by the words of its name; None if unknown."""
    words = set(re.findall(r"[a-z]+\d*", name.replace("²", "2").casefold()))
    lower, higher = bool(words & _LOWER), bool(words & _HIGHER)
    return None if lower == higher else lower


_LOWER = frozenset(
    "loss losses error err mse rmse mae mape smape rmsle nll perplexity ppl wer cer fid kid brier "
    "ece deviance distance hausdorff regret".split()
)
_HIGHER = frozenset(
    "accuracy acc auc auroc auprc f1 fscore precision recall sensitivity specificity iou miou "
    "jaccard dice r2 map ap bleu rouge psnr ssim kappa mcc ndcg reward return score correlation "
    "likelihood".split()
)

ACCURACY = Metric("accuracy", unit="points", scale=100.0, worst=0.0)
_SHARES = ("balanced accuracy", "top-5 accuracy", "mean IoU", "pixel accuracy")
_FROM_0_TO_1 = ("macro F1", "micro F1", "ROC AUC", "mean average precision")
# A metric without a bound has no worst score of its own: `Task.metric_on` takes that of a constant
# prediction.
_UNBOUNDED = (
    Metric("log loss", lower_is_better=True, unit="nats"),
    Metric("MAE", lower_is_better=True),
    Metric("RMSE", lower_is_better=True),
    Metric("R2"),
)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        ACCURACY,
        *(Metric(name, unit="points", scale=100.0, worst=0.0) for name in _SHARES),
        *(Metric(name, worst=0.0) for name in _FROM_0_TO_1),
        *_UNBOUNDED,
    )
}
