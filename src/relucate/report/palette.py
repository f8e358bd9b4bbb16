"""The look of an arm and of a plot's parts: colours for light and dark, markers, dashes.

Colours are Okabe and Ito's (Color Universal Design, 2008), which colour-blind readers can
distinguish; some are darkened for white pages. Each arm has its own marker and dashes as well. A
colour means an arm and nothing else: verdicts, intervals and notes are drawn in ink. Plots use
placeholder colours that become CSS variables: one drawing serves a light page, a dark page and
print. Called by `plots`, `view` and `html`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ArmLook:
    """How an arm is drawn."""

    variable: str  # the CSS variable with its colour
    light: str  # colour on a light page
    dark: str  # colour on a dark page
    marker: str  # matplotlib's marker
    dashes: tuple[float, ...]  # lengths on and off in points; () is a solid line
    path: str  # the marker as an SVG path in a box of 12 x 12


ARM_LOOKS = (
    ArmLook("arm-0", "#0072b2", "#56b4e9", "o", (), "M6 1.5a4.5 4.5 0 1 0 .01 0z"),
    ArmLook("arm-1", "#d55e00", "#f28e3c", "s", (5, 1.5), "M2 2h8v8h-8z"),
    ArmLook("arm-2", "#009e73", "#2fc39b", "^", (5, 1.5, 1, 1.5), "M6 1.5l5 9h-10z"),
    ArmLook("arm-3", "#b0568c", "#dd9cc3", "D", (1.2, 1.2), "M6 1l5 5-5 5-5-5z"),
    ArmLook("arm-4", "#a87700", "#e9b93a", "v", (8, 2), "M6 10.5l5-9h-10z"),
    ArmLook("arm-5", "#5d5d6b", "#b9b9c6", "P", (3, 3), "M4 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z"),
)

# Colours of everything but the arms: CSS variable -> (light, dark).
PAGE_COLOURS = {
    "paper": ("#fdfdfb", "#16181d"),
    "card": ("#ffffff", "#1c1f26"),
    "ink": ("#1d2129", "#e6e8ec"),
    "muted": ("#5b6472", "#9aa3b2"),
    "rule": ("#d9dde3", "#353b47"),
    "band": ("#e8ebf0", "#2b303b"),
    "error": ("#a3262a", "#ff8f86"),
    "warning": ("#8a5200", "#e9b93a"),
    "note": ("#005a8d", "#56b4e9"),
}

# An arm without a colour of its own: a study has more arms than there are colours.
OTHER = ArmLook("muted", *PAGE_COLOURS["muted"], "o", (), ARM_LOOKS[0].path)


def look(arm: int) -> ArmLook:
    """Return the look of the arm with that index; arms from the seventh on share a neutral one."""
    return ARM_LOOKS[arm] if arm < len(ARM_LOOKS) else OTHER


def colours() -> dict[str, tuple[str, str]]:
    """Return every CSS variable with its light and its dark colour.

    >>> colours()["arm-0"]
    ('#0072b2', '#56b4e9')
    """
    arms = {arm.variable: (arm.light, arm.dark) for arm in ARM_LOOKS}
    return {**PAGE_COLOURS, **arms}


def placeholder(variable: str) -> str:
    """Return the colour that a plot uses for a CSS variable.

    >>> placeholder("ink") != placeholder("muted"), len(placeholder("arm-0"))
    (True, 7)
    """
    return f"#0a0b{16 + list(colours()).index(variable):02x}"


def arm_variable(arm: int) -> str:
    """Return the CSS variable with the colour of the arm with that index.

    >>> arm_variable(1), arm_variable(6)
    ('arm-1', 'muted')
    """
    return look(arm).variable


def theme_ink(dark: bool = False) -> Callable[[str], str]:
    """Return the colours of the light or the dark theme, by CSS variable.

    >>> theme_ink(dark=True)("arm-0")
    '#56b4e9'
    """
    return lambda variable: colours()[variable][dark]


def themed(svg: str) -> str:
    """Return a drawing with CSS variables for its placeholders (light colours by default).

    >>> themed(f'fill: {placeholder("arm-0")}')
    'fill: var(--arm-0, #0072b2)'
    """
    for variable, (light, _) in colours().items():
        svg = svg.replace(placeholder(variable), f"var(--{variable}, {light})")
    return svg
