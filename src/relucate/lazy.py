"""Public names of a package that are imported when they are first used: imports stay fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_on_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package; homes: each public name's module in it.

    >>> imported_on_use("relucate", {"Order": "order"})("Order").__name__
    'Order'
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(f".{homes[name]}", package), name)

    return find
