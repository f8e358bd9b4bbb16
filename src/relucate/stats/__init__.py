"""Statistics of paired comparisons, in NumPy and SciPy only: from scores to a verdict in words.

`score_runs` -> `paired_difference` -> `decide` -> `sentence`. Not here: running anything (`study`)
and drawing anything (`report`). This file only names what the other packages use.
"""

from relucate.stats.paired import (
    PairedDifference,
    correlation,
    paired_difference,
    saved_by_pairing,
)
from relucate.stats.scores import score_runs
from relucate.stats.verdict import Verdict, decide, pairs_needed
from relucate.stats.wording import dependence, sentence

__all__ = [
    "PairedDifference",
    "Verdict",
    "correlation",
    "decide",
    "dependence",
    "paired_difference",
    "pairs_needed",
    "saved_by_pairing",
    "score_runs",
    "sentence",
]
