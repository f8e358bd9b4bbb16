"""`relucate.audit`: read a model of any framework, audit its Graph, show the findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ..arguments import texts
from ..errors import unknown
from ..frameworks import framework_of, full_float32
from ..graph import Graph
from ..surgery.audit import Audit, audit_graph
from ..surgery.network import boxes
from ..surgery.rules import RULES, Finding
from ..surgery.sites import Site
from .shown import Shown


class AuditReport(Shown):
    """Where each norm of a model sits, and what is wrong with it. Prints as a table."""

    def __init__(self, audit: Audit, graph: Graph) -> None:
        self._audit, self._graph = audit, graph

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every norm with the linear layer and activation that it belongs to, and its order."""
        return self._audit.sites

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of the rules, the most severe first."""
        return self._audit.findings

    @property
    def summary(self) -> dict[str, int]:
        """Number of norms per order, the most frequent first."""
        return self._audit.summary

    @property
    def depth(self) -> int:
        """Number of linear layers on the longest path through the model."""
        return self._graph.depth

    @property
    def unknown(self) -> tuple[str, ...]:
        """Layers that couldn't be read."""
        return self._audit.unknown

    @property
    def hidden(self) -> dict[str, tuple[str, ...]]:
        """The norms inside those layers, by layer: they aren't sites."""
        return dict(self._audit.hidden)

    def at_least(self, severity: str) -> tuple[Finding, ...]:
        """Return the findings at or above "note", "warning" or "error"."""
        return self._audit.at_least(severity)

    def _data(self) -> dict[str, Any]:
        return self._audit.to_dict()  # schema relucate.audit/1

    def _views(self) -> Any:
        from ..report.audit import print_audit
        from ..report.audit_page import notebook

        return print_audit, partial(notebook, boxes=self._boxes())

    def _boxes(self) -> list[dict[str, Any]]:
        return boxes(self._graph, self.sites)

    def plot(self, kind: str = "map", ax: Any = None, *, dark: bool = False) -> Any:
        """Draw `kind` with matplotlib and return the axes.

        Args: kind: "map", the network in data flow with each norm in the colour of its place; ax:
            matplotlib axes to draw on, by default those of a new figure; dark: for a dark page.
        Raises: InputError: another kind.
        """
        from ..report.map import draw

        plots: dict[str, Callable[..., Any]] = {"map": draw}
        if kind not in plots:
            raise unknown("plot", kind, plots)
        return plots[kind](self._boxes(), ax, dark=dark)

    def report(self, path: str | Path) -> Path:
        """Write the audit with its map as one HTML file, or the map alone, and return the path.

        Args: path: ends in .html, or in .svg or .png for the map alone.
        Raises: InputError: another ending, the file can't be written.
        """
        from ..report.audit_page import write

        return write(self.to_dict(), self._boxes(), path)

    def to_sarif(self, *, file: str | None = None, line: int | None = None) -> dict[str, Any]:
        """Return the findings as a SARIF 2.1.0 log; file and line: where the model is made."""
        from ..report.sarif import sarif
        from ..version import __version__

        names = ("code", "name", "severity", "summary")
        rules = [{name: getattr(RULES[code], name) for name in names} for code in sorted(RULES)]
        return sarif(self.to_dict(), rules, __version__, file=file, line=line)

    def __repr__(self) -> str:
        return f"<AuditReport: {len(self.sites)} norms, {len(self.findings)} findings>"


@full_float32()
def audit(
    model: Any,
    *,
    example: Any = None,
    steps: int | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    leaves: Iterable[str] = (),
) -> AuditReport:
    """Return where each norm of `model` sits relative to its activation, and what is wrong.

    Data flow decides, never names or registration order; dropout, pooling, padding, reshaping and
    fixed scales between a norm and its neighbours are ignored. The model is never changed.

    Args:
        model: a Keras model, a torch module, or a Graph.
        example: for torch, an input: a tensor, or its shape with the batch axis, (1, 3, 224, 224);
            a tuple of tensors for several inputs. So also for a Keras model with its own `call`
            that wasn't built yet: arrays or shapes.
        steps: number of training steps, for the rule about slow moving statistics.
        select, ignore: codes of rules, their beginnings ("N1") or names; all by default.
        leaves: for torch, names or classes of submodules that aren't read.

    Returns: an AuditReport: sites, findings, summary.
    Raises: InputError: not a model, no example for torch, an unknown rule. Refused: the model's
    graph can't be read, with the reason and what to do.

    >>> import keras
    >>> net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
    ...                         keras.layers.BatchNormalization(), keras.layers.ReLU()])
    >>> report = audit(net)
    >>> report.summary, [finding.code for finding in report.findings]
    ({'linear-norm-act': 1}, ['N101'])
    """
    if not isinstance(model, Graph):
        model = framework_of(model).read(model, example, texts(leaves, "leaves")).graph
    found = audit_graph(model, steps=steps, select=select, ignore=ignore)
    return AuditReport(found, model)
