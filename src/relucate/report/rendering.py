"""Templates to text: one environment, in which every text is escaped and can be shown.

Called by everything in `report` that makes HTML.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jinja2
from markupsafe import Markup, escape

from relucate.errors import printable
from relucate.report import palette

_UNBROKEN = re.compile(  # a flag with its value, an order, a percentage
    r"(?<![\w-])(?:--[a-z][\w-]*(?: [\w.,]{1,14}\b)?|-[A-Z] [\w.,=]{1,20}"
    r"|\w+(?:-\w+){1,4}(?![\w-])|\d[\d.,]* %)"
)
_LONGEST = 24  # characters that are kept in one line


def render(template: str, **values: Any) -> str:
    """Return one of our templates with its values, every text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("relucate.report", "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    render: Callable[..., str] = environment.get_template(template).render
    return render(**values)


def _shown(value: Any) -> Any:
    """Return what a template writes: of a text, "?" for control and formatting characters."""
    return printable(value) if type(value) is str else value  # a Markup is ours


def escaped(text: str) -> Markup:
    """Return a text for HTML or SVG, with "?" for control and formatting characters.

    >>> escaped("a<b\\x1b[31m")
    Markup('a&lt;b?[31m')
    """
    return escape(printable(text))


def unbroken(text: str) -> Markup:
    """Return a text, escaped, whose flags, orders and percentages don't break at a line's end.

    >>> unbroken("see --bias always, at 95 %")
    Markup('see <span class="nb">--bias always</span>, at <span class="nb">95 %</span>')
    """

    def kept(found: re.Match[str]) -> str:
        part = found.group()
        return f'<span class="nb">{part}</span>' if len(part) <= _LONGEST else part

    return Markup(_UNBROKEN.sub(kept, str(escaped(text))))


def page_style() -> dict[str, list[tuple[str, str]]]:
    """Return the CSS variables (name, colour) of the light and of the dark page."""
    pairs = palette.colours().items()
    return {
        "light": [(name, light) for name, (light, _) in pairs],
        "dark": [(name, dark) for name, (_, dark) in pairs],
    }
