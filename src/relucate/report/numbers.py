"""Numbers as people read them: scores and differences in the metric's unit, levels, durations.

Input is what the study has (scores in the metric's own unit, seconds, None or NaN where undefined);
output is text. Not here: which numbers to show. Called by `terminal`, `live`, `view` and `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from relucate.stats.wording import decimals, decimals_of
from relucate.train.metric import Metric

MISSING = "-"


def known(value: float | None) -> TypeGuard[float]:
    """Return whether `value` is a finite number.

    >>> [known(0.0), known(None), known(float("nan"))]
    [True, False, False]
    """
    return value is not None and math.isfinite(value)


@dataclass(frozen=True)
class Units:
    """The text of a metric's scores and differences.

    digits: decimals of every number, enough for the study's margin.

    >>> from relucate.train.metric import ACCURACY
    >>> units = Units(ACCURACY)
    >>> units.value(0.9583), units.valued(0.9583), units.value(None)
    ('95.83', '95.83 %', '-')
    """

    metric: Metric
    digits: int = 2

    @classmethod
    def of(cls, metric: Metric, margin: float | None = None) -> Units:
        """Return the units of a metric with the digits that its margin needs.

        >>> Units.of(Metric("AUC"), margin=0.005).difference(0.0123)
        '+0.0123'
        """
        return cls(metric, decimals(None if margin is None else metric.scale * margin))

    @classmethod
    def of_study(cls, study: Mapping[str, Any]) -> Units:
        """Return the units of a study's document."""
        return cls.of(Metric.from_dict(study["metric"]), study["margin"])

    def value(self, score: float | None) -> str:
        """Return a score without its unit."""
        return self._text(score, "")

    def valued(self, score: float | None) -> str:
        """Return a score with its unit, if it is known."""
        if not known(score):
            return MISSING
        return f"{self.value(score)} {self.metric.value_unit}".rstrip()

    def difference(self, value: float | None) -> str:
        """Return a difference of two scores without its unit, signed unless it is zero.

        >>> from relucate.train.metric import ACCURACY
        >>> units = Units(ACCURACY)
        >>> [units.difference(value) for value in (0.0061, -0.0004, -0.00001, None)]
        ['+0.61', '-0.04', '0.00', '-']
        """
        return self._text(value, "+")

    def differing(self, value: float | None) -> str:
        """Return a difference of two scores with its unit, if it is known."""
        return MISSING if not known(value) else self.metric.amount(self.difference(value))

    def interval(self, low: float | None, high: float | None) -> str:
        """Return both ends of an interval, with more digits where an end would round to zero.

        >>> from relucate.train.metric import ACCURACY
        >>> units = Units(ACCURACY)
        >>> units.interval(0.0035, 0.0087), units.interval(-0.012, -0.00004)
        ('+0.35 to +0.87', '-1.200 to -0.004')
        """
        if low is None or high is None or not (known(low) and known(high)):
            return MISSING
        ends = (self.metric.scale * low, self.metric.scale * high)
        exact = replace(self, digits=decimals_of(self.digits, *ends))
        return f"{exact.difference(low)} to {exact.difference(high)}"

    def margin(self, margin: float | None) -> str:
        """Return a margin without its unit, with two decimals or as many as it has.

        >>> from relucate.train.metric import ACCURACY
        >>> [Units(ACCURACY).margin(margin) for margin in (0.005, 0.00001, 1e-11, None)]
        ['0.50', '0.001', '1e-09', '-']
        """
        if margin is None or not known(margin):
            return MISSING
        usual, exact = f"{self.metric.scale * margin:.2f}", f"{self.metric.scale * margin:g}"
        return usual if float(usual) == float(exact) else exact

    def _text(self, value: float | None, sign: str) -> str:
        if value is None or not known(value):
            return MISSING
        text = f"{self.metric.scale * value:{sign}.{self.digits}f}"
        return text if float(text) else text.lstrip("+-")


def level_percent(level: float) -> str:
    """Return a confidence level in percent, with no more digits than it has.

    >>> level_percent(0.95), level_percent(0.975)
    ('95 %', '97.5 %')
    """
    return f"{100 * level:.4g} %"


def plain(value: float | None, digits: int = 2) -> str:
    """Return a number with fixed decimals, for correlations and losses.

    >>> plain(0.412), plain(None)
    ('0.41', '-')
    """
    if value is None or not known(value):
        return MISSING
    return f"{value:.{digits}f}"


def whole(number: int | None) -> str:
    """Return a whole number with separators.

    >>> whole(27710), whole(None)
    ('27,710', '-')
    """
    return MISSING if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """Return a duration as short text.

    >>> duration(2.34), duration(61.2), duration(7260), duration(None)
    ('2.3 s', '1 min 1 s', '2 h 1 min', '-')
    """
    if seconds is None or not known(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def clock(seconds: float | None) -> str:
    """Return a duration in the format of a clock.

    >>> clock(21.4), clock(3725), clock(None)
    ('0:21', '1:02:05', '-:--')
    """
    if seconds is None or not known(seconds):
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
