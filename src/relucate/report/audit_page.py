"""An audit as one HTML file that opens offline: the order map, the norms, the findings.

Takes the JSON-ready dict (schema relucate.audit/1) and the boxes of `surgery.network`. Every text
from the model is escaped by the template, or by `map`. Not here: the words (`audit`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import InputError
from ..files import replacing, write_text
from . import map as order_map
from .audit import audit_html, conclusion, findings, headline, table, unread
from .rendering import page_style, render

Boxes = Sequence[dict[str, Any]]


def page(audit: dict[str, Any], boxes: Boxes) -> str:
    """Return the page of an audit as text."""
    header, rows = table(audit)
    return render(
        "audit_page.html.j2",
        style=page_style(),
        model=audit["model"],
        framework=audit["framework"],
        headline=order_map.sentence(boxes) or headline(audit),
        conclusion=conclusion(audit).removesuffix(":"),
        findings=list(findings(audit)),
        unread=unread(audit),
        legend=order_map.legend(boxes),
        map=Markup(order_map.svg(boxes)),
        header=header,
        rows=rows,
    )


def notebook(audit: dict[str, Any], boxes: Boxes) -> str:
    """Return an audit as an HTML fragment: its tables, and the map folded."""
    return render(
        "audit_notebook.html.j2",
        audit=Markup(audit_html(audit)),
        legend=order_map.legend(boxes),
        map=Markup(order_map.svg(boxes)),
    )


def write(audit: dict[str, Any], boxes: Boxes, path: str | Path) -> Path:
    """Write an audit's page (.html), or its map alone (.svg, .png), and return the path.

    Raises: InputError: another ending, the file can't be written.
    """
    path = check_ending(path)
    return ENDINGS[path.suffix.lower()](audit, boxes, path)


def check_ending(path: str | Path) -> Path:
    """Return the path of a file that an audit can be written to.

    Raises: InputError: another ending.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"an audit is written to a file that ends in {_ENDINGS}, got '{path}'.")
    return path


def _svg(audit: dict[str, Any], boxes: Boxes, path: Path) -> Path:
    return write_text(path, order_map.svg_file(boxes, headline(audit)))


def _html(audit: dict[str, Any], boxes: Boxes, path: Path) -> Path:
    return write_text(path, page(audit, boxes))


def _png(audit: dict[str, Any], boxes: Boxes, path: Path) -> Path:
    from matplotlib import pyplot

    figure = order_map.draw(boxes).figure
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            figure.savefig(new, dpi=144)
    except OSError as error:
        raise InputError(f"can't write '{path}': {error.strerror or error}.") from error
    finally:
        pyplot.close(figure)
    return path


ENDINGS: dict[str, Callable[[dict[str, Any], Boxes, Path], Path]] = {
    ".html": _html,
    ".svg": _svg,
    ".png": _png,
}
_ENDINGS = ".html, .svg or .png"
