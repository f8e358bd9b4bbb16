"""From a figure to the text of one `<svg>` element for an HTML page.

The element takes the page's colours and width; a user's text in it is escaped. Called by the
pictures' `svg` and by `report.probe`.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from relucate.report.palette import themed
from relucate.report.rendering import escaped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def svg_of(figure: Figure, name: str, alt: str, style: str = "plot") -> str:
    """Return a figure as one `<svg>` element that takes the page's colours and width.

    Args:
        name: prefix of every id in the drawing. alt: what a screen reader says.
        style: the element's class.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    return themed(_inline(buffer.getvalue(), name, alt, style))


def _inline(svg: str, name: str, alt: str, style: str) -> str:
    """Return a stand-alone SVG file's text as an element: no prologue, own ids, no fixed size.

    matplotlib restarts its ids in every figure and writes a global style; two figures on one page
    would share both.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style\b.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = prefixed(svg, f"{name}-")
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    kept = box.group(0) if box else ""
    opening = f'<svg class="{style}" role="img" aria-label="{escaped(alt)}" {kept}'
    return f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">{body}'


def prefixed(svg: str, prefix: str) -> str:
    """Return a drawing whose ids, and the references to them, start with a prefix."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    return re.sub(r"url\(#", f"url(#{prefix}", svg)
