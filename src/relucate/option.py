"""Options are described once, at the dataclass field that they set: default, help, check.

The command line (`cli.fields`) makes its options from such fields. Imports nothing.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, help: str, **more: Any) -> Any:
    """Return a dataclass field with its help.

    more: panel: the title over it in `--help`; flag: its names on the command line, if they aren't
    the field's; shown: its default in words; scale: it is given there as scale times the value
    (100: in percent); choices, least, span: what the dataclass checks it by.

    >>> option(10, "Passes over the training data.", least=1).metadata["least"]
    1
    """
    return field(default=default, metadata={"help": help, **more})
