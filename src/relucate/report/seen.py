"""What the layers of a study's first pair saw while it trained: words and pictures.

Takes the study's document; without `compare --probe` it has no section `probe`, and everything here
is empty. Not here: what was measured (`train.looking`), what the claims say (`study.probing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from ..errors import InputError, unknown
from ..phrases import count
from . import panels
from .facts import short_names
from .plots import in_style, new_figure, shown, svg_of, titled
from .plots.style import Pen

Study = dict[str, Any]


def lines(study: Study) -> list[str]:
    """Return what a terminal shows: what the claims predict (else what was seen), what wasn't."""
    found = study.get("probe")
    if not found:
        return []
    said = [row["text"] for row in found["predictions"]]
    claims = [f"{arm['arm']}: {row['text']}" for arm in found["arms"] for row in arm["claims"]]
    return [*(said or claims), *notes(study)]


def heading(study: Study) -> str:
    """Return whose layers these are, and what they read."""
    found = study["probe"]
    return f"What the layers saw (seed {found['seed']}, {count(found['examples'], 'test example')})"


def notes(study: Study) -> list[str]:
    """Return a sentence for each arm that could not be looked at, or not everywhere."""
    return [text for arm in study["probe"]["arms"] for text in _notes(arm)]


def _notes(arm: dict[str, Any]) -> Iterator[str]:
    if "refused" in arm:
        yield f"{arm['arm']} could not be looked at: {arm['refused']}"
    for step in arm["steps"]:
        if "error" in step:
            yield f"{arm['arm']}, after epoch {step['epoch']}: {step['error']}"
    if arm["left"]:
        sites = len(arm["sites"])
        yield f"{arm['arm']}: {sites} of {sites + arm['left']} sites, evenly spread."


def parts(study: Study, prefix: str = "") -> dict[str, Any] | None:
    """Return what `seen.html.j2` shows; None for a study that wasn't looked at.

    prefix: of the ids in the drawings.
    """
    if not study.get("probe"):
        return None
    claims = [
        {"arm": arm["arm"], "texts": [claim["text"] for claim in arm["claims"]]}
        for arm in study["probe"]["arms"]
        if arm["claims"]
    ]
    return {
        "heading": heading(study),
        "predictions": study["probe"]["predictions"],
        "notes": notes(study),
        "figures": list(_figures(study, prefix)),
        "claims": claims,
    }


def _figures(study: Study, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the figures, each of at most two arms, for a wide place and for a phone."""
    arms = _steps(study)
    for kind, (title, caption, height) in KINDS.items():
        for start in range(0, len(arms), _BESIDE):
            name, beside = f"{prefix}{kind}-{start}", arms[start : start + _BESIDE]
            alt = f"{title}. {_alt(study)}"
            drawn = [_drawn(kind, beside, pen, height, name, alt) for pen in (Pen(), _NARROW)]
            svg = Markup("".join(drawn))
            yield {"name": name, "heading": title, "caption": caption, "svg": svg}


def _drawn(kind: str, arms: Arms, pen: Pen, height: float, name: str, alt: str) -> str:
    style = "narrow" if pen.narrow else "wide"
    with in_style():
        figure, axes = new_figure(height, pen.width)
        _DRAW[kind](axes, arms, pen.ink)
        return svg_of(figure, f"{name}-{style}", alt, f"plot {style}")


_NARROW = Pen(narrow=True)
_BESIDE = 2  # arms side by side


def _alt(study: Study) -> str:
    return " ".join(row["text"] for row in study["probe"]["predictions"])


def plot(study: Study, kind: str, ax: Any = None, *, dark: bool = False) -> Any:
    """Draw a picture of what the layers saw onto axes, by default a new figure's; return them.

    Args: kind: "distributions" at the end of the training, by depth, the arms side by side;
        "drift_next" and "drift_norm", the 15, 50 and 85 % quantiles of what the next layer and the
        norm read, over the training.
    Raises: InputError: another kind, a study without `probe`.
    """
    if kind not in KINDS:
        raise unknown("plot", kind, KINDS)
    arms = _steps(study)
    if not arms:
        raise InputError(f"this study has no picture '{kind}': it was not made with probe=True.")
    with in_style():
        if ax is None:
            title, _, height = KINDS[kind]
            ax = shown(titled(title, study), height, Pen(panels.theme(dark)))
        _DRAW[kind](ax, arms, panels.theme(dark))
    return ax


Arms = Sequence[tuple[str, Sequence[tuple[int, panels.Column]]]]


def _steps(study: Study) -> Arms:
    """Return for each arm its columns by epoch, without the looks that failed."""
    found = []
    numbers = {arm["label"]: number for number, arm in enumerate(study["arms"])}
    short = short_names(study)
    for arm in (study.get("probe") or {"arms": []})["arms"]:
        good = [step for step in arm["steps"] if step["points"]]
        number = numbers.get(arm["arm"], 0)
        name = short.get(arm["arm"]) or arm["arm"]
        steps = [(step["epoch"], panels.step_column(arm, step, name, number)) for step in good]
        found += [(name, steps)] if steps else []
    return found


def _distributions(ax: Any, arms: Arms, ink: panels.Ink) -> None:
    panels.distributions(ax, [steps[-1][1] for _, steps in arms], ink)


def _drift_next(ax: Any, arms: Arms, ink: panels.Ink) -> None:
    panels.drift(ax, arms, panels.roles([arms[0][1][0][1]])[1], ink)


def _drift_norm(ax: Any, arms: Arms, ink: panels.Ink) -> None:
    panels.drift(ax, arms, panels.roles([arms[0][1][0][1]])[0], ink)


KINDS = {  # heading, caption, height in inches
    "distributions": (
        "Distributions at the end of the training",
        "By depth, one column an arm. Filled: what the norm reads. Line: what the next layer "
        "reads. Thin: the normal distribution. Values are standardised channel by channel.",
        6.2,
    ),
    "drift_next": (
        "What the next layer reads, while training",
        "15, 50 and 85 % quantiles of a typical channel (the median over channels) at the first, a "
        "middle and the last site; one column an arm, the same scale in each row.",
        4.2,
    ),
    "drift_norm": (
        "What the norm reads, while training",
        "The same quantiles of the norm's own input.",
        4.2,
    ),
}
_DRAW = {"distributions": _distributions, "drift_next": _drift_next, "drift_norm": _drift_norm}
