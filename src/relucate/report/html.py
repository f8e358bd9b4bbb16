"""A comparison study as one HTML file that opens offline, and as a fragment for notebooks.

The file contains its style and its figures; it loads nothing from the network, and its security
policy forbids it. The template escapes every text from the study. Not here: the words and rows
(`view`, `answer`), the pictures (`figures`). Called by `Study.report` and by the command line.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from relucate.errors import InputError
from relucate.files import replacing
from relucate.report import seen, view
from relucate.report.facts import current, each_metric
from relucate.report.figures import difference_lines, figures, hero
from relucate.report.rendering import page_style, render
from relucate.report.terminal import displayable

IN_NOTEBOOKS = ("interval", "curves")  # besides the picture of the answer


def write_html(study: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the report of a study (schema relucate.compare) and return its path.

    Missing folders are made. An existing file is replaced in one step, or left as it was.

    Raises:
        InputError: the dict isn't such a study, or the file can't be written.
    """
    text = study_html(study)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            # A command line may contain bytes that are not UTF-8 (surrogates): they are escaped.
            new.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"expected a path to write the report to, but '{path}' can't be written ({reason}): "
            "name another file."
        ) from error
    return path


def study_html(study: dict[str, Any]) -> str:
    """Return the whole page of a study as text.

    Raises:
        InputError: the dict isn't such a study.
    """
    study = displayable(current(study))
    studies = [_whole(one, f"m{k}-" if k else "") for k, one in enumerate(each_metric(study))]
    verb = "compare" if study["engine"] else "verdict"
    return render("compare.html.j2", studies=studies, verb=verb, style=page_style())


def _whole(study: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return everything that the page shows of one metric."""
    drawn = {"hero": hero(study, prefix), "figures": figures(study, prefix)}
    return {**view.page(study), **drawn, "prefix": prefix, "seen": seen.parts(study, prefix)}


def repr_html(study: dict[str, Any]) -> str:
    """Return a study as an HTML fragment, for `_repr_html_`: verdict, arms and figures.

    Raises:
        InputError: the dict isn't such a study.
    """
    return "\n".join(_fragment(one) for one in each_metric(displayable(current(study))))


def _fragment(study: dict[str, Any]) -> str:
    """Return one metric's fragment; its ids differ from those of other studies on the page."""
    content = json.dumps(study, sort_keys=True, default=str).encode(errors="backslashreplace")
    name = f"r{hashlib.sha256(content).hexdigest()[:10]}-"
    shown = [hero(study, name), *figures(study, name, only=IN_NOTEBOOKS)]
    return render(
        "fragment.html.j2",
        **view.page(study),
        differences=difference_lines(study),
        shown=[figure for figure in shown if figure],
    )
