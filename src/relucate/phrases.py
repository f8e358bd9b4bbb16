"""Two phrases that every room uses: a number with its noun, and a shortened list."""

from __future__ import annotations

from collections.abc import Iterable


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where needed.

    >>> count(1, "pair"), count(1437, "image")
    ('1 pair', '1,437 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Iterable[str], show: int = 4) -> str:
    """Return the first names, and how many more there are.

    >>> some(["a", "b", "c", "d"], show=2)
    'a, b and 2 more'
    """
    names = list(names)
    rest = f" and {len(names) - show:,} more" if len(names) > show else ""
    return ", ".join(names[:show]) + rest
