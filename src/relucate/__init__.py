"""relucate: find, change and measure where normalization sits relative to the activation."""

from typing import TYPE_CHECKING

from .backend import prefer_installed as _prefer_installed
from .lazy import imported_on_use as _imported_on_use
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .api.audit import AuditReport, audit
    from .api.evidence import EvidenceTable, evidence
    from .api.finished import Study
    from .api.probe import ProbeReport, probe
    from .api.study import compare
    from .api.transform import TransformReport, convert, fold, rebuild, verify
    from .api.verdict import verdict
    from .errors import InputError, Refused, RelucateError
    from .order import Order
    from .surgery.verify import Certificate
    from .train.metric import Metric
    from .train.recipe import Recipe

__all__ = [
    "AuditReport",
    "Certificate",
    "EvidenceTable",
    "InputError",
    "Metric",
    "Order",
    "ProbeReport",
    "Recipe",
    "Refused",
    "RelucateError",
    "Study",
    "TransformReport",
    "audit",
    "compare",
    "convert",
    "evidence",
    "fold",
    "probe",
    "rebuild",
    "verdict",
    "verify",
]

_HOMES = {
    "Order": "order",
    "audit": "api.audit",
    "AuditReport": "api.audit",
    "evidence": "api.evidence",
    "EvidenceTable": "api.evidence",
    "probe": "api.probe",
    "ProbeReport": "api.probe",
    "compare": "api.study",
    "Study": "api.finished",
    "TransformReport": "api.transform",
    "convert": "api.transform",
    "fold": "api.transform",
    "rebuild": "api.transform",
    "verdict": "api.verdict",
    "verify": "api.transform",
    "Certificate": "surgery.verify",
    "Metric": "train.metric",
    "Recipe": "train.recipe",
    "RelucateError": "errors",
    "InputError": "errors",
    "Refused": "errors",
}

_prefer_installed()  # from here on `import keras` works on any backend that is installed
__getattr__ = _imported_on_use(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
