"""The pictures of a study, in one house style, by kind; a module each.

A picture is drawn onto given axes (`plot`), or as `<svg>` elements for an HTML page (`svgs`): one
for a wide place and one for a phone. matplotlib is imported only when a picture is drawn. Not here:
captions (`figures`), the page (`html`), computing results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from relucate.arguments import one_of
from relucate.errors import InputError
from relucate.report.arms import legend
from relucate.report.facts import measured, source
from relucate.report.palette import theme_ink
from relucate.report.plots import cost, curves, differences, forest, narrowing, rates, scores
from relucate.report.plots.style import SIZE, Pen, in_style, new_figure, safe_name
from relucate.report.plots.svg import prefixed, svg_of

__all__ = [
    "KINDS",
    "heading",
    "in_style",
    "missing",
    "new_figure",
    "plot",
    "prefixed",
    "shown",
    "svg_of",
    "svgs",
    "titled",
]

Study = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A kind of picture.

    heading: with {name} for the metric's; draw: onto axes; height: in inches; missing: why a study
    has none, or ""; legend: whether its colours mean arms.
    """

    heading: str

    draw: Callable[[Any, Study, Pen], None]
    height: Callable[[Study, Pen], float]
    missing: Callable[[Study], str]
    legend: bool = False


def _picture(heading: str, module: ModuleType, **options: Any) -> Picture:
    return Picture(heading, module.draw, module.height, module.missing, **options)


KINDS = {
    "forest": _picture("Difference in {name}", forest),
    "interval": _picture("The interval, pair by pair", narrowing),
    "differences": _picture("Paired differences", differences),
    "scores": _picture("Test {name} of every run", scores),
    "curves": Picture("Test {name} while training", **curves.about()),
    "time": Picture("Test {name} against time", **curves.about(timed=True)),
    "loss": Picture("Training loss", **curves.about(loss=True)),
    "rates": _picture("Score against learning rate", rates, legend=True),
    "cost": _picture("Cost", cost),
}


def missing(study: Study, kind: str) -> str:
    """Return why a study has no picture of a kind, or ""."""
    return KINDS[kind].missing(study)


def plot(
    study: Study, kind: str, ax: Any = None, *, arm: str | None = None, dark: bool = False
) -> Any:
    """Draw a picture onto matplotlib axes, by default those of a new figure, and return the axes.

    Args: as for `Study.plot`.
    Raises: InputError: another kind or arm, or the study has no such picture.
    """
    picture, pen = KINDS[one_of(kind, "kind of picture", tuple(KINDS))], Pen(theme_ink(dark))
    study = measured(_about(study, arm))
    if why := picture.missing(study):
        raise InputError(f"this study has no picture '{kind}': {why}.")
    with in_style():
        if ax is None:
            ax = shown(title_of(study, kind), picture.height(study, pen), pen)
        picture.draw(ax, study, pen)
        if picture.legend:
            _legend(ax, study, pen)
    return ax


def svgs(study: Study, kind: str, *, name: str, alt: str, width: float | None = None) -> list[str]:
    """Return a picture as two `<svg>` elements, of the classes wide and narrow.

    Args: name: prefix of every id; alt: what a screen reader says; width: of the wide one, in
    inches.
    """
    picture, drawn = KINDS[kind], []
    with in_style():
        for style, pen in (("wide", Pen()), ("narrow", Pen(narrow=True))):
            across = width if width and not pen.narrow else pen.width
            figure, axes = new_figure(picture.height(study, pen), across)
            picture.draw(axes, study, pen)
            drawn.append(svg_of(figure, f"{name}-{style}", alt, f"plot {style}"))
    return drawn


def _about(study: Study, arm: str | None) -> Study:
    """Return the study with the comparison of one arm first."""
    if arm is None:
        return study
    labels = tuple(found["arm"] for found in study["comparisons"])
    one_of(arm, "arm", labels)
    ordered = sorted(study["comparisons"], key=lambda found: found["arm"] != arm)
    return {**study, "comparisons": ordered}


def heading(study: Study, kind: str) -> str:
    """Return what a picture shows."""
    return KINDS[kind].heading.format(name=study["metric"]["name"])


def title_of(study: Study, kind: str) -> str:
    """Return the title of a picture that stands alone: what it shows, and of which study."""
    return titled(heading(study, kind), study)


def titled(words: str, study: Study) -> str:
    """Return words with the study that they are of."""
    return f"{words} · {safe_name(source(study), 'scores', 60)}"


def shown(title: str, height: float, pen: Pen) -> Any:
    """Return the axes of a new figure with a title, that notebooks and scripts show."""
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout: Any = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure, axes = pyplot.subplots(figsize=(pen.width, height + 0.4), layout=layout)
    figure.set_facecolor(pen.ink("paper"))
    look = {"color": pen.ink("ink"), "fontsize": SIZE, "fontweight": "bold", "parse_math": False}
    figure.suptitle(title, x=0.02, ha="left", **look)
    axes.patch.set_alpha(0.0)
    return axes


def _legend(axes: Any, study: Study, pen: Pen) -> None:
    """Name the arms above the picture."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    entries = legend(study)
    lines = []
    for _, style in entries:
        line = Line2D([], [], color=pen.ink(style.variable), marker=style.marker, linewidth=1.6)
        line.set_dashes(style.dashes or (None, None))
        lines.append(line)
    names = [safe_name(name, f"arm {k}") for k, (name, _) in enumerate(entries, start=1)]
    columns = max(1, min(len(names), int(70 / (6 + max(map(len, names))))))
    line = 0.0 if axes.axison else 1.6 * SIZE / 72  # above the words on small multiples
    axes.legend(
        lines,
        names,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.02),
        bbox_transform=axes.transAxes
        + ScaledTranslation(0.0, line, axes.get_figure(root=True).dpi_scale_trans),
        ncols=columns,
        frameon=False,
        labelcolor=pen.ink("ink"),
        borderaxespad=0.0,
        handlelength=2.4,
    )
