"""Numbers as people read them: percent, percentage points, durations, counts.

Everything comes in as the study has it (metrics as fractions in 0..1, seconds, None or NaN where
undefined) and leaves as ASCII text, so that it prints on any terminal. Not here: which numbers to
show. Called by `terminal`, `live`, `view` and `plots`.
"""

from __future__ import annotations

import math
from typing import TypeGuard

MISSING = "-"


def known(value: float | None) -> TypeGuard[float]:
    """Return whether `value` is a finite number.

    >>> [known(0.0), known(None), known(float("nan"))]
    [True, False, False]
    """
    return value is not None and math.isfinite(value)


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction in percent, without the sign.

    >>> percent(0.9583), percent(None)
    ('95.83', '-')
    """
    if fraction is None or not known(fraction):
        return MISSING
    return f"{100 * fraction:.{digits}f}"


def points(fraction: float | None, digits: int = 2) -> str:
    """Return a difference of two fractions in percentage points, always signed unless it is zero.

    >>> points(0.0061), points(-0.0004), points(-0.00001), points(None)
    ('+0.61', '-0.04', '0.00', '-')
    """
    if fraction is None or not known(fraction):
        return MISSING
    text = f"{100 * fraction:+.{digits}f}"
    return text if float(text) else text[1:]


def interval(low: float | None, high: float | None) -> str:
    """Return both ends of an interval in percentage points.

    >>> interval(0.0035, 0.0087), interval(None, None)
    ('+0.35 to +0.87', '-')
    """
    if not (known(low) and known(high)):
        return MISSING
    return f"{points(low)} to {points(high)}"


def margin_points(fraction: float | None) -> str:
    """Return a margin in percentage points, with two digits or as many as it has.

    >>> margin_points(0.005), margin_points(0.00001), margin_points(1e-11), margin_points(None)
    ('0.50', '0.001', '1e-09', '-')
    """
    if fraction is None or not known(fraction):
        return MISSING
    usual, exact = f"{100 * fraction:.2f}", f"{100 * fraction:g}"
    return usual if float(usual) == float(exact) else exact


def level_percent(level: float) -> str:
    """Return a confidence level in percent, with no more digits than it has.

    >>> level_percent(0.95), level_percent(0.975)
    ('95 %', '97.5 %')
    """
    return f"{100 * level:.4g} %"


def plain(value: float | None, digits: int = 2) -> str:
    """Return a number with fixed digits, as correlations and losses are shown.

    >>> plain(0.412), plain(None)
    ('0.41', '-')
    """
    if value is None or not known(value):
        return MISSING
    return f"{value:.{digits}f}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun in the right form.

    >>> count(1, "pair"), count(1437, "image")
    ('1 pair', '1,437 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Return a length of time in words short enough for a table's caption.

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
    """Return a length of time as a clock shows it.

    >>> clock(21.4), clock(3725), clock(None)
    ('0:21', '1:02:05', '-:--')
    """
    if seconds is None or not known(seconds):
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
