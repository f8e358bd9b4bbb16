"""The command line: one file per verb, no logic of its own.

`main` runs the app and turns errors into one message and an exit code: 2 for wrong input, 3 for a
refusal, 130 for Ctrl-C.
"""

from .app import main

__all__ = ["main"]
