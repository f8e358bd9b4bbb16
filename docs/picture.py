"""Draw the pictures of the documentation.

    python docs/picture.py study.json NAME.svg KIND [KIND ...]

The kinds stand side by side. A second file, NAME-dark.svg, is for dark pages.
"""

import json
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from relucate.report import plots
from relucate.report.facts import current
from relucate.report.palette import theme_ink
from relucate.report.plots.style import Pen

matplotlib.rcParams["svg.hashsalt"] = "relucate"


def main(source: str, target: str, *kinds: str) -> None:
    """Read the study and write the picture, light and dark."""
    study = current(json.loads(Path(source).read_text(encoding="utf-8")))
    path = Path(target)
    drawn(study, kinds).savefig(path, metadata={"Date": None})
    dark = path.with_stem(f"{path.stem}-dark")
    drawn(study, kinds, dark=True).savefig(dark, metadata={"Date": None})


def drawn(study, kinds, dark=False) -> Figure:
    """Return the figure of some kinds of pictures."""
    pen = Pen(theme_ink(dark))
    height = max(plots.KINDS[kind].height(study, pen) for kind in kinds)
    size = (pen.width * len(kinds), height + 0.3)
    figure = Figure(figsize=size, layout="constrained", facecolor=pen.ink("paper"))
    for kind, axes in zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True):
        axes.patch.set_alpha(0)
        plots.plot(study, kind, axes, dark=dark)
    return figure


if __name__ == "__main__":
    main(*sys.argv[1:])
