"""A study from the file that it was written to.

Not here: what a study must hold (`facts`, `shape`). Called by `Study.load` and the command line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from relucate.errors import InputError
from relucate.report.facts import current


def read_study(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the study in a file, in today's schema.

    Raises: InputError: no such file, not JSON, or not a whole study.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"can't read '{path}' ({error.strerror}): expected the study.json that "
            "`relucate compare` writes into its --out folder."
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"'{path}' isn't JSON: expected a study.json.") from None
    if not isinstance(document, dict):
        raise InputError(f"'{path}' isn't a comparison of relucate: expected a study.json.")
    try:
        return current(document)
    except InputError as error:
        raise InputError(f"'{path}' isn't a comparison of relucate: {error}") from None
