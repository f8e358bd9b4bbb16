"""A finished study: its verdict, and how it shows itself.

Not here: making one (`study`, `verdict`), drawing and printing (`report`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import nets
from ..errors import InputError
from ..files import write_text
from ..records.card import card_of
from .audit import audit
from .shown import Shown


class Study(Shown):
    """A finished comparison: the verdict with all its evidence.

    verdict: "better", "equivalent" or "inconclusive"; winner: an arm or None; difference: of the
    arm minus its reference, a mapping with estimate, low, high, level and method, in the metric's
    own unit (a share as a fraction: 0.01 is 1 %). All three are of the first comparison.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = dict(document)

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Return the study in a study.json, which `relucate compare` writes.

        Raises: InputError: no such file, not JSON, or not a whole study.
        """
        from ..report.reading import read_study

        return cls(read_study(path))

    @property
    def verdict(self) -> str:
        """`better`, `equivalent` or `inconclusive`."""
        return self._document["verdict"]

    @property
    def winner(self) -> str | None:
        """The label of the better arm, None unless the verdict is `better`."""
        return self._document["winner"]

    @property
    def difference(self) -> dict[str, Any]:
        """The paired difference with its interval, in the metric's own unit."""
        return dict(self._document["difference"])

    @property
    def sentence(self) -> str:
        """The verdict in plain language."""
        return self._document["sentence"]

    @property
    def metrics(self) -> dict[str, Study]:
        """The verdict on each metric by its name; on this one alone unless several were asked."""
        every = [self, *map(Study, self._document.get("further", ()))]
        return {study._document["metric"]["name"]: study for study in every}

    def _data(self) -> dict[str, Any]:
        return self._document  # schema relucate.compare/2

    def _views(self) -> Any:
        from ..report import print_study, repr_html

        return print_study, repr_html

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML file and return its path."""
        from ..report import write_html

        return write_html(self.to_dict(), path)

    def plot(
        self, kind: str = "forest", ax: Any = None, *, arm: str | None = None, dark: bool = False
    ) -> Any:
        """Draw a picture with matplotlib and return its axes; `.figure.savefig` writes SVG or PNG.

        Args:
            kind: "forest" (each interval against zero and the margin), "interval" (pair by pair),
                "differences" (by seed), "scores" (of every run), "curves" and "loss" (while
                training), "time" (score against seconds), "rates" (of tuning), "cost" (seconds,
                parameters); with `probe=True` also "distributions", "drift_next" and "drift_norm"
                (what the layers saw).
            ax: matplotlib axes to draw on; None: those of a new figure.
            arm: whose comparison "interval" and "differences" show; None: the first.
            dark: colours for a dark page.

        Raises: InputError: another kind or arm, or the study has no such picture.
        """
        from ..report import plots, seen

        if kind in seen.KINDS:
            return seen.plot(self.to_dict(), kind, ax, dark=dark)
        return plots.plot(self.to_dict(), kind, ax, arm=arm, dark=dark)

    def to_frame(self) -> Any:
        """Return a pandas data frame with one row a run.

        Columns: arm, order, seed, each varied option, the score by the metric's name, any other
        scores, status ("done", "diverged" or "failed"), loss, seconds, epochs, hash and note.

        Raises: InputError: pandas isn't installed.
        """
        from ..report.rows import run_rows

        try:
            import pandas
        except ImportError:
            raise InputError(
                "to_frame needs pandas, which isn't installed: pip install pandas, or take the "
                "runs from to_dict()['runs']."
            ) from None
        return pandas.DataFrame(run_rows(self.to_dict()))

    def card(self, path: str | Path, *, question: str = "") -> Path:
        """Write what the study found as a card for `relucate evidence --cards`; return its path.

        Args: question: what the study was made to answer.
        Raises: InputError: the runs weren't trained by `compare`, or the place can't be written to.
        """
        name = self._document["model"]["name"] if self._document.get("model") else ""
        usual = nets.options(name) if name in nets.NETS else {}
        made = card_of(
            self.to_dict(),
            question=question,
            name=Path(path).stem,
            usual=usual,
            depth=self._depth,
        )
        return write_text(Path(path), json.dumps(made, indent=1))

    def _depth(self, options: Mapping[str, Any]) -> int | None:
        """Return the depth of the study's network, None if it isn't a built-in one."""
        name, data = self._document["model"]["name"], self._document["data"]
        if name not in nets.NETS:
            return None
        given = {key: value for key, value in options.items() if key in nets.options(name)}
        shape = tuple(data["input_shape"])
        return audit(nets.build(name, "before", shape, data["classes"], **given)).depth

    def __repr__(self) -> str:
        return f"<Study: {self.sentence}>"
