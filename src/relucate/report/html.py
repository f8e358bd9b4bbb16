"""A comparison study as one HTML file that opens offline, and as a fragment for notebooks.

The file contains its style and its figures; it loads nothing from the network, and its security
policy forbids it. The template escapes every text from the study. Not here: the words and rows
(`view`), the drawing (`plots`). Called by the study's `report(path)` and by the command line; its
`render` serves `audit` and `transform` too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from relucate.errors import InputError
from relucate.files import replacing
from relucate.phrases import count
from relucate.report import palette, plots, seen, tuning, view
from relucate.report.facts import current, difference_text, each_metric, span, unpaired
from relucate.report.numbers import MISSING, Units, known


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
    study = current(study)
    studies = [
        {
            **view.page(one),
            "figures": figures(one, f"m{k}-" if k else ""),
            "seen": seen.parts(one),
        }
        for k, one in enumerate(each_metric(study))
    ]
    verb = "compare" if study["engine"] else "verdict"
    return render("compare.html.j2", studies=studies, verb=verb, style=_style())


def repr_html(study: dict[str, Any]) -> str:
    """Return a study as a small HTML fragment, for `_repr_html_`: verdict, difference, arms.

    Raises:
        InputError: the dict isn't such a study.
    """
    fragments = (
        render("fragment.html.j2", **view.page(one), differences=_difference_lines(one))
        for one in each_metric(current(study))
    )
    return "\n".join(fragments)


def figures(study: dict[str, Any], prefix: str = "") -> list[dict[str, Any]]:
    """Return the report's figures that have data: name, heading, caption and SVG.

    prefix: of the ids in the drawings, which must differ on one page.
    """
    found = _figures(study)
    if not prefix:
        return found
    named = [{**each, "name": prefix + each["name"]} for each in found]
    return [{**each, "svg": Markup(plots.prefixed(each["svg"], prefix))} for each in named]


def _figures(study: dict[str, Any]) -> list[dict[str, Any]]:
    shown = [*_difference_figures(study), *_scatter_figure(study), *_rate_figure(study)]
    name = study["metric"]["name"]
    for quantity, heading, what in (
        (name, f"Test {name} while training", f"Test {name}"),
        ("train_loss", "Training loss", "Training loss"),
    ):
        if any(map(known, _values(study, quantity))):
            shown.append(_curve_figure(study, quantity, heading, what))
    return shown


def _values(study: dict[str, Any], quantity: str) -> Iterator[float | None]:
    """Yield a quantity's values on all learning curves."""
    for run in study["runs"]:
        yield from (run.get("curve") or {}).get(quantity) or []


def _difference_figures(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the figure of paired differences, one per comparison that has any."""
    places, units = {arm["label"]: k for k, arm in enumerate(study["arms"])}, Units.of_study(study)
    reach = plots.reach_of(study["comparisons"], study["margin"])
    shown = []
    for k, comparison in enumerate(study["comparisons"]):
        if not any(known(pair["value"]) for pair in comparison["differences"]):
            continue
        name = f"differences-{k}"
        both = f"{comparison['arm']} minus {comparison['against']}"
        svg = plots.differences_svg(
            comparison,
            arms=(places[comparison["arm"]], places[comparison["against"]]),
            units=units,
            margin=study["margin"],
            reach=reach,
            name=name,
            alt=f"Differences by seed, {both}: {_difference_text(comparison, study, units)}.",
        )
        caption = (
            f"{both}. One mark per seed, in the look of the arm that was ahead; the diamond is "
            f"their mean {_with_interval(comparison, units)}; shaded is the margin, "
            f"±{units.metric.amount(units.margin(study['margin']))}."
        )
        shown.append(_figure(name, "Paired differences", caption, svg))
    return shown


def _with_interval(comparison: dict[str, Any], units: Units) -> str:
    """Return how a figure of differences shows its mean."""
    shown = span(comparison["difference"], comparison["pairs"], units)
    if known(comparison["difference"]["low"]):
        return "with its interval"
    return "without an interval" if shown == MISSING else f"(no interval: the {shown})"


def _scatter_figure(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the figure of one arm against another, if any pair has two results."""
    marked = plots.marked_seeds(study)
    if not any(marked.values()) or unpaired(study):
        return []
    seeds = len({run["seed"] for run in study["runs"]})
    lost = [
        f"{seeds - len(found)} of {count(seeds, 'pair')} of {label}"
        for label, found in marked.items()
        if len(found) < seeds
    ]
    missing = f" Not shown, since a run diverged or failed: {' and '.join(lost)}." if lost else ""
    metric = Units.of_study(study).metric
    side = "Below" if metric.lower_is_better else "Above"
    caption = (
        f"One mark per seed (equal results coincide). {side} the diagonal the arm on the upright "
        "axis is ahead; the closer the marks follow a rising line, the higher the correlation."
        f"{missing}"
    )
    alt = f"{metric.name[:1].upper()}{metric.name[1:]} of the arms, seed by seed."
    svg = plots.scatter_svg(study, name="scatter", alt=alt)
    return [_figure("scatter", "Seed by seed", caption, svg)]


def _rate_figure(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the figure of score against learning rate, if the rates were tuned."""
    found = study.get("tuning")
    if not found or not any(tuning.scored(arm, study) for arm in found["arms"]):
        return []
    name = study["metric"]["name"]
    caption = (
        f"Mean {name} on held-out training data at each rate that was tried; larger marks were "
        "trained for all epochs. The vertical line is the recipe's rate."
    )
    svg = plots.rates_svg(study, name="rates", alt=f"Held-out {name} by learning rate and arm.")
    return [_figure("rates", "Score against learning rate", caption, svg)]


def _curve_figure(study: dict[str, Any], quantity: str, heading: str, what: str) -> dict[str, Any]:
    """Return the figure of learning curves."""
    name = "curve-loss" if quantity == "train_loss" else "curve-metric"
    caption = f"{what}: mean over seeds, with a band of one standard deviation to either side."
    units = Units.of_study(study)
    ends = ", ".join(f"{arm['label']} {units.valued(arm['mean'])}" for arm in study["arms"])
    alt = f"{what} by epoch." + ("" if name == "curve-loss" else f" At the end: {ends}.")
    return _figure(name, heading, caption, plots.curves_svg(study, quantity, name=name, alt=alt))


def _figure(name: str, heading: str, caption: str, svg: str) -> dict[str, Any]:
    """Return a figure for the template; `plots` has escaped the user's texts in the SVG."""
    return {"name": name, "heading": heading, "caption": caption, "svg": Markup(svg)}


def _difference_lines(study: dict[str, Any]) -> list[str]:
    """Return a line per comparison with its difference and interval."""
    units = Units.of_study(study)
    return [
        f"{c['arm']} minus {c['against']}: {_difference_text(c, study, units)}"
        for c in study["comparisons"]
    ]


def _difference_text(comparison: dict[str, Any], study: dict[str, Any], units: Units) -> str:
    """Return a comparison's difference with its interval."""
    return difference_text(comparison["difference"], study["level"], comparison["pairs"], units)


def _style() -> dict[str, list[tuple[str, str]]]:
    """Return the CSS variables (name, colour) of the light and of the dark page."""
    pairs = palette.colours().items()
    return {
        "light": [(name, light) for name, (light, _) in pairs],
        "dark": [(name, dark) for name, (_, dark) in pairs],
    }


def render(template: str, **values: Any) -> str:
    """Return one of our templates with its values, every text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("relucate.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    render: Callable[..., str] = environment.get_template(template).render
    return render(**values)
