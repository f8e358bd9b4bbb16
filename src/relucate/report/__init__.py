"""A study for people: terminal text, the live display, one self-contained HTML file.

Takes the JSON-ready dict of a comparison (schema relucate.compare) and computes no results.
Called by `Study.report(path)` and by the command line.
"""

from relucate.report.html import repr_html, study_html, write_html
from relucate.report.live import LiveStudy
from relucate.report.terminal import print_study, verdict_table

__all__ = [
    "LiveStudy",
    "print_study",
    "repr_html",
    "study_html",
    "verdict_table",
    "write_html",
]
