"""`relucate.audit`: read a model of any framework, audit its Graph, show the findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..arguments import texts
from ..frameworks import framework_of, full_float32
from ..graph import Graph
from ..surgery.audit import Audit, audit_graph
from ..surgery.rules import RULES, Finding
from ..surgery.sites import Site
from .shown import Shown


class AuditReport(Shown):
    """Where each norm of a model sits, and what is wrong with it. Prints as a table."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

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
        from ..report.audit import audit_html, print_audit

        return print_audit, audit_html

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
    return AuditReport(audit_graph(model, steps=steps, select=select, ignore=ignore))
