"""What is known about the place of norms: published numbers, and our own studies as cards.

Data (`published.json`, `own/*.json`) and how it is read (`results`), and made from a study
(`card`). Not here: printing (`report.evidence`). Called by `api.evidence` and `compare --card`.
"""

from .results import Result, Study, known, matching

__all__ = ["Result", "Study", "known", "matching"]
